package store

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// afterLosing says what has to follow when a record of a bucket was set aside: counters
// and indexes agree again, nothing is left that only it led to, and what it kept shut
// stays shut. The record itself cannot be read, so all is told by keys.
func afterLosing(name string) func(s *Store, tx *bolt.Tx, key, value []byte) error {
	return map[string]func(s *Store, tx *bolt.Tx, key, value []byte) error{
		bucketSubjects: (*Store).lostSubject,
		bucketTemplates: func(_ *Store, tx *bolt.Tx, _, _ []byte) error {
			return addNumber(bucket(tx, bucketMeta), keyTemplates, -1)
		},
		bucketResults:  (*Store).lostResult,
		bucketThrottle: (*Store).lostThrottle,
		bucketHolds:    (*Store).lostHold,
		bucketPolicies: (*Store).lostPolicy,
		bucketTelemetry: func(_ *Store, tx *bolt.Tx, _, _ []byte) error {
			return addNumber(bucket(tx, bucketMeta), keyTelemetry, -1)
		},
		caseSessions:   (*Store).lostSession,
		caseMedia:      (*Store).lostMedia,
		caseWorkflows:  func(_ *Store, tx *bolt.Tx, k, _ []byte) error { return dropValues(bucket(tx, caseGroups), k) },
		caseLists:      (*Store).lostList,
		caseEntries:    (*Store).lostEntry,
		caseDests:      (*Store).lostDestination,
		caseDeliveries: (*Store).lostDelivery,
		caseEvents:     (*Store).lostEvent,
		caseReplays:    (*Store).lostReplay,
	}[name]
}

// lostSubject takes the templates along: who they are of is not known any more.
func (s *Store) lostSubject(tx *bolt.Tx, key, _ []byte) error {
	aside, b := bucket(tx, bucketUnreadable), bucket(tx, bucketTemplates)
	for _, k := range keysWith(b, func(k, _ []byte) bool { return bytes.HasPrefix(k, prefix(string(key))) }) {
		if err := s.moveRow(tx, aside, badRow{bucketTemplates, k}); err != nil {
			return err
		}
	}
	return addNumber(bucket(tx, bucketMeta), keySubjects, -1)
}

// lostResult leaves a gap in Seq, which the hub sees.
func (s *Store) lostResult(tx *bolt.Tx, key, _ []byte) error {
	meta, outbox := bucket(tx, bucketMeta), bucket(tx, bucketOutbox)
	if has(outbox, key) {
		if err := errors.Join(outbox.Delete(key), addNumber(meta, keyPending, -1)); err != nil {
			return err
		}
	}
	return errors.Join(dropValues(bucket(tx, bucketIDs), key), dropSuffix(bucket(tx, bucketBySubject), key), addNumber(meta, keyResults, -1))
}

// lostThrottle locks a subject, and makes the device wait: how often they have failed
// is not known.
func (s *Store) lostThrottle(tx *bolt.Tx, key, _ []byte) error {
	if len(key) <= 1 {
		return s.distrust(tx)
	}
	return s.putThrottle(tx, string(key[1:]), throttle.State{Failures: throttle.WithLiveness.Stop, Last: s.opts.Mark()})
}

// lostHold places the hold anew: its key says what it is on.
func (s *Store) lostHold(tx *bolt.Tx, key, _ []byte) error {
	kind, id, ok := bytes.Cut(key, []byte{0})
	h := Hold{Kind: HoldKind(kind), ID: string(id), Reason: "the record of this hold could not be read", By: "recovery", At: s.now()}
	if !ok || h.validate() != nil {
		return nil
	}
	p, err := encodePayload(h, nil)
	if err != nil {
		return err
	}
	v, err := s.seal(tx, p, holdBinding(key))
	if err != nil {
		return err
	}
	return errors.Join(bucket(tx, bucketHolds).Put(key, v), s.auditHold(tx, h, "placed"))
}

// lostPolicy keeps everything of the application until its retention is set again: what
// was deleted too early does not come back.
func (s *Store) lostPolicy(tx *bolt.Tx, key, _ []byte) error {
	r := Retention{Application: string(key), Policy: retention.Policy{}}
	if r.Validate() != nil || checkID("application", r.Application) != nil {
		return nil
	}
	p, err := encodePayload(r, nil)
	if err != nil {
		return err
	}
	v, err := s.seal(tx, p, policyBinding(key))
	if err != nil {
		return err
	}
	return errors.Join(bucket(tx, bucketPolicies).Put(key, v), s.auditPolicy(tx, r.Application, "unlimited: its record could not be read"))
}

