package store

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent/keys"
)

// A fleet names people to itself by a keyed hash of their id, under a key that the hub
// has made and gives to its devices: an erasure that travels and is kept for good
// names nobody to who does not have the key.

// Erasure is what a fleet keeps of an erased person.
type Erasure struct {
	Tag     string    `json:"tag"`     // of the id, by the fleet's key, in hex
	Version uint64    `json:"version"` // enrolments up to this one are void
	At      time.Time `json:"at"`
	Told    bool      `json:"told,omitempty"` // on a device: the hub has it
}

// Position is how far desired state has come. The stamp is random for each version, so
// that a hub which was restored from a copy and went on differently is noticed.
type Position struct {
	Version uint64
	Stamp   []byte
}

// StampSize is the length of Position.Stamp.
const StampSize = 8

const (
	rowFleet   = "s/fleet"  // key of the hashes of personal ids within the fleet
	rowSealing = "s/hpke"   // X25519 key to which the hub seals what is for this device
	rowRecord  = "s/record" // wraps the keys of a hub's record
	tagSize    = 16
)

// FleetKey is the fleet's key; nil on a device that no hub has told yet.
func (s *Store) FleetKey() []byte {
	if k := s.fleet.Load(); k != nil {
		return *k
	}
	return nil
}

// readFleetKey reads the key where there is one.
func (s *Store) readFleetKey() error {
	var value []byte
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		value = bytes.Clone(bucket(tx, bucketKeys).Get([]byte(rowFleet)))
		return nil
	})
	if err != nil || value == nil {
		return err
	}
	key, _, err := s.templates.vault.unwrapStoreKey([]byte(rowFleet), value)
	if err != nil || len(key) != keys.Size {
		return damaged(s.templates.name(), cmp.Or(err, errSecret))
	}
	s.fleet.Store(&key)
	return nil
}

// putFleetKey takes over the key that the hub has given.
func (s *Store) putFleetKey(tx *bolt.Tx, key []byte) error {
	if len(key) != keys.Size {
		return invalid("a fleet's key of %d bytes is not %d long", len(key), keys.Size)
	}
	row := []byte(rowFleet)
	wrapped, err := s.root.Wrap(key, s.templates.vault.bind("store key", row))
	if err != nil {
		return err
	}
	kept := bytes.Clone(key)
	tx.OnCommit(func() { s.fleet.Store(&kept) })
	return bucket(tx, bucketKeys).Put(row, append(seqKey(uint64(s.now().UnixMicro())), wrapped...))
}

// SealingKey is the device's X25519 key, to which the hub seals what is for it alone.
func (s *Store) SealingKey() ([]byte, error) { return s.secret(rowSealing, 32) }

// RecordKey is the key under which a hub keeps its record.
func (s *Store) RecordKey() ([]byte, error) { return s.secret(rowRecord, keys.Size) }

// SignFleet signs with the store's Ed25519 key, whose public half is PublicKey: a hub
// what it tells its devices. The context keeps one kind of message from being taken for another.
func (s *Store) SignFleet(context string, message []byte) []byte {
	return ed25519.Sign(s.signer, append([]byte(context+"\x00"), message...))
}

// FleetTag is the hex hash by which the fleet names a person; "" without a key.
func (s *Store) FleetTag(id string) string {
	if k := s.FleetKey(); k != nil {
		return hex.EncodeToString(tagBy(k, id))
	}
	return ""
}

func decodeErasure(k, v []byte) (Erasure, error) {
	var e Erasure
	err := json.Unmarshal(v, &e)
	if err == nil && (e.Tag != hex.EncodeToString(k) || len(k) != tagSize || e.Version == 0) {
		err = errors.New("it belongs to another record")
	}
	if err != nil {
		return Erasure{}, badRecord("erasure of the fleet", k, err)
	}
	return e, nil
}

// fleetErasure reads what the fleet knows of an erased id; its version is 0 when it
// does not.
func (s *Store) fleetErasure(tx *bolt.Tx, tag string) (Erasure, error) {
	k, err := hex.DecodeString(tag)
	if err != nil || len(k) == 0 {
		return Erasure{}, err
	}
	v := bucket(tx, bucketFleetErased).Get(k)
	if v == nil {
		return Erasure{}, nil
	}
	return decodeErasure(k, v)
}

