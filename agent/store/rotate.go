package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// Level names what a rotation replaces.
type Level string

// The levels of keys, from the root down.
const (
	LevelRoot   Level = "root"   // the root key
	LevelStore  Level = "store"  // the store keys of every file
	LevelOwners Level = "owners" // the keys of every person and session, and all records under them
)

// Rotation says what Rotate did.
type Rotation struct {
	Level   Level `json:"level"`
	Wrapped int   `json:"wrapped"` // keys that were wrapped anew
	Sealed  int   `json:"sealed"`  // records that were encrypted anew
}

// Rotate replaces keys while the store is in use, in small transactions. Killed in
// between, it goes on at the next Open. Rotating the store keys makes erasures
// final: after it nothing in the folder can open an old page that still holds the
// key of somebody who was erased, and after Compact there is no such page.
func (s *Store) Rotate(l Level, actor string) (Rotation, error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	// A copy under keys that go away could not be opened when it is needed.
	err := s.eachFile(s.dropCopy)
	if err != nil {
		return Rotation{}, err
	}
	switch l {
	case LevelRoot:
		err = s.root.Rotate()
	case LevelStore:
		err = s.eachFile(s.addStoreKeys)
	case LevelOwners:
		err = s.eachFile(s.addRound)
	default:
		return Rotation{}, invalid("there is no level of keys %.40q", l)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = &agent.Error{Code: agent.CodeInvalid, Message: "a root key from a credential is rotated by who provides it",
			Fix: "postern vault new-root --old FILE makes the credential with a new key in front; restart, and then drop the old one"}
	}
	if err != nil {
		return Rotation{}, err
	}
	r := Rotation{Level: l}
	if err := errors.Join(s.finishRotations(&r), s.eachFile(s.dropCopy)); err != nil {
		return r, err
	}
	return r, s.Audit(agent.AuditEvent{Action: agent.AuditRotate, Actor: actor, Detail: map[string]string{
		"level": string(l), "wrapped": fmt.Sprint(r.Wrapped), "sealed": fmt.Sprint(r.Sealed)}})
}

