package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

// CreateSession stores a new session under the next number and queues its first
// event, all in one transaction. An empty ID gets a UUIDv7. When reuse is given it
// sees the unfinished sessions of the same vendor_data, newest first, in the same
// transaction: if it takes one, by returning true, that session is stored as reuse
// has left it and returned instead.
func (s *Store) CreateSession(c cases.Session, a cases.Attachments, reuse func(*cases.Session) bool) (cases.Session, error) {
	if err := s.fillID(&c.ID); err != nil {
		return cases.Session{}, err
	}
	var out cases.Session
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if reuse != nil && c.VendorData != "" {
			old, err := s.reusable(tx, c.VendorData, reuse)
			if err != nil {
				return err
			}
			if old != nil {
				out = *old
				return s.storeSession(tx, &out, out.Revision, cases.Attachments{})
			}
		}
		out = c
		return s.insertSession(tx, &out, a)
	})
	if err != nil {
		return cases.Session{}, err
	}
	out.Trail = nil
	return out, nil
}

func (s *Store) insertSession(tx *bolt.Tx, c *cases.Session, a cases.Attachments) error {
	meta := bucket(tx, bucketMeta)
	n, err := number(meta, keyLastSession)
	if err != nil {
		return err
	}
	if err := checkID("session", c.ID); err != nil {
		return err
	}
	ids := bucket(tx, caseIDs)
	if has(ids, []byte(c.ID)) {
		return coded(agent.CodeConflict, "there is a session %q already", c.ID)
	}
	c.Number = n + 1
	if err := setNumber(meta, keyLastSession, c.Number); err != nil {
		return err
	}
	if err := ids.Put([]byte(c.ID), seqKey(c.Number)); err != nil {
		return err
	}
	if c.Token != "" {
		tokens := bucket(tx, caseTokens)
		if has(tokens, digest(c.Token)) {
			return coded(agent.CodeConflict, "the session token is taken")
		}
		if err := tokens.Put(digest(c.Token), seqKey(c.Number)); err != nil {
			return err
		}
	}
	first := *c
	first.Trail = nil
	c.Trail = append([]cases.Session{first}, c.Trail...)
	return s.storeSession(tx, c, 0, a)
}

func (s *Store) reusable(tx *bolt.Tx, vendor string, reuse func(*cases.Session) bool) (*cases.Session, error) {
	numbers := keysOf(bucket(tx, caseVendors), digest(vendor)[:16])
	for _, n := range slices.Backward(numbers) {
		old, err := s.sessionByNumber(tx, n)
		if err != nil {
			return nil, err
		}
		if old.VendorData == vendor && old.Unfinished() && reuse(&old) {
			return &old, nil
		}
	}
	return nil, nil
}

// UpdateSession changes a session in one transaction: fn sees it as stored and
// changes it. Each change of status, and the event that fn asks for, is queued for
// the webhook destinations in the same transaction. An error of fn changes nothing.
// fn must be quick and must not call the Store.
func (s *Store) UpdateSession(id string, fn func(*cases.Session) (cases.Attachments, error)) (cases.Session, error) {
	var out cases.Session
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		c, err := s.sessionByID(tx, id)
		if err != nil {
			return err
		}
		revision := c.Revision
		a, err := fn(&c)
		if err != nil {
			return err
		}
		if c.ID != id {
			return errors.New("a change of a session's id")
		}
		err = s.storeSession(tx, &c, revision, a)
		out = c
		return err
	})
	if err != nil {
		return cases.Session{}, err
	}
	out.Trail = nil
	return out, nil
}

// storeSession writes the session, its indexes, attachments and events.
func (s *Store) storeSession(tx *bolt.Tx, c *cases.Session, revision uint64, a cases.Attachments) error {
	if revision > 0 {
		old, err := s.sessionByNumber(tx, c.Number)
		if err != nil {
			return err
		}
		if err := unindexSession(tx, &old); err != nil {
			return err
		}
	}
	c.Revision = revision + 1
	owner := SessionOwner(c.ID)
	for _, m := range a.Media {
		m.Owner = owner
		if err := s.putMedia(tx, m); err != nil {
			return err
		}
	}
	for _, f := range a.Faces {
		if err := s.putFace(tx, owner, f); err != nil {
			return err
		}
	}
	if err := s.dropAttachments(tx, owner, a.Drop); err != nil {
		return err
	}
	if err := s.keepMedia(tx, owner, a.Until); err != nil {
		return err
	}
	if err := s.writeSession(tx, c); err != nil {
		return err
	}
	if err := indexSession(tx, c); err != nil {
		return err
	}
	return s.announce(tx, c, a.Event)
}

