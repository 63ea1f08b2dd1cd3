package store

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"postern/agent"
)

// A backup is a tar file: the manifest first, then each data file. It holds the
// keys that the root key wraps, unwrapped, so that it can be restored to a machine
// with another root key. It is therefore never written but encrypted as a whole,
// which is the caller's part.
const (
	backupFormat   = 1
	manifestName   = "manifest.json"
	maxManifest    = 16 << 20
	maxBackupFiles = 16
)

// BackupInfo says what a backup is of.
type BackupInfo struct {
	Format   int       `json:"format"`
	Device   string    `json:"device"`
	Tenant   string    `json:"tenant"`
	At       time.Time `json:"at"`
	Subjects int       `json:"subjects"`
	Erasures int       `json:"erasures"`
	Results  int       `json:"results"`
}

// backupManifest is BackupInfo with what only the restoring store may see.
type backupManifest struct {
	BackupInfo
	Files []backupFile `json:"files"`
}

type backupFile struct {
	Name   string            `json:"name"`
	Size   int64             `json:"size"`
	SHA256 string            `json:"sha256"`
	Keys   map[string][]byte `json:"keys"` // rows of bucket keys, in hex -> time made, secret
}

// Backup writes the state of one moment while the store stays in use. Writers wait
// only while the files are copied beside the data folder's own.
func (s *Store) Backup(w io.Writer, actor string) (info BackupInfo, err error) {
	if err := s.Audit(agent.AuditEvent{Action: agent.AuditBackup, Actor: actor}); err != nil {
		return info, err
	}
	dir, err := os.MkdirTemp(s.opts.Dir, "backup-")
	if err != nil {
		return info, diskError(folder(s.opts.Dir), err)
	}
	defer os.RemoveAll(dir)
	m, err := s.snapshot(dir)
	if err != nil {
		return info, err
	}
	defer m.wipe()
	return m.BackupInfo, m.write(w, dir)
}

// snapshot copies all files as they are at one moment.
func (s *Store) snapshot(dir string) (*backupManifest, error) {
	m := &backupManifest{BackupInfo: BackupInfo{Format: backupFormat, Device: s.opts.Device, Tenant: s.opts.Tenant, At: s.now()}}
	st, err := s.Stats()
	if err != nil {
		return nil, err
	}
	ts, err := s.tombstones()
	if err != nil {
		return nil, err
	}
	m.Subjects, m.Erasures, m.Results = st.Subjects, len(ts), st.Results
	for _, d := range s.files() { // nobody writes between the files
		d.writing.Lock()
		defer d.writing.Unlock()
	}
	for _, d := range s.files() {
		f, err := s.snapshotFile(d, dir)
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, f)
	}
	return m, nil
}

func (s *Store) snapshotFile(d *dbFile, dir string) (backupFile, error) {
	b := backupFile{Name: filepath.Base(d.path), Keys: map[string][]byte{}}
	err := s.view(d, func(tx *bolt.Tx) error {
		err := bucket(tx, bucketKeys).ForEach(func(k, v []byte) error {
			key, _, err := d.vault.unwrapStoreKey(k, v)
			if err != nil {
				return err
			}
			b.Keys[hex.EncodeToString(k)] = append(bytes.Clone(v[:8]), key...)
			clear(key)
			return nil
		})
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, b.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		sum := sha256.New()
		b.Size, err = tx.WriteTo(io.MultiWriter(f, sum))
		b.SHA256 = hex.EncodeToString(sum.Sum(nil))
		return errors.Join(err, f.Close())
	})
	return b, err
}

func (m *backupManifest) wipe() {
	for _, f := range m.Files {
		for _, k := range f.Keys {
			clear(k)
		}
	}
}

func (m *backupManifest) write(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	defer clear(raw)
	if err := t.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(raw)), ModTime: m.At}); err != nil {
		return err
	}
	if _, err := t.Write(raw); err != nil {
		return err
	}
	for _, b := range m.Files {
		if err := t.WriteHeader(&tar.Header{Name: b.Name, Mode: 0o600, Size: b.Size, ModTime: m.At}); err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(dir, b.Name))
		if err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return t.Close()
}

// Restored says what Restore did.
type Restored struct {
	BackupInfo
	ErasedAgain int  `json:"erased_again"` // people in the backup that had been erased since
	Confirmed   bool `json:"confirmed"`    // the restored people may be compared; see Confirm
}

