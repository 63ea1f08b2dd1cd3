package store

import (
	"bytes"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// maxReplays bounds the requests that are remembered; the oldest give way.
const maxReplays = 10_000

// replayKey keeps what callers choose out of keys that others may read.
func replayKey(caller, key string) []byte { return digest(caller + "\x00" + key) }

func replayDate(at time.Time, key []byte) []byte { return append(timeKey(at), key...) }

// Replay returns what is known of a caller's request with an Idempotency-Key, or
// agent.CodeNotFound.
func (s *Store) Replay(caller, key string) (agent.Replay, error) {
	var r agent.Replay
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		r, err = s.replay(tx, replayKey(caller, key))
		return err
	})
	return r, err
}

func (s *Store) replay(tx *bolt.Tx, k []byte) (agent.Replay, error) {
	var r agent.Replay
	v := bucket(tx, caseReplays).Get(k)
	if v == nil {
		return r, noCase("request with this", "Idempotency-Key")
	}
	owner, sealed, err := cutOwner(v)
	if err != nil {
		return r, badRecord(KindReplay, k, err)
	}
	return r, s.openCase(tx, k, sealed, &r, caseBinding(KindReplay, owner, string(k)))
}

// PutReplay remembers a request, or its answer. An answer about a session or a list
// entry is sealed to that, so that erasing the one erases the other.
func (s *Store) PutReplay(caller, key string, r agent.Replay) error {
	k := replayKey(caller, key)
	r.At = stamp(r.At)
	return s.grow(s.cases, func(tx *bolt.Tx) error {
		if err := s.dropReplay(tx, k); err != nil {
			return err
		}
		owner := ownerAbout(tx, r.About)
		b := bucket(tx, caseReplays)
		if err := s.putCase(tx, caseReplays, k, r, caseBinding(KindReplay, owner, string(k))); err != nil {
			return err
		}
		err := errors.Join(b.Put(k, append(owned(owner), b.Get(k)...)), bucket(tx, caseReplayDates).Put(replayDate(r.At, k), nil))
		if r.About != "" {
			err = errors.Join(err, bucket(tx, caseReplayAbout).Put(append(prefix(r.About), k...), nil))
		}
		return err
	})
}

// ownerAbout is the owner of the session or list entry with this id; "" for none.
func ownerAbout(tx *bolt.Tx, id string) string {
	for _, owner := range []string{SessionOwner(id), EntryOwner(id)} {
		if id != "" && countPrefix(bucket(tx, bucketOwners), prefix(owner)) > 0 {
			return owner
		}
	}
	return ""
}

// DropReplay forgets a request, so that it can be made anew.
func (s *Store) DropReplay(caller, key string) error {
	return s.update(s.cases, func(tx *bolt.Tx) error { return s.dropReplay(tx, replayKey(caller, key)) })
}

func (s *Store) dropReplay(tx *bolt.Tx, k []byte) error {
	r, err := s.replay(tx, k)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(bucket(tx, caseReplays).Delete(k), bucket(tx, caseReplayDates).Delete(replayDate(r.At, k)),
		bucket(tx, caseReplayAbout).Delete(append(prefix(r.About), k...)))
}

// dropReplaysAbout forgets the answers about a session or a list entry.
func (s *Store) dropReplaysAbout(tx *bolt.Tx, id string) error {
	var keys [][]byte
	c, p := bucket(tx, caseReplayAbout).Cursor(), prefix(id)
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k[len(p):]))
	}
	for _, k := range keys {
		if err := s.dropReplay(tx, k); err != nil {
			return err
		}
	}
	return nil
}

// PruneReplays forgets requests that began before a moment, and the oldest of too many,
// at most limit, and returns how many.
func (s *Store) PruneReplays(before time.Time, limit int) (n int, err error) {
	var keys [][]byte
	if err := s.view(s.cases, func(tx *bolt.Tx) error {
		b := bucket(tx, caseReplayDates)
		over := b.Stats().KeyN - maxReplays
		c, end := b.Cursor(), timeKey(before)
		for k, _ := c.First(); k != nil && len(keys) < limit && (len(keys) < over || bytes.Compare(k[:8], end) < 0); k, _ = c.Next() {
			keys = append(keys, bytes.Clone(k[8:]))
		}
		return nil
	}); err != nil || len(keys) == 0 {
		return 0, err
	}
	err = s.update(s.cases, func(tx *bolt.Tx) error {
		for _, k := range keys {
			if err := s.dropReplay(tx, k); err != nil {
				return err
			}
		}
		return nil
	})
	return len(keys), err
}
