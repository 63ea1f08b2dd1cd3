package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// Rung says how far up the ladder a damaged file had to be taken.
type Rung string

// The rungs, each tried only when the one before it failed.
const (
	RungPrevious Rung = "previous commit" // the newest commit was given up
	RungCopy     Rung = "copy"            // the last good copy was taken; see Copy
	RungNew      Rung = "new file"        // nothing was usable: the file begins empty
)

// Recovery is what opening a damaged file did. The damaged file is kept.
type Recovery struct {
	At          time.Time `json:"at"`
	File        string    `json:"file"`
	Rung        Rung      `json:"rung"`
	Cause       string    `json:"cause"`
	Lost        string    `json:"lost"`        // what is gone, for people
	Quarantined string    `json:"quarantined"` // where the damaged file lies now
}

// Names beside the data files.
const (
	quarantineDir = "quarantine"
	recoveryLog   = "recovery.log" // a Recovery a line, JSON
	copySuffix    = ".good"
	trySuffix     = ".try"
)

// damageError marks an error about the content of a file, as opposed to the disk or
// the right to use it. Only such a file may be replaced.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

func isDamage(err error) bool {
	var d *damageError
	return errors.As(err, &d)
}

// openSound opens a data file. With Options.Recover it verifies the file's structure,
// takes a damaged one up the ladder, and compacts one that is mostly free.
func (s *Store) openSound(name string, sch schema) (*dbFile, error) {
	o := s.opts
	d, err := openFile(name, sch, o)
	if err == nil {
		err = d.bothMetas()
	}
	if err == nil && o.Recover {
		err = d.sound()
	}
	if err == nil {
		if o.Recover {
			d = compacted(d, sch, o)
		}
		return d, nil
	}
	if d != nil {
		d.close() // the first error is the one that explains
	}
	if !o.Recover || !isDamage(err) {
		return nil, err
	}
	r, err := climb(name, sch, o, err)
	if err != nil {
		return nil, err
	}
	s.recovered = append(s.recovered, *r)
	return openFile(name, sch, o)
}

// sound verifies the structure of an open file and what its schema promises, without
// its records' contents: a wrong key must not look like damage.
func (d *dbFile) sound() error {
	var p problems
	err := guarded(func() error {
		return d.db.View(func(tx *bolt.Tx) error {
			checkPages(tx, d, &p)
			if p.none() {
				checkBolt(tx, &p)
			}
			if p.none() && d.schema.shape != nil && d.version == d.schema.version() {
				d.schema.shape(tx, &p)
			}
			return nil
		})
	})
	d.noteStuck(err)
	if err != nil {
		return damaged(d.name(), err)
	}
	return p.error(d)
}

// climb replaces a damaged file by the best that can be had of it. The damaged file is
// never without a name: it is linked into quarantine before another takes its place.
func climb(name string, sch schema, o Options, cause error) (*Recovery, error) {
	path := filepath.Join(o.Dir, name)
	o.Log.Error("data file is damaged, trying to recover it", "file", path, "err", cause)
	r := &Recovery{At: o.Now().UTC(), File: name, Cause: oneLine(cause)}
	for _, rung := range []struct {
		Rung
		make func(path string, o Options) error
		lost string
	}{
		{RungPrevious, makePrevious, "the newest commit"},
		{RungCopy, takeCopy, "everything since " + copyTime(path)},
		{RungNew, func(string, Options) error { return nil }, "everything in it"},
	} {
		try := &dbFile{path: path + trySuffix, log: o.Log, schema: sch}
		err := rung.make(path, o)
		o.recovered = rung.Rung
		if err == nil && rung.Rung != RungNew {
			if err = try.proven(sch, o); err == nil { // nothing is written to what is not
				err = try.markRecovered(o)
			}
		}
		if err != nil {
			os.Remove(try.path)
			if !passable(err) {
				return nil, diskError(folder(o.Dir), err)
			}
			o.Log.Warn("recovery: no luck", "file", path, "rung", rung.Rung, "err", err)
			continue
		}
		r.Rung, r.Lost = rung.Rung, rung.lost
		return r, r.replace(path, sch, o)
	}
	return nil, cause // RungNew cannot fail
}

// passable tells whether the next rung may be tried: a full or read-only disk is no
// reason to give up data that may be good.
func passable(err error) bool {
	return !isFull(err) && !isForbidden(err)
}

