package store

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// SubjectInfo is a subject with the number of its templates.
type SubjectInfo struct {
	agent.Subject
	Templates int `json:"templates"`
}

// PutSubject creates a subject or changes the name of an existing one, and
// returns it as stored. CreatedAt of an existing subject stays, its Version when the one
// given is not greater, and its Consent when none is given; UpdatedAt is set. A Version
// that an erasure has voided is agent.CodeConflict; a new subject without a Version gets
// a new one. Repeating it changes nothing but UpdatedAt.
func (s *Store) PutSubject(sub agent.Subject) (agent.Subject, error) {
	if err := agent.ValidateSubject(sub.ID, sub.Name); err != nil {
		return agent.Subject{}, err
	}
	var stored agent.Subject
	err := s.grow(s.templates, func(tx *bolt.Tx) (err error) {
		stored, err = s.putSubject(tx, sub)
		return err
	})
	if err != nil {
		return agent.Subject{}, err
	}
	return stored, nil
}

// Subject returns a subject, or agent.CodeNotFound.
func (s *Store) Subject(id string) (agent.Subject, error) {
	var sub agent.Subject
	err := s.view(s.templates, func(tx *bolt.Tx) (err error) {
		sub, err = s.subject(tx, id)
		return err
	})
	if err != nil {
		return agent.Subject{}, err
	}
	return sub, nil
}

// Subjects lists subjects in the order of their ids, those after the id "after",
// at most limit (1..1000; 0 means 100). The end is a list shorter than limit.
func (s *Store) Subjects(after string, limit int) ([]SubjectInfo, error) {
	limit = clampLimit(limit)
	out := []SubjectInfo{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		templates := bucket(tx, bucketTemplates)
		c := bucket(tx, bucketSubjects).Cursor()
		for k, v := seekAfter(c, []byte(after)); k != nil && len(out) < limit; k, v = c.Next() {
			sub, err := s.openSubject(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, SubjectInfo{sub, countPrefix(templates, prefix(sub.ID))})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteSubject is Erase by the Store's own actor; it returns how many templates
// there were. Results that name the subject stay.
func (s *Store) DeleteSubject(id string) (int, error) {
	removed, _, err := s.Erase(id, "")
	return removed, err
}

func errNoSubject(id string) error {
	return coded(agent.CodeNotFound, "there is no subject %.140q", id)
}

func requireSubject(tx *bolt.Tx, id string) error {
	if !has(bucket(tx, bucketSubjects), []byte(id)) {
		return errNoSubject(id)
	}
	return nil
}

// has tells whether a key is there. bbolt refuses no key on reading, but none
// is ever empty.
func has(b *bolt.Bucket, key []byte) bool { return len(key) > 0 && b.Get(key) != nil }

func (s *Store) subject(tx *bolt.Tx, id string) (agent.Subject, error) {
	v := bucket(tx, bucketSubjects).Get([]byte(id))
	if v == nil {
		return agent.Subject{}, errNoSubject(id)
	}
	return s.openSubject(tx, []byte(id), v)
}

func (s *Store) putSubject(tx *bolt.Tx, sub agent.Subject) (agent.Subject, error) {
	old, err := s.subject(tx, sub.ID)
	isNew := agent.ErrorCode(err) == agent.CodeNotFound
	if err != nil && !isNew {
		return agent.Subject{}, err
	}
	if isNew || sub.Version > 0 { // a voided enrolment must not join one made after it either
		if sub.Version, err = s.nextVersion(tx, sub.ID, sub.Version); err != nil {
			return agent.Subject{}, err
		}
	}
	if !sub.Consent.Given() {
		sub.Consent = old.Consent
	}
	if sub.Application == "" {
		sub.Application = old.Application
	}
	sub.Consent = stampConsent(sub.Consent)
	sub.UpdatedAt = s.now()
	switch {
	case !isNew:
		sub.CreatedAt, sub.Version = old.CreatedAt, max(old.Version, sub.Version)
	case sub.CreatedAt.IsZero():
		sub.CreatedAt = sub.UpdatedAt
	}
	sub.CreatedAt = stamp(sub.CreatedAt)
	if isNew {
		if err := addNumber(bucket(tx, bucketMeta), keySubjects, 1); err != nil {
			return agent.Subject{}, err
		}
	}
	return sub, s.writeSubject(tx, sub)
}

func (s *Store) writeSubject(tx *bolt.Tx, sub agent.Subject) error {
	payload, err := encodePayload(sub, nil)
	if err != nil {
		return invalid("subject %q cannot be stored: %v", sub.ID, err)
	}
	v, err := s.seal(tx, payload, subjectBinding(sub.ID))
	if err != nil {
		return err
	}
	if err := bucket(tx, bucketSubjects).Put([]byte(sub.ID), v); err != nil {
		return err
	}
	return s.touch(tx, changeSubject+sub.ID)
}

func subjectBinding(id string) Binding { return Binding{Kind: KindSubject, Subject: id} }

func (s *Store) openSubject(tx *bolt.Tx, k, v []byte) (agent.Subject, error) {
	p, err := s.unseal(tx, v, subjectBinding(string(k)))
	if err != nil {
		return agent.Subject{}, badRecord("subject", k, err)
	}
	return subjectOf(k, p)
}

func subjectOf(k, payload []byte) (agent.Subject, error) {
	sub, err := decodeSubject(payload)
	if err == nil && sub.ID != string(k) {
		err = errors.New("it belongs to another subject")
	}
	if err != nil {
		return agent.Subject{}, badRecord("subject", k, err)
	}
	return sub, nil
}

// badRecord reports one unreadable record in an otherwise sound file.
func badRecord(kind string, key []byte, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: "the stored " + kind + " " + quoteKey(key) + " cannot be read",
		Fix: "restore a backup; nothing was changed", Err: err}
}

// seekAfter moves to the first key greater than after.
func seekAfter(c *bolt.Cursor, after []byte) (k, v []byte) {
	if k, v = c.Seek(after); k != nil && bytes.Equal(k, after) {
		return c.Next()
	}
	return k, v
}

const (
	defaultLimit = 100
	maxLimit     = 1000
)

func clampLimit(n int) int {
	if n <= 0 {
		return defaultLimit
	}
	return min(n, maxLimit)
}
