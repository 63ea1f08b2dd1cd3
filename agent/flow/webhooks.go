package flow

import (
	"slices"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// RotationOverlap is how long an old webhook secret goes on signing after a new one
// has been made, unless the caller says otherwise.
const RotationOverlap = 24 * time.Hour

// Destinations lists those of the scope, oldest first.
func (s *Service) Destinations(c cases.Scope) ([]cases.Destination, error) {
	all, err := s.Store.Destinations()
	return slices.DeleteFunc(all, func(d cases.Destination) bool { return !hears(c, &d) }), err
}

// hears tells whether a destination is the scope's.
func hears(c cases.Scope, d *cases.Destination) bool {
	return c.Owns(d.Application) && d.Sandbox == c.Sandbox
}

// Destination returns one.
func (s *Service) Destination(c cases.Scope, uuid string) (cases.Destination, error) {
	d, err := s.Store.Destination(uuid)
	if err == nil && !hears(c, &d) {
		return cases.Destination{}, notFound("webhook destination", uuid)
	}
	return d, err
}

// CreateDestination makes a destination with a new secret.
func (s *Service) CreateDestination(c cases.Scope, d cases.Destination) (cases.Destination, error) {
	if made, err := s.Destination(c, c.Record); err == nil {
		return made, nil // by an earlier try of the same request
	}
	d.UUID, d.Application, d.Sandbox = c.Record, c.Application, c.Sandbox
	if d.Version == "" {
		d.Version = "v3"
	}
	if d.Events == nil {
		d.Events = cases.AllEvents()
	}
	if err := d.Validate(s.PlainHTTP); err != nil {
		return d, err
	}
	var err error
	if d.Secret, err = s.token(32); err != nil {
		return d, err
	}
	out, err := s.Store.CreateDestination(d)
	return out, urlTaken(err)
}

func urlTaken(err error) error {
	if agent.ErrorCode(err) == agent.CodeConflict {
		return cases.Wrong("url", "A webhook destination with this URL already exists.")
	}
	return err
}

// ChangeDestination changes a destination. With rotate it gets a new secret, which
// takes over when the overlap has passed.
func (s *Service) ChangeDestination(c cases.Scope, uuid string, change func(*cases.Destination), rotate bool, overlap time.Duration) (cases.Destination, error) {
	if _, err := s.Destination(c, uuid); err != nil {
		return cases.Destination{}, err
	}
	secret := ""
	if rotate {
		var err error
		if secret, err = s.token(32); err != nil {
			return cases.Destination{}, err
		}
	}
	out, err := s.Store.UpdateDestination(uuid, func(d *cases.Destination) error {
		change(d)
		if rotate {
			d.Rotate(secret, s.now(), overlap)
		}
		return d.Validate(s.PlainHTTP)
	})
	return out, urlTaken(err)
}

// DeleteDestination deletes a destination and what was still to be sent there.
func (s *Service) DeleteDestination(c cases.Scope, uuid string) error {
	if _, err := s.Destination(c, uuid); err != nil {
		return err
	}
	return s.Store.DeleteDestination(uuid)
}

// TestDestination queues a delivery that says nothing but that it is a test.
func (s *Service) TestDestination(c cases.Scope, uuid string) (cases.Delivery, error) {
	if _, err := s.Destination(c, uuid); err != nil {
		return cases.Delivery{}, err
	}
	d, err := s.Store.QueueTest(uuid)
	s.Wake()
	return d, err
}

// Deliveries lists the log of a destination, or of a session that the caller sees.
func (s *Service) Deliveries(c cases.Scope, q cases.DeliveryQuery) ([]cases.Delivery, int, error) {
	if q.SessionID != "" {
		if _, err := s.Session(c, q.SessionID); err != nil {
			return nil, 0, err
		}
	} else if _, err := s.Destination(c, q.Destination); err != nil {
		return nil, 0, err
	}
	return s.Store.Deliveries(q)
}

// Delivery returns one delivery of the log.
func (s *Service) Delivery(c cases.Scope, uuid string) (cases.Delivery, error) {
	d, err := s.Store.Delivery(uuid)
	if err != nil {
		return d, err
	}
	if d.SessionID != "" {
		_, err = s.Session(c, d.SessionID)
	} else {
		_, err = s.Destination(c, d.Destination)
	}
	return d, err
}

// Resend queues a delivery again, with the same event_id.
func (s *Service) Resend(c cases.Scope, uuid string) (cases.Delivery, error) {
	if _, err := s.Delivery(c, uuid); err != nil {
		return cases.Delivery{}, err
	}
	d, err := s.Store.Resend(uuid)
	s.Wake()
	return d, err
}
