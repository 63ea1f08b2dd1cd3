package store

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"postern/agent"
)

// The files of a data folder.
const (
	TemplatesFile = "templates.db"
	ResultsFile   = "results.db"
	CasesFile     = "cases.db"
)

// Store is an open data folder. Its methods may be called from any goroutine.
type Store struct {
	opts      Options
	lock      *os.File
	root      Root
	signer    ed25519.PrivateKey     // signs audit checkpoints and tombstones
	pepper    []byte                 // keys the hashes of personal ids
	fleet     atomic.Pointer[[]byte] // the same within a fleet; nil without one
	newsC     chan struct{}          // see FleetNews
	templates *dbFile
	results   *dbFile
	cases     *dbFile
	group     group

	rotating  sync.Mutex   // held while keys are rotated or files compacted
	holding   sync.RWMutex // held while a legal hold is placed, and for reading while something it may cover is deleted
	copying   sync.Mutex   // held while a good copy is made, and while somebody is deleted
	telling   sync.Mutex   // held while the witness's checkpoints are replaced
	recovered []Recovery

	// broken is the first error that made further writes unsafe.
	broken  atomic.Pointer[error]
	brokenC chan struct{} // closed with it

	randMu sync.Mutex // guards opts.Rand, which need not be safe for concurrent use

	unconfirmed atomic.Bool // a restored backup waits for Confirm

	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// Open opens the data folder o.Dir and makes what is missing. When another
// process holds the folder it waits o.Timeout and then fails with
// agent.CodeLocked, naming the holder. A folder or file that cannot be used is
// agent.CodeStorage, one of another device agent.CodeConflict; either way
// nothing is changed. Call Close when done.
func Open(o Options) (*Store, error) {
	return open(o, templatesSchema(), resultsSchema())
}

func open(o Options, templates, results schema) (*Store, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, diskError(folder(o.Dir), err)
	}
	lock, err := lockDir(o)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, lock: lock, brokenC: make(chan struct{}), newsC: make(chan struct{}, 1)}
	if s.templates, err = s.openSound(TemplatesFile, templates); err == nil {
		s.results, err = s.openSound(ResultsFile, results)
	}
	if err == nil {
		s.cases, err = s.openSound(CasesFile, casesSchema())
	}
	if err == nil {
		err = s.unlock()
	}
	for _, d := range s.files() {
		if err == nil {
			err = s.settleRecovery(d)
		}
	}
	if err != nil {
		s.Close() // the first error is the one that explains
		return nil, err
	}
	return s, nil
}

// files lists the open files.
func (s *Store) files() (out []*dbFile) {
	for _, d := range []*dbFile{s.templates, s.results, s.cases} {
		if d != nil {
			out = append(out, d)
		}
	}
	return out
}

// unlock opens the root key and gives every file its keys.
func (s *Store) unlock() error {
	existing := false
	for _, d := range s.files() {
		err := s.view(d, func(tx *bolt.Tx) error {
			existing = existing || storeKeyVersion(tx, classGeneral) > 0 || bucket(tx, bucketMeta).Get([]byte(keySealed)) != nil
			return nil
		})
		if err != nil {
			return err
		}
	}
	root, err := s.opts.Root(existing)
	if err != nil {
		return err
	}
	s.root = root
	if s.opts.Recover {
		if err := s.mendKeys(); err != nil {
			return err
		}
	}
	for _, d := range s.files() {
		if err := s.attach(d, root); err != nil {
			return err
		}
	}
	if err := s.identity(); err != nil {
		return err
	}
	if s.opts.Recover { // before anything walks over all records
		if err := s.eachFile(s.setAside); err != nil {
			return err
		}
	}
	if err := s.meetWitness(); err != nil {
		return err
	}
	if err := errors.Join(s.readUnconfirmed(), dropSnapshots(s.opts.Dir)); err != nil {
		return err
	}
	var r Rotation
	return s.finishRotations(&r)
}

// makeDir makes the folder and syncs its parent, so that a power cut does not
// take the new folder with everything in it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncPath(filepath.Dir(filepath.Clean(dir)))
}

// Close waits for running verbs, closes the files and lets the folder go. It
// may be called again and then returns the same error.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.note(s.tellWitness())
		var errs []error
		for _, d := range slices.Backward(s.files()) {
			errs = append(errs, d.close())
		}
		if s.root != nil {
			s.root.Close()
		}
		clear(s.signer)
		clear(s.pepper)
		clear(s.FleetKey())
		s.closeErr = errors.Join(append(errs, s.lock.Close())...)
	})
	return s.closeErr
}

// Device returns the device id that results are recorded under.
func (s *Store) Device() string { return s.opts.Device }

// Epoch returns the random id that results.db got when it was made. Seq counts
// within it.
func (s *Store) Epoch() string { return s.results.epoch }

// view runs fn in a read transaction. Nothing that fn gets from the transaction
// may outlive it, and fn must not write to the Store.
func (s *Store) view(d *dbFile, fn func(*bolt.Tx) error) error {
	if err := s.unusable(d); err != nil {
		return err
	}
	var run running
	err := d.using(func() error { return d.db.View(run.wrap(fn)) })
	if !run.inside {
		d.noteStuck(err) // a panic inside fn is different: View has cleaned up
	}
	return s.verdict(d, err, run.err)
}

