package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/throttle"
)

// Desired is a part of what a hub wants a device to hold.
type Desired struct {
	From, To Position
	Head     uint64 // the newest version that the hub has
	Full     bool   // a listing of everything begins: who is not listed at its end is forgotten
	More     bool   // it goes on
	Key      []byte
	People   []Person
	Gone     []string // tags of people who are no longer for this device
	Erased   []Erasure
}

// Person is somebody whom a device is to know.
type Person struct {
	Tag       string
	Subject   agent.Subject
	Templates []agent.Template
}

// RefusedItem is something that could not be taken over.
type RefusedItem struct {
	Tag    string
	Code   agent.Code
	Reason string
}

// DesiredPosition is how far this device has followed its hub; the zero value when it
// never has.
func (s *Store) DesiredPosition() (p Position, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		p, err = desiredPosition(tx)
		return err
	})
	return p, err
}

// DesiredFloor is the newest version of desired state that a hub has told this device
// of; it accepts nothing from before.
func (s *Store) DesiredFloor() (n uint64, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		n, err = number(bucket(tx, bucketMeta), keyFloor)
		return err
	})
	return n, err
}

func desiredPosition(tx *bolt.Tx) (Position, error) {
	v := bucket(tx, bucketMeta).Get([]byte(keyDesired))
	if v == nil {
		return Position{}, nil
	}
	if len(v) < 8 {
		return Position{}, fmt.Errorf("%s: %d bytes", keyDesired, len(v))
	}
	n, err := parseSeq(v[:8])
	return Position{n, bytes.Clone(v[8:])}, err
}

// Managed reports whether somebody is here because a hub wants it.
func (s *Store) Managed(id string) (ok bool, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		tag := s.FleetTag(id)
		ok = tag != "" && bucket(tx, bucketManaged).Get(mustHex(tag)) != nil
		return nil
	})
	return ok, err
}

// Values of bucketManaged begin with one of these; the subject's id follows.
const (
	listed   = 'l'
	unlisted = 'u' // since the present full listing began
)

// Follow takes over a part of desired state in one transaction, with the position. One
// that does not begin where this device is, or that is older, is agent.CodeConflict
// and changes nothing. A person who cannot be taken over is refused by name and holds
// nobody else up.
func (s *Store) Follow(d Desired) ([]RefusedItem, error) {
	s.holding.RLock()
	defer s.holding.RUnlock()
	if d.Key != nil {
		if err := s.followKey(d.Key); err != nil {
			return nil, err
		}
	}
	v, err := s.void(d.Erased)
	if err != nil {
		return nil, err
	}
	rows, refused := s.preparePeople(d.People)
	defer func() {
		for _, r := range rows {
			wipeRows(r)
		}
	}()
	early := len(refused)
	run := func(tx *bolt.Tx) error {
		refused = refused[:early]
		if err := s.mayFollow(tx, d); err != nil {
			return err
		}
		if err := s.applyErasures(tx, v, agent.ActorHub, true); err != nil {
			return err
		}
		for i, p := range d.People {
			if rows[i] == nil {
				continue
			}
			if err := s.followPerson(tx, p, rows[i], &refused); err != nil {
				return err
			}
		}
		return s.followEnd(tx, d, &refused)
	}
	// A deletion is buried, so that no rung of the recovery brings it back.
	if len(d.Erased)+len(d.Gone) > 0 || d.Full || s.sweeping() {
		err = s.bury(s.templates, run)
	} else {
		err = s.grow(s.templates, run)
	}
	if err != nil {
		return nil, err
	}
	s.buried(v)
	for _, tag := range v.heldTags() {
		refused = append(refused, RefusedItem{tag, agent.CodeConflict, "there is a legal hold; the templates are not used any more"})
	}
	return refused, nil
}

// followKey takes over the fleet's key ahead of what is hashed by it.
func (s *Store) followKey(key []byte) error {
	if bytes.Equal(key, s.FleetKey()) {
		return nil
	}
	return s.update(s.templates, func(tx *bolt.Tx) error { return s.putFleetKey(tx, key) })
}

func (s *Store) mayFollow(tx *bolt.Tx, d Desired) error {
	at, err := desiredPosition(tx)
	if err != nil {
		return err
	}
	floor, err := number(bucket(tx, bucketMeta), keyFloor)
	switch {
	case err != nil:
		return err
	case d.Head < floor:
		return coded(agent.CodeConflict, "desired state %d is older than the %d that this device knows of", d.Head, floor)
	case d.To.Version > d.Head || len(d.To.Stamp) > StampSize:
		return invalid("desired state up to %d of %d", d.To.Version, d.Head)
	case !d.Full && (d.From.Version != at.Version || !bytes.Equal(d.From.Stamp, at.Stamp)):
		return coded(agent.CodeConflict, "changes after %d do not follow on %d, which this device has", d.From.Version, at.Version)
	}
	if err := setNumber(bucket(tx, bucketMeta), keyFloor, d.Head); err != nil || !d.Full {
		return err
	}
	if err := s.forgetTold(tx); err != nil {
		return err
	}
	return s.markUnlisted(tx)
}