func (s *Store) dropAttachments(tx *bolt.Tx, owner string, ids []string) error {
	for _, id := range ids {
		if err := s.dropMedia(tx, id); err != nil {
			return err
		}
		if err := bucket(tx, caseFaces).Delete(join(owner, id)); err != nil {
			return err
		}
	}
	return nil
}

// writeSession stores the record behind its id: the id names the owner that the
// record is sealed to.
func (s *Store) writeSession(tx *bolt.Tx, c *cases.Session) error {
	key := seqKey(c.Number)
	if err := s.putCase(tx, caseSessions, key, c, caseBinding(KindSession, SessionOwner(c.ID), c.ID)); err != nil {
		return err
	}
	b := bucket(tx, caseSessions)
	return b.Put(key, append(owned(c.ID), b.Get(key)...))
}

func (s *Store) sessionByNumber(tx *bolt.Tx, n uint64) (cases.Session, error) {
	v := bucket(tx, caseSessions).Get(seqKey(n))
	if v == nil {
		return cases.Session{}, noCase("session number", strconv.FormatUint(n, 10))
	}
	return s.openSession(tx, seqKey(n), v)
}

func (s *Store) openSession(tx *bolt.Tx, k, v []byte) (cases.Session, error) {
	var c cases.Session
	id, sealed, err := cutOwner(v)
	if err != nil {
		return c, badRecord(KindSession, k, err)
	}
	if err := s.openCase(tx, k, sealed, &c, caseBinding(KindSession, SessionOwner(id), id)); err != nil {
		return cases.Session{}, err
	}
	if c.ID != id || !bytes.Equal(seqKey(c.Number), k) {
		return cases.Session{}, badRecord(KindSession, k, errors.New("it belongs to another record"))
	}
	return c, nil
}

func (s *Store) sessionByID(tx *bolt.Tx, id string) (cases.Session, error) {
	return s.sessionBy(tx, caseIDs, []byte(id), id)
}

func (s *Store) sessionBy(tx *bolt.Tx, index string, key []byte, shown string) (cases.Session, error) {
	if len(key) == 0 {
		return cases.Session{}, noCase("session", shown)
	}
	v := bucket(tx, index).Get(key)
	if v == nil {
		return cases.Session{}, noCase("session", shown)
	}
	n, err := parseSeq(v)
	if err != nil {
		return cases.Session{}, badRecord(KindSession, key, err)
	}
	return s.sessionByNumber(tx, n)
}

// Session returns a session by its id, or agent.CodeNotFound.
func (s *Store) Session(id string) (cases.Session, error) {
	var c cases.Session
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		c, err = s.sessionByID(tx, id)
		return err
	})
	return c, err
}

// SessionByToken returns the session that a token opens, or agent.CodeNotFound.
func (s *Store) SessionByToken(token string) (cases.Session, error) {
	var c cases.Session
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		c, err = s.sessionBy(tx, caseTokens, digest(token), "with this token")
		return err
	})
	return c, err
}

// place is where a session is listed: its environment and, unless it is the default
// one, its application, whose name has no control characters.
func place(environment, application string) string {
	if application = agent.ApplicationOr(application); application == agent.DefaultApplication {
		return environment
	}
	return environment + "\x01" + application
}

// index keys of a session, by bucket.
func sessionKeys(c *cases.Session) map[string][]byte {
	n := seqKey(c.Number)
	keys := map[string][]byte{
		caseStatuses: append(join(place(c.Environment, c.Application), string(c.Status), ""), n...),
		caseDates:    append(timeKey(c.CreatedAt), n...),
	}
	if c.VendorData != "" {
		keys[caseVendors] = append(digest(c.VendorData)[:16:16], n...)
	}
	if c.WorkflowID != "" {
		keys[caseByWorkflow] = append(prefix(c.WorkflowID), n...)
	}
	if !c.DueAt.IsZero() {
		keys[caseDue] = append(timeKey(c.DueAt), n...)
	}
	return keys
}

