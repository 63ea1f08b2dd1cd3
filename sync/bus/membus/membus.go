// Package membus is an MQTT broker in memory with the manners of a real one, for
// tests with a fake clock: a session's messages may be held up, and every session may
// be cut at any moment.
package membus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"postern/sync/bus"
)

// Broker is a broker. The zero value is ready.
type Broker struct {
	// Forbidden is a filter that nobody may subscribe to; "" forbids none.
	Forbidden string

	mu       sync.Mutex // guards the fields below
	sessions map[string]*session
	retained map[string]bus.Message
	down     bool
	frozen   bool
	held     []func() // what happens when it thaws
}

var errCut = errors.New("connection cut")

var _ bus.Dialer = (*Broker)(nil)

type session struct {
	broker *Broker
	c      bus.Connect
	ctx    context.Context
	end    context.CancelCauseFunc
	inbox  chan bus.Message
	wait   sync.WaitGroup
}

// Dial implements bus.Dialer. A session of the same client ends, as brokers have it.
func (b *Broker) Dial(_ context.Context, c bus.Connect) (bus.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down || b.frozen {
		return nil, errors.New("connection refused")
	}
	if b.Forbidden != "" && slices.Contains(c.Subscribe, b.Forbidden) {
		return nil, errors.New("the broker refuses the subscription to " + b.Forbidden)
	}
	if old := b.sessions[c.ClientID]; old != nil {
		b.cutLocked(old)
	}
	s := &session{broker: b, c: c, inbox: make(chan bus.Message, 4096)}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	if b.sessions == nil {
		b.sessions, b.retained = map[string]*session{}, map[string]bus.Message{}
	}
	b.sessions[c.ClientID] = s
	s.wait.Go(s.deliver)
	for _, topic := range slices.Sorted(maps.Keys(b.retained)) {
		if m := b.retained[topic]; s.wants(topic) {
			s.inbox <- m
		}
	}
	return s, nil
}

// deliver calls the handler, one message at a time.
func (s *session) deliver() {
	for {
		select {
		case m := <-s.inbox:
			if s.c.Handle != nil {
				s.c.Handle(s.ctx, m)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *session) wants(topic string) bool {
	return slices.ContainsFunc(s.c.Subscribe, func(f string) bool { return matches(f, topic) })
}

// matches tells whether a topic falls under a filter.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

// Publish implements bus.Session.
func (s *session) Publish(m bus.Message, done func(error)) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.ctx.Err() != nil {
		go done(context.Cause(s.ctx))
		return
	}
	m.Payload = slices.Clone(m.Payload)
	act := func() {
		if s.ctx.Err() == nil {
			b.route(m)
		}
		go done(context.Cause(s.ctx))
	}
	if b.frozen {
		b.held = append(b.held, act)
		return
	}
	act()
}

// route gives a message to all who want it; a full inbox ends its session. The
// caller holds the lock.
func (b *Broker) route(m bus.Message) {
	if m.Retain {
		b.retained[m.Topic] = m
	}
	m.Retain = false
	for _, id := range slices.Sorted(maps.Keys(b.sessions)) {
		s := b.sessions[id]
		if !s.wants(m.Topic) {
			continue
		}
		select {
		case s.inbox <- m:
		default:
			b.cutLocked(s)
		}
	}
}

// Done implements bus.Session.
func (s *session) Done() <-chan struct{} { return s.ctx.Done() }

// Err implements bus.Session.
func (s *session) Err() error { return context.Cause(s.ctx) }

// Close implements bus.Session.
func (s *session) Close(polite bool) {
	s.broker.mu.Lock()
	if polite && s.ctx.Err() == nil {
		s.c.Will = nil
	}
	s.broker.cutLocked(s)
	s.broker.mu.Unlock()
	s.wait.Wait()
}

// cutLocked ends a session and publishes its will.
func (b *Broker) cutLocked(s *session) {
	if s.ctx.Err() != nil {
		return
	}
	s.end(errCut)
	if b.sessions[s.c.ClientID] == s {
		delete(b.sessions, s.c.ClientID)
	}
	if s.c.Will != nil {
		b.route(*s.c.Will)
	}
}

// Cut ends all sessions.
func (b *Broker) Cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(b.sessions)) {
		if s := b.sessions[id]; s != nil {
			b.cutLocked(s)
		}
	}
}

// SetDown makes the broker refuse connections, or accept them again.
func (b *Broker) SetDown(down bool) {
	b.mu.Lock()
	b.down = down
	b.mu.Unlock()
	if down {
		b.Cut()
	}
}

// Freeze holds everything up, as a half-open connection does, until Thaw.
func (b *Broker) Freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = true
}

// Thaw lets what was held up happen.
func (b *Broker) Thaw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = false
	for _, act := range b.held {
		act()
	}
	b.held = nil
}
