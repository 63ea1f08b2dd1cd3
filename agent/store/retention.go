package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// Retention is an application with a policy of its own.
type Retention struct {
	Application string `json:"application"`
	retention.Policy
}

func policyBinding(key []byte) Binding { return Binding{Kind: "retention", Record: string(key)} }

func bindPolicy(_ *Store, k, _ []byte) (Binding, int, error) { return policyBinding(k), 0, nil }

// SetRetention gives an application a policy of its own.
func (s *Store) SetRetention(r Retention) error {
	if err := checkID("application", r.Application); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return err
	}
	p, err := encodePayload(r, nil)
	if err != nil {
		return err
	}
	return s.update(s.results, func(tx *bolt.Tx) error {
		v, err := s.seal(tx, p, policyBinding([]byte(r.Application)))
		if err != nil {
			return err
		}
		return errors.Join(bucket(tx, bucketPolicies).Put([]byte(r.Application), v), s.auditPolicy(tx, r.Application, r.Results.String()+
			", images "+r.Images.String()+", templates "+r.Templates.String()))
	})
}

// Retention returns the policy that an application has of its own, or
// agent.CodeNotFound.
func (s *Store) Retention(application string) (Retention, error) {
	var r Retention
	err := s.view(s.results, func(tx *bolt.Tx) (err error) {
		v := bucket(tx, bucketPolicies).Get([]byte(application))
		if application == "" || v == nil {
			return coded(agent.CodeNotFound, "application %.80q has no retention of its own", application)
		}
		r, err = s.openPolicy(tx, []byte(application), v)
		return err
	})
	return r, err
}

// DropRetention takes an application's own policy away, so that the default counts
// again. Where there is none it is agent.CodeNotFound.
func (s *Store) DropRetention(application string) error {
	return s.update(s.results, func(tx *bolt.Tx) error {
		b := bucket(tx, bucketPolicies)
		if !has(b, []byte(application)) {
			return coded(agent.CodeNotFound, "application %.80q has no retention of its own", application)
		}
		return errors.Join(b.Delete([]byte(application)), s.auditPolicy(tx, application, "the default"))
	})
}

func (s *Store) auditPolicy(tx *bolt.Tx, application, what string) error {
	return s.audit(tx, agent.AuditEvent{Action: agent.AuditConfigure, Detail: map[string]string{"application": application, "retention": what}})
}

