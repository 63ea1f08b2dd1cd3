package keys

import (
	"cmp"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"postern/agent"
)

// The kinds of root.
const (
	File       = "file"
	Credential = "credential"
	TPM        = "tpm"
)

// Options say where the root key comes from.
type Options struct {
	Kind string // File, Credential or TPM
	Dir  string // folder of the key file

	CredentialsDir string // Credential: $CREDENTIALS_DIRECTORY of the service
	TPM            string // TPM: its device, or the socket of a software TPM; default DefaultTPM

	Now  func() time.Time // default time.Now
	Rand io.Reader        // default crypto/rand
}

// source is where a ring lives.
type source interface {
	// load returns the ring with its secrets; fs.ErrNotExist when there is none.
	load() (ring, error)
	// save replaces the ring; the secrets of new entries become blobs.
	save(ring) error
	// lock turns a secret into what save writes.
	lock(secret []byte) (blob []byte, err error)
	label() Label
}

// Label says in plain words what a root key protects.
type Label struct {
	Kind     string `json:"kind"`
	Place    string `json:"place"`
	Protects string `json:"protects"`
}

// Root is the open root key of a device. Its methods may be called from any
// goroutine.
type Root struct {
	src  source
	now  func() time.Time
	rand io.Reader

	mu    sync.Mutex // guards the fields below
	ring  ring
	aeads map[[idSize]byte]cipher.AEAD
}

// Open loads the root key. Where there is none it makes one, unless existing says
// that something is already wrapped by a root key: a new one would be of no use
// then, and would hide that the old one is missing.
func (o Options) Open(existing bool) (*Root, error) {
	src, err := o.source()
	if err != nil {
		return nil, err
	}
	return openSource(src, o, existing)
}

func openSource(src source, o Options, existing bool) (*Root, error) {
	r := &Root{src: src, now: o.Now, rand: o.Rand, aeads: map[[idSize]byte]cipher.AEAD{}}
	if r.now == nil {
		r.now = time.Now
	}
	if r.rand == nil {
		r.rand = rand.Reader
	}
	var err error
	r.ring, err = src.load()
	switch {
	case err == nil:
		return r, r.prepare()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, keyError(src.label(), "cannot be used", err)
	case existing:
		return nil, &agent.Error{Code: agent.CodeUnavailable,
			Message: "the root key is missing, and the data folder holds records that only it can open: " + src.label().describe(),
			Fix:     "put the key back, or restore a backup; nothing was changed"}
	}
	return r, r.first()
}

func keyError(l Label, what string, err error) error {
	var known *agent.Error
	if errors.As(err, &known) {
		return err
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: "the root key " + what + ": " + l.describe(), Err: err}
}

func (l Label) describe() string { return l.Kind + " " + l.Place }

// first makes the first root key of a device.
func (r *Root) first() error {
	r.ring = ring{adopting: true}
	if err := r.push(); err != nil {
		return keyError(r.src.label(), "cannot be made", err)
	}
	return r.prepare()
}

// push puts a new key in front and saves the ring.
func (r *Root) push() error {
	e, err := r.newEntry()
	if err != nil {
		return err
	}
	next := ring{entries: append([]entry{e}, r.ring.entries...), adopting: r.ring.adopting}
	if len(next.entries) > maxRingKeys {
		return fmt.Errorf("there are %d root keys already", maxRingKeys)
	}
	if err := r.src.save(next); err != nil {
		return err
	}
	r.ring = next
	return nil
}

func (r *Root) newEntry() (entry, error) {
	secret := make([]byte, Size)
	if _, err := io.ReadFull(r.rand, secret); err != nil {
		return entry{}, err
	}
	blob, err := r.src.lock(secret)
	return entry{id: idOf(secret), made: r.now().UTC().Truncate(time.Second), blob: blob, secret: secret}, err
}

func (r *Root) prepare() error {
	for _, e := range r.ring.entries {
		a, err := AEAD(e.secret)
		if err != nil {
			return err
		}
		r.aeads[e.id] = a
	}
	return nil
}

