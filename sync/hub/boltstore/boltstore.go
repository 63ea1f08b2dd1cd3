// Package boltstore keeps a one-machine hub's record in one bbolt file.
package boltstore

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/sync/hub"
	"postern/sync/wire"
)

// File is the name of the file in the hub's data folder.
const File = "hub.db"

// Buckets. Keys of streams are device, NUL, epoch; those of rows go on with NUL and
// the number in big-endian, so that a stream's rows lie together in order.
var (
	bucketMeta    = []byte("meta")
	bucketStreams = []byte("streams")
	bucketRows    = []byte("rows")
	bucketHealth  = []byte("health")
	bucketFollow  = []byte("followed")
	bucketOwners  = []byte("owners") // whom rows are about -> their key, wrapped
	bucketErased  = []byte("erased") // tag -> when
)

// With the first the bodies of rows are in the clear.
const (
	schema       = "1"
	sealedSchema = "2"
)

// Store is an open file. Its methods may be called from any goroutine.
type Store struct {
	db    *bolt.DB
	vault *vault // nil: bodies are stored as they are
}

// Open opens the hub's file in dir, and makes what is missing. A file that was not
// encrypted is, when a key is given.
func Open(dir string, sealing Sealing) (*Store, error) {
	path := filepath.Join(dir, File)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(path, err)
	}
	v, err := newVault(sealing)
	if err != nil {
		return nil, unusable(path, err)
	}
	db, err := open(path)
	if err != nil {
		return nil, unusable(path, err)
	}
	s := &Store{db, v}
	if err := s.begin(); err != nil {
		return nil, unusable(path, errors.Join(err, s.Close()))
	}
	return s, nil
}

func open(path string) (*bolt.DB, error) {
	return bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType, PreLoadFreelist: true})
}

// begin brings the file to where it should be.
func (s *Store) begin() error {
	sealed := false
	err := s.db.Update(func(tx *bolt.Tx) (err error) {
		sealed, err = prepare(tx)
		return err
	})
	switch {
	case err != nil:
		return err
	case sealed && s.vault == nil:
		return errors.New("it is encrypted, and no key was given")
	case !sealed && s.vault != nil:
		if err := s.sealAll(); err != nil {
			return err
		}
	}
	return s.shred()
}

func unusable(path string, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("the hub's data file %q cannot be used", path), Err: err,
		Fix: "check the disk, and that no other hub runs on it"}
}

func prepare(tx *bolt.Tx) (sealed bool, err error) {
	for _, name := range [][]byte{bucketMeta, bucketStreams, bucketRows, bucketHealth, bucketFollow, bucketOwners, bucketErased} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return false, err
		}
	}
	meta := tx.Bucket(bucketMeta)
	switch v := string(meta.Get([]byte("schema"))); v {
	case "":
		return false, meta.Put([]byte("schema"), []byte(schema))
	case schema, sealedSchema:
		return v == sealedSchema, nil
	default:
		return false, fmt.Errorf("it has schema %q, this version knows %s", v, sealedSchema)
	}
}

// Close implements hub.Store.
func (s *Store) Close() error { return s.db.Close() }

// streamRecord is a value of bucketStreams.
type streamRecord struct {
	Acked   uint64    `cbor:"1,keyasint"`
	Highest uint64    `cbor:"2,keyasint"`
	Lost    uint64    `cbor:"3,keyasint,omitempty"`
	Rows    uint64    `cbor:"4,keyasint"`
	Refused uint64    `cbor:"5,keyasint,omitempty"`
	First   time.Time `cbor:"6,keyasint"`
	Last    time.Time `cbor:"7,keyasint"`
}

func (r streamRecord) position() hub.Position {
	return hub.Position{Acked: r.Acked, Highest: r.Highest, Lost: r.Lost, Rows: r.Rows, Refused: r.Refused}
}

// rowRecord is a value of bucketRows.
type rowRecord struct {
	Kind       wire.RowKind `cbor:"1,keyasint"`
	Historical bool         `cbor:"2,keyasint,omitempty"`
	At         time.Time    `cbor:"3,keyasint"`
	Refused    string       `cbor:"4,keyasint,omitempty"`
	Body       []byte       `cbor:"5,keyasint"`           // encrypted where there is an owner; none: forgotten
	Owner      []byte       `cbor:"6,keyasint,omitempty"` // whose key it is under
	Decided    time.Time    `cbor:"7,keyasint"`           // when, as the device says
}

func streamKey(device, epoch string) []byte { return []byte(device + "\x00" + epoch) }

func rowKey(stream []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(slices.Clone(stream), 0), seq)
}

