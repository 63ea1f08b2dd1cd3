package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Compaction pays when a file is large and mostly free. bbolt itself never gives
// space back.
const (
	compactBytes = 32 << 20
	compactFree  = 0.6

	compactSuffix = ".compact"
	compactTx     = 4 << 20 // bytes copied in one transaction
)

// compacted compacts the file when it pays. It is a matter of space only: whatever goes
// wrong is logged, and the file stays as it was.
func compacted(d *dbFile, sch schema, o Options) *dbFile {
	before := d.fileSize()
	if !d.paysToCompact(o.compactOver) {
		return d
	}
	small, err := compactFile(d, sch, o)
	if err != nil {
		o.Log.Warn("data file could not be compacted", "file", d.path, "err", err)
	} else {
		o.Log.Info("compacted data file", "file", d.path, "from", before, "to", small.fileSize())
	}
	return small
}

func (d *dbFile) fileSize() int64 {
	fi, err := d.handle.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (d *dbFile) paysToCompact(over int64) bool {
	size, used := d.fileSize(), int64(0)
	err := guarded(func() error {
		return d.db.View(func(tx *bolt.Tx) error { used = d.used(tx); return nil })
	})
	free := size - used // also what the file has been grown by and nothing has used yet
	return err == nil && size > over && float64(free) > compactFree*float64(size)
}

// compactFile rewrites an open file without its free pages and returns it open; on an
// error, the old one. The new one takes the name only when it is complete, proven and
// synced, so a power cut leaves one or the other. What the old one held is overwritten.
func compactFile(d *dbFile, sch schema, o Options) (*dbFile, error) {
	tmp := &dbFile{path: d.path + compactSuffix, log: o.Log}
	if err := os.Remove(tmp.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if err := tmp.fillFrom(d, sch, o); err != nil {
		os.Remove(tmp.path)
		return d, err
	}
	old, err := os.OpenFile(d.path, os.O_WRONLY, 0)
	if err != nil {
		os.Remove(tmp.path)
		return d, err
	}
	defer old.Close()
	if err := d.close(); err != nil {
		return d, err
	}
	err = errors.Join(os.Rename(tmp.path, d.path), syncPath(filepath.Dir(d.path)))
	if err == nil {
		err = overwrite(old)
	}
	again, openErr := openFile(filepath.Base(d.path), sch, o)
	if openErr != nil {
		return d, openErr
	}
	return again, err
}

// fillFrom copies all records of src and proves the result.
func (d *dbFile) fillFrom(src *dbFile, sch schema, o Options) error {
	if err := d.open(o); err != nil {
		return errors.Join(err, d.close())
	}
	err := guarded(func() error { return bolt.Compact(d.db, src.db, compactTx) })
	d.noteStuck(err)
	if err = errors.Join(err, d.close()); err != nil {
		return err
	}
	return (&dbFile{path: d.path, log: o.Log, schema: sch}).proven(sch, o)
}

// overwrite writes zeros over a file that has no name any more. What a card does with
// that is its own affair.
func overwrite(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < fi.Size(); at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), fi.Size()-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// copyEvery is the age at which a good copy is replaced by a newer one.
const copyEvery = 24 * time.Hour

// Copy keeps a good copy of each data file beside it, for the day the file itself cannot
// be read. It does nothing for a file whose copy is younger than a day, and says which
// it copied. A copy is proven before it replaces the one before it.
func (s *Store) Copy() (copied []string, err error) {
	for _, d := range s.files() {
		fi, statErr := os.Stat(d.path + copySuffix)
		if age := time.Duration(0); statErr == nil {
			if age = s.opts.Now().Sub(fi.ModTime()); age >= 0 && age < copyEvery {
				continue
			}
		}
		if err := s.copyFile(d); err != nil {
			return copied, err
		}
		copied = append(copied, filepath.Base(d.path))
	}
	return copied, nil
}

func (s *Store) copyFile(d *dbFile) error {
	s.copying.Lock() // against a deletion: no copy may keep who was deleted meanwhile
	defer s.copying.Unlock()
	tmp := d.path + copySuffix + ".new"
	err := s.view(d, func(tx *bolt.Tx) error {
		f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = tx.WriteTo(f)
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err == nil {
		err = (&dbFile{path: tmp, log: s.opts.Log, schema: d.schema}).proven(d.schema, s.opts)
	}
	if err == nil {
		now := s.opts.Now()
		err = errors.Join(os.Chtimes(tmp, now, now), os.Rename(tmp, d.path+copySuffix), syncPath(s.opts.Dir))
	}
	if err != nil {
		os.Remove(tmp)
		return diskError("the copy of "+d.name(), err)
	}
	return nil
}

// dropCopy removes a file's good copy. Whoever makes a record unreadable for good does
// this first: what recovery may fall back on must not have what was deleted.
func (s *Store) dropCopy(d *dbFile) error {
	err := os.Remove(d.path + copySuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return diskError("the copy of "+d.name(), errors.Join(err, syncPath(s.opts.Dir)))
}

// bury runs a deletion so that no rung of the recovery brings it back: the copy goes
// first, and a second commit follows, so that the previous one is without it as well.
// Killed between the two, the next Open makes the second; see finishBurials.
func (s *Store) bury(d *dbFile, fn func(*bolt.Tx) error) error {
	s.copying.Lock()
	defer s.copying.Unlock()
	if err := s.dropCopy(d); err != nil {
		return err
	}
	err := s.update(d, func(tx *bolt.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return bucket(tx, bucketMeta).Put([]byte(keyBurying), []byte{1})
	})
	if err != nil {
		return err
	}
	return s.endBurial(d)
}

func (s *Store) endBurial(d *dbFile) error {
	return s.update(d, func(tx *bolt.Tx) error { return bucket(tx, bucketMeta).Delete([]byte(keyBurying)) })
}

// finishBurials makes the second commit of what was killed before it.
func (s *Store) finishBurials(d *dbFile) error {
	pending := false
	err := s.view(d, func(tx *bolt.Tx) error {
		pending = bucket(tx, bucketMeta).Get([]byte(keyBurying)) != nil
		return nil
	})
	if err != nil || !pending {
		return err
	}
	s.copying.Lock()
	defer s.copying.Unlock()
	return errors.Join(s.dropCopy(d), s.endBurial(d))
}