// forgetTold lets this device tell its hub of all erasures again: a full listing may
// come from a hub that was restored from a copy.
func (s *Store) forgetTold(tx *bolt.Tx) error {
	var all []Erasure
	err := bucket(tx, bucketFleetErased).ForEach(func(k, v []byte) error {
		e, err := decodeErasure(k, v)
		if e.Told {
			e.Told = false
			all = append(all, e)
		}
		return err
	})
	for _, e := range all {
		if err == nil {
			err = putErasure(tx, e)
		}
	}
	tx.OnCommit(func() { s.news() })
	return err
}

func (s *Store) markUnlisted(tx *bolt.Tx) error {
	b := bucket(tx, bucketManaged)
	all := map[string][]byte{}
	err := b.ForEach(func(k, v []byte) error {
		v = bytes.Clone(v)
		v[0] = unlisted
		all[string(k)] = v
		return nil
	})
	for k, v := range all {
		if err == nil {
			err = b.Put([]byte(k), v)
		}
	}
	if err != nil {
		return err
	}
	return bucket(tx, bucketMeta).Put([]byte(keySweep), []byte{1})
}

// Departing lists the ids of people whom the present full listing has not named so far;
// with all those of everybody who is here because of a hub.
func (s *Store) Departing(all bool) (ids []string, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketManaged).ForEach(func(_, v []byte) error {
			if all || v[0] == unlisted {
				ids = append(ids, string(v[1:]))
			}
			return nil
		})
	})
	return ids, err
}

func (s *Store) sweeping() (yes bool) {
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		yes = bucket(tx, bucketMeta).Get([]byte(keySweep)) != nil
		return nil
	})
	return yes || err != nil
}

// preparePeople checks and encodes outside the transaction; a nil row is of somebody
// who was refused.
func (s *Store) preparePeople(people []Person) (rows [][]row, refused []RefusedItem) {
	rows = make([][]row, len(people))
	for i, p := range people {
		err := agent.ValidateSubject(p.Subject.ID, p.Subject.Name)
		switch {
		case err != nil:
		case p.Subject.Version == 0:
			err = invalid("an enrolment without a version")
		case p.Tag != s.FleetTag(p.Subject.ID):
			err = invalid("the tag is of somebody else")
		case len(p.Templates) > s.opts.MaxTemplates:
			err = invalid("%d templates are more than %d", len(p.Templates), s.opts.MaxTemplates)
		case p.Subject.Consent.Given():
			err = validConsent(p.Subject.Consent)
		}
		if err == nil {
			rows[i], err = s.prepare(p.Subject.ID, p.Templates)
		}
		if err != nil {
			rows[i] = nil
			refused = append(refused, RefusedItem{p.Tag, agent.ErrorCode(err), err.Error()})
		}
	}
	return rows, refused
}

// validConsent lets a consent through that was withdrawn without having been given:
// that of somebody under a hold.
func validConsent(c agent.Consent) error {
	if !c.Withdrawn.IsZero() {
		return nil
	}
	return c.Validate()
}

// followPerson takes over one person, or says why not before it has changed anything.
func (s *Store) followPerson(tx *bolt.Tx, p Person, rows []row, refused *[]RefusedItem) error {
	refuse := func(err error) error {
		*refused = append(*refused, RefusedItem{p.Tag, agent.ErrorCode(err), err.Error()})
		return nil
	}
	if _, err := s.nextVersion(tx, p.Subject.ID, p.Subject.Version); agent.ErrorCode(err) == agent.CodeConflict {
		return refuse(errors2(err, s.tellAgain(tx, p.Tag)))
	} else if err != nil {
		return err
	}
	if len(rows) > 0 && !s.Usable(p.Subject) {
		return refuse(s.mayEnrol(p.Subject))
	}
	for _, r := range rows {
		if n, err := number(bucket(tx, bucketSpaces), r.template.Space); err != nil || n != 0 && n != uint64(len(r.template.Embedding)) {
			return refuse(invalid("an embedding of space %q has %d values, not %d", r.template.Space, len(r.template.Embedding), n))
		}
	}
	sub, err := s.putSubject(tx, p.Subject)
	if err != nil {
		return err
	}
	sub.Consent = stampConsent(p.Subject.Consent) // also none
	if err := s.writeSubject(tx, sub); err != nil {
		return err
	}
	if _, err := dropTemplates(tx, sub.ID); err != nil {
		return err
	}
	if err := bucket(tx, bucketManaged).Put(mustHex(p.Tag), append([]byte{listed}, sub.ID...)); err != nil {
		return err
	}
	return s.addTemplates(tx, sub.ID, rows, agent.AuditEvent{Action: agent.AuditImport, Actor: agent.ActorHub})
}

func errors2(first, second error) error {
	if second != nil {
		return second
	}
	return first
}

// tellAgain has the hub told once more of an erasure that it seems to have lost.
func (s *Store) tellAgain(tx *bolt.Tx, tag string) error {
	e, err := s.fleetErasure(tx, tag)
	if err != nil || e.Version == 0 || !e.Told {
		return err
	}
	e.Told = false
	tx.OnCommit(func() { s.news() })
	return putErasure(tx, e)
}

