// Package registry knows the devices of a fleet: a folder with one small file a
// device, so that the command line can add and revoke devices while the hub runs.
package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/agent"
	"postern/sync/atomicfile"
	"postern/sync/wire"
)

// Device is one entry.
type Device struct {
	Name      string     `json:"name"`
	Group     string     `json:"group,omitempty"`
	AddedAt   time.Time  `json:"added_at"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	// TokenSHA256 is the digest of the device's secret of 256 random bits. Nothing
	// slower is needed: such a secret cannot be guessed.
	TokenSHA256 string `json:"token_sha256"`
}

// Registry is the folder.
type Registry struct {
	Dir string
	Now func() time.Time // default time.Now
}

func (r Registry) now() time.Time {
	if r.Now == nil {
		return time.Now().UTC().Truncate(time.Second)
	}
	return r.Now().UTC().Truncate(time.Second)
}

// Add makes a device known and gives its secret, which is not kept and cannot be shown
// again. For a known device it is a new secret; the old one is void.
func (r Registry) Add(name, group string) (token string, err error) {
	if err := wire.CheckDevice(name); err != nil {
		return "", err
	}
	if group != "" && !wire.ValidDevice(group) {
		return "", &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("group %q is not 1 to 64 characters of a-z, 0-9, _ and -", group)}
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	token = base64.RawURLEncoding.EncodeToString(secret)
	return token, r.write(Device{Name: name, Group: group, AddedAt: r.now(), TokenSHA256: digest(token)})
}

// Revoke shuts a device out from its next connection on; connections end within
// the life of a grant.
func (r Registry) Revoke(name string) error {
	d, err := r.Get(name)
	if err != nil {
		return err
	}
	if d.RevokedAt == nil {
		now := r.now()
		d.RevokedAt = &now
	}
	return r.write(d)
}

// Check tells whether this is the device and its secret.
func (r Registry) Check(name, token string) error {
	d, err := r.Get(name)
	switch {
	case err != nil:
		return err
	case subtle.ConstantTimeCompare([]byte(digest(token)), []byte(d.TokenSHA256)) != 1:
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("the secret of device %q is wrong", name)}
	case d.RevokedAt != nil:
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q was revoked at %s", name, d.RevokedAt.Format(time.RFC3339))}
	}
	return nil
}

// Get gives one device, or agent.CodeNotFound.
func (r Registry) Get(name string) (Device, error) {
	if err := wire.CheckDevice(name); err != nil {
		return Device{}, err // and not a path
	}
	raw, err := os.ReadFile(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Device{}, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("there is no device %q", name), Fix: "add it with: postern devices add " + name}
	}
	var d Device
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err == nil && (d.Name != name || len(d.TokenSHA256) != 64) {
		err = errors.New("it is not complete")
	}
	if err != nil {
		return Device{}, unusable(r.path(name), err)
	}
	return d, nil
}

// List gives all devices by name.
func (r Registry) List() ([]Device, error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unusable(r.Dir, err)
	}
	out := []Device{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !wire.ValidDevice(name) {
			continue
		}
		d, err := r.Get(name)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (r Registry) path(name string) string { return filepath.Join(r.Dir, name+".json") }

// write replaces a device's file, so that a reader finds the old or the new one.
func (r Registry) write(d Device) error {
	raw, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(r.path(d.Name), append(raw, '\n')); err != nil {
		return unusable(r.path(d.Name), err)
	}
	return nil
}

func unusable(path string, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("%q cannot be used", path), Err: err, Fix: "check the disk and who may write there"}
}

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