// failpoint, when tests set it, is asked before each write transaction; its error
// stands for the process ending there.
var failpoint func(file string) error

// update runs fn in a write transaction and returns when it is durable.
func (s *Store) update(d *dbFile, fn func(*bolt.Tx) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := s.refusal(d); err != nil {
		return err
	}
	if failpoint != nil {
		if err := failpoint(d.path); err != nil {
			return err
		}
	}
	var run running
	err := d.using(func() error { return d.db.Update(run.wrap(fn)) })
	d.noteStuck(err)
	if err == nil && d.audited.Load() >= witnessEvery {
		s.note(s.tellWitness())
	}
	return s.verdict(d, err, run.err)
}

// running follows a function through its transaction.
type running struct {
	inside bool  // it was entered and has not returned: it panicked
	err    error // what it returned
}

func (r *running) wrap(fn func(*bolt.Tx) error) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		r.inside = true
		r.err = fn(tx)
		r.inside = false
		return r.err
	}
}

// grow is update for verbs that add data: it keeps a fifth of the cap free,
// because deleting needs pages too.
func (s *Store) grow(d *dbFile, fn func(*bolt.Tx) error) error {
	return s.update(d, func(tx *bolt.Tx) error {
		if d.used(tx) > s.opts.MaxBytes/5*4 {
			return s.fullError(d, errSoftCap)
		}
		return fn(tx)
	})
}

// verdict decides what an error of a transaction means. own is the error of the
// verb itself: bbolt has rolled back and is sound.
func (s *Store) verdict(d *dbFile, err, own error) error {
	switch {
	case err == nil:
		return nil
	case own != nil && errors.Is(err, own):
		return openError(d.name(), err)
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return errClosed()
	case errors.Is(err, berrors.ErrMaxSizeReached):
		return s.fullError(d, err)
	case isFullWrite(err):
		return diskError(d.name(), err)
	}
	var p *panicError
	if errors.As(err, &p) {
		err = damaged(d.name(), err)
	} else {
		err = diskError(d.name(), err)
	}
	s.noteBroken(err)
	return err
}

// noteBroken stops all further writes.
func (s *Store) noteBroken(err error) {
	if s.broken.CompareAndSwap(nil, &err) {
		close(s.brokenC)
	}
}

// Broken is closed when an error has made further writes unsafe: Err says which. The
// way on is to close the Store and open it again with Options.Recover.
func (s *Store) Broken() <-chan struct{} { return s.brokenC }

// Err is the error that made further writes unsafe, nil while there is none.
func (s *Store) Err() error {
	if cause := s.broken.Load(); cause != nil {
		return *cause
	}
	return nil
}

func (s *Store) fullError(d *dbFile, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: d.name() + " has reached its size limit",
		Fix: "raise the limit, or let old data be delivered and deleted", Err: err}
}

// unusable is the error of every verb on a file that is closed, or that bbolt
// may have left locked, where a transaction could wait for ever.
func (s *Store) unusable(d *dbFile) error {
	if s.closed.Load() {
		return errClosed()
	}
	if d.stuck.Load() {
		return damaged(d.name(), errors.New("an earlier read failed half way"))
	}
	return nil
}

// refusal is the error of every write after an unsafe one.
func (s *Store) refusal(d *dbFile) error {
	if err := s.unusable(d); err != nil {
		return err
	}
	if cause := s.broken.Load(); cause != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: folder(s.opts.Dir) + " takes no more writes after a disk error",
			Fix: "check the disk, then restart", Err: *cause}
	}
	return nil
}

// Stats are the sizes of a Store.
type Stats struct {
	Subjects  int
	Templates int
	Results   int    // less than LastSeq where retention deleted some, or a recovery skipped numbers
	LastSeq   uint64 // of the newest result; 0 when there is none
	AckedSeq  uint64 // up to here the hub has everything
	Outbox    int    // results that the hub has not acknowledged

	Telemetry        int // rows that the hub has not acknowledged
	TelemetryDropped int // rows that gave way to others since the file was made

	TemplatesBytes int64 // live bytes of templates.db, to compare with Options.MaxBytes
	ResultsBytes   int64 // live bytes of results.db
}

// Stats reads the counters. The two files are read one after the other.
func (s *Store) Stats() (Stats, error) {
	var st Stats
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		st.TemplatesBytes = s.templates.used(tx)
		var c counters
		st.Subjects, st.Templates = int(c.read(tx, keySubjects)), int(c.read(tx, keyTemplates))
		return c.err
	})
	if err != nil {
		return Stats{}, err
	}
	err = s.view(s.results, func(tx *bolt.Tx) error {
		st.ResultsBytes = s.results.used(tx)
		var c counters
		st.LastSeq, st.AckedSeq = c.read(tx, keyLast), c.read(tx, keyAcked)
		st.Results, st.Outbox = int(c.read(tx, keyResults)), int(c.read(tx, keyPending))
		st.Telemetry, st.TelemetryDropped = int(c.read(tx, keyTelemetry)), int(c.read(tx, keyTelemetryDropped))
		return c.err
	})
	if err != nil {
		return Stats{}, err
	}
	return st, nil
}

// counters reads several numbers of meta and keeps the first error.
type counters struct{ err error }

func (c *counters) read(tx *bolt.Tx, key string) uint64 {
	n, err := number(bucket(tx, bucketMeta), key)
	if c.err == nil {
		c.err = err
	}
	return n
}