// Ingest implements hub.Store.
func (s *Store) Ingest(batches []hub.Batch) ([]hub.Position, error) {
	var out []hub.Position
	err := s.db.Update(func(tx *bolt.Tx) error {
		out = make([]hub.Position, 0, len(batches)) // anew for every attempt
		for _, b := range batches {
			p, err := s.ingest(tx, b)
			if err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	return out, nil
}

func (s *Store) ingest(tx *bolt.Tx, b hub.Batch) (hub.Position, error) {
	key := streamKey(b.Device, b.Epoch)
	st, err := readStream(tx, key)
	if err != nil {
		return hub.Position{}, err
	}
	before := st
	rows := tx.Bucket(bucketRows)
	for _, r := range b.Rows {
		if err := s.putRow(tx, rows, key, &st, b, r); err != nil {
			return hub.Position{}, err
		}
	}
	st.advance(rows, key, b.Floor)
	if st == before { // all known: no page changes
		return st.position(), nil
	}
	if st.First.IsZero() {
		st.First = stamp(b.At)
	}
	st.Last = stamp(b.At)
	v, err := wire.Marshal(st)
	if err != nil {
		return hub.Position{}, err
	}
	return st.position(), tx.Bucket(bucketStreams).Put(key, v)
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func readStream(tx *bolt.Tx, key []byte) (st streamRecord, err error) {
	if v := tx.Bucket(bucketStreams).Get(key); v != nil {
		err = wire.Unmarshal(v, &st)
	}
	return st, err
}

// putRow stores a row unless it is known.
func (s *Store) putRow(tx *bolt.Tx, rows *bolt.Bucket, stream []byte, st *streamRecord, b hub.Batch, r wire.Row) error {
	if r.Seq <= st.Acked {
		return nil
	}
	key := rowKey(stream, r.Seq)
	if rows.Get(key) != nil {
		return nil
	}
	why := b.Refused[r.Seq]
	rec := rowRecord{Kind: r.Kind, Historical: b.Historical, At: stamp(b.At), Refused: why, Body: r.Body}
	if err := s.vault.seal(tx, key, &rec); err != nil {
		return err
	}
	v, err := wire.Marshal(rec)
	if err != nil {
		return err
	}
	st.Rows++
	if why != "" {
		st.Refused++
	}
	st.Highest = max(st.Highest, r.Seq)
	return rows.Put(key, v)
}

// advance moves Acked over the rows that are there, and over those that the device no
// longer has.
func (st *streamRecord) advance(rows *bolt.Bucket, stream []byte, floor uint64) {
	c := rows.Cursor()
	st.walk(c, stream)
	for floor > st.Acked+1 {
		next := floor // or the next row that is there
		if k, _ := c.Seek(rowKey(stream, st.Acked+1)); k != nil && sameStream(k, stream) {
			next = min(floor, seqOf(k))
		}
		st.Lost += next - st.Acked - 1
		st.Acked = next - 1
		st.Highest = max(st.Highest, st.Acked)
		st.walk(c, stream)
	}
}

func (st *streamRecord) walk(c *bolt.Cursor, stream []byte) {
	if st.Highest <= st.Acked {
		return
	}
	for k, _ := c.Seek(rowKey(stream, st.Acked+1)); k != nil && sameStream(k, stream) && seqOf(k) == st.Acked+1; k, _ = c.Next() {
		st.Acked++
	}
}

func sameStream(key, stream []byte) bool {
	return len(key) == len(stream)+9 && strings.HasPrefix(string(key), string(stream))
}

func seqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// Streams implements hub.Store.
func (s *Store) Streams() ([]hub.Stream, error) {
	out := []hub.Stream{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStreams).ForEach(func(k, v []byte) error {
			var st streamRecord
			if err := wire.Unmarshal(v, &st); err != nil {
				return err
			}
			device, epoch, _ := strings.Cut(string(k), "\x00")
			out = append(out, hub.Stream{Device: device, Epoch: epoch, FirstAt: st.First, LastAt: st.Last, Position: st.position()})
			return nil
		})
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	slices.SortStableFunc(out, func(a, b hub.Stream) int {
		if a.Device != b.Device {
			return strings.Compare(a.Device, b.Device)
		}
		return a.FirstAt.Compare(b.FirstAt)
	})
	return out, nil
}

// Rows implements hub.Store.
func (s *Store) Rows(device, epoch string, from uint64, limit int) ([]hub.Row, error) {
	out, stream := []hub.Row{}, streamKey(device, epoch)
	err := s.db.View(func(tx *bolt.Tx) error {
		c, o := tx.Bucket(bucketRows).Cursor(), &opener{s.vault, tx, map[string]cipher.AEAD{}}
		for k, v := c.Seek(rowKey(stream, from)); k != nil && sameStream(k, stream) && len(out) < limit; k, v = c.Next() {
			var r rowRecord
			if err := wire.Unmarshal(v, &r); err != nil {
				return err
			}
			body, err := o.open(k, r)
			if err != nil {
				return err
			}
			out = append(out, hub.Row{Seq: seqOf(k), Kind: r.Kind, Historical: r.Historical, At: r.At, Refused: r.Refused, Body: body, Erased: body == nil})
		}
		return nil
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	return out, nil
}

// healthRecord is a value of bucketHealth.
type healthRecord struct {
	At     time.Time   `cbor:"1,keyasint"`
	Health wire.Health `cbor:"2,keyasint"`
}

// PutHealth implements hub.Store.
func (s *Store) PutHealth(h hub.Health) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketHealth)
		var old healthRecord
		if v := b.Get([]byte(h.Device)); v != nil {
			if err := wire.Unmarshal(v, &old); err != nil {
				return err
			}
		}
		if !h.Online && old.Health.Online && old.Health.Session != h.Session {
			return nil // the will of an earlier session
		}
		v, err := wire.Marshal(healthRecord{stamp(h.At), h.Health})
		if err != nil {
			return err
		}
		return b.Put([]byte(h.Device), v)
	})
	if err != nil {
		return unusable(s.db.Path(), err)
	}
	return nil
}

// Healths implements hub.Store.
func (s *Store) Healths() ([]hub.Health, error) {
	out := []hub.Health{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketHealth).ForEach(func(k, v []byte) error {
			var r healthRecord
			if err := wire.Unmarshal(v, &r); err != nil {
				return err
			}
			out = append(out, hub.Health{Device: string(k), At: r.At, Health: r.Health})
			return nil
		})
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	return out, nil
}