// Retentions lists the applications with a policy of their own.
func (s *Store) Retentions() ([]Retention, error) {
	out := []Retention{}
	err := s.view(s.results, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketPolicies).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			r, err := s.openPolicy(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

func (s *Store) openPolicy(tx *bolt.Tx, k, v []byte) (Retention, error) {
	p, err := s.unseal(tx, v, policyBinding(k))
	if err != nil {
		return Retention{}, badRecord("retention", k, err)
	}
	r, err := decodeRetention(p)
	if err != nil {
		return Retention{}, badRecord("retention", k, err)
	}
	return r, nil
}

func decodeRetention(p []byte) (Retention, error) {
	var r Retention
	if err := decodeHeader(p, &r); err != nil {
		return Retention{}, err
	}
	return r, r.Validate()
}

// Sweeping says what Sweep may delete.
type Sweeping struct {
	Default retention.Policy // of applications without one of their own
	// Unsent lets results go that the hub has not acknowledged. Without it they stay,
	// however old, and are counted as overdue.
	Unsent bool
	Built  time.Time // of the program; for the judgement of the clock
	Synced bool      // the system's clock is synchronised
}

// Swept is what Sweep did.
type Swept struct {
	Results  int `json:"results"`
	Sessions int `json:"sessions"`
	Images   int `json:"images"`
	Overdue  int `json:"overdue"` // results that expired but are not acknowledged
	Held     int `json:"held"`    // results and sessions that expired but are under a legal hold
	// Expired are subjects whose templates have expired. Sweep leaves them to the
	// caller, which has to forget them as well.
	Expired []string `json:"expired"`
}

// sweepBatch is how many records one transaction of Sweep deletes.
const sweepBatch = 64

// Sweep deletes what has been kept for its time, in small transactions, so that it may
// be stopped at any point and decisions go on meanwhile. It deletes nothing while the
// clock is not believed; see retention.Believe.
func (s *Store) Sweep(ctx context.Context, o Sweeping) (Swept, error) {
	var out Swept
	now := s.opts.Mark()
	now.At = s.now()
	if err := s.believeClock(now, o); err != nil {
		return out, err
	}
	w := &sweeper{Store: s, o: o, now: now.At, out: &out, own: map[string]retention.Policy{}}
	rs, err := s.Retentions()
	if err != nil {
		return out, err
	}
	for _, r := range rs {
		w.own[r.Application] = r.Policy
	}
	for _, step := range []func(context.Context) error{w.results, w.sessions, w.images, w.templates} {
		if err := step(ctx); err != nil {
			return out, err
		}
	}
	return out, s.trust(now)
}

// ClockBelieved is nil while the clock is believed; see retention.Believe.
func (s *Store) ClockBelieved(o Sweeping) error {
	now := s.opts.Mark()
	now.At = s.now()
	return s.believeClock(now, o)
}

// believeClock judges the clock by what the store knows.
func (s *Store) believeClock(now throttle.Mark, o Sweeping) error {
	e := retention.Evidence{Now: now, Built: o.Built, Synced: o.Synced}
	err := s.view(s.results, func(tx *bolt.Tx) (err error) {
		if k, v := bucket(tx, bucketResults).Cursor().Last(); k != nil {
			r, err := s.openResult(tx, k, v)
			if err != nil {
				return err
			}
			e.Newest = r.At
		}
		e.Anchor, err = s.anchor(tx)
		return err
	})
	if err != nil {
		return err
	}
	return retention.Believe(e)
}

func (s *Store) anchor(tx *bolt.Tx) (throttle.Mark, error) {
	var m throttle.Mark
	v := bucket(tx, bucketMeta).Get([]byte(keyAnchor))
	if v == nil {
		return m, nil
	}
	err := decodeHeader(v, &m)
	if err != nil {
		err = badRecord("moment of the clock", []byte(keyAnchor), err)
	}
	return m, err
}

// TrustClock confirms that the clock is right now, whatever it looks like.
func (s *Store) TrustClock() error {
	now := s.opts.Mark()
	now.At = s.now()
	if err := s.trust(now); err != nil {
		return err
	}
	return s.Audit(agent.AuditEvent{Action: agent.AuditOverride, Detail: map[string]string{"clock": "confirmed"}})
}

func (s *Store) trust(now throttle.Mark) error {
	p, err := encodePayload(now, nil)
	if err != nil {
		return err
	}
	return s.update(s.results, func(tx *bolt.Tx) error { return bucket(tx, bucketMeta).Put([]byte(keyAnchor), p) })
}

// sweeper is one sweep.
type sweeper struct {
	*Store
	o   Sweeping
	now time.Time
	out *Swept
	own map[string]retention.Policy
}

func (w *sweeper) policy(application string) retention.Policy {
	if p, ok := w.own[application]; ok {
		return p
	}
	return w.o.Default
}

// results walks all results from the oldest.
func (w *sweeper) results(ctx context.Context) error {
	for from := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		due, next, err := w.dueResults(from)
		if err != nil {
			return err
		}
		for len(due) > 0 {
			n := min(len(due), sweepBatch)
			if err := w.dropResults(due[:n]); err != nil {
				return err
			}
			due = due[n:]
		}
		if next == 0 {
			return nil
		}
		from = next
	}
}

// dueResults reads a batch of results and returns those that have expired and may go.
func (w *sweeper) dueResults(from uint64) (due []agent.Result, next uint64, err error) {
	err = w.view(w.Store.results, func(tx *bolt.Tx) error {
		var counts counters
		acked := counts.read(tx, keyAcked)
		c, n := bucket(tx, bucketResults).Cursor(), 0
		for k, v := c.Seek(seqKey(from)); k != nil; k, v = c.Next() {
			r, err := w.openResult(tx, k, v)
			if err != nil {
				return err
			}
			if w.policy(r.Application).Results.Over(r.At, w.now) {
				if r.Seq > acked && !w.o.Unsent {
					w.out.Overdue++
				} else {
					due = append(due, r)
				}
			}
			if n++; n == scanBatch {
				next = r.Seq + 1
				break
			}
		}
		return counts.err
	})
	return due, next, err
}

// dropResults deletes results with all that leads to them.
func (w *sweeper) dropResults(rs []agent.Result) error {
	gone, held := 0, 0
	err := w.update(w.Store.results, func(tx *bolt.Tx) error {
		gone, held = 0, 0
		for _, r := range rs {
			if w.isHeld(tx, &r) {
				held++
				continue
			}
			if err := dropResult(tx, &r); err != nil {
				return err
			}
			gone++
		}
		if gone == 0 {
			return nil
		}
		return w.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Actor: "retention", Detail: map[string]string{"results": strconv.Itoa(gone)}})
	})
	if err == nil {
		w.out.Results, w.out.Held = w.out.Results+gone, w.out.Held+held
	}
	return err
}

