package store

import (
	"bytes"
	"errors"
	"slices"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

// announce queues a delivery to every destination that wants to hear of a change of
// status, or of the event, in the transaction of the change itself.
func (s *Store) announce(tx *bolt.Tx, c *cases.Session, event string) error {
	dests, err := s.destinations(tx)
	if err != nil || len(dests) == 0 {
		return err
	}
	n := 0
	for _, then := range c.Trail {
		// The trail is from before the store gave the session its place.
		then.ID, then.Number, then.Revision = c.ID, c.Number, c.Revision
		if err := s.queue(tx, dests, cases.Event{Type: cases.EventStatus, At: then.UpdatedAt, Session: then}, &n); err != nil {
			return err
		}
	}
	if event == "" {
		return nil
	}
	now := *c
	now.Trail = nil
	return s.queue(tx, dests, cases.Event{Type: event, At: c.UpdatedAt, Session: now}, &n)
}

// queue stores an event and its delivery for each destination and name. n counts them
// within the transaction and keeps their order: what happened first is due first.
func (s *Store) queue(tx *bolt.Tx, dests []cases.Destination, e cases.Event, n *int) error {
	for _, d := range dests {
		if !d.Enabled || d.Sandbox != (e.Session.Environment == cases.Sandbox) || !sameApplication(d.Application, e.Session.Application) {
			continue
		}
		for _, name := range e.Session.Names(e.Type) {
			if !slices.Contains(d.Events, name) {
				continue
			}
			// Each name is an event of its own to a receiver that deduplicates by id.
			one := e
			one.Type = name
			if err := s.putEvent(tx, &one); err != nil {
				return err
			}
			v := newDelivery(&one, d.UUID, s.now())
			id, err := s.orderedID(*n)
			if err != nil {
				return err
			}
			v.UUID = id
			if err := s.putDelivery(tx, v, nil); err != nil {
				return err
			}
			*n++
		}
	}
	return nil
}

// orderedID is an id that sorts behind those before it in the same transaction: the
// time in an id has milliseconds only.
func (s *Store) orderedID(n int) (string, error) {
	s.randMu.Lock()
	defer s.randMu.Unlock()
	return newID(s.opts.Now().Add(time.Duration(n)*time.Millisecond), s.opts.Rand)
}

func sameApplication(a, b string) bool { return agent.ApplicationOr(a) == agent.ApplicationOr(b) }

func newDelivery(e *cases.Event, dest string, now time.Time) *cases.Delivery {
	return &cases.Delivery{EventID: e.ID, Type: e.Type, Destination: dest, SessionID: e.Session.ID, Status: e.Session.Status,
		State: cases.Pending, Tries: []cases.Try{}, NextAt: now, CreatedAt: now}
}

func (s *Store) putEvent(tx *bolt.Tx, e *cases.Event) error {
	if err := s.fillID(&e.ID); err != nil {
		return err
	}
	return s.putCase(tx, caseEvents, join(e.Session.ID, e.ID), e, caseBinding(KindEvent, SessionOwner(e.Session.ID), e.ID))
}

// putDelivery stores a delivery and its place in the queue; old is what was stored.
func (s *Store) putDelivery(tx *bolt.Tx, d, old *cases.Delivery) error {
	if old != nil && old.State == cases.Pending {
		if err := bucket(tx, caseQueue).Delete(queueKey(old)); err != nil {
			return err
		}
	}
	if err := s.fillID(&d.UUID); err != nil {
		return err
	}
	if err := s.putCase(tx, caseDeliveries, []byte(d.UUID), d, caseBinding(KindDelivery, "", d.UUID)); err != nil {
		return err
	}
	keys := map[string][]byte{caseByDest: join(d.Destination, d.UUID)}
	if d.SessionID != "" {
		keys[caseBySession] = join(d.SessionID, d.UUID)
	}
	if d.State == cases.Pending {
		keys[caseQueue] = queueKey(d)
	}
	for name, k := range keys {
		if err := bucket(tx, name).Put(k, nil); err != nil {
			return err
		}
	}
	return nil
}

func queueKey(d *cases.Delivery) []byte { return append(timeKey(d.NextAt), d.UUID...) }

// DueDeliveries returns deliveries to be made at or before now, the most overdue
// first, but none of the destinations in busy. It changes nothing: a delivery leaves
// the queue by RecordDelivery only, so a process that dies makes it again. next is
// when the first that is not due yet will be; zero when there is none.
func (s *Store) DueDeliveries(now time.Time, busy map[string]bool, limit int) (due []cases.Due, next time.Time, err error) {
	var bad error
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		c := bucket(tx, caseQueue).Cursor()
		taken := map[string]bool{}
		for k, _ := c.First(); k != nil && len(due) < limit; k, _ = c.Next() {
			d, err := s.delivery(tx, string(k[8:]))
			if err != nil {
				return err
			}
			if d.NextAt.After(now) {
				next = d.NextAt
				return nil
			}
			if busy[d.Destination] || taken[d.Destination] {
				continue
			}
			one, err := s.due(tx, d)
			if err != nil { // one that cannot be read must not hold up the others
				bad = err
				continue
			}
			taken[d.Destination] = true
			due = append(due, one)
		}
		return nil
	})
	if err == nil && len(due) == 0 {
		err = bad
	}
	return due, next, err
}

