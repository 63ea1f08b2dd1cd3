package store

import (
	"errors"
	"strings"
	"time"
	"unicode"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// HoldKind says what a legal hold is on.
type HoldKind string

// The kinds. A hold on a subject covers its templates, all results that name it, and the
// sessions that are about it by their vendor_data.
const (
	HoldSubject HoldKind = "subject"
	HoldResult  HoldKind = "result"
	HoldSession HoldKind = "session"
)

// Hold keeps something from being deleted, by retention or by hand, until it is
// released.
type Hold struct {
	Kind   HoldKind  `json:"kind"`
	ID     string    `json:"id"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// maxReason bounds the texts of a hold.
const maxReason = 500

func (h Hold) validate() error {
	switch h.Kind {
	case HoldSubject, HoldResult, HoldSession:
	default:
		return invalid("hold on %.40q, want %s, %s or %s", h.Kind, HoldSubject, HoldResult, HoldSession)
	}
	if h.ID == "" || len(h.ID) > agent.MaxSubjectID || strings.ContainsFunc(h.ID, notPrintable) {
		return invalid("the id of a hold is not 1 to %d printable characters without spaces", agent.MaxSubjectID)
	}
	for what, text := range map[string]string{"reason": h.Reason, "name": h.By} {
		if text == "" || len(text) > maxReason || strings.ContainsFunc(text, unicode.IsControl) {
			return invalid("a hold needs a %s of 1 to %d characters", what, maxReason)
		}
	}
	return nil
}

func holdKey(k HoldKind, id string) []byte { return join(string(k), id) }

func holdBinding(key []byte) Binding { return Binding{Kind: "hold", Record: string(key)} }

func bindHold(_ *Store, k, _ []byte) (Binding, int, error) { return holdBinding(k), 0, nil }

// Hold places a hold; one that is there already is agent.CodeConflict. It may name
// what does not exist, or not yet.
func (s *Store) Hold(h Hold) (Hold, error) {
	h.At = s.now()
	if err := h.validate(); err != nil {
		return Hold{}, err
	}
	p, err := encodePayload(h, nil)
	if err != nil {
		return Hold{}, err
	}
	key := holdKey(h.Kind, h.ID)
	s.holding.Lock() // until it is durable nothing that it covers is being deleted
	defer s.holding.Unlock()
	err = s.update(s.results, func(tx *bolt.Tx) error {
		b := bucket(tx, bucketHolds)
		if has(b, key) {
			return coded(agent.CodeConflict, "there is a hold on %s %.140q already", h.Kind, h.ID)
		}
		v, err := s.seal(tx, p, holdBinding(key))
		if err != nil {
			return err
		}
		return errors.Join(b.Put(key, v), s.auditHold(tx, h, "placed"))
	})
	return h, err
}

// Release removes a hold and returns it; one that is not there is agent.CodeNotFound.
func (s *Store) Release(k HoldKind, id, by string) (Hold, error) {
	var h Hold
	err := s.update(s.results, func(tx *bolt.Tx) error {
		b, key := bucket(tx, bucketHolds), holdKey(k, id)
		v := b.Get(key)
		if v == nil {
			return coded(agent.CodeNotFound, "there is no hold on %.40s %.140q", k, id)
		}
		var err error
		if h, err = s.openHold(tx, key, v); err != nil {
			return err
		}
		released := h
		released.By = by
		return errors.Join(b.Delete(key), s.auditHold(tx, released, "released"))
	})
	return h, err
}

func (s *Store) auditHold(tx *bolt.Tx, h Hold, what string) error {
	e := agent.AuditEvent{Action: agent.AuditConfigure, Actor: h.By, Detail: map[string]string{"hold": what, "kind": string(h.Kind)}}
	if h.Kind == HoldSubject {
		e.Subject = h.ID
	} else {
		e.Detail["id"] = h.ID
	}
	return s.audit(tx, e)
}

// Holds lists the holds, by kind and id.
func (s *Store) Holds() ([]Hold, error) {
	out := []Hold{}
	err := s.view(s.results, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketHolds).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			h, err := s.openHold(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, h)
		}
		return nil
	})
	return out, err
}

func (s *Store) openHold(tx *bolt.Tx, k, v []byte) (Hold, error) {
	p, err := s.unseal(tx, v, holdBinding(k))
	if err != nil {
		return Hold{}, badRecord("hold", k, err)
	}
	h, err := decodeHold(p)
	if err != nil {
		return Hold{}, badRecord("hold", k, err)
	}
	return h, nil
}

func decodeHold(p []byte) (Hold, error) {
	var h Hold
	if err := decodeHeader(p, &h); err != nil {
		return Hold{}, err
	}
	return h, h.validate()
}

// decodeHeader decodes a payload that has no floats.
func decodeHeader(p []byte, v any) error {
	floats, err := decodePayload(p, v)
	if err == nil && len(floats) > 0 {
		err = errors.New("floats where there are none")
	}
	return err
}

// deletable is an error when a hold is on something that is about to be deleted. The
// caller keeps s.holding until it is deleted.
func (s *Store) deletable(k HoldKind, id string) error {
	return s.view(s.results, func(tx *bolt.Tx) error {
		if !has(bucket(tx, bucketHolds), holdKey(k, id)) {
			return nil
		}
		return &agent.Error{Code: agent.CodeConflict, Message: "there is a legal hold on " + string(k) + " " + quoteKey([]byte(id)),
			Fix: "release it first"}
	})
}
