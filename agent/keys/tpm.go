package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern/agent"
)

// DefaultTPM is the device of the machine's TPM 2.0, with the kernel's resource
// manager, so that this program and others do not disturb one another.
const DefaultTPM = "/dev/tpmrm0"

// TPMFileName is the file in Options.Dir with the root keys that a TPM has sealed.
const TPMFileName = "root.tpm"

// tpmSource is a key file whose keys only one TPM can open.
type tpmSource struct {
	dir    string
	device string
}

func (s tpmSource) path() string { return filepath.Join(s.dir, TPMFileName) }

func (s tpmSource) label() Label {
	l := Label{Kind: TPM, Place: fmt.Sprintf("%s, sealed by %s", s.path(), s.device),
		Protects: "protects a disk or card that is taken to another machine; not a stolen whole device, which starts by itself and whose TPM answers whatever system was started"}
	if fi, err := os.Stat(s.device); err == nil && fi.Mode()&fs.ModeSocket != 0 {
		l.Protects = "protects no more than the place where that software TPM keeps its state"
	}
	return l
}

func (s tpmSource) load() (ring, error) {
	text, err := readPrivate(s.path())
	if err != nil {
		return ring{}, err
	}
	r, err := parseRing(text)
	if err != nil {
		return ring{}, err
	}
	err = s.use(func(c *tpmChip) error { return r.unlock(c.unseal) })
	if err != nil {
		r.wipe()
		return ring{}, err
	}
	return r, nil
}

func (s tpmSource) save(r ring) error { return savePrivate(s.path(), r.text()) }

// lock seals a secret, and opens it again: nothing may be wrapped by a key that the
// TPM does not give back.
func (s tpmSource) lock(secret []byte) (blob []byte, err error) {
	err = s.use(func(c *tpmChip) error {
		if blob, err = c.seal(secret); err != nil {
			return err
		}
		back, err := c.unseal(blob)
		defer clear(back)
		if err == nil && idOf(back) != idOf(secret) {
			err = errors.New("it does not give back what it has sealed")
		}
		return err
	})
	return blob, err
}

// ready says what is in the way of making a key.
func (s tpmSource) ready() error { return s.use(func(*tpmChip) error { return nil }) }

// use runs fn with the TPM. Its errors never are fs.ErrNotExist, which would mean
// that there is no key yet.
func (s tpmSource) use(fn func(*tpmChip) error) error {
	c, err := openChip(s.device)
	if err == nil {
		err = fn(c)
		c.close()
	}
	if err == nil {
		return nil
	}
	message, fix := s.explain(err)
	return &agent.Error{Code: agent.CodeUnavailable, Message: message, Fix: fix}
}

// explain says what a failure of the TPM means and what helps.
func (s tpmSource) explain(err error) (message, fix string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("there is no TPM: %s does not exist", s.device),
			"turn the TPM 2.0 on in the firmware, or set keys.tpm to its device. A machine without one needs keys.root=credential or file, and a data folder of its own; nothing was changed"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("this user may not open the TPM %s", s.device), "add the service user to the group of the device, on Debian tss; nothing was changed"
	case errors.Is(err, errOtherTPM):
		return fmt.Sprintf("the root key in %s was sealed by another TPM, or the TPM %s has been cleared since", s.path(), s.device),
			"put the disk back into its machine. After a clear nothing opens these keys any more: restore a backup into a new data folder; nothing was changed"
	case errors.Is(err, errBlob):
		return fmt.Sprintf("the root key in %s is damaged: %v", s.path(), err),
			"put a copy of the file back, or restore a backup into a new data folder; nothing was changed"
	case errors.Is(err, errOwner):
		return fmt.Sprintf("the TPM %s does not let this program use its owner hierarchy: %v", s.device, err),
			"enable the owner hierarchy and give it no password (tpm2_changeauth -c owner); nothing was changed"
	}
	return fmt.Sprintf("the TPM %s failed: %v", s.device, err), "try again; if it stays, look at the system's log for tpm; nothing was changed"
}