func (s *Store) due(tx *bolt.Tx, d cases.Delivery) (cases.Due, error) {
	out := cases.Due{Delivery: d}
	var err error
	if out.Destination, err = s.destination(tx, d.Destination); err != nil {
		return out, err
	}
	if d.Test {
		out.Event = cases.Event{ID: d.EventID, Type: d.Type, At: d.CreatedAt}
		return out, nil
	}
	k := join(d.SessionID, d.EventID)
	v := bucket(tx, caseEvents).Get(k)
	if v == nil {
		return out, noCase("event", d.EventID)
	}
	return out, s.openCase(tx, k, v, &out.Event, caseBinding(KindEvent, SessionOwner(d.SessionID), d.EventID))
}

// RecordDelivery stores what an attempt came to, and counts it for the destination,
// in one transaction. A delivery that has gone meanwhile, with its session or its
// destination, is agent.CodeNotFound.
func (s *Store) RecordDelivery(uuid string, t cases.Try, then func(*cases.Delivery)) (cases.Delivery, error) {
	var d cases.Delivery
	err := s.update(s.cases, func(tx *bolt.Tx) error {
		old, err := s.delivery(tx, uuid)
		if err != nil {
			return err
		}
		d = old
		d.Tries = slices.Clone(old.Tries)
		d.Record(t)
		then(&d)
		if err := s.putDelivery(tx, &d, &old); err != nil {
			return err
		}
		dest, err := s.destination(tx, d.Destination)
		if err != nil {
			return err
		}
		dest.Count(t, d.State == cases.Delivered)
		return s.putDestination(tx, &dest)
	})
	return d, err
}

// Resend queues a delivery again, whatever became of it: the same event with the
// same event_id.
func (s *Store) Resend(uuid string) (cases.Delivery, error) {
	var d cases.Delivery
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		old, err := s.delivery(tx, uuid)
		if err != nil {
			return err
		}
		if _, err := s.due(tx, old); err != nil {
			return err
		}
		d = old
		d.State, d.Attempts, d.NextAt = cases.Pending, 0, s.now()
		return s.putDelivery(tx, &d, &old)
	})
	return d, err
}

// QueueTest queues a delivery that says nothing but that it is a test.
func (s *Store) QueueTest(destination string) (cases.Delivery, error) {
	var d *cases.Delivery
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if _, err := s.destination(tx, destination); err != nil {
			return err
		}
		e := cases.Event{Type: cases.EventTest}
		if err := s.fillID(&e.ID); err != nil {
			return err
		}
		d = newDelivery(&e, destination, s.now())
		d.Test = true
		return s.putDelivery(tx, d, nil)
	})
	if err != nil {
		return cases.Delivery{}, err
	}
	return *d, nil
}

func (s *Store) delivery(tx *bolt.Tx, uuid string) (cases.Delivery, error) {
	var d cases.Delivery
	v := bucket(tx, caseDeliveries).Get([]byte(uuid))
	if uuid == "" || v == nil {
		return d, noCase("delivery", uuid)
	}
	err := s.openCase(tx, []byte(uuid), v, &d, caseBinding(KindDelivery, "", uuid))
	if err == nil && d.UUID != uuid {
		err = badRecord(KindDelivery, []byte(uuid), errors.New("it belongs to another record"))
	}
	return d, err
}

// Delivery returns one delivery of the log.
func (s *Store) Delivery(uuid string) (cases.Delivery, error) {
	var d cases.Delivery
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		d, err = s.delivery(tx, uuid)
		return err
	})
	return d, err
}

// Deliveries lists the log, newest first, with how many there are.
func (s *Store) Deliveries(q cases.DeliveryQuery) (page []cases.Delivery, count int, err error) {
	q.Limit = clampLimit(q.Limit)
	page = []cases.Delivery{}
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		b, p := bucket(tx, caseByDest), prefix(q.Destination)
		if q.SessionID != "" {
			b, p = bucket(tx, caseBySession), prefix(q.SessionID)
		}
		ids := []string{}
		c := b.Cursor()
		for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
			ids = append(ids, lastPart(k))
		}
		count = len(ids)
		slices.Reverse(ids)
		for i := max(0, q.Offset); i < len(ids) && len(page) < q.Limit; i++ {
			d, err := s.delivery(tx, ids[i])
			if err != nil {
				return err
			}
			page = append(page, d)
		}
		return nil
	})
	return page, count, err
}

