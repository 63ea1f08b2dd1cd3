package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// The witness is a folder outside of the data folder. It keeps the last signed
// checkpoint of each file's audit log and every erasure. An old copy of the data
// folder, put back by a thief or by mistake, disagrees with it: the audit log ends
// before its checkpoint, and people are there that were erased, who are then
// erased again. Whoever can change both folders can make them agree; only what has
// been sent or printed elsewhere shows that.
const (
	checkpointsFile = "checkpoints"
	tombstonesFile  = "tombstones"
)

// witnessEvery is how many audit entries may be newer than the kept checkpoint
// while the store is open.
const witnessEvery = 16

// maxWitness bounds what is read of a witness file.
const maxWitness = 64 << 20

// Checkpoint says how far an audit log goes. Its signature can be verified by the
// device's public key alone.
type Checkpoint struct {
	File      string    `json:"file"`
	Epoch     string    `json:"epoch"`
	Seq       uint64    `json:"seq"`
	Hash      string    `json:"hash"`
	Signature string    `json:"signature"`
	At        time.Time `json:"at"`
}

// Verify reports whether a device with this public key, in hex, made the checkpoint.
func (c Checkpoint) Verify(publicKey string) error {
	key, err1 := hex.DecodeString(publicKey)
	hash, err2 := hex.DecodeString(c.Hash)
	sig, err3 := hex.DecodeString(c.Signature)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, checkpointText(c.Epoch, c.Seq, hash), sig) {
		return fmt.Errorf("the checkpoint of %s at %d is not signed by this device", c.File, c.Seq)
	}
	return nil
}

// Checkpoints returns the present end of each file's audit log, to be kept
// somewhere else.
func (s *Store) Checkpoints() ([]Checkpoint, error) {
	out := []Checkpoint{}
	for _, d := range s.files() {
		c, err := s.checkpoint(d)
		if err != nil {
			return nil, err
		}
		if c.Seq > 0 {
			out = append(out, c)
		}
	}
	return out, nil
}

func (s *Store) checkpoint(d *dbFile) (Checkpoint, error) {
	c := Checkpoint{File: d.schema.kind, Epoch: d.epoch, At: s.now()}
	err := s.view(d, func(tx *bolt.Tx) error {
		seq, hash, err := auditEnd(tx)
		if err != nil || seq == 0 {
			return err
		}
		c.Seq, c.Hash = seq, hex.EncodeToString(hash)
		c.Signature = hex.EncodeToString(ed25519.Sign(s.signer, checkpointText(d.epoch, seq, hash)))
		return nil
	})
	return c, err
}

// note logs what went wrong beside a deed that succeeded.
func (s *Store) note(err error) {
	if err != nil {
		s.opts.Log.Warn("the witness, the folder beside the root key, could not be read or told", "folder", s.opts.Witness, "err", err)
	}
}

// tellWitness keeps the present checkpoints.
func (s *Store) tellWitness() error {
	if s.opts.Witness == "" || s.signer == nil {
		return nil
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	news := false
	for _, d := range s.files() {
		if d.stuck.Load() {
			return errors.New("a data file is damaged")
		}
		news = d.audited.Swap(0) > 0 || news
	}
	if !news {
		return nil
	}
	cs := []Checkpoint{}
	for _, d := range s.files() {
		// Read past the verbs' own checks: this is also called while closing.
		err := d.using(func() error {
			return d.db.View(func(tx *bolt.Tx) error {
				seq, hash, err := auditEnd(tx)
				if seq > 0 {
					cs = append(cs, Checkpoint{File: d.schema.kind, Epoch: d.epoch, Seq: seq, Hash: hex.EncodeToString(hash), At: s.now(),
						Signature: hex.EncodeToString(ed25519.Sign(s.signer, checkpointText(d.epoch, seq, hash)))})
				}
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(cs, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.opts.Witness, checkpointsFile), append(b, '\n'))
}

// witnessed reads the kept checkpoints; none is no error.
func (s *Store) witnessed() ([]Checkpoint, error) {
	if s.opts.Witness == "" {
		return nil, nil
	}
	b, err := readSome(filepath.Join(s.opts.Witness, checkpointsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return DecodeCheckpoints(b)
}

// DecodeCheckpoints reads checkpoints as they are kept and printed, in JSON.
func DecodeCheckpoints(b []byte) ([]Checkpoint, error) {
	var cs []Checkpoint
	if err := json.Unmarshal(b, &cs); err != nil {
		return nil, invalid("these are no audit checkpoints: %v", err)
	}
	return cs, nil
}

// meetWitness brings the erasures of data folder and witness together: either may
// be older than the other after a backup was put back.
func (s *Store) meetWitness() error {
	if s.opts.Witness == "" {
		return nil
	}
	theirs, err := s.keptTombstones()
	if err != nil {
		return diskError(fmt.Sprintf("folder %q", s.opts.Witness), err)
	}
	ours, err := s.tombstones()
	if err != nil {
		return err
	}
	if err := s.eraseAgain(missingFrom(ours, theirs)); err != nil {
		return err
	}
	for _, t := range missingFrom(theirs, ours) {
		if err := s.keepTombstone(t); err != nil {
			return diskError(fmt.Sprintf("folder %q", s.opts.Witness), err)
		}
	}
	return nil
}

// missingFrom returns those of want that have lacks or has an older one of.
func missingFrom(have, want []Tombstone) (out []Tombstone) {
	newest := map[string]uint64{}
	for _, t := range have {
		newest[t.Tag] = max(newest[t.Tag], t.Version)
	}
	for _, t := range want {
		if v, ok := newest[t.Tag]; !ok || v < t.Version {
			out = append(out, t)
		}
	}
	return out
}

// keptTombstones reads the witness's erasures that this device has signed. A line
// that a power cut left half is passed over: the data folder has that erasure.
func (s *Store) keptTombstones() ([]Tombstone, error) {
	b, err := readSome(filepath.Join(s.opts.Witness, tombstonesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Tombstone
	for line := range bytes.Lines(b) {
		t, err := decodeTombstone(bytes.TrimSpace(line))
		if err != nil || t.Verify(s.PublicKey()) != nil {
			s.opts.Log.Warn("passed over a line that is no erasure of this device", "folder", s.opts.Witness)
			continue
		}
		out = append(out, t)
	}
	return out, nil
}

func (s *Store) keepTombstone(t Tombstone) error {
	if s.opts.Witness == "" {
		return nil
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.opts.Witness, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.opts.Witness, tombstonesFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// The line break in front ends a line that a power cut left half.
	_, err = f.Write(slices.Concat([]byte("\n"), b, []byte("\n")))
	return errors.Join(err, f.Sync(), f.Close(), syncPath(s.opts.Witness))
}

func readSome(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxWitness {
		return nil, &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("%q has %d bytes, more than %d", path, fi.Size(), maxWitness)}
	}
	return os.ReadFile(path)
}

// replaceFile writes a file so that at every moment the old or the new one is whole.
func replaceFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}