func putErasure(tx *bolt.Tx, e Erasure) error {
	k, err := hex.DecodeString(e.Tag)
	if err != nil || len(k) != tagSize || e.Version == 0 {
		return invalid("an erasure of tag %.80q and version %d is not one", e.Tag, e.Version)
	}
	e.At = stamp(e.At)
	v, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return bucket(tx, bucketFleetErased).Put(k, v)
}

// Erasures lists what the fleet knows to be erased; with untold only those of which the
// hub has not said that it knows, at most limit; 0 is all.
func (s *Store) Erasures(untold bool, limit int) ([]Erasure, error) {
	out := []Erasure{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketFleetErased).Cursor()
		for k, v := c.First(); k != nil && (limit == 0 || len(out) < limit); k, v = c.Next() {
			e, err := decodeErasure(k, v)
			if err != nil {
				return err
			}
			if !untold || !e.Told {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// ToldErasures notes that the hub knows of these erasures.
func (s *Store) ToldErasures(es []Erasure) error {
	return s.update(s.templates, func(tx *bolt.Tx) error {
		for _, e := range es {
			have, err := s.fleetErasure(tx, e.Tag)
			if err != nil {
				return err
			}
			if have.Version == 0 || have.Told || e.Version < have.Version {
				continue
			}
			have.Told = true
			if err := putErasure(tx, have); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddErasures takes in erasures that were made elsewhere in the fleet: whoever is
// enrolled here no later is erased, and nobody is enrolled with a version that is void.
// Who is under a legal hold stays, and is not compared any more; their tags are
// returned. It may be repeated.
func (s *Store) AddErasures(es []Erasure, actor string) (held []string, err error) {
	s.holding.RLock()
	defer s.holding.RUnlock()
	v, err := s.void(es)
	if err != nil {
		return nil, err
	}
	err = s.bury(s.templates, func(tx *bolt.Tx) error { return s.applyErasures(tx, v, actor, false) })
	if err == nil {
		s.buried(v)
	}
	return v.heldTags(), err
}

// voided is erasures with whom they concern here.
type voided struct {
	erasures []Erasure
	ids      map[string]string // tag -> id of who is here and is erased
	held     map[string]bool   // ids that stay under a hold
	stones   []Tombstone       // that were made
}

func (v *voided) heldTags() []string {
	out := []string{}
	for tag, id := range v.ids {
		if v.held[id] {
			out = append(out, tag)
		}
	}
	slices.Sort(out)
	return out
}

// void finds out whom erasures concern, and deletes the sessions about them. The caller
// keeps s.holding.
func (s *Store) void(es []Erasure) (*voided, error) {
	v := &voided{erasures: es, ids: map[string]string{}, held: map[string]bool{}}
	if len(es) == 0 {
		return v, nil
	}
	byTag := map[string]Erasure{}
	for _, e := range es {
		if e.Version >= byTag[e.Tag].Version {
			byTag[e.Tag] = e
		}
	}
	subs, err := s.byFleetTag(func(tag string) bool { _, ok := byTag[tag]; return ok })
	if err != nil {
		return nil, err
	}
	for tag, sub := range subs {
		if sub.Version > byTag[tag].Version {
			continue // enrolled anew since
		}
		v.ids[tag] = sub.ID
		if s.deletable(HoldSubject, sub.ID) != nil {
			v.held[sub.ID] = true
		} else if err := s.eraseSessionsOf(sub.ID); err != nil {
			v.held[sub.ID] = true // a session of theirs is under a hold
			s.opts.Log.Warn("an erasure of the fleet is held back here", "err", err)
		}
	}
	return v, nil
}

// applyErasures erases within a transaction what void has found. told says that the hub
// knows of them.
func (s *Store) applyErasures(tx *bolt.Tx, v *voided, actor string, told bool) error {
	v.stones = nil
	for _, e := range v.erasures {
		if id, here := v.ids[e.Tag]; here {
			if err := s.eraseVoid(tx, v, id, e, actor); err != nil {
				return err
			}
		}
		have, err := s.fleetErasure(tx, e.Tag)
		if err != nil {
			return err
		}
		known := have.Version >= e.Version
		if known && (have.Told || !told) {
			continue
		}
		if !known {
			have = e
		}
		have.Told = told && have.Version <= e.Version
		if err := putErasure(tx, have); err != nil {
			return err
		}
		if !known {
			if err := s.touch(tx, changeErased+e.Tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// eraseVoid erases one person, or, under a hold, stops the use of their templates.
func (s *Store) eraseVoid(tx *bolt.Tx, v *voided, id string, e Erasure, actor string) error {
	sub, err := s.subject(tx, id)
	if err != nil || sub.Version > e.Version { // gone, or enrolled anew, since void looked
		return dropNotFound(err)
	}
	if v.held[id] {
		if sub.Consent.Withdrawn.IsZero() {
			sub.Consent.Withdrawn = s.now()
			return s.writeSubject(tx, sub)
		}
		return nil
	}
	t := s.tombstone(id, e.Version)
	t.Version = max(e.Version, 1) // not later: a new enrolment may be on its way
	t.Signature = hex.EncodeToString(ed25519.Sign(s.signer, t.text()))
	v.stones = append(v.stones, t)
	_, err = s.erase(tx, id, t, actor)
	return err
}

// buried does what follows a committed erasure.
func (s *Store) buried(v *voided) {
	for _, t := range v.stones {
		s.note(s.keepTombstone(t))
	}
	for _, id := range v.ids {
		if !v.held[id] {
			s.note(s.forgetAttempts(id))
		}
	}
}

// taggedSubject is who stands behind a tag.
type taggedSubject struct {
	ID      string
	Version uint64
}

// byFleetTag finds enrolled subjects by their tags.
func (s *Store) byFleetTag(want func(tag string) bool) (map[string]taggedSubject, error) {
	out, key := map[string]taggedSubject{}, s.FleetKey()
	if key == nil {
		return out, nil
	}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketSubjects).ForEach(func(k, v []byte) error {
			tag := hex.EncodeToString(tagBy(key, string(k)))
			if !want(tag) {
				return nil
			}
			sub, err := s.openSubject(tx, bytes.Clone(k), v)
			if err != nil {
				return err
			}
			out[tag] = taggedSubject{sub.ID, sub.Version}
			return nil
		})
	})
	return out, err
}

// SubjectsByTag finds the ids of enrolled subjects by the fleet's tags.
func (s *Store) SubjectsByTag(tags []string) ([]string, error) {
	set := map[string]bool{}
	for _, t := range tags {
		set[t] = true
	}
	subs, err := s.byFleetTag(func(tag string) bool { return set[tag] })
	ids := make([]string, 0, len(subs))
	for _, sub := range subs {
		ids = append(ids, sub.ID)
	}
	slices.Sort(ids)
	return ids, err
}

// erasedInFleet notes an erasure that was made here, for the fleet to hear of.
func (s *Store) erasedInFleet(tx *bolt.Tx, id string, t Tombstone) error {
	tag := s.FleetTag(id)
	if tag == "" {
		return nil
	}
	e := Erasure{Tag: tag, Version: t.Version, At: t.At}
	have, err := s.fleetErasure(tx, tag)
	if err != nil {
		return err
	}
	if err := s.untouch(tx, id); err != nil {
		return err
	}
	if err := bucket(tx, bucketManaged).Delete(mustHex(tag)); err != nil {
		return err
	}
	if have.Version >= e.Version {
		return nil
	}
	tx.OnCommit(func() { s.news() })
	return errors.Join(putErasure(tx, e), s.touch(tx, changeErased+tag))
}

func mustHex(tag string) []byte {
	b, err := hex.DecodeString(tag)
	if err != nil {
		panic(fmt.Sprintf("tag %q was not made here", tag))
	}
	return b
}

// FleetNews is told, without waiting, when there is something for the fleet to hear: on
// a hub that desired state has changed, on a device that somebody was erased.
func (s *Store) FleetNews() <-chan struct{} { return s.newsC }

func (s *Store) news() {
	select {
	case s.newsC <- struct{}{}:
	default:
	}
}
