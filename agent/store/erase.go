package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/keys"
)

// Tombstone is what is left of an erased person: a keyed hash of the id, which
// names nobody to who does not have the device's key, and the version up to which
// enrolments of that id are void. It keeps a backup, an export or a replayed
// message from bringing the person back, and lets a new enrolment through.
type Tombstone struct {
	Tag       string    `json:"tag"`
	Version   uint64    `json:"version"`
	At        time.Time `json:"at"`
	Signature string    `json:"signature"` // Ed25519, by the device
}

func (t Tombstone) text() []byte {
	return keys.Bind("postern erasure 1", t.Tag, string(seqKey(t.Version)), t.At.UTC().Format(time.RFC3339Nano))
}

// Verify reports whether a device with this public key, in hex, made the tombstone.
func (t Tombstone) Verify(publicKey string) error {
	key, err1 := hex.DecodeString(publicKey)
	sig, err2 := hex.DecodeString(t.Signature)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, t.text(), sig) {
		return errors.New("the erasure is not signed by this device")
	}
	return nil
}

const maxTombstone = 4 << 10

func decodeTombstone(b []byte) (Tombstone, error) {
	var t Tombstone
	if len(b) > maxTombstone {
		return t, fmt.Errorf("%d bytes are too many", len(b))
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, err
	}
	if tag, err := hex.DecodeString(t.Tag); err != nil || len(tag) != 16 || t.Version == 0 {
		return t, errors.New("not an erasure")
	}
	return t, nil
}

// Erase deletes a subject, its templates and the keys that sealed them, and leaves
// a tombstone, all in one transaction. From then on no copy of the records can be
// opened with what the data folder holds; what pages of the file still hold of the
// keys goes with Rotate and Compact. The sessions about the person (their vendor_data
// is the subject's id) are deleted before. An unknown subject is agent.CodeNotFound;
// one under a legal hold, or with a session under one, agent.CodeConflict.
func (s *Store) Erase(id, actor string) (removed int, t Tombstone, err error) {
	s.holding.RLock()
	defer s.holding.RUnlock()
	if err := s.deletable(HoldSubject, id); err != nil {
		return 0, Tombstone{}, err
	}
	switch _, err := s.Subject(id); {
	case agent.ErrorCode(err) == agent.CodeNotFound && s.hasAside(id):
		return s.eraseWhole(id, func(tx *bolt.Tx) (int, Tombstone, error) {
			return s.eraseUpTo(tx, id, s.tombstone(id, 1).Version, actor)
		})
	case err != nil:
		return 0, Tombstone{}, err
	}
	return s.eraseWhole(id, func(tx *bolt.Tx) (int, Tombstone, error) {
		sub, err := s.subject(tx, id)
		if err != nil {
			return 0, Tombstone{}, err
		}
		t := s.tombstone(id, max(sub.Version, 1))
		removed, err := s.erase(tx, sub.ID, t, actor)
		return removed, t, err
	})
}

// eraseWhole erases all that is here of a person: the sessions about them, what verb
// erases, and their attempts. The caller holds s.holding.
func (s *Store) eraseWhole(id string, verb func(*bolt.Tx) (int, Tombstone, error)) (int, Tombstone, error) {
	if err := s.eraseSessionsOf(id); err != nil {
		return 0, Tombstone{}, err
	}
	removed, t, err := s.entomb(verb)
	if err == nil {
		s.note(s.forgetAttempts(id))
	}
	return removed, t, err
}

// entomb runs verb in one transaction, and tells the witness of the tombstone it made.
func (s *Store) entomb(verb func(*bolt.Tx) (int, Tombstone, error)) (removed int, t Tombstone, err error) {
	err = s.bury(s.templates, func(tx *bolt.Tx) (err error) {
		removed, t, err = verb(tx)
		return err
	})
	if err != nil {
		return 0, Tombstone{}, err
	}
	s.note(s.keepTombstone(t))
	return removed, t, nil
}

// hasAside tells whether a subject's records could not be read and were set aside.
func (s *Store) hasAside(id string) (aside bool) {
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		aside = isAside(tx, id)
		return nil
	})
	return err == nil && aside
}

// tombstone voids all enrolments up to now, also those that another device has
// made of the same person and that may be on their way.
func (s *Store) tombstone(id string, version uint64) Tombstone {
	return s.signTombstone(id, max(version, uint64(max(0, s.now().UnixMicro()))))
}

func (s *Store) signTombstone(id string, version uint64) Tombstone {
	t := Tombstone{Tag: hex.EncodeToString(s.tag(id)), Version: version, At: s.now()}
	t.Signature = hex.EncodeToString(ed25519.Sign(s.signer, t.text()))
	return t
}

