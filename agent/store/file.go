package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// growBytes is the step in which a file grows once it has outgrown doubling.
const growBytes = 1 << 20

// dbFile is one open bbolt file.
type dbFile struct {
	path string
	log  *slog.Logger
	db   *bolt.DB

	// handle is bbolt's own file. It is the way out when bbolt cannot be closed.
	handle *os.File
	// stuck: a panic left bbolt half way, perhaps with its locks held, so its
	// Close could wait for ever.
	stuck atomic.Bool

	// writing is held over a whole write transaction including the verdict on its
	// error, so that nobody commits after an error that must stop all commits.
	writing sync.Mutex

	// swap is held for reading over every transaction, and for writing while
	// compaction puts another file under the store.
	swap sync.RWMutex

	schema  schema
	version uint64 // of the schema
	epoch   string
	vault   *vault // nil until attached

	audited atomic.Int64 // audit entries since the witness was told
}

// using runs a transaction of the open file.
func (d *dbFile) using(fn func() error) error {
	d.swap.RLock()
	defer d.swap.RUnlock()
	return guarded(fn)
}

func (d *dbFile) name() string { return fmt.Sprintf("data file %q", d.path) }

// openFile opens a file of the data folder, makes it when there is none, and
// brings it to the present schema. The caller holds the folder's lock.
func openFile(name string, sch schema, o Options) (*dbFile, error) {
	d := &dbFile{path: filepath.Join(o.Dir, name), log: o.Log, schema: sch}
	if err := d.ensure(sch, o); err != nil {
		return nil, diskError(d.name(), err)
	}
	if err := d.open(o); err != nil {
		d.close() // the first error is the one that explains
		return nil, openError(d.name(), err)
	}
	err := guarded(func() error { return d.db.View(func(tx *bolt.Tx) error { return d.identify(tx, sch, o) }) })
	if err == nil {
		err = d.migrate(sch)
	}
	if err != nil {
		d.noteStuck(err)
		d.close()
		return nil, openError(d.name(), err)
	}
	return d, nil
}

// ensure makes a missing file and refuses one that bbolt would overwrite: it
// takes an empty file for a new one.
func (d *dbFile) ensure(sch schema, o Options) error {
	fi, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.create(sch, o)
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return damaged(d.name(), errors.New("it is not a regular file"))
	case fi.Size() == 0:
		return damaged(d.name(), errors.New("it is empty"))
	}
	return nil
}