// Restore replaces the data folder o.Dir by a backup. Nothing is changed until the
// whole backup has been read and verified, and the change is one exchange of
// folders. Who was erased since the backup was made is erased again: the witness
// knows. Where there is no witness, as on a new machine, nobody can know, so the
// restored people are not compared until Confirm, or nobodyErased, which is the
// operator's word, says so. Results get numbers that were never used.
func Restore(r io.Reader, o Options, nobodyErased bool) (Restored, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return Restored{}, err
	}
	fresh, err := closeOld(o)
	if err != nil {
		return Restored{}, err
	}
	dir := filepath.Clean(o.Dir) + ".restoring"
	if err := os.RemoveAll(dir); err != nil { // of a restore that was killed
		return Restored{}, diskError(folder(dir), err)
	}
	if err := makeDir(dir); err != nil {
		return Restored{}, diskError(folder(dir), err)
	}
	defer os.RemoveAll(dir)
	m, err := readBackup(r, dir, o)
	if err != nil {
		return Restored{}, err
	}
	defer m.wipe()
	confirmed := !fresh || nobodyErased
	if err := m.adoptInto(dir, o, confirmed); err != nil {
		return Restored{}, err
	}
	if err := exchange(dir, o.Dir); err != nil {
		return Restored{}, diskError(folder(o.Dir), err)
	}
	return finishRestore(m, o, confirmed)
}

// closeOld opens and closes the present folder, so that the witness knows all of
// its erasures. fresh means that neither of them knows any: this may be another
// machine. A folder that cannot be opened is what a backup is for.
func closeOld(o Options) (fresh bool, err error) {
	_, witnessErr := os.Stat(filepath.Join(o.Witness, checkpointsFile))
	fresh = o.Witness == "" || witnessErr != nil
	if _, err := os.Stat(filepath.Join(o.Dir, TemplatesFile)); err != nil {
		return fresh, nil
	}
	s, err := Open(o)
	if agent.ErrorCode(err) == agent.CodeLocked {
		return fresh, err
	}
	if err != nil {
		o.Log.Warn("the present data folder cannot be opened and is replaced", "folder", o.Dir, "err", err)
		return fresh, nil
	}
	st, err := s.Stats()
	if err == nil && st.Subjects+st.Results > 0 {
		fresh = false
	}
	return fresh, errors.Join(err, s.Close())
}

// readBackup unpacks and verifies a backup into an empty folder.
func readBackup(r io.Reader, dir string, o Options) (*backupManifest, error) {
	t := tar.NewReader(r)
	m, err := readManifest(t)
	if err != nil {
		return nil, badBackup(err)
	}
	if m.Device != o.Device || m.Tenant != o.Tenant {
		return nil, &agent.Error{Code: agent.CodeConflict,
			Message: fmt.Sprintf("the backup is of device %.140q, tenant %.140q; this is %q, %q", m.Device, m.Tenant, o.Device, o.Tenant),
			Fix:     "restore it there, or move enrolments with postern export and import"}
	}
	for _, b := range m.Files {
		h, err := t.Next()
		if err == nil && (h.Name != b.Name || h.Size != b.Size) {
			err = fmt.Errorf("%.80q stands where %q should", h.Name, b.Name)
		}
		if err == nil {
			err = unpack(filepath.Join(dir, b.Name), t, b, o)
		}
		if err != nil {
			return nil, badBackup(err)
		}
	}
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		return nil, badBackup(fmt.Errorf("it does not end where it should: %w", err))
	}
	// Reading to the end lets the encryption around it say that nothing was cut off.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, badBackup(err)
	}
	return m, nil
}

func badBackup(err error) error {
	var known *agent.Error
	if errors.As(err, &known) || isFull(err) {
		return diskError("the folder to restore to", err)
	}
	return &agent.Error{Code: agent.CodeInvalid, Message: "this is no whole backup", Fix: "nothing was changed", Err: err}
}

func readManifest(t *tar.Reader) (*backupManifest, error) {
	h, err := t.Next()
	if err != nil {
		return nil, err
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return nil, errors.New("it does not begin with a manifest")
	}
	raw, err := io.ReadAll(io.LimitReader(t, maxManifest))
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return decodeManifest(raw)
}

func decodeManifest(raw []byte) (*backupManifest, error) {
	var m backupManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m.Format != backupFormat {
		return nil, fmt.Errorf("its format %d is not %d", m.Format, backupFormat)
	}
	want := map[string]bool{TemplatesFile: true, ResultsFile: true, CasesFile: true}
	if len(m.Files) != len(want) {
		return nil, fmt.Errorf("it has %d data files, not %d", len(m.Files), len(want))
	}
	for _, f := range m.Files {
		if !want[f.Name] || f.Size <= 0 {
			return nil, fmt.Errorf("data file %.40q is unknown, empty or there twice", f.Name)
		}
		delete(want, f.Name)
	}
	return &m, nil
}

