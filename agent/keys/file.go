package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"postern/agent"
)

// FileName is the key file in Options.Dir.
const FileName = "root.key"

// fileSource is a key file that only its owner may read.
type fileSource struct{ dir string }

func (f fileSource) path() string { return filepath.Join(f.dir, FileName) }

func (f fileSource) label() Label {
	return Label{Kind: File, Place: f.path(),
		Protects: "protects a copy of the data folder alone; whoever has the whole disk or card has this key too"}
}

func (f fileSource) lock(secret []byte) ([]byte, error) { return secret, nil }

func (f fileSource) load() (ring, error) {
	text, err := readPrivate(f.path())
	if err != nil {
		return ring{}, err
	}
	defer clear(text)
	r, err := parseRing(text)
	if err != nil {
		return ring{}, err
	}
	return r, r.unlock(func(blob []byte) ([]byte, error) { return blob, nil })
}

func (f fileSource) save(r ring) error { return savePrivate(f.path(), r.text()) }

// readPrivate reads a file that nobody else may read: what others could read is
// no secret any more, and what another user owns that user can change.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(path, fi); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxRing+1))
}

func private(path string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case ok && int(st.Uid) != os.Geteuid():
		return &agent.Error{Code: agent.CodeUnavailable,
			Message: fmt.Sprintf("key file %q belongs to user %d, this is user %d", path, st.Uid, os.Geteuid()),
			Fix:     "run as the user that owns it"}
	case fi.Mode().Perm()&^0o600 != 0:
		return &agent.Error{Code: agent.CodeUnavailable,
			Message: fmt.Sprintf("key file %q has mode %04o, so others may have read it", path, fi.Mode().Perm()),
			Fix:     fmt.Sprintf("chmod 0400 %s, and rotate the root key if others could read it", path)}
	}
	return nil
}

// savePrivate replaces a file by one of mode 0400 so that at every moment either
// the old or the new one is whole on the disk.
func savePrivate(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(0o400), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