// create builds the file under another name and renames it when it is complete
// and synced: bbolt's first initialisation does not survive a power cut.
func (d *dbFile) create(sch schema, o Options) error {
	tmp := &dbFile{path: d.path + ".new", log: o.Log, schema: sch}
	// What a killed creation left behind has never held anybody's data.
	if err := os.Remove(tmp.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := tmp.build(sch, o)
	if err == nil {
		err = syncPath(tmp.path)
	}
	if err == nil {
		err = os.Rename(tmp.path, d.path)
	}
	if err != nil {
		os.Remove(tmp.path)
		return err
	}
	d.log.Info("made data file", "file", d.path, "schema", sch.version())
	return syncPath(filepath.Dir(d.path))
}

func (d *dbFile) build(sch schema, o Options) (err error) {
	if err := d.open(o); err != nil {
		return errors.Join(err, d.close())
	}
	defer func() { err = errors.Join(err, d.close()) }()
	err = guarded(func() error {
		return d.db.Update(func(tx *bolt.Tx) error { return writeIdentity(tx, sch, o) })
	})
	if err != nil {
		d.noteStuck(err)
		return err
	}
	return d.migrate(sch)
}

func writeIdentity(tx *bolt.Tx, sch schema, o Options) error {
	b, err := tx.CreateBucket([]byte(bucketMeta))
	if err != nil {
		return err
	}
	epoch, err := newID(o.Now(), o.Rand)
	if err != nil {
		return err
	}
	if o.recovered != "" {
		if err := b.Put([]byte(keyRecovered), []byte(o.recovered)); err != nil {
			return err
		}
	}
	for k, v := range map[string]string{
		keyKind: sch.kind, keyDevice: o.Device, keyEpoch: epoch,
		keyCreated: o.Now().UTC().Format(time.RFC3339),
	} {
		if err := b.Put([]byte(k), []byte(v)); err != nil {
			return err
		}
	}
	return nil
}

// open opens bbolt on d.path. On an error the caller still closes d.
func (d *dbFile) open(o Options) error {
	err := guarded(func() (err error) {
		d.db, err = bolt.Open(d.path, 0o600, &bolt.Options{
			Timeout:         max(o.Timeout, time.Millisecond), // 0 would wait for ever
			FreelistType:    bolt.FreelistMapType,
			PreLoadFreelist: true,
			MaxSize:         int(o.MaxBytes),
			OpenFile:        d.openHandle,
		})
		return err
	})
	if err != nil {
		d.noteStuck(err)
		return err
	}
	d.db.AllocSize = growBytes
	return nil
}

func (d *dbFile) openHandle(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err == nil && fi.Size() > 0 {
		if err := freelistFits(f); err != nil {
			return nil, errors.Join(&damageError{err}, f.Close())
		}
	}
	d.handle = f
	return f, nil
}

// identify reads meta and refuses a file that is cut short, not ours, another
// device's, or from the future.
func (d *dbFile) identify(tx *bolt.Tx, sch schema, o Options) error {
	fi, err := d.handle.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < tx.Size() {
		return fmt.Errorf("it has %d bytes of %d", fi.Size(), tx.Size())
	}
	b := tx.Bucket([]byte(bucketMeta))
	if b == nil {
		return errors.New("it has no meta bucket")
	}
	if kind := string(b.Get([]byte(keyKind))); kind != sch.kind {
		return fmt.Errorf("it is a %q file, not a %q file", kind, sch.kind)
	}
	d.epoch = string(b.Get([]byte(keyEpoch)))
	if d.version, err = number(b, keySchema); err != nil {
		return err
	}
	return d.accept(string(b.Get([]byte(keyDevice))), sch, o)
}

func (d *dbFile) accept(device string, sch schema, o Options) error {
	switch {
	case d.version > sch.version():
		return &agent.Error{Code: agent.CodeStorage,
			Message: fmt.Sprintf("%s was written by a newer version (schema %d, this one knows %d)", d.name(), d.version, sch.version()),
			Fix:     "nothing was changed; install the newer version again"}
	case d.version == 0 || d.epoch == "":
		return errors.New("its meta bucket is incomplete")
	case device != o.Device:
		// Seq counts on from another device's numbers otherwise, and sealed
		// records are bound to the device that wrote them.
		return &agent.Error{Code: agent.CodeConflict,
			Message: fmt.Sprintf("%s belongs to device %q, not %q", d.name(), device, o.Device),
			Fix:     "set the device id back or choose another data folder"}
	}
	return nil
}

// used is how many bytes of the file hold live pages.
func (d *dbFile) used(tx *bolt.Tx) int64 {
	st := d.db.Stats()
	return tx.Size() - int64(st.FreePageN+st.PendingPageN)*int64(d.db.Info().PageSize)
}

func (d *dbFile) noteStuck(err error) {
	var p *panicError
	if errors.As(err, &p) {
		d.stuck.Store(true)
	}
}

// close closes the file. A stuck one is let go instead: the lock is released,
// the memory map stays until the process ends.
func (d *dbFile) close() error {
	if !d.stuck.Load() {
		if d.db == nil {
			return nil // bbolt closes what it could not open
		}
		return d.db.Close()
	}
	if d.handle == nil {
		return nil
	}
	err := syscall.Flock(int(d.handle.Fd()), syscall.LOCK_UN)
	return errors.Join(err, d.handle.Close())
}

// syncPath syncs a file or a folder by name.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