func (s *Store) eachFile(fn func(*dbFile) error) error {
	for _, d := range s.files() {
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// finishRotations does what is left to do at every level, from the root down.
func (s *Store) finishRotations(r *Rotation) error {
	if err := s.eachFile(s.finishBurials); err != nil {
		return err
	}
	for _, step := range []func(*dbFile, *Rotation) error{s.rewrap, s.finishOwners, s.finishStoreKeys} {
		if err := s.eachFile(func(d *dbFile) error { return step(d, r) }); err != nil {
			return err
		}
	}
	if s.opts.Rewrap != nil {
		if err := s.opts.Rewrap(s.root); err != nil {
			return err
		}
	}
	s.note(s.keepIdentity())
	return s.root.Settle() // only now nothing needs an older root key
}

// rewrap wraps under the root key in use what a replaced one wrapped.
func (s *Store) rewrap(d *dbFile, r *Rotation) error {
	var stale [][]byte
	err := s.view(d, func(tx *bolt.Tx) error {
		return bucket(tx, bucketKeys).ForEach(func(k, v []byte) error {
			key, current, err := d.vault.unwrapStoreKey(k, v)
			clear(key)
			if err == nil && !current {
				stale = append(stale, bytes.Clone(k))
			}
			return err
		})
	})
	if err != nil || len(stale) == 0 {
		return err
	}
	r.Wrapped += len(stale)
	// Buried: the previous commit, which recovery may fall back on, must not need a root
	// key that is about to be dropped.
	return s.bury(d, func(tx *bolt.Tx) error {
		b := bucket(tx, bucketKeys)
		for _, k := range stale {
			if err := d.vault.rewrapStoreKey(b, k); err != nil {
				return err
			}
		}
		return nil
	})
}

// addStoreKeys puts a new version of each store key beside the old one.
func (s *Store) addStoreKeys(d *dbFile) error {
	return s.update(d, func(tx *bolt.Tx) error {
		for _, c := range classes {
			if err := d.vault.addStoreKey(tx, c, storeKeyVersion(tx, c)+1, s.now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// finishStoreKeys wraps all owners' keys under the newest store keys and then
// deletes the others.
func (s *Store) finishStoreKeys(d *dbFile, r *Rotation) error {
	old := s.oldStoreKeys(d)
	if len(old) == 0 {
		return nil
	}
	stale := func(tx *bolt.Tx, v []byte) bool {
		return len(v) >= 5 && binary.BigEndian.Uint32(v[1:]) < storeKeyVersion(tx, class(v[0]))
	}
	for again := true; again; {
		err := s.update(d, func(tx *bolt.Tx) error {
			rows := staleOwners(tx, stale)
			again = len(rows) == rewriteBatch
			for _, k := range rows {
				if err := d.vault.rewrapOwner(tx, k); err != nil {
					return badRecord("owner's keys", k, err)
				}
			}
			r.Wrapped += len(rows)
			return nil
		})
		if err != nil {
			return err
		}
	}
	// The good copy holds the old keys as well.
	err := s.bury(d, func(tx *bolt.Tx) error {
		for _, k := range old {
			if err := bucket(tx, bucketKeys).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	d.vault.forget()
	return err
}

// oldStoreKeys lists the rows of store keys that are not their class's newest.
func (s *Store) oldStoreKeys(d *dbFile) (old [][]byte) {
	// An error shows again in what follows.
	_ = s.view(d, func(tx *bolt.Tx) error {
		return bucket(tx, bucketKeys).ForEach(func(k, _ []byte) error {
			if len(k) == 6 && k[0] == 'k' && binary.BigEndian.Uint32(k[2:]) < storeKeyVersion(tx, class(k[1])) {
				old = append(old, bytes.Clone(k))
			}
			return nil
		})
	})
	return old
}

// staleOwners collects rows of bucket owners, a batch at most.
func staleOwners(tx *bolt.Tx, stale func(tx *bolt.Tx, v []byte) bool) (rows [][]byte) {
	c := bucket(tx, bucketOwners).Cursor()
	for k, v := c.First(); k != nil && len(rows) < rewriteBatch; k, v = c.Next() {
		if stale(tx, v) {
			rows = append(rows, bytes.Clone(k))
		}
	}
	return rows
}

// rewrapOwner wraps an owner's keys under the newest store key.
func (v *vault) rewrapOwner(tx *bolt.Tx, row []byte) error {
	pair, err := v.unwrapOwner(tx, row, bucket(tx, bucketOwners).Get(row))
	if err != nil {
		return err
	}
	defer clear(pair)
	return v.putOwner(tx, row, pair)
}

// forget empties the caches of keys that are not in use any more.
func (v *vault) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.store)
	v.general = cachedKeys{}
}

// addRound begins a new generation of owners' keys.
func (s *Store) addRound(d *dbFile) error {
	return s.update(d, func(tx *bolt.Tx) error {
		n, err := round(tx)
		if err != nil {
			return err
		}
		return setNumber(bucket(tx, bucketMeta), keyRound, uint64(n)+1)
	})
}

// round is the generation that every owner's keys are to have.
func round(tx *bolt.Tx) (uint32, error) {
	n, err := number(bucket(tx, bucketMeta), keyRound)
	if err == nil && n > 1<<32-2 {
		err = errors.New("the round of keys is malformed")
	}
	return uint32(max(n, 1)), err
}

// finishOwners gives every owner keys of the present round, seals all records anew
// under them, and then deletes the older keys.
func (s *Store) finishOwners(d *dbFile, r *Rotation) error {
	var now uint32
	pending := false
	err := s.view(d, func(tx *bolt.Tx) (err error) {
		if now, err = round(tx); err != nil {
			return err
		}
		c := bucket(tx, bucketOwners).Cursor()
		for k, _ := c.First(); k != nil && !pending; k, _ = c.Next() {
			_, gen, err := splitOwnerRow(k)
			if err != nil {
				return badRecord("owner's keys", k, err)
			}
			pending = gen != now
		}
		return nil
	})
	if err != nil || !pending {
		return err
	}
	if err := s.renewOwners(d, now, r); err != nil {
		return err
	}
	n, err := s.rewriteRows(d, func(_ Binding, sealed []byte) bool {
		gen, _, _, err := splitSealed(sealed)
		return err == nil && gen != now
	})
	r.Sealed += n
	if err != nil {
		return err
	}
	return s.dropGenerations(d, now)
}

// renewOwners adds a generation to every owner that lacks it.
func (s *Store) renewOwners(d *dbFile, now uint32, r *Rotation) error {
	for after := []byte(nil); ; {
		var last []byte
		err := s.update(d, func(tx *bolt.Tx) error {
			var owners []string
			owners, last = ownersLacking(tx, after, now)
			for _, o := range owners {
				if err := d.vault.addOwner(tx, o, now); err != nil {
					return err
				}
			}
			r.Wrapped += len(owners)
			return nil
		})
		if err != nil || last == nil {
			return err
		}
		after = last
	}
}

func ownersLacking(tx *bolt.Tx, after []byte, gen uint32) (owners []string, last []byte) {
	c := bucket(tx, bucketOwners).Cursor()
	for k, _ := seekAfter(c, after); k != nil; k, _ = c.Next() {
		owner, g, err := splitOwnerRow(k)
		if err != nil || g == gen || bucket(tx, bucketOwners).Get(ownerRow(owner, gen)) != nil {
			continue
		}
		if n := len(owners); n == 0 || owners[n-1] != owner {
			owners = append(owners, owner)
		}
		if len(owners) == rewriteBatch {
			return owners, bytes.Clone(k)
		}
	}
	return owners, nil
}

func (s *Store) dropGenerations(d *dbFile, now uint32) error {
	for again := true; again; {
		err := s.bury(d, func(tx *bolt.Tx) error {
			n := 0
			b := bucket(tx, bucketOwners)
			var old [][]byte
			c := b.Cursor()
			for k, _ := c.First(); k != nil && n < rewriteBatch; k, _ = c.Next() {
				if _, gen, err := splitOwnerRow(k); err == nil && gen != now {
					old = append(old, bytes.Clone(k))
					n++
				}
			}
			again = n == rewriteBatch
			for _, k := range old {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	d.vault.forget()
	return nil
}

// KeyInfo says what keys a file has.
type KeyInfo struct {
	File    string    `json:"file"`
	Version uint32    `json:"store_key_version"`
	Made    time.Time `json:"store_key_made"`
	Round   uint32    `json:"owner_key_round"`
	Owners  int       `json:"owners"` // people and sessions with keys of their own
}

// Keys lists the keys of each file, without any secret.
func (s *Store) Keys() ([]KeyInfo, error) {
	out := []KeyInfo{}
	for _, d := range s.files() {
		i := KeyInfo{File: d.schema.kind}
		err := s.view(d, func(tx *bolt.Tx) (err error) {
			i.Version, i.Made = storeKeyVersion(tx, classBiometric), storeKeyMade(tx)
			if i.Round, err = round(tx); err != nil {
				return err
			}
			return bucket(tx, bucketOwners).ForEach(func(k, _ []byte) error {
				if owner, gen, err := splitOwnerRow(k); err == nil && owner != "" && gen == i.Round {
					i.Owners++
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func storeKeyMade(tx *bolt.Tx) time.Time {
	v := bucket(tx, bucketKeys).Get(storeKeyRow(classBiometric, storeKeyVersion(tx, classBiometric)))
	if len(v) < 8 {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(v))).UTC()
}

// RotationDue reports whether the store keys are older than every, or somebody was
// erased since they were made, at least after ago.
func (s *Store) RotationDue(every, after time.Duration) (bool, error) {
	due := false
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		made, now := storeKeyMade(tx), s.now()
		due = every > 0 && now.Sub(made) >= every
		return bucket(tx, bucketErased).ForEach(func(k, v []byte) error {
			t, err := openTombstone(k, v)
			due = due || err == nil && t.At.After(made) && now.Sub(t.At) >= after
			return err
		})
	})
	return due, err
}

// Compact rewrites every file without its free pages and overwrites the old one, so
// that no page is left of what was deleted. Everything waits meanwhile.
func (s *Store) Compact() error {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	return s.eachFile(s.compactOnline)
}

func (s *Store) compactOnline(d *dbFile) error {
	if err := s.refusal(d); err != nil {
		return err
	}
	s.copying.Lock()
	defer s.copying.Unlock()
	if err := s.dropCopy(d); err != nil {
		return err
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	d.swap.Lock() // no reader has a page of the file mapped
	defer d.swap.Unlock()
	again, err := compactFile(d, d.schema, s.opts)
	if again != nil && again != d {
		d.db, d.handle = again.db, again.handle
	}
	if err == nil {
		return nil
	}
	err = diskError(d.name(), err)
	if d.db.View(func(*bolt.Tx) error { return nil }) != nil {
		s.noteBroken(err) // it was closed and could not be opened again
	}
	return err
}
