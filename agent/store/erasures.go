package store

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// maxVersion bounds the versions of enrolments and erasures, which are microseconds: a
// tombstone must leave room for whom is enrolled after it.
const maxVersion = 1 << 62

// EraseUpTo applies an erasure that was decided elsewhere, as by a hub for its fleet:
// every enrolment of id up to version is void. It is safe to repeat and to call in any
// order: an erasure that is known already, or an older one than is known, does nothing,
// and somebody who was enrolled anew with a greater version stays. Unlike Erase it also
// works for somebody who is not here, so that an enrolment that is still on its way
// comes to nothing. The tombstone is the one that counts now, signed by this device;
// removed says how many templates went. A legal hold makes it agent.CodeConflict: who
// sent the erasure keeps it and tries again.
func (s *Store) EraseUpTo(id string, version uint64, actor string) (removed int, t Tombstone, err error) {
	if err := agent.ValidateSubject(id, ""); err != nil {
		return 0, Tombstone{}, err
	}
	if version == 0 || version > maxVersion {
		return 0, Tombstone{}, invalid("an erasure up to version %d is not one up to 1 to %d", version, uint64(maxVersion))
	}
	s.holding.RLock()
	defer s.holding.RUnlock()
	if t, err = s.Erased(id); err == nil && t.Version >= version {
		return 0, t, nil
	} else if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
		return 0, Tombstone{}, err
	}
	verb := func(tx *bolt.Tx) (int, Tombstone, error) { return s.eraseUpTo(tx, id, version, actor) }
	here, err := s.voidedBy(id, version)
	if err != nil {
		return 0, Tombstone{}, err
	}
	if !here {
		return s.entomb(verb)
	}
	if err := s.deletable(HoldSubject, id); err != nil {
		return 0, Tombstone{}, err
	}
	return s.eraseWhole(id, verb)
}

// voidedBy tells whether what is here of a person goes with an erasure up to version:
// it does unless they have been enrolled after it.
func (s *Store) voidedBy(id string, version uint64) (bool, error) {
	sub, err := s.Subject(id)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return true, nil
	}
	return err == nil && sub.Version <= version, err
}

func (s *Store) eraseUpTo(tx *bolt.Tx, id string, version uint64, actor string) (int, Tombstone, error) {
	t, err := s.erased(tx, id)
	if err != nil || t.Version >= version {
		return 0, t, err // somebody was faster
	}
	t = s.signTombstone(id, version)
	sub, err := s.subject(tx, id)
	switch {
	case err == nil && sub.Version <= version:
		removed, err := s.erase(tx, id, t, actor)
		return removed, t, err
	case err != nil && agent.ErrorCode(err) != agent.CodeNotFound:
		return 0, t, err
	}
	if err != nil { // not here, but perhaps records that could not be read
		if err := destroyOwner(tx, id); err != nil {
			return 0, t, err
		}
	}
	if err := putTombstone(tx, t); err != nil {
		return 0, t, err
	}
	return 0, t, s.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Actor: actor, Subject: id,
		Detail: map[string]string{"templates": "0", "up_to": fmt.Sprint(version)}})
}

// Tombstones lists the erasures that this device has made at or after since, oldest
// first; all of them for the zero time. They name nobody: whether somebody was erased,
// Erased says.
func (s *Store) Tombstones(since time.Time) ([]Tombstone, error) {
	all, err := s.tombstones()
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(all, func(t Tombstone) bool { return t.At.Before(since) })
	slices.SortStableFunc(out, func(a, b Tombstone) int { return a.At.Compare(b.At) })
	return out, nil
}
