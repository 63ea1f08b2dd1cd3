// Package registry knows the devices of a fleet: a folder with one small file a
// device, so that the command line can add and revoke devices while the hub runs.
package registry

import (
	"cmp"
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
	"syscall"
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
	// Waiting means that the device has joined and nobody has approved it yet.
	Waiting bool `json:"waiting,omitempty"`
	// TokenSHA256 is the digest of the device's secret of 256 random bits, where it has
	// one. Nothing slower is needed: such a secret cannot be guessed.
	TokenSHA256 string       `json:"token_sha256,omitempty"`
	Claim       *Claim       `json:"claim,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
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
// again. For a known device it is a new secret; the old one, and its certificates, are
// void.
func (r Registry) Add(name, group string) (token string, err error) {
	token = random()
	return token, r.change(name, true, func(d *Device) error {
		*d = Device{Name: name, Group: cmp.Or(group, d.Group), AddedAt: r.now(), TokenSHA256: digest(token)}
		return r.note(Event{Device: name, What: "added with a secret"})
	})
}

// random is a secret of 256 bits.
func random() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return base64.RawURLEncoding.EncodeToString(secret)
}

// Revoke shuts a device out: it cannot log in any more, and its claim is void.
func (r Registry) Revoke(name string) error {
	return r.change(name, false, func(d *Device) error {
		if d.RevokedAt != nil {
			return nil
		}
		now := r.now()
		d.RevokedAt, d.Claim = &now, nil
		return r.note(Event{Device: name, What: "revoked"})
	})
}

// SetGroup puts a device into a group; none is "".
func (r Registry) SetGroup(name, group string) error {
	return r.change(name, false, func(d *Device) error {
		d.Group = group
		return r.note(Event{Device: name, What: "put into group", Detail: group})
	})
}

// Approve lets a device in that has joined and waits.
func (r Registry) Approve(name string) (Device, error) {
	var out Device
	err := r.change(name, false, func(d *Device) error {
		switch {
		case d.Certificate == nil:
			return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("device %q has not joined yet", name), Fix: "run postern join on it"}
		case d.Waiting:
			d.Waiting = false
			if err := r.note(Event{Device: name, What: "approved", Detail: "key " + d.Certificate.Key}); err != nil {
				return err
			}
		}
		out = *d
		return nil
	})
	return out, err
}

// change reads a device, lets fn change it and writes it back, alone among all
// processes. With create fn gets an empty one where there is none.
func (r Registry) change(name string, create bool, fn func(*Device) error) error {
	if err := wire.CheckDevice(name); err != nil {
		return err
	}
	unlock, err := r.lock()
	if err != nil {
		return err
	}
	defer unlock()
	d, err := r.Get(name)
	if create && agent.ErrorCode(err) == agent.CodeNotFound {
		d, err = Device{Name: name, AddedAt: r.now()}, nil
	}
	if err != nil {
		return err
	}
	before := d
	if err := fn(&d); err != nil {
		return err
	}
	if d.Group != "" && !wire.ValidDevice(d.Group) {
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("group %q is not 1 to 64 characters of a-z, 0-9, _ and -", d.Group)}
	}
	if d == before {
		return nil
	}
	return r.write(d)
}

// lock makes the folder where there is none, and keeps other processes, and other
// goroutines of this one, from changing it meanwhile.
func (r Registry) lock() (unlock func(), err error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, unusable(r.Dir, err)
	}
	f, err := os.OpenFile(filepath.Join(r.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, unusable(r.Dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, unusable(r.Dir, err)
	}
	return func() { f.Close() }, nil // which unlocks
}

// Check tells whether this is the device and its secret.
func (r Registry) Check(name, token string) error {
	d, err := r.Get(name)
	if err != nil {
		return err
	}
	if d.TokenSHA256 == "" || !same(digest(token), d.TokenSHA256) {
		return refuse("the secret of device %q is wrong", name)
	}
	return d.allowed()
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func refuse(format string, args ...any) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// allowed tells whether whoever has proved to be the device may log in.
func (d Device) allowed() error {
	switch {
	case d.RevokedAt != nil:
		return refuse("device %q was revoked at %s", d.Name, d.RevokedAt.Format(time.RFC3339))
	case d.Waiting:
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q waits for approval", d.Name), Fix: "compare its key and run: postern devices approve " + d.Name}
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
		return Device{}, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("there is no device %q", name), Fix: "let it in with: postern devices claim " + name}
	}
	var d Device
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	known := d.TokenSHA256 != "" || d.Claim != nil || d.Certificate != nil || d.RevokedAt != nil
	if err == nil && (d.Name != name || !known) {
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
