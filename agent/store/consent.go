package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// RecordConsent stores a subject's consent in place of the one it has.
func (s *Store) RecordConsent(id string, c agent.Consent, actor string) (agent.Subject, error) {
	if err := c.Validate(); err != nil {
		return agent.Subject{}, err
	}
	return s.changeConsent(id, actor, "recorded", func(agent.Subject) agent.Consent { return c })
}

// WithdrawConsent ends a subject's consent from now on: its templates are not used
// any more. They stay, for the case that consent is given again; Erase deletes them.
func (s *Store) WithdrawConsent(id, actor string) (agent.Subject, error) {
	return s.changeConsent(id, actor, "withdrawn", func(sub agent.Subject) agent.Consent {
		c := sub.Consent
		if c.Withdrawn.IsZero() {
			c.Withdrawn = s.now()
		}
		return c
	})
}

func (s *Store) changeConsent(id, actor, what string, change func(agent.Subject) agent.Consent) (agent.Subject, error) {
	var sub agent.Subject
	err := s.update(s.templates, func(tx *bolt.Tx) (err error) {
		if sub, err = s.subject(tx, id); err != nil {
			return err
		}
		sub.Consent, sub.UpdatedAt = stampConsent(change(sub)), s.now()
		if err := s.writeSubject(tx, sub); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditConsent, Actor: actor, Subject: id, Detail: map[string]string{"consent": what}})
	})
	if err != nil {
		return agent.Subject{}, err
	}
	return sub, nil
}

func stampConsent(c agent.Consent) agent.Consent {
	c.At, c.Expires, c.Withdrawn = stamp(c.At), stamp(c.Expires), stamp(c.Withdrawn)
	return c
}

// Usable reports whether a subject's templates may be compared now: its consent is
// neither withdrawn nor expired, there is one where one is required, and no restored
// backup waits to be confirmed.
func (s *Store) Usable(sub agent.Subject) bool {
	if s.unconfirmed.Load() {
		return false
	}
	if !sub.Consent.Given() {
		return !s.opts.RequireConsent
	}
	return sub.Consent.Holds(s.opts.Now())
}

// mayEnrol refuses to add templates of somebody whose templates may not be used.
func (s *Store) mayEnrol(sub agent.Subject) error {
	if s.Usable(sub) {
		return nil
	}
	if s.unconfirmed.Load() {
		return coded(agent.CodeUnavailable, "a restored backup waits to be confirmed")
	}
	what := "no consent is recorded for"
	if sub.Consent.Given() {
		what = "the consent is withdrawn or has expired of"
	}
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%s subject %.140q", what, sub.ID),
		Fix: "enrol with the person's consent and its purpose: --consent NAME --purpose TEXT"}
}