// Wrap seals a key under the root key in use.
func (r *Root) Wrap(key, ad []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return nil, errClosed
	}
	id := r.ring.entries[0].id
	return r.aeads[id].Seal(id[:], nil, key, ad), nil
}

// Unwrap opens what Wrap sealed. current is false when it was sealed under a key
// that has been replaced: it should be wrapped anew.
func (r *Root) Unwrap(wrapped, ad []byte) (key []byte, current bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return nil, false, errClosed
	}
	if len(wrapped) < idSize+Overhead {
		return nil, false, errors.New("wrapped key is cut short")
	}
	id := [idSize]byte(wrapped)
	a, ok := r.aeads[id]
	if !ok {
		return nil, false, &agent.Error{Code: agent.CodeUnavailable,
			Message: fmt.Sprintf("a key was wrapped by root key %x, which is not here (%s)", id, r.src.label().describe()),
			Fix:     "put that key back"}
	}
	key, err = a.Open(nil, nil, wrapped[idSize:], ad)
	if err != nil {
		return nil, false, errors.New("wrapped key is damaged or belongs elsewhere")
	}
	return key, id == r.ring.entries[0].id, nil
}

var errClosed = errors.New("the root key is closed")

// ID names the root key in use.
func (r *Root) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return ""
	}
	return fmt.Sprintf("%x", r.ring.entries[0].id)
}

// Made is when the root key in use was made.
func (r *Root) Made() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return time.Time{}
	}
	return r.ring.entries[0].made
}

// Pending reports whether replaced keys are still kept.
func (r *Root) Pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ring.entries) > 1
}

// Adopting reports whether this root key was made for a data folder that may
// still hold records of a time before there were keys.
func (r *Root) Adopting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring.adopting
}

// Rotate puts a new root key in front. What the old ones wrapped stays readable
// until Settle drops them.
func (r *Root) Rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return errClosed
	}
	if err := r.push(); err != nil {
		return keyError(r.src.label(), "cannot be rotated", err)
	}
	return r.prepare()
}

// Settle drops the replaced keys and ends adopting. The caller has wrapped
// everything under the key in use. The replaced keys stay usable in memory until
// Close, for readers that began before.
func (r *Root) Settle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring.entries) == 0 {
		return errClosed
	}
	if len(r.ring.entries) == 1 && !r.ring.adopting {
		return nil
	}
	next := ring{entries: slices.Clone(r.ring.entries[:1])}
	err := r.src.save(next)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // who provides the credential drops old keys from it
	}
	if err != nil {
		return keyError(r.src.label(), "cannot be settled", err)
	}
	for _, e := range r.ring.entries[1:] {
		clear(e.secret)
	}
	r.ring = next
	return nil
}

// Label says where the root key is and what it protects.
func (r *Root) Label() Label { return r.src.label() }

// Peek opens the root key that is there; the error is fs.ErrNotExist when there
// is none yet and one could be made.
func (o Options) Peek() (*Root, error) {
	src, err := o.source()
	if err != nil {
		return nil, err
	}
	r, err := src.load()
	if errors.Is(err, fs.ErrNotExist) {
		if p, ok := src.(interface{ ready() error }); ok {
			if why := p.ready(); why != nil {
				return nil, why
			}
		}
		return nil, err
	}
	if err != nil {
		return nil, keyError(src.label(), "cannot be used", err)
	}
	r.wipe()
	return o.Open(true)
}

// Label says what the root of these options protects, without opening it.
func (o Options) Label() (Label, error) {
	src, err := o.source()
	if err != nil {
		return Label{}, err
	}
	return src.label(), nil
}

// Close zeroes the keys. It may be called again.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring.wipe()
	r.ring = ring{}
	clear(r.aeads)
}

func (o Options) source() (source, error) {
	switch o.Kind {
	case File:
		return fileSource{dir: o.Dir}, nil
	case Credential:
		return credentialSource{dir: o.CredentialsDir}, nil
	case TPM:
		return tpmSource{dir: o.Dir, device: cmp.Or(o.TPM, DefaultTPM)}, nil
	}
	return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%q is not a kind of root key", o.Kind),
		Fix: "set keys.root to file, credential or tpm"}
}