func indexSession(tx *bolt.Tx, c *cases.Session) error {
	for name, key := range sessionKeys(c) {
		if err := bucket(tx, name).Put(key, nil); err != nil {
			return err
		}
	}
	return nil
}

func unindexSession(tx *bolt.Tx, c *cases.Session) error {
	for name, key := range sessionKeys(c) {
		if err := bucket(tx, name).Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// DeleteSession deletes a session with its pictures, faces, events and deliveries
// in one transaction, and returns it as it was. List entries made from it stay.
func (s *Store) DeleteSession(id string) (cases.Session, error) {
	var c cases.Session
	s.holding.RLock()
	defer s.holding.RUnlock()
	if err := s.deletable(HoldSession, id); err != nil {
		return c, err
	}
	if about, err := s.Session(id); err == nil && about.VendorData != "" {
		if err := s.deletable(HoldSubject, about.VendorData); err != nil {
			return c, err
		}
	}
	err := s.bury(s.cases, func(tx *bolt.Tx) (err error) {
		if c, err = s.sessionByID(tx, id); err != nil {
			return err
		}
		return s.dropSession(tx, &c)
	})
	return c, err
}

// eraseSessionsOf deletes the sessions about a person, with their pictures, faces and
// keys. All of them or, where one is under a legal hold, none. It comes before the
// person, so that a kill in between leaves somebody who can be erased again.
func (s *Store) eraseSessionsOf(vendor string) error {
	ids, err := s.sessionsOf(vendor)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.deletable(HoldSession, id); err != nil {
			return err
		}
	}
	for _, id := range ids {
		err := s.bury(s.cases, func(tx *bolt.Tx) error {
			c, err := s.sessionByID(tx, id)
			if err != nil {
				return err
			}
			return s.dropSession(tx, &c)
		})
		if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
			return err
		}
	}
	return nil
}

// sessionsOf lists the ids of all sessions with this vendor_data, of any environment.
func (s *Store) sessionsOf(vendor string) (ids []string, err error) {
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		for _, n := range keysOf(bucket(tx, caseVendors), digest(vendor)[:16]) {
			c, err := s.sessionByNumber(tx, n)
			if err != nil {
				return err
			}
			if c.VendorData == vendor {
				ids = append(ids, c.ID)
			}
		}
		return nil
	})
	return ids, err
}

func (s *Store) dropSession(tx *bolt.Tx, c *cases.Session) error {
	if err := unindexSession(tx, c); err != nil {
		return err
	}
	if err := bucket(tx, caseSessions).Delete(seqKey(c.Number)); err != nil {
		return err
	}
	if err := bucket(tx, caseIDs).Delete([]byte(c.ID)); err != nil {
		return err
	}
	if c.Token != "" {
		if err := bucket(tx, caseTokens).Delete(digest(c.Token)); err != nil {
			return err
		}
	}
	if err := s.dropDeliveries(tx, c.ID); err != nil {
		return err
	}
	return s.dropOwner(tx, SessionOwner(c.ID))
}