// proven opens the candidate and verifies it and its belonging.
func (d *dbFile) proven(sch schema, o Options) (err error) {
	if err := d.open(o); err != nil {
		return errors.Join(err, d.close())
	}
	defer func() { err = errors.Join(err, d.close()) }()
	err = guarded(func() error { return d.db.View(func(tx *bolt.Tx) error { return d.identify(tx, sch, o) }) })
	d.noteStuck(err)
	if err == nil {
		err = d.sound()
	}
	if err == nil && o.provenBy != nil {
		err = o.provenBy(d)
	}
	return err
}

// markRecovered notes in the candidate itself what will have to follow its recovery, so
// that a kill in between does not skip it; see settleRecovery.
func (d *dbFile) markRecovered(o Options) error {
	if err := d.open(o); err != nil {
		return errors.Join(err, d.close())
	}
	err := guarded(func() error {
		return d.db.Update(func(tx *bolt.Tx) error {
			return bucket(tx, bucketMeta).Put([]byte(keyRecovered), []byte(o.recovered))
		})
	})
	d.noteStuck(err)
	return errors.Join(err, d.close())
}

// replace puts the damaged file into quarantine and the candidate, or a new file, in
// its place, and writes down that it did.
func (r *Recovery) replace(path string, sch schema, o Options) error {
	var err error
	if r.Quarantined, err = quarantine(path, o); err != nil {
		return diskError(folder(o.Dir), err)
	}
	if err := r.log(o); err != nil {
		return diskError(folder(o.Dir), err)
	}
	if r.Rung == RungNew {
		err = (&dbFile{path: path, log: o.Log}).create(sch, o)
	} else {
		err = errors.Join(syncPath(path+trySuffix), os.Rename(path+trySuffix, path), syncPath(o.Dir))
	}
	if err != nil {
		return diskError(folder(o.Dir), err)
	}
	o.Log.Error("data file was recovered", "file", path, "rung", r.Rung, "lost", r.Lost, "damaged_file", r.Quarantined)
	return nil
}

// quarantine gives the file a second name that nothing here ever removes.
func quarantine(path string, o Options) (string, error) {
	dir := filepath.Join(o.Dir, quarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	name := filepath.Base(path) + "." + o.Now().UTC().Format("20060102T150405Z")
	for i := 0; ; i++ {
		to := filepath.Join(dir, name)
		if i > 0 {
			to += fmt.Sprint(".", i)
		}
		err := os.Link(path, to)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil && passable(err) { // a file system without links
			err = copyFile(to, path)
		}
		return to, errors.Join(err, syncPath(dir), syncPath(o.Dir))
	}
}

// log appends the recovery to the folder's log.
func (r *Recovery) log(o Options) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, recoveryLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Sync(), f.Close(), syncPath(o.Dir))
}