// followEnd forgets who is no longer for this device, and moves the position.
func (s *Store) followEnd(tx *bolt.Tx, d Desired, refused *[]RefusedItem) error {
	managed, meta := bucket(tx, bucketManaged), bucket(tx, bucketMeta)
	gone := [][]byte{}
	for _, tag := range d.Gone {
		k, err := hex.DecodeString(tag)
		if err != nil || len(k) != tagSize {
			return invalid("tag %.80q is not one", tag)
		}
		gone = append(gone, k)
	}
	if !d.More && meta.Get([]byte(keySweep)) != nil {
		if err := meta.Delete([]byte(keySweep)); err != nil {
			return err
		}
		if err := managed.ForEach(func(k, v []byte) error {
			if v[0] == unlisted {
				gone = append(gone, bytes.Clone(k))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, k := range gone {
		if err := s.depart(tx, k, refused); err != nil {
			return err
		}
	}
	return meta.Put([]byte(keyDesired), append(seqKey(d.To.Version), d.To.Stamp...))
}

// depart deletes somebody who is here because of the hub and is not to be any more.
// Nothing is erased in the fleet's sense: they may be sent again.
func (s *Store) depart(tx *bolt.Tx, tag []byte, refused *[]RefusedItem) error {
	v := bucket(tx, bucketManaged).Get(tag)
	if v == nil {
		return nil
	}
	id := string(v[1:])
	sub, err := s.subject(tx, id)
	if err != nil {
		return errors2(dropNotFound(err), bucket(tx, bucketManaged).Delete(tag))
	}
	if s.deletable(HoldSubject, id) != nil {
		*refused = append(*refused, RefusedItem{hex.EncodeToString(tag), agent.CodeConflict, "there is a legal hold; the templates are not used any more"})
		if sub.Consent.Withdrawn.IsZero() {
			sub.Consent.Withdrawn = s.now()
			return s.writeSubject(tx, sub)
		}
		return nil
	}
	if err := bucket(tx, bucketManaged).Delete(tag); err != nil {
		return err
	}
	n, err := dropTemplates(tx, id)
	if err != nil {
		return err
	}
	if err := bucket(tx, bucketSubjects).Delete([]byte(id)); err != nil {
		return err
	}
	if err := destroyOwner(tx, id); err != nil {
		return err
	}
	if err := addNumber(bucket(tx, bucketMeta), keySubjects, -1); err != nil {
		return err
	}
	return s.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Actor: agent.ActorHub, Subject: id,
		Detail: map[string]string{"templates": fmt.Sprint(n), "why": "not for this device any more"}})
}

func dropNotFound(err error) error {
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return nil
	}
	return err
}

// HubKey is the Ed25519 key of the hub that this device believes; nil: none yet.
func (s *Store) HubKey() (key []byte, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		key = bytes.Clone(bucket(tx, bucketMeta).Get([]byte(keyHub)))
		return nil
	})
	return key, err
}

// PinHub makes a key the only one that is believed. Another one must be unpinned with nil.
func (s *Store) PinHub(key []byte) error {
	return s.update(s.templates, func(tx *bolt.Tx) error {
		b := bucket(tx, bucketMeta)
		if key == nil {
			return b.Delete([]byte(keyHub))
		}
		return b.Put([]byte(keyHub), key)
	})
}

// HeardHub notes that the hub has answered now.
func (s *Store) HeardHub() error {
	m := s.opts.Mark()
	m.At = s.now()
	v, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.update(s.templates, func(tx *bolt.Tx) error { return bucket(tx, bucketMeta).Put([]byte(keyHeard), v) })
}

// HubHeard is when the hub answered last; the zero value: never.
func (s *Store) HubHeard() (m throttle.Mark, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		if v := bucket(tx, bucketMeta).Get([]byte(keyHeard)); v != nil {
			return json.Unmarshal(v, &m)
		}
		return nil
	})
	return m, err
}

// mostBack is by how much a clock may be set back without being doubted.
const mostBack = 2 * time.Minute

// Stale reports that the hub was not heard within limit, or that it cannot be told: the
// clock is before what has happened already. The longer of two clocks counts, so setting
// one back gains nothing until the next boot; a decision that was made since shows it then.
func (s *Store) Stale(limit time.Duration) bool {
	heard, err := s.HubHeard()
	if err != nil || heard.At.IsZero() {
		return true
	}
	newest, err := s.Results(ResultQuery{Limit: 1})
	if err != nil {
		return true
	}
	now, mark := s.now(), s.opts.Mark()
	if now.Before(heard.At.Add(-mostBack)) || len(newest) > 0 && now.Before(newest[0].At.Add(-mostBack)) {
		return true
	}
	passed := now.Sub(heard.At)
	if mark.Boot != "" && mark.Boot == heard.Boot {
		passed = max(passed, mark.Up-heard.Up)
	}
	return passed > limit
}