func (s *Store) erase(tx *bolt.Tx, id string, t Tombstone, actor string) (removed int, err error) {
	if removed, err = dropTemplates(tx, id); err != nil {
		return 0, err
	}
	if err = bucket(tx, bucketSubjects).Delete([]byte(id)); err != nil {
		return 0, err
	}
	if err = destroyOwner(tx, id); err != nil {
		return 0, err
	}
	if err = addNumber(bucket(tx, bucketMeta), keySubjects, -1); err != nil {
		return 0, err
	}
	if err = errors.Join(putTombstone(tx, t), s.erasedInFleet(tx, id, t)); err != nil {
		return 0, err
	}
	return removed, s.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Actor: actor, Subject: id,
		Detail: map[string]string{"templates": fmt.Sprint(removed)}})
}

func putTombstone(tx *bolt.Tx, t Tombstone) error {
	tag, err := hex.DecodeString(t.Tag)
	if err != nil {
		return err
	}
	v, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return bucket(tx, bucketErased).Put(tag, v)
}

// erased returns the tombstone of an id; its version is 0 when there is none.
func (s *Store) erased(tx *bolt.Tx, id string) (Tombstone, error) {
	var t Tombstone
	if v := bucket(tx, bucketErased).Get(s.tag(id)); v != nil {
		var err error
		if t, err = openTombstone(s.tag(id), v); err != nil {
			return Tombstone{}, err
		}
	}
	e, err := s.fleetErasure(tx, s.FleetTag(id)) // also somebody who was never here
	if e.Version > t.Version {
		t.Version, t.At = e.Version, e.At
	}
	return t, err
}

func openTombstone(k, v []byte) (Tombstone, error) {
	t, err := decodeTombstone(v)
	if err == nil && t.Tag != hex.EncodeToString(k) {
		err = errors.New("it belongs to another record")
	}
	if err != nil {
		return Tombstone{}, badRecord("erasure", k, err)
	}
	return t, nil
}

// Erased tells whether an id has been erased, when, and up to which version.
func (s *Store) Erased(id string) (Tombstone, error) {
	var t Tombstone
	err := s.view(s.templates, func(tx *bolt.Tx) (err error) {
		t, err = s.erased(tx, id)
		return err
	})
	if err == nil && t.Version == 0 {
		err = coded(agent.CodeNotFound, "subject %.140q has not been erased here", id)
	}
	return t, err
}

// tombstones lists all erasures.
func (s *Store) tombstones() (out []Tombstone, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketErased).ForEach(func(k, v []byte) error {
			t, err := openTombstone(k, v)
			out = append(out, t)
			return err
		})
	})
	return out, err
}

// nextVersion is the version of an enrolment. A new one, which says no version of
// its own, is newer than any erasure; one from elsewhere must be.
func (s *Store) nextVersion(tx *bolt.Tx, id string, given uint64) (uint64, error) {
	t, err := s.erased(tx, id)
	if err != nil {
		return 0, err
	}
	if given == 0 {
		return max(uint64(max(0, s.now().UnixMicro())), t.Version+1), nil
	}
	if given <= t.Version {
		return 0, &agent.Error{Code: agent.CodeConflict,
			Message: fmt.Sprintf("subject %.140q was erased on %s, after this enrolment was made", id, t.At.Format(time.DateOnly)),
			Fix:     "enrol the person anew if that is what they want"}
	}
	return given, nil
}

// eraseAgain applies erasures that the data folder does not know, and erases whom
// an older copy of it has brought back.
func (s *Store) eraseAgain(ts []Tombstone) error {
	if len(ts) == 0 {
		return nil
	}
	byTag := map[string]Tombstone{}
	for _, t := range ts {
		if t.Version > byTag[t.Tag].Version {
			byTag[t.Tag] = t
		}
	}
	back, err := s.broughtBack(byTag)
	if err != nil {
		return err
	}
	for id := range back {
		s.opts.Log.Warn("erased somebody again whom an older copy of the data folder had brought back", "file", s.templates.path)
		err := s.bury(s.templates, func(tx *bolt.Tx) error {
			_, err := s.erase(tx, id, back[id], "postern")
			return err
		})
		if err == nil {
			err = s.eraseSessionsOf(id)
		}
		if agent.ErrorCode(err) == agent.CodeConflict { // the copy is of a time when it was held
			s.opts.Log.Warn("sessions about somebody erased again stay: a legal hold is on one of them", "file", s.cases.path)
			err = nil
		}
		if err == nil {
			err = s.forgetAttempts(id)
		}
		if err != nil {
			return err
		}
	}
	return s.update(s.templates, func(tx *bolt.Tx) error {
		for _, t := range byTag {
			if err := putTombstone(tx, t); err != nil {
				return err
			}
		}
		return nil
	})
}

// broughtBack finds enrolled subjects whose version an erasure has voided.
func (s *Store) broughtBack(byTag map[string]Tombstone) (map[string]Tombstone, error) {
	out := map[string]Tombstone{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketSubjects).ForEach(func(k, v []byte) error {
			t, ok := byTag[hex.EncodeToString(s.tag(string(k)))]
			if !ok {
				return nil
			}
			sub, err := s.openSubject(tx, bytes.Clone(k), v)
			if err == nil && sub.Version <= t.Version {
				out[sub.ID] = t
			}
			return err
		})
	})
	return out, err
}
