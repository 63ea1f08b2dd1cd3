package store

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"postern/agent"
)

// ackBatch is how many outbox rows one transaction deletes.
const ackBatch = 256

// Outbox returns results that the hub has not acknowledged, oldest first,
// starting with the first Seq that is not below from, at most limit (1..1000; 0
// means 100). It changes nothing: a row leaves by Ack only.
func (s *Store) Outbox(from uint64, limit int) ([]agent.Result, error) {
	limit = clampLimit(limit)
	out := []agent.Result{}
	err := s.view(s.results, func(tx *bolt.Tx) error {
		results := bucket(tx, bucketResults)
		c := bucket(tx, bucketOutbox).Cursor()
		for k, _ := c.Seek(seqKey(from)); k != nil && len(out) < limit; k, _ = c.Next() {
			r, err := s.openResult(tx, k, results.Get(k))
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// OutboxDepth returns how many results the hub has not acknowledged.
func (s *Store) OutboxDepth() (int, error) {
	st, err := s.Stats()
	return st.Outbox, err
}

// Ack records that the hub has every result of the epoch up to and including
// seq, deletes their outbox rows and returns how many there were. The results
// themselves stay. It is cumulative and may be repeated: an older seq removes
// nothing. An ack for another epoch is agent.CodeConflict and one beyond the
// newest result agent.CodeInvalid; neither changes anything.
//
// Rows go in small transactions, and in smaller ones when the file is full, so
// an error may leave a part of the work done.
func (s *Store) Ack(epoch string, seq uint64) (int, error) {
	if epoch != s.Epoch() {
		return 0, coded(agent.CodeConflict, "acknowledgement of epoch %.80q, the present one is %q", epoch, s.Epoch())
	}
	total, batch := 0, uint64(ackBatch)
	for {
		n, err := s.ackSome(seq, batch)
		total += n
		switch {
		case errors.Is(err, berrors.ErrMaxSizeReached) && batch > 1:
			batch /= 2
		case err != nil || n < int(batch):
			return total, err
		}
	}
}

// ackSome removes at most batch rows. The mark moves with the rows, so rows and
// mark agree at every moment.
func (s *Store) ackSome(seq, batch uint64) (removed int, err error) {
	if done, err := s.acked(seq); done || err != nil {
		return 0, err // without the cost of a commit
	}
	err = s.update(s.results, func(tx *bolt.Tx) (err error) {
		var c counters
		last, acked := c.read(tx, keyLast), c.read(tx, keyAcked)
		switch {
		case c.err != nil:
			return c.err
		case seq > last:
			return invalid("acknowledgement of result %d, the newest is %d", seq, last)
		case seq <= acked:
			return nil
		}
		removed, err = dropOutbox(tx, seq, int(batch))
		return err
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// acked reports whether there is nothing to do for an acknowledgement.
func (s *Store) acked(seq uint64) (done bool, err error) {
	err = s.view(s.results, func(tx *bolt.Tx) error {
		acked, err := number(bucket(tx, bucketMeta), keyAcked)
		done = seq <= acked
		return err
	})
	return done, err
}

// dropOutbox deletes the oldest rows up to seq, at most batch, and moves the mark: to
// the last of them while there may be more, else to seq. Numbers may be missing.
func dropOutbox(tx *bolt.Tx, seq uint64, batch int) (removed int, err error) {
	b, meta := appendBucket(tx, bucketOutbox), bucket(tx, bucketMeta)
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil && bytes.Compare(k, seqKey(seq)) <= 0 && len(keys) < batch; k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return 0, err
		}
	}
	mark := seqKey(seq)
	if len(keys) == batch {
		mark = keys[batch-1]
	}
	return len(keys), errors.Join(addNumber(meta, keyPending, -len(keys)), meta.Put([]byte(keyAcked), mark))
}
