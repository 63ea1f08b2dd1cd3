package store

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"postern/agent"
)

// Telemetry is one message about the device itself on its way to the hub. It is the
// first to give way: to newer telemetry above Options.MaxTelemetry, and to results when
// the file is nearly full. Nothing else is ever dropped to make room.
type Telemetry struct {
	Seq     uint64    `json:"-"`
	At      time.Time `json:"at"`
	Payload []byte    `json:"payload"`
}

// maxTelemetry bounds one message.
const maxTelemetry = 4 << 10

// telemetryBatch is how many rows give way in one transaction.
const telemetryBatch = 64

func telemetryBinding(key []byte) Binding {
	n, _ := parseSeq(key) // a malformed key gets a binding that opens nothing
	return Binding{Kind: "telemetry", Record: strconv.FormatUint(n, 10)}
}

func bindTelemetry(_ *Store, k, _ []byte) (Binding, int, error) { return telemetryBinding(k), 0, nil }

// PutTelemetry queues a message of 1 to 4,096 bytes and returns its number.
func (s *Store) PutTelemetry(payload []byte) (uint64, error) {
	if len(payload) == 0 || len(payload) > maxTelemetry {
		return 0, invalid("a telemetry message of %d bytes is not 1 to %d", len(payload), maxTelemetry)
	}
	p, err := encodePayload(Telemetry{At: s.now(), Payload: payload}, nil)
	if err != nil {
		return 0, err
	}
	var seq uint64
	err = s.grow(s.results, func(tx *bolt.Tx) error {
		meta := bucket(tx, bucketMeta)
		n, err := number(meta, keyTelemetryLast)
		if err != nil {
			return err
		}
		seq = n + 1
		v, err := s.seal(tx, p, telemetryBinding(seqKey(seq)))
		if err != nil {
			return err
		}
		if err := errors.Join(appendBucket(tx, bucketTelemetry).Put(seqKey(seq), v), setNumber(meta, keyTelemetryLast, seq),
			addNumber(meta, keyTelemetry, 1)); err != nil {
			return err
		}
		return s.trimTelemetry(tx)
	})
	return seq, err
}

// trimTelemetry drops the oldest rows above the limit.
func (s *Store) trimTelemetry(tx *bolt.Tx) error {
	n, err := number(bucket(tx, bucketMeta), keyTelemetry)
	if err != nil || n <= uint64(s.opts.MaxTelemetry) {
		return err
	}
	dropped, err := dropTelemetry(tx, nil, int(n)-s.opts.MaxTelemetry)
	if err != nil {
		return err
	}
	return addNumber(bucket(tx, bucketMeta), keyTelemetryDropped, dropped)
}

// dropTelemetry deletes the oldest rows up to and including the key last (nil: any), at
// most this many, and returns how many there were.
func dropTelemetry(tx *bolt.Tx, last []byte, most int) (int, error) {
	var keys [][]byte
	b := appendBucket(tx, bucketTelemetry)
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(keys) < most && (last == nil || bytes.Compare(k, last) <= 0); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(keys), addNumber(bucket(tx, bucketMeta), keyTelemetry, -len(keys))
}

// TelemetryAfter returns messages with a number above after, oldest first, at most
// limit (1..1000; 0 means 100). It changes nothing.
func (s *Store) TelemetryAfter(after uint64, limit int) ([]Telemetry, error) {
	limit = clampLimit(limit)
	out := []Telemetry{}
	err := s.view(s.results, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketTelemetry).Cursor()
		for k, v := c.Seek(seqKey(after + 1)); k != nil && len(out) < limit; k, v = c.Next() {
			t, err := s.openTelemetry(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// AckTelemetry records that the hub has all messages up to and including seq, and
// returns how many rows went. It may be repeated.
func (s *Store) AckTelemetry(seq uint64) (total int, err error) {
	for {
		n := 0
		err := s.update(s.results, func(tx *bolt.Tx) (err error) {
			n, err = dropTelemetry(tx, seqKey(seq), telemetryBatch)
			return err
		})
		total += n
		if err != nil || n < telemetryBatch {
			return total, err
		}
	}
}

func (s *Store) openTelemetry(tx *bolt.Tx, k, v []byte) (Telemetry, error) {
	seq, err := parseSeq(k)
	if err != nil {
		return Telemetry{}, badRecord("telemetry", k, err)
	}
	p, err := s.unseal(tx, v, telemetryBinding(k))
	if err != nil {
		return Telemetry{}, badRecord("telemetry", k, err)
	}
	t, err := decodeTelemetry(p)
	if err != nil {
		return Telemetry{}, badRecord("telemetry", k, err)
	}
	t.Seq = seq
	return t, nil
}

func decodeTelemetry(p []byte) (Telemetry, error) {
	var t Telemetry
	if err := decodeHeader(p, &t); err != nil {
		return Telemetry{}, err
	}
	if len(t.Payload) == 0 || len(t.Payload) > maxTelemetry {
		return Telemetry{}, errors.New("its length is out of range")
	}
	return t, nil
}

// growResults is grow for results: while the file is too full it lets the oldest
// telemetry go. Only when there is none left is the result refused.
func (s *Store) growResults(fn func(*bolt.Tx) error) error {
	for {
		err := s.grow(s.results, fn)
		if !isSizeLimit(err) {
			return err
		}
		if n, dropErr := s.sacrifice(); n == 0 || dropErr != nil {
			return err
		}
	}
}

// sacrifice drops a batch of the oldest telemetry and counts it.
func (s *Store) sacrifice() (n int, err error) {
	err = s.update(s.results, func(tx *bolt.Tx) (err error) {
		if have, err := number(bucket(tx, bucketMeta), keyTelemetry); have == 0 || err != nil {
			return errors.Join(err, errNothing)
		}
		if n, err = dropTelemetry(tx, nil, telemetryBatch); err != nil {
			return err
		}
		return addNumber(bucket(tx, bucketMeta), keyTelemetryDropped, n)
	})
	if err == nil {
		s.opts.Log.Warn("telemetry gave way to results", "rows", n, "file", s.results.path)
	}
	return n, err
}

// errNothing ends a transaction that has nothing to do.
var errNothing = coded(agent.CodeNotFound, "there is no telemetry")

func isSizeLimit(err error) bool {
	return errors.Is(err, errSoftCap) || errors.Is(err, berrors.ErrMaxSizeReached)
}

// errSoftCap is the cause of a refusal at 80 % of Options.MaxBytes.
var errSoftCap = errors.New("80 % of the limit are in use")