// PruneDeliveries deletes deliveries that are done and older than before, with the
// events that nobody needs any more, at most limit, and returns how many.
func (s *Store) PruneDeliveries(before time.Time, limit int) (int, error) {
	n := 0
	err := s.update(s.cases, func(tx *bolt.Tx) error {
		var old []cases.Delivery
		c := bucket(tx, caseDeliveries).Cursor() // UUIDv7: oldest first
		for k, _ := c.First(); k != nil && len(old) < limit; k, _ = c.Next() {
			d, err := s.delivery(tx, string(k))
			if err != nil {
				return err
			}
			if !d.CreatedAt.Before(before) {
				break
			}
			if d.State != cases.Pending {
				old = append(old, d)
			}
		}
		n = len(old)
		for _, d := range old {
			if err := dropDelivery(tx, &d); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func dropDelivery(tx *bolt.Tx, d *cases.Delivery) error {
	for _, k := range []struct {
		bucket string
		key    []byte
	}{
		{caseDeliveries, []byte(d.UUID)}, {caseByDest, join(d.Destination, d.UUID)}, {caseBySession, join(d.SessionID, d.UUID)},
		{caseQueue, queueKey(d)}, {caseEvents, join(d.SessionID, d.EventID)},
	} {
		if err := bucket(tx, k.bucket).Delete(k.key); err != nil {
			return err
		}
	}
	return nil
}

// dropDeliveries deletes what is on its way about a session: what has been erased
// must not be sent.
func (s *Store) dropDeliveries(tx *bolt.Tx, session string) error {
	var ids []string
	c, p := bucket(tx, caseBySession).Cursor(), prefix(session)
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		ids = append(ids, lastPart(k))
	}
	for _, id := range ids {
		d, err := s.delivery(tx, id)
		if err != nil {
			return err
		}
		if err := dropDelivery(tx, &d); err != nil {
			return err
		}
	}
	return dropPrefix(bucket(tx, caseEvents), prefix(session))
}

// CreateDestination stores a new destination. One with the same address is
// agent.CodeConflict.
func (s *Store) CreateDestination(d cases.Destination) (cases.Destination, error) {
	if err := s.fillID(&d.UUID); err != nil {
		return d, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if err := s.uniqueURL(tx, &d); err != nil {
			return err
		}
		d.CreatedAt = s.now()
		d.UpdatedAt = d.CreatedAt
		return s.putDestination(tx, &d)
	})
	return d, err
}

// UpdateDestination changes a destination.
func (s *Store) UpdateDestination(uuid string, fn func(*cases.Destination) error) (cases.Destination, error) {
	var d cases.Destination
	err := s.grow(s.cases, func(tx *bolt.Tx) (err error) {
		if d, err = s.destination(tx, uuid); err != nil {
			return err
		}
		if err = fn(&d); err != nil {
			return err
		}
		if err = s.uniqueURL(tx, &d); err != nil {
			return err
		}
		d.UUID, d.UpdatedAt = uuid, s.now()
		return s.putDestination(tx, &d)
	})
	return d, err
}

func (s *Store) uniqueURL(tx *bolt.Tx, d *cases.Destination) error {
	all, err := s.destinations(tx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.URL == d.URL && o.UUID != d.UUID && sameApplication(o.Application, d.Application) {
			return coded(agent.CodeConflict, "there is a webhook destination with this address already")
		}
	}
	return nil
}

func (s *Store) putDestination(tx *bolt.Tx, d *cases.Destination) error {
	return s.putCase(tx, caseDests, []byte(d.UUID), d, caseBinding(KindDestination, "", d.UUID))
}

func (s *Store) destination(tx *bolt.Tx, uuid string) (cases.Destination, error) {
	var d cases.Destination
	v := bucket(tx, caseDests).Get([]byte(uuid))
	if uuid == "" || v == nil {
		return d, noCase("webhook destination", uuid)
	}
	return d, s.openCase(tx, []byte(uuid), v, &d, caseBinding(KindDestination, "", uuid))
}

func (s *Store) destinations(tx *bolt.Tx) ([]cases.Destination, error) {
	out := []cases.Destination{}
	err := bucket(tx, caseDests).ForEach(func(k, _ []byte) error {
		d, err := s.destination(tx, string(k))
		out = append(out, d)
		return err
	})
	sort.SliceStable(out, func(i, j int) bool { return out[i].CreatedAt.Before(out[j].CreatedAt) })
	return out, err
}

// Destination returns a destination, or agent.CodeNotFound.
func (s *Store) Destination(uuid string) (cases.Destination, error) {
	var d cases.Destination
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		d, err = s.destination(tx, uuid)
		return err
	})
	return d, err
}

// Destinations lists all of them, oldest first.
func (s *Store) Destinations() ([]cases.Destination, error) {
	var out []cases.Destination
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		out, err = s.destinations(tx)
		return err
	})
	return out, err
}

// DeleteDestination deletes a destination with its deliveries.
func (s *Store) DeleteDestination(uuid string) error {
	return s.update(s.cases, func(tx *bolt.Tx) error {
		if _, err := s.destination(tx, uuid); err != nil {
			return err
		}
		var ids []string
		c, p := bucket(tx, caseByDest).Cursor(), prefix(uuid)
		for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
			ids = append(ids, lastPart(k))
		}
		for _, id := range ids {
			d, err := s.delivery(tx, id)
			if err != nil {
				return err
			}
			if err := dropDelivery(tx, &d); err != nil {
				return err
			}
		}
		return bucket(tx, caseDests).Delete([]byte(uuid))
	})
}
