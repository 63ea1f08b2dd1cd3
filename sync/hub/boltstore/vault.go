package boltstore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/sync/hub"
	"postern/sync/wire"
)

// The bodies of rows are encrypted, each under a random key of whom it is about, which is
// kept wrapped under the hub's key. Forgetting that key is forgetting what all of the
// person's rows say, while their numbers stay: they must not be asked for again.

// Sealing says how a store encrypts. The zero value does not.
type Sealing struct {
	Key []byte // 32 random bytes, kept elsewhere
	// Tag names whom a row is about, so that the file does not; it is the fleet's.
	Tag func(subject string) []byte
}

// nobody owns the rows that are about nobody. Tags are longer.
var nobody = []byte("-")

type vault struct {
	wrap cipher.AEAD
	tag  func(string) []byte
}

func newVault(s Sealing) (*vault, error) {
	if s.Key == nil {
		return nil, nil
	}
	a, err := aead(s.Key)
	if err != nil || s.Tag == nil {
		return nil, errors.Join(err, errIncomplete(s))
	}
	return &vault{a, s.Tag}, nil
}

func errIncomplete(s Sealing) error {
	if s.Tag == nil {
		return errors.New("nothing says whom rows are about")
	}
	return nil
}

func aead(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("a key of %d bytes", len(key))
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

// about is what a row's body says that the store must know.
type about struct {
	Subject string    `cbor:"subject_id"`
	At      time.Time `cbor:"at"`
}

// seal encrypts a record's body, and leaves it away where the person was erased after it.
func (v *vault) seal(tx *bolt.Tx, place []byte, r *rowRecord) error {
	if v == nil {
		return nil
	}
	var a about
	_ = wire.Unmarshal(r.Body, &a) // what is no result is about nobody
	r.Owner = nobody
	if a.Subject != "" {
		r.Owner, r.Decided = v.tag(a.Subject), stamp(a.At)
	}
	if erasedAt, is := erasedAt(tx, r.Owner); is && !a.At.After(erasedAt) {
		r.Body, r.Refused = nil, ""
		return nil
	}
	key, err := v.owner(tx, r.Owner, true)
	if err != nil {
		return err
	}
	if r.Refused != "" && a.Subject != "" {
		r.Refused = "not a result" // the words may show what they are about
	}
	r.Body = key.Seal(nil, nil, r.Body, place)
	return nil
}

// owner gives the key of whom rows are about; nil where it is forgotten.
func (v *vault) owner(tx *bolt.Tx, owner []byte, create bool) (cipher.AEAD, error) {
	b := tx.Bucket(bucketOwners)
	if wrapped := b.Get(owner); wrapped != nil {
		key, err := v.wrap.Open(nil, nil, wrapped, owner)
		if err != nil {
			return nil, errors.New("a key of the hub's record is damaged, or of another hub")
		}
		defer clear(key)
		return aead(key)
	}
	if !create {
		return nil, nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	defer clear(key)
	if err := b.Put(bytes.Clone(owner), v.wrap.Seal(nil, nil, key, owner)); err != nil {
		return nil, err
	}
	return aead(key)
}

// opener opens the rows of one transaction.
type opener struct {
	v    *vault
	tx   *bolt.Tx
	keys map[string]cipher.AEAD
}

// open gives a record's body, nil where it is forgotten.
func (o *opener) open(place []byte, r rowRecord) ([]byte, error) {
	if r.Owner == nil || r.Body == nil {
		return r.Body, nil
	}
	if o.v == nil {
		return nil, errors.New("it is encrypted, and no key was given")
	}
	key, ok := o.keys[string(r.Owner)]
	if !ok {
		var err error
		if key, err = o.v.owner(o.tx, r.Owner, false); err != nil {
			return nil, err
		}
		o.keys[string(r.Owner)] = key
	}
	if key == nil {
		return nil, nil
	}
	body, err := key.Open(nil, nil, r.Body, place)
	if err != nil {
		if _, erased := erasedAt(o.tx, r.Owner); erased {
			return nil, nil // it was under the key before the present one, which is forgotten
		}
		return nil, errors.New("a row of the hub's record is damaged, or belongs elsewhere")
	}
	return body, nil
}

func erasedAt(tx *bolt.Tx, tag []byte) (at time.Time, is bool) {
	v := tx.Bucket(bucketErased).Get(tag)
	if v == nil || wire.Unmarshal(v, &at) != nil {
		return time.Time{}, v != nil
	}
	return at, true
}

// Erase implements hub.Store.
func (s *Store) Erase(es []wire.Erasure) (n int, err error) {
	if es, err = s.newErasures(es); err != nil || len(es) == 0 {
		return 0, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		n = 0
		for _, e := range es {
			v, err := wire.Marshal(time.UnixMicro(e.At).UTC())
			if err != nil {
				return err
			}
			if tx.Bucket(bucketOwners).Get(e.Tag) != nil {
				n++
			}
			if err := errors.Join(tx.Bucket(bucketErased).Put(e.Tag, v), tx.Bucket(bucketOwners).Delete(e.Tag)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put([]byte(keyShred), []byte{1})
	})
	if err != nil {
		return 0, unusable(s.db.Path(), err)
	}
	return n, nil
}

// newErasures leaves away those that are known.
func (s *Store) newErasures(es []wire.Erasure) (out []wire.Erasure, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		for _, e := range es {
			if at, is := erasedAt(tx, e.Tag); !is || at.UnixMicro() < e.At {
				out = append(out, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	return out, nil
}

// expireAtOnce bounds what one transaction deletes.
const expireAtOnce = 1000

// Expire implements hub.Store.
func (s *Store) Expire(before time.Time) (total int, err error) {
	for {
		n := 0
		err := s.db.Update(func(tx *bolt.Tx) error {
			keys, err := expired(tx, before, expireAtOnce)
			n = len(keys)
			for _, k := range keys {
				err = errors.Join(err, tx.Bucket(bucketRows).Delete(k))
			}
			return err
		})
		if err != nil {
			return total, unusable(s.db.Path(), err)
		}
		if total += n; n < expireAtOnce {
			return total, nil
		}
	}
}

// expired finds rows that are acknowledged and older.
func expired(tx *bolt.Tx, before time.Time, limit int) (keys [][]byte, err error) {
	var stream []byte
	var st streamRecord
	c := tx.Bucket(bucketRows).Cursor()
	for k, v := c.First(); k != nil && len(keys) < limit; k, v = c.Next() {
		if name := k[:len(k)-9]; !bytes.Equal(name, stream) {
			stream = bytes.Clone(name)
			if st, err = readStream(tx, stream); err != nil {
				return nil, err
			}
		}
		var r rowRecord
		if err := wire.Unmarshal(v, &r); err != nil {
			return nil, err
		}
		at := r.Decided
		if at.IsZero() {
			at = r.At
		}
		if seqOf(k) <= st.Acked && at.Before(before) {
			keys = append(keys, bytes.Clone(k))
		}
	}
	return keys, nil
}

// sealAll encrypts what was stored before there was a key.
func (s *Store) sealAll() error {
	for {
		done := false
		err := s.db.Update(func(tx *bolt.Tx) error {
			rows := tx.Bucket(bucketRows)
			found := map[string][]byte{}
			c := rows.Cursor()
			for k, v := c.First(); k != nil && len(found) < expireAtOnce; k, v = c.Next() {
				var r rowRecord
				if err := wire.Unmarshal(v, &r); err != nil {
					return err
				}
				if r.Owner != nil {
					continue
				}
				if err := s.vault.seal(tx, k, &r); err != nil {
					return err
				}
				sealed, err := wire.Marshal(r)
				if err != nil {
					return err
				}
				found[string(k)] = sealed
			}
			for k, v := range found {
				if err := rows.Put([]byte(k), v); err != nil {
					return err
				}
			}
			if done = len(found) < expireAtOnce; done {
				return errors.Join(tx.Bucket(bucketMeta).Put([]byte("schema"), []byte(sealedSchema)), tx.Bucket(bucketMeta).Put([]byte(keyShred), []byte{1}))
			}
			return nil
		})
		if err != nil || done {
			return err
		}
	}
}

var _ hub.Store = (*Store)(nil)