func unpack(path string, r io.Reader, b backupFile, o Options) error {
	if b.Size > o.MaxBytes {
		return fmt.Errorf("%s has %d bytes, more than the limit of %d", b.Name, b.Size, o.MaxBytes)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	var sum hash.Hash = sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != b.SHA256 {
		return fmt.Errorf("%s is damaged", b.Name)
	}
	return nil
}

// adoptInto wraps the keys of the unpacked files under this machine's root key.
func (m *backupManifest) adoptInto(dir string, o Options, confirmed bool) error {
	_, err := os.Stat(filepath.Join(o.Dir, TemplatesFile))
	root, err := o.Root(err == nil)
	if err != nil {
		return err
	}
	defer root.Close()
	schemas := map[string]schema{TemplatesFile: templatesSchema(), ResultsFile: resultsSchema(), CasesFile: casesSchema()}
	at := o
	at.Dir = dir
	for _, b := range m.Files {
		d, err := openFile(b.Name, schemas[b.Name], at)
		if err != nil {
			return badBackup(err)
		}
		err = d.takeKeys(root, b, at, confirmed)
		if err = errors.Join(err, d.close()); err != nil {
			return badBackup(err)
		}
	}
	return syncPath(dir)
}

func (d *dbFile) takeKeys(root Root, b backupFile, o Options, confirmed bool) error {
	v := &vault{root: root, scope: []string{o.Tenant, o.Device, d.schema.kind, d.epoch}}
	return guarded(func() error {
		return d.db.Update(func(tx *bolt.Tx) error {
			for name, key := range b.Keys {
				row, err := hex.DecodeString(name)
				if err != nil || len(key) < 8 || bucket(tx, bucketKeys).Get(row) == nil {
					return fmt.Errorf("key %.40q of %s is malformed", name, b.Name)
				}
				wrapped, err := root.Wrap(key[8:], v.bind("store key", row))
				if err != nil {
					return err
				}
				if err := bucket(tx, bucketKeys).Put(row, append(bytes.Clone(key[:8]), wrapped...)); err != nil {
					return err
				}
			}
			meta := bucket(tx, bucketMeta)
			if !confirmed && d.schema.kind == "templates" {
				if err := meta.Put([]byte(keyUnconfirmed), []byte{1}); err != nil {
					return err
				}
			}
			// As after any return to an older state: see settleRecovery.
			return meta.Put([]byte(keyRecovered), []byte(RungCopy))
		})
	})
}

// exchange puts the new folder in the place of the old one, at once.
func exchange(dir, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		err = os.Rename(dir, to)
	}
	return errors.Join(err, syncPath(filepath.Dir(filepath.Clean(to))))
}

// finishRestore opens the restored folder, which erases again who was erased since.
func finishRestore(m *backupManifest, o Options, confirmed bool) (Restored, error) {
	out := Restored{BackupInfo: m.BackupInfo, Confirmed: confirmed}
	s, err := Open(o)
	if err != nil {
		return out, err
	}
	before, err := s.Stats()
	if err == nil {
		out.ErasedAgain = m.Subjects - before.Subjects
		err = s.Audit(agent.AuditEvent{Action: agent.AuditRestore, Detail: map[string]string{
			"backup_of": m.At.Format(time.RFC3339), "erased_again": fmt.Sprint(out.ErasedAgain), "confirmed": fmt.Sprint(confirmed)}})
	}
	if err == nil {
		err = s.Check()
	}
	return out, errors.Join(err, s.Close())
}

// Confirm says that nobody in the restored folder has been erased since its backup
// was made, or that those have been erased again: its people may be compared.
func (s *Store) Confirm(actor string) error {
	err := s.update(s.templates, func(tx *bolt.Tx) error {
		meta := bucket(tx, bucketMeta)
		if meta.Get([]byte(keyUnconfirmed)) == nil {
			return coded(agent.CodeNotFound, "no restored backup waits to be confirmed")
		}
		if err := meta.Delete([]byte(keyUnconfirmed)); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditRestore, Actor: actor, Detail: map[string]string{"confirmed": "true"}})
	})
	if err == nil {
		s.unconfirmed.Store(false)
	}
	return err
}

// Unconfirmed reports whether a restored backup waits for Confirm.
func (s *Store) Unconfirmed() bool { return s.unconfirmed.Load() }

// readUnconfirmed remembers at opening whether it does.
func (s *Store) readUnconfirmed() error {
	return s.view(s.templates, func(tx *bolt.Tx) error {
		s.unconfirmed.Store(bucket(tx, bucketMeta).Get([]byte(keyUnconfirmed)) != nil)
		return nil
	})
}

// dropSnapshots removes what a killed backup has left.
func dropSnapshots(dir string) error {
	left, err := filepath.Glob(filepath.Join(strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[").Replace(dir), "backup-*"))
	for _, p := range left {
		err = errors.Join(err, os.RemoveAll(p))
	}
	return err
}