// Recoveries lists what has been recovered in a data folder, oldest first. Lines that
// cannot be read are left out.
func Recoveries(dir string) ([]Recovery, error) {
	raw, err := os.ReadFile(filepath.Join(dir, recoveryLog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError(folder(dir), err)
	}
	var out []Recovery
	for line := range bytes.Lines(raw) {
		var r Recovery
		if json.Unmarshal(line, &r) == nil && r.File != "" {
			out = append(out, r)
		}
	}
	return out, nil
}

// makePrevious copies the file and invalidates the newer of its two meta pages, so that
// the commit before the newest is the newest. bbolt never writes over pages that the
// older meta page leads to.
func makePrevious(path string, _ Options) error {
	to := path + trySuffix
	if err := copyFile(to, path); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(dropNewest(f), f.Close())
}

// Where bbolt keeps what in the first two pages of a file.
const (
	metaAt       = 16 // behind the head of the page
	metaPageSize = metaAt + 8
	metaRoot     = metaAt + 16
	metaFree     = metaAt + 32
	metaHigh     = metaAt + 40
	metaTxid     = metaAt + 48
	metaChecksum = metaAt + 56
	metaEnd      = metaAt + 64
)

// metaPage is what has to be known of one of the two.
type metaPage struct {
	at    int64 // in the file
	txid  uint64
	valid bool // its checksum is right

	pageSize uint64
	root     uint64 // page of the root bucket
	free     uint64 // page of the list of free pages
	high     uint64 // first page that is not in use
}

func readMetas(f io.ReaderAt) (ms [2]metaPage, err error) {
	size := int64(os.Getpagesize())
	var head [metaEnd]byte
	for i := range ms {
		if _, err := f.ReadAt(head[:], int64(i)*size); err != nil {
			return ms, fmt.Errorf("meta page %d: %w", i, err)
		}
		if n := binary.NativeEndian.Uint32(head[metaPageSize:]); i == 0 && n >= 512 && n <= maxPageSize {
			size = int64(n)
		}
		sum := fnv.New64a()
		sum.Write(head[metaAt:metaChecksum])
		ms[i] = metaPage{at: int64(i) * size, pageSize: uint64(size), valid: sum.Sum64() == binary.NativeEndian.Uint64(head[metaChecksum:]),
			txid: binary.NativeEndian.Uint64(head[metaTxid:]), root: binary.NativeEndian.Uint64(head[metaRoot:]),
			free: binary.NativeEndian.Uint64(head[metaFree:]), high: binary.NativeEndian.Uint64(head[metaHigh:])}
	}
	return ms, nil
}

// bothMetas verifies that the newest commit is not one that bbolt passes over in
// silence: where a meta page is damaged it takes the other.
func (d *dbFile) bothMetas() error {
	ms, err := readMetas(d.handle)
	if err != nil {
		return openError(d.name(), err)
	}
	for i, m := range ms {
		if !m.valid {
			return damaged(d.name(), fmt.Errorf("meta page %d is torn", i))
		}
	}
	return nil
}

// dropNewest garbles the checksum of the meta page with the higher transaction number,
// unless one of them is garbled already.
func dropNewest(f *os.File) error {
	ms, err := readMetas(f)
	if err != nil || !ms[0].valid || !ms[1].valid {
		return err
	}
	newest := ms[0]
	if ms[1].txid > newest.txid {
		newest = ms[1]
	}
	_, err = f.WriteAt(make([]byte, 8), newest.at+metaChecksum)
	return err
}

// takeCopy makes the last good copy the candidate.
func takeCopy(path string, _ Options) error { return copyFile(path+trySuffix, path+copySuffix) }

func copyTime(path string) string {
	fi, err := os.Stat(path + copySuffix)
	if err != nil {
		return "an unknown time"
	}
	return fi.ModTime().UTC().Format(time.RFC3339)
}

// copyFile copies bytes and syncs them. to may exist.
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

// NeedsResync tells whether enrolments were lost and the hub has to send them again.
func (s *Store) NeedsResync() (bool, error) {
	var need bool
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		need = bucket(tx, bucketMeta).Get([]byte(keyResync)) != nil
		return nil
	})
	return need, err
}

// Resynced records that the hub has sent everything again.
func (s *Store) Resynced() error {
	return s.update(s.templates, func(tx *bolt.Tx) error { return bucket(tx, bucketMeta).Delete([]byte(keyResync)) })
}

// settleRecovery does what has to follow a recovery, once records can be sealed.
func (s *Store) settleRecovery(d *dbFile) error {
	var r Rung
	err := s.view(d, func(tx *bolt.Tx) error {
		r = Rung(bucket(tx, bucketMeta).Get([]byte(keyRecovered)))
		return nil
	})
	if err != nil || r == "" {
		return err
	}
	return s.update(d, func(tx *bolt.Tx) error {
		if d == s.results {
			if err := s.afterLoss(tx, r); err != nil {
				return err
			}
		}
		meta := bucket(tx, bucketMeta)
		if err := s.audit(tx, agent.AuditEvent{Action: agent.AuditSystem, Detail: map[string]string{"recovered": filepath.Base(d.path), "taken": string(r)}}); err != nil {
			return err
		}
		return errors.Join(meta.Put([]byte(keyResync), []byte(r)), meta.Delete([]byte(keyRecovered)))
	})
}

// Recovered lists what this Open had to recover; empty on a sound folder.
func (s *Store) Recovered() []Recovery { return s.recovered }

// skipSeq is how far Seq jumps when results may have been lost, so that no number is
// given twice: more than a commit holds, and more than a device decides in the time
// between two copies. The hub sees the gap.
var skipSeq = map[Rung]uint64{RungPrevious: 2 * maxGroup, RungCopy: 1 << 24}

// afterLoss keeps what a rolled back results.db would break: Seq is never reused, and
// the counting of failed attempts, which may be gone, starts with a wait.
func (s *Store) afterLoss(tx *bolt.Tx, r Rung) error {
	meta := bucket(tx, bucketMeta)
	last, err := number(meta, keyLast)
	if err != nil {
		return err
	}
	if skip := skipSeq[r]; skip > 0 {
		if err := setNumber(meta, keyLast, last+skip); err != nil {
			return err
		}
	}
	return s.distrust(tx)
}

func oneLine(err error) string {
	return string(bytes.ReplaceAll([]byte(err.Error()), []byte("\n"), []byte("; ")))
}
