package boltstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	keyShred    = "shred"   // old pages of the file may hold keys that are forgotten
	compactSize = 256 << 10 // bytes of a transaction while compacting
)

// shred rewrites the file without its free pages and overwrites the old one, where keys
// were forgotten since. Killed in between, it is done the next time.
func (s *Store) shred() error {
	due := false
	err := s.db.View(func(tx *bolt.Tx) error {
		due = tx.Bucket(bucketMeta).Get([]byte(keyShred)) != nil
		return nil
	})
	if err != nil || !due {
		return err
	}
	path, tmp := s.db.Path(), s.db.Path()+".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	err = bolt.Compact(fresh, s.db, compactSize)
	if err == nil {
		err = fresh.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Delete([]byte(keyShred)) })
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := s.db.Close(); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(tmp, path), syncDir(filepath.Dir(path)), overwrite(old)); err != nil {
		return err
	}
	s.db, err = open(path)
	return err
}

func overwrite(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, zeros{}, fi.Size())
	return errors.Join(err, f.Sync())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