// lostSession takes the session's indexes, deliveries, pictures and faces along: nothing
// would lead to them any more, not even an erasure of the person. Under a legal hold
// the pictures and faces stay.
func (s *Store) lostSession(tx *bolt.Tx, number, _ []byte) error {
	ids := bucket(tx, caseIDs)
	named := keysWith(ids, func(_, v []byte) bool { return bytes.Equal(v, number) })
	err := dropValues(bucket(tx, caseTokens), number)
	for _, name := range []string{caseVendors, caseStatuses, caseByWorkflow, caseDates, caseDue} {
		err = errors.Join(err, dropSuffix(bucket(tx, name), number))
	}
	if err != nil {
		return err
	}
	for _, id := range named {
		if err := errors.Join(ids.Delete(id), s.dropDeliveries(tx, string(id))); err != nil {
			return err
		}
		held := s.deletable(HoldSession, string(id))
		if agent.ErrorCode(held) == agent.CodeConflict {
			continue
		}
		if err := errors.Join(held, s.dropOwner(tx, SessionOwner(string(id)))); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) lostMedia(tx *bolt.Tx, id, _ []byte) error {
	return errors.Join(dropSuffix(bucket(tx, caseMediaOwner), join("", string(id))),
		dropKeys(bucket(tx, caseMediaDates), func(k, _ []byte) bool { return len(k) > 8 && bytes.Equal(k[8:], id) }))
}

// lostList keeps the entries shut: what kind of list it was is not known, so it is a
// blocklist from now on.
func (s *Store) lostList(tx *bolt.Tx, uuid, _ []byte) error {
	l := cases.List{UUID: string(uuid), Name: "Recovered " + string(uuid), Description: "The record of this list could not be read.",
		Type: cases.Blocklist, EntryType: cases.EntryUser, CreatedAt: s.now()}
	l.UpdatedAt = l.CreatedAt
	found := false
	for _, k := range keysWith(bucket(tx, caseEntries), func(k, _ []byte) bool { return bytes.HasPrefix(k, prefix(string(uuid))) }) {
		found = true
		if id := lastPart(k); has(bucket(tx, caseFaces), join(EntryOwner(id), id)) {
			l.EntryType = cases.EntryFace
		}
	}
	if !found {
		return nil
	}
	return s.putCase(tx, caseLists, uuid, &l, caseBinding(KindList, "", l.UUID))
}

func (s *Store) lostEntry(tx *bolt.Tx, key, _ []byte) error {
	return s.dropOwner(tx, EntryOwner(lastPart(key)))
}

func (s *Store) lostDestination(tx *bolt.Tx, uuid, _ []byte) error {
	for _, k := range keysWith(bucket(tx, caseByDest), func(k, _ []byte) bool { return bytes.HasPrefix(k, prefix(string(uuid))) }) {
		if err := s.dropDeliveryByID(tx, lastPart(k)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) lostDelivery(tx *bolt.Tx, uuid, _ []byte) error {
	id := join("", string(uuid))
	return errors.Join(dropSuffix(bucket(tx, caseByDest), id), dropSuffix(bucket(tx, caseBySession), id),
		dropKeys(bucket(tx, caseQueue), func(k, _ []byte) bool { return len(k) > 8 && bytes.Equal(k[8:], uuid) }))
}

// lostEvent takes the deliveries of the event along: there is nothing to send.
func (s *Store) lostEvent(tx *bolt.Tx, key, _ []byte) error {
	session, event, err := splitTemplateKey(key)
	if err != nil {
		return nil
	}
	for _, k := range keysWith(bucket(tx, caseBySession), func(k, _ []byte) bool { return bytes.HasPrefix(k, prefix(session)) }) {
		d, err := s.delivery(tx, lastPart(k))
		if err != nil || d.EventID != event {
			continue // one that cannot be read is set aside itself
		}
		if err := dropDelivery(tx, &d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) lostReplay(tx *bolt.Tx, key, _ []byte) error {
	return errors.Join(dropKeys(bucket(tx, caseReplayDates), func(k, _ []byte) bool { return len(k) > 8 && bytes.Equal(k[8:], key) }),
		dropSuffix(bucket(tx, caseReplayAbout), append([]byte{0}, key...)))
}

// dropDeliveryByID deletes a delivery; one that is not there, or cannot be read and is
// set aside itself, is no error.
func (s *Store) dropDeliveryByID(tx *bolt.Tx, id string) error {
	d, err := s.delivery(tx, id)
	if err != nil {
		return nil
	}
	return dropDelivery(tx, &d)
}

// keysWith collects the keys of the rows that match.
func keysWith(b *bolt.Bucket, match func(k, v []byte) bool) (out [][]byte) {
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if match(k, v) {
			out = append(out, bytes.Clone(k))
		}
	}
	return out
}

func dropKeys(b *bolt.Bucket, match func(k, v []byte) bool) error {
	for _, k := range keysWith(b, match) {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func dropValues(b *bolt.Bucket, value []byte) error {
	return dropKeys(b, func(_, v []byte) bool { return bytes.Equal(v, value) })
}

func dropSuffix(b *bolt.Bucket, suffix []byte) error {
	return dropKeys(b, func(k, _ []byte) bool { return bytes.HasSuffix(k, suffix) })
}