// Sessions lists sessions, newest first, with the exact number that match. All of it
// is read in one transaction.
func (s *Store) Sessions(q cases.SessionQuery) (page []cases.Session, count int, err error) {
	q.Limit = clampLimit(q.Limit)
	page = []cases.Session{}
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		numbers := numbersOf(tx, &q)
		if q.Text != "" {
			if numbers, err = s.containing(tx, numbers, q.Text); err != nil {
				return err
			}
		}
		count = len(numbers)
		slices.SortFunc(numbers, func(a, b uint64) int { return -compare(a, b) })
		for i := max(0, q.Offset); i < len(numbers) && len(page) < q.Limit; i++ {
			c, err := s.sessionByNumber(tx, numbers[i])
			if err != nil {
				return err
			}
			page = append(page, c)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return page, count, nil
}

func compare(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// numbers answers all criteria but the text from the indexes.
func numbersOf(tx *bolt.Tx, q *cases.SessionQuery) []uint64 {
	sets := [][]uint64{byStatus(tx, q)}
	if q.VendorData != "" {
		sets = append(sets, keysOf(bucket(tx, caseVendors), digest(q.VendorData)[:16]))
	}
	for _, groups := range [][]string{q.Workflows, q.Allowed} {
		if groups == nil {
			continue
		}
		var in []uint64
		for _, g := range groups {
			in = append(in, keysOf(bucket(tx, caseByWorkflow), prefix(g))...)
		}
		sets = append(sets, in)
	}
	if !q.From.IsZero() || !q.To.IsZero() {
		sets = append(sets, byDate(tx, q))
	}
	if q.ID != "" {
		var one []uint64
		if v := bucket(tx, caseIDs).Get([]byte(q.ID)); len(v) == 8 {
			one = append(one, binary.BigEndian.Uint64(v))
		}
		sets = append(sets, one)
	}
	out := intersect(sets)
	if q.Number > 0 || q.Digits != "" {
		out = slices.DeleteFunc(out, func(n uint64) bool {
			return q.Number > 0 && n != q.Number || !strings.HasPrefix(strconv.FormatUint(n, 10), q.Digits)
		})
	}
	return out
}

func byStatus(tx *bolt.Tx, q *cases.SessionQuery) (out []uint64) {
	b, at := bucket(tx, caseStatuses), place(q.Environment, q.Application)
	if q.Statuses == nil {
		return keysOf(b, prefix(at))
	}
	for i, st := range q.Statuses {
		if !slices.Contains(q.Statuses[:i], st) {
			out = append(out, keysOf(b, join(at, string(st), ""))...)
		}
	}
	return out
}

func byDate(tx *bolt.Tx, q *cases.SessionQuery) (out []uint64) {
	c := bucket(tx, caseDates).Cursor()
	end := []byte(nil)
	if !q.To.IsZero() {
		end = timeKey(q.To)
	}
	for k, _ := c.Seek(timeKey(q.From)); k != nil && (end == nil || bytes.Compare(k[:8], end) < 0); k, _ = c.Next() {
		out = append(out, binary.BigEndian.Uint64(k[len(k)-8:]))
	}
	return out
}

// keysOf reads the numbers at the end of all keys with a prefix.
func keysOf(b *bolt.Bucket, p []byte) (out []uint64) {
	c := b.Cursor()
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		if len(k) >= 8 {
			out = append(out, binary.BigEndian.Uint64(k[len(k)-8:]))
		}
	}
	return out
}

// intersect keeps what is in every set.
func intersect(sets [][]uint64) []uint64 {
	seen := map[uint64]int{}
	for i, set := range sets {
		for _, n := range set {
			if seen[n] == i {
				seen[n] = i + 1
			}
		}
	}
	var out []uint64
	for n, in := range seen {
		if in == len(sets) {
			out = append(out, n)
		}
	}
	return out
}

func (s *Store) containing(tx *bolt.Tx, numbers []uint64, text string) (out []uint64, err error) {
	text = strings.ToLower(text)
	for _, n := range numbers {
		c, err := s.sessionByNumber(tx, n)
		if err != nil {
			return nil, err
		}
		if strings.Contains(strings.ToLower(c.VendorData), text) || strings.Contains(strings.ToLower(c.FullName()), text) {
			out = append(out, n)
		}
	}
	return out, nil
}

// DueSessions returns the ids of sessions whose status time changes at or before
// now, the most overdue first.
func (s *Store) DueSessions(now time.Time, limit int) (ids []string, err error) {
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		c := bucket(tx, caseDue).Cursor()
		end := timeKey(now.Add(time.Microsecond))
		for k, _ := c.First(); k != nil && bytes.Compare(k[:8], end) < 0 && len(ids) < limit; k, _ = c.Next() {
			d, err := s.sessionByNumber(tx, binary.BigEndian.Uint64(k[8:]))
			if err != nil {
				return err
			}
			ids = append(ids, d.ID)
		}
		return nil
	})
	return ids, err
}
