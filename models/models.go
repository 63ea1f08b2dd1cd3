// Package models carries the networks that postern ships, each with its manifest
// and licence, and checks a network against its manifest before anyone runs it.
//
// The files are built by "make models" (models/build) and embedded, so the
// binary needs no data files beside the LiteRT library.
package models

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

//go:embed */manifest.json */model.tflite
var shipped embed.FS

// The ids of the default set.
const (
	DefaultNear     = "blazeface-short"
	DefaultFar      = "blazeface-full"
	DefaultMesh     = "facemesh-468"
	DefaultEmbedder = FastEmbedder
	DefaultLiveness = "fr-liveness-int8"
)

// The embedders of the two profiles. The accurate one looks at the face and at its
// mirror image, which takes about twice as long.
const (
	FastEmbedder     = "fr-feature-512-int8"
	AccurateEmbedder = "fr-feature-512-mirror-int8"
)

// The profiles.
const (
	Fast     = "fast"
	Accurate = "accurate"
)

// Profiles maps the name of a profile to its embedder.
var Profiles = map[string]string{Fast: FastEmbedder, Accurate: AccurateEmbedder}

// Model is one network, verified.
type Model struct {
	Manifest Manifest
	Bytes    []byte // nil after Set.Release

	read func() ([]byte, error) // reads Bytes anew; nil: they cannot be had again
}

// Data returns the network's bytes; after Release it reads them again, and refuses them
// when they are not those of the manifest any more.
func (m *Model) Data() ([]byte, error) {
	if m.Bytes != nil {
		return m.Bytes, nil
	}
	if m.read == nil {
		return nil, fmt.Errorf("model %s: its bytes were released", m.Manifest.ID)
	}
	data, err := m.read()
	if err == nil {
		err = m.Manifest.Verify(data)
	}
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Manifest.ID, err)
	}
	return data, nil
}

// Set is the networks of one pipeline.
type Set struct {
	Near, Far, Mesh, Embedder *Model
	Liveness                  *Model // nil in a set made by hand: liveness cannot be measured
}

// All gives the networks that the set has.
func (s *Set) All() []*Model {
	all := []*Model{s.Near, s.Far, s.Mesh, s.Embedder}
	if s.Liveness != nil {
		all = append(all, s.Liveness)
	}
	return all
}

// Release lets go of the networks' bytes once an engine has loaded them; the
// manifests stay, and Model.Data reads the bytes again.
func (s *Set) Release() {
	for _, m := range s.All() {
		m.Bytes = nil
	}
}

// Default loads the set that ships in the binary.
func Default() (*Set, error) { return LoadSet(shipped, DefaultEmbedder) }

// ForProfile loads the shipped set of a profile.
func ForProfile(name string) (*Set, error) {
	id, ok := Profiles[name]
	if !ok {
		return nil, fmt.Errorf("profile %q is not %s or %s", name, Fast, Accurate)
	}
	return LoadSet(shipped, id)
}

// LoadSet loads the default detectors and mesh and the named embedder from a tree
// with one folder a model.
func LoadSet(tree fs.FS, embedder string) (*Set, error) {
	var s Set
	for _, m := range []struct {
		to   **Model
		id   string
		role Role
	}{
		{&s.Near, DefaultNear, RoleDetector}, {&s.Far, DefaultFar, RoleDetector},
		{&s.Mesh, DefaultMesh, RoleLandmarks}, {&s.Embedder, embedder, RoleEmbedder}, {&s.Liveness, DefaultLiveness, RoleLiveness},
	} {
		model, err := Load(tree, m.id)
		if err != nil {
			return nil, err
		}
		if model.Manifest.Role != m.role {
			return nil, fmt.Errorf("model %s is a %s, want a %s", m.id, model.Manifest.Role, m.role)
		}
		*m.to = model
	}
	return &s, nil
}

// LoadDir loads an embedder from a folder of its own, to be tried in place of the
// default one.
func LoadDir(dir string) (*Model, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m, err := Load(os.DirFS(filepath.Dir(dir)), filepath.Base(dir))
	if err == nil && m.Manifest.Role != RoleEmbedder {
		return nil, fmt.Errorf("model %s is a %s, want an embedder", m.Manifest.ID, m.Manifest.Role)
	}
	return m, err
}

// Load reads one model and its manifest and verifies size and SHA-256.
func Load(tree fs.FS, id string) (*Model, error) {
	raw, err := fs.ReadFile(tree, path.Join(id, "manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", id, err)
	}
	man, err := ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", id, err)
	}
	if man.ID != id {
		return nil, fmt.Errorf("model %s: the manifest is of %q", id, man.ID)
	}
	m := &Model{Manifest: *man, read: func() ([]byte, error) { return fs.ReadFile(tree, path.Join(id, man.File)) }}
	m.Bytes, err = m.Data()
	return m, err
}

// Verify checks that data is the file the manifest speaks of.
func (m *Manifest) Verify(data []byte) error {
	if int64(len(data)) != m.Size {
		return fmt.Errorf("%s has %d bytes, the manifest says %d", m.File, len(data), m.Size)
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != m.SHA256 {
		return fmt.Errorf("%s has SHA-256 %s, the manifest says %s", m.File, got, m.SHA256)
	}
	return nil
}

// ParseManifest decodes a manifest strictly (an unknown key is an error) and
// validates it.
func ParseManifest(raw []byte) (*Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("manifest: text after the object")
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return &m, nil
}