func (s *Store) isHeld(tx *bolt.Tx, r *agent.Result) bool {
	b := bucket(tx, bucketHolds)
	return has(b, holdKey(HoldResult, r.ID)) || r.SubjectID != "" && has(b, holdKey(HoldSubject, r.SubjectID))
}

func dropResult(tx *bolt.Tx, r *agent.Result) error {
	key, meta := seqKey(r.Seq), bucket(tx, bucketMeta)
	if has(bucket(tx, bucketOutbox), key) {
		if err := bucket(tx, bucketOutbox).Delete(key); err != nil {
			return err
		}
		if err := addNumber(meta, keyPending, -1); err != nil {
			return err
		}
	}
	if r.SubjectID != "" {
		if err := bucket(tx, bucketBySubject).Delete(bySubjectKey(r.SubjectID, r.Seq)); err != nil {
			return err
		}
	}
	for name, k := range map[string][]byte{bucketResults: key, bucketIDs: []byte(r.ID)} {
		if err := bucket(tx, name).Delete(k); err != nil {
			return err
		}
	}
	return addNumber(meta, keyResults, -1)
}

// sessions deletes sessions that have expired, with their pictures and faces.
func (w *sweeper) sessions(ctx context.Context) error {
	after := []byte(nil)
	for {
		due, last, err := w.dueSessions(after)
		if err != nil || len(due) == 0 && last == nil {
			return err
		}
		for _, id := range due {
			if err := ctx.Err(); err != nil {
				return err
			}
			switch _, err := w.DeleteSession(id); agent.ErrorCode(err) {
			case "":
				w.out.Sessions++
			case agent.CodeConflict:
				w.out.Held++
			case agent.CodeNotFound:
			default:
				return err
			}
		}
		if last == nil {
			return nil
		}
		after = last
	}
}

// dueSessions reads a batch of sessions by their dates, oldest first.
func (w *sweeper) dueSessions(after []byte) (due []string, last []byte, err error) {
	err = w.view(w.cases, func(tx *bolt.Tx) error {
		c, n := bucket(tx, caseDates).Cursor(), 0
		for k, _ := seekAfter(c, after); k != nil; k, _ = c.Next() {
			d, err := w.sessionByNumber(tx, binary.BigEndian.Uint64(k[len(k)-8:]))
			if err != nil {
				return err
			}
			if !retention.Period(retention.Shortest).Over(d.CreatedAt, w.now) {
				return nil // by date: none after it is due in any application
			}
			if w.policy(agent.ApplicationOr(d.Application)).Results.Over(d.CreatedAt, w.now) {
				due = append(due, d.ID)
			}
			if n++; n == sweepBatch {
				last = bytes.Clone(k)
				return nil
			}
		}
		return nil
	})
	return due, last, err
}

// templates finds subjects who were not enrolled anew within the time.
func (w *sweeper) templates(context.Context) error {
	held := map[string]bool{}
	hs, err := w.Holds()
	if err != nil {
		return err
	}
	for _, h := range hs {
		held[h.ID] = held[h.ID] || h.Kind == HoldSubject
	}
	newest := map[string]time.Time{}
	if err := w.EachTemplate("", func(t agent.Template) error {
		if t.CreatedAt.After(newest[t.SubjectID]) {
			newest[t.SubjectID] = t.CreatedAt
		}
		return nil
	}); err != nil {
		return err
	}
	return w.eachSubject(func(sub agent.Subject) {
		from := newest[sub.ID]
		if sub.CreatedAt.After(from) {
			from = sub.CreatedAt
		}
		switch {
		case !w.policy(sub.Application).Templates.Over(from, w.now):
		case held[sub.ID]:
			w.out.Held++
		default:
			w.out.Expired = append(w.out.Expired, sub.ID)
		}
	})
}

func (s *Store) eachSubject(fn func(agent.Subject)) error {
	for after := ""; ; {
		page, err := s.Subjects(after, maxLimit)
		if err != nil {
			return err
		}
		for _, si := range page {
			fn(si.Subject)
		}
		if len(page) < maxLimit {
			return nil
		}
		after = page[len(page)-1].ID
	}
}
