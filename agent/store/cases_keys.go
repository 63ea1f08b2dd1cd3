package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

// KeyHash is what is kept of an API key's secret. The secret has more than 128 bits
// of randomness, so a plain hash cannot be searched.
func KeyHash(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// CreateKey stores an API key under the hash of its secret and returns it as stored.
func (s *Store) CreateKey(k cases.Key, hash [sha256.Size]byte) (cases.Key, error) {
	if err := s.fillID(&k.ID); err != nil {
		return k, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		hashes := bucket(tx, caseKeyHashes)
		if has(hashes, hash[:]) || has(bucket(tx, caseKeys), []byte(k.ID)) {
			return coded(agent.CodeConflict, "the API key is there already")
		}
		k.CreatedAt = s.now()
		if err := hashes.Put(hash[:], []byte(k.ID)); err != nil {
			return err
		}
		return s.putKey(tx, &k)
	})
	return k, err
}

func (s *Store) putKey(tx *bolt.Tx, k *cases.Key) error {
	return s.putCase(tx, caseKeys, []byte(k.ID), k, caseBinding(KindKey, "", k.ID))
}

func (s *Store) openKey(id, v []byte) (cases.Key, error) {
	var k cases.Key
	err := s.openCase(id, v, &k, caseBinding(KindKey, "", string(id)))
	return k, err
}

// KeyByHash returns the key with this hash, revoked and expired ones too, or
// agent.CodeNotFound. Nothing is learned from how long it takes: a caller cannot
// choose a hash.
func (s *Store) KeyByHash(hash [sha256.Size]byte) (cases.Key, error) {
	var k cases.Key
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		id := bucket(tx, caseKeyHashes).Get(hash[:])
		if id == nil {
			return coded(agent.CodeNotFound, "there is no such API key")
		}
		k, err = s.openKey(id, bucket(tx, caseKeys).Get(id))
		return err
	})
	return k, err
}

// Keys lists all API keys, oldest first.
func (s *Store) Keys() ([]cases.Key, error) {
	out := []cases.Key{}
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		return bucket(tx, caseKeys).ForEach(func(id, v []byte) error {
			k, err := s.openKey(id, v)
			out = append(out, k)
			return err
		})
	})
	return out, err
}

// RevokeKey marks a key as revoked; repeating it keeps the first time.
func (s *Store) RevokeKey(id string) (cases.Key, error) {
	return s.updateKey(id, func(k *cases.Key) bool {
		if !k.RevokedAt.IsZero() {
			return false
		}
		k.RevokedAt = s.now()
		return true
	})
}

// TouchKey notes that a key was used. It is for people, so a minute is exact enough.
func (s *Store) TouchKey(id string) error {
	_, err := s.updateKey(id, func(k *cases.Key) bool {
		now := s.now()
		if now.Sub(k.LastUsed) < time.Minute {
			return false
		}
		k.LastUsed = now
		return true
	})
	return err
}

func (s *Store) updateKey(id string, change func(*cases.Key) bool) (cases.Key, error) {
	var k cases.Key
	err := s.update(s.cases, func(tx *bolt.Tx) (err error) {
		v := bucket(tx, caseKeys).Get([]byte(id))
		if id == "" || v == nil {
			return noCase("API key", id)
		}
		if k, err = s.openKey([]byte(id), v); err != nil || !change(&k) {
			return err
		}
		return s.putKey(tx, &k)
	})
	return k, err
}

// ErrOtherRequest: an idempotency key stands for another request already.
var ErrOtherRequest = errors.New("the idempotency key was used for another request")

// Replay returns the answer that was given under an idempotency key of a caller, or
// agent.CodeNotFound.
func (s *Store) Replay(caller, key string) (cases.Replay, error) {
	var r cases.Replay
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		k := replayKey(caller, key)
		v := bucket(tx, caseReplays).Get(k)
		if v == nil {
			return noCase("answer for idempotency key", key)
		}
		return s.openCase(k, v, &r, caseBinding(KindReplay, "", string(k)))
	})
	return r, err
}

func replayKey(caller, key string) []byte { return digest(caller + "\x00" + key) }

// PutReplay keeps an answer under an idempotency key of a caller. The first one
// stays: another is agent.CodeConflict.
func (s *Store) PutReplay(caller string, r cases.Replay) error {
	r.CreatedAt = s.now()
	return s.grow(s.cases, func(tx *bolt.Tx) error {
		k := replayKey(caller, r.Key)
		if has(bucket(tx, caseReplays), k) {
			return coded(agent.CodeConflict, "there is an answer for this idempotency key already")
		}
		if err := bucket(tx, caseReplayDates).Put(append(timeKey(r.CreatedAt), k...), nil); err != nil {
			return err
		}
		return s.putCase(tx, caseReplays, k, r, caseBinding(KindReplay, "", string(k)))
	})
}

// PruneReplays forgets answers from before a time, at most limit.
func (s *Store) PruneReplays(before time.Time, limit int) (n int, err error) {
	err = s.update(s.cases, func(tx *bolt.Tx) error {
		var keys [][]byte
		c := bucket(tx, caseReplayDates).Cursor()
		for k, _ := c.First(); k != nil && len(keys) < limit && bytes.Compare(k[:8], timeKey(before)) < 0; k, _ = c.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := bucket(tx, caseReplayDates).Delete(k); err != nil {
				return err
			}
			if err := bucket(tx, caseReplays).Delete(k[8:]); err != nil {
				return err
			}
		}
		n = len(keys)
		return nil
	})
	return n, err
}
