package boltstore

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/sync/wire"
)

// FleetFile is the name of the file with what a hub knows about its devices besides
// their results. Its loss costs history and open commands, and no decision.
const FleetFile = "fleet.db"

// Buckets of that file. Keys begin with the device and NUL.
var (
	bucketTelemetry   = []byte("telemetry")   // device, NUL, when it came -> report
	bucketCheckpoints = []byte("checkpoints") // device, NUL, epoch -> checkpoint
	bucketCommands    = []byte("commands")    // id -> command
)

// TelemetryKept is how many messages of a device are kept: a day of one a minute.
const TelemetryKept = 1440

// Fleet is an open file. Its methods may be called from any goroutine.
type Fleet struct{ db *bolt.DB }

// OpenFleet opens the file in dir, and makes what is missing.
func OpenFleet(dir string) (*Fleet, error) {
	path := filepath.Join(dir, FleetFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(path, err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType, PreLoadFreelist: true})
	if err != nil {
		return nil, unusable(path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketTelemetry, bucketCheckpoints, bucketCommands} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, unusable(path, err)
	}
	return &Fleet{db}, nil
}

// Close closes the file; closing twice is allowed.
func (f *Fleet) Close() error { return f.db.Close() }

// Report is a telemetry message of a device.
type Report struct {
	Device string             `cbor:"-" json:"device"`
	At     time.Time          `cbor:"1,keyasint" json:"at"`       // when it came
	Taken  time.Time          `cbor:"2,keyasint" json:"taken_at"` // by the device's clock
	Values map[string]float64 `cbor:"3,keyasint,omitempty" json:"values"`
	Labels map[string]string  `cbor:"4,keyasint,omitempty" json:"labels"`
}

// PutReports keeps messages in one transaction, and drops the oldest of each device
// above TelemetryKept.
func (f *Fleet) PutReports(rs []Report) error {
	return f.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketTelemetry)
		for _, r := range rs {
			v, err := wire.Marshal(r)
			if err != nil {
				return err
			}
			if err := b.Put(reportKey(r), v); err != nil {
				return err
			}
			if err := trim(b, r.Device); err != nil {
				return err
			}
		}
		return nil
	})
}

// reportKey orders by when it was taken: the same message twice is one.
func reportKey(r Report) []byte {
	return binary.BigEndian.AppendUint64([]byte(r.Device+"\x00"), uint64(r.Taken.UnixMicro()))
}

func trim(b *bolt.Bucket, device string) error {
	var old [][]byte
	n := 0
	eachBack(b, device, func(k, _ []byte) bool {
		if n++; n > TelemetryKept {
			old = append(old, append([]byte(nil), k...))
		}
		return len(old) < 16
	})
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// eachBack goes through a device's rows, newest first, while fn says so.
func eachBack(b *bolt.Bucket, device string, fn func(k, v []byte) bool) {
	prefix := device + "\x00"
	c := b.Cursor()
	back := c.Prev
	if k, _ := c.Seek([]byte(device + "\x01")); k == nil {
		back = c.Last
	}
	for k, v := back(); k != nil && len(k) == len(prefix)+8 && string(k[:len(prefix)]) == prefix; k, v = c.Prev() {
		if !fn(k, v) {
			return
		}
	}
}

// Reports lists what a device has told, newest first, at most limit.
func (f *Fleet) Reports(device string, limit int) ([]Report, error) {
	out := []Report{}
	err := f.view(func(tx *bolt.Tx) (err error) {
		eachBack(tx.Bucket(bucketTelemetry), device, func(_, v []byte) bool {
			r := Report{Device: device}
			err = wire.Unmarshal(v, &r)
			out = append(out, r)
			return err == nil && len(out) < limit
		})
		return err
	})
	return out, err
}

// Checkpoint is the end of a device's audit log as the device has told it.
type Checkpoint struct {
	Device          string    `cbor:"-" json:"device"`
	At              time.Time `cbor:"1,keyasint" json:"at"`
	wire.Checkpoint `cbor:"2,keyasint"`
}

// PutCheckpoint keeps the end of a log, unless the one that is kept is further. It tells
// what is wrong with it: a log that ends before an end that was known, or has another
// hash there, was cut off or written anew. Such a one does not replace what is kept.
func (f *Fleet) PutCheckpoint(c Checkpoint) (problem string, err error) {
	err = f.update(func(tx *bolt.Tx) error {
		b, key := tx.Bucket(bucketCheckpoints), []byte(c.Device+"\x00"+c.Epoch)
		var old Checkpoint
		if v := b.Get(key); v != nil {
			if err := wire.Unmarshal(v, &old); err != nil {
				return err
			}
		}
		switch {
		case old.Seq > c.Seq:
			problem = fmt.Sprintf("the audit log %s ends at %d, and was at %d on %s", c.File, c.Seq, old.Seq, old.At.UTC().Format(time.RFC3339))
		case old.Seq == c.Seq && old.Seq > 0 && string(old.Hash) != string(c.Hash):
			problem = fmt.Sprintf("entry %d of the audit log %s is another one than on %s", c.Seq, c.File, old.At.UTC().Format(time.RFC3339))
		case old.Key != "" && old.Key != c.Key:
			problem = fmt.Sprintf("the audit log %s is signed with another key than on %s", c.File, old.At.UTC().Format(time.RFC3339))
		}
		if problem != "" || old.Seq == c.Seq {
			return nil
		}
		v, err := wire.Marshal(c)
		if err != nil {
			return err
		}
		return b.Put(key, v)
	})
	return problem, err
}

// Checkpoints lists the ends of a device's logs.
func (f *Fleet) Checkpoints(device string) ([]Checkpoint, error) {
	out := []Checkpoint{}
	err := f.view(func(tx *bolt.Tx) error {
		prefix := device + "\x00"
		c := tx.Bucket(bucketCheckpoints).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && len(k) > len(prefix) && string(k[:len(prefix)]) == prefix; k, v = c.Next() {
			cp := Checkpoint{Device: device}
			if err := wire.Unmarshal(v, &cp); err != nil {
				return err
			}
			out = append(out, cp)
		}
		return nil
	})
	return out, err
}

func (f *Fleet) update(fn func(*bolt.Tx) error) error { return f.wrap(f.db.Update(fn)) }
func (f *Fleet) view(fn func(*bolt.Tx) error) error   { return f.wrap(f.db.View(fn)) }

func (f *Fleet) wrap(err error) error {
	if err == nil || agent.ErrorCode(err) != agent.CodeInternal {
		return err
	}
	return unusable(f.db.Path(), err)
}
