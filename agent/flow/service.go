// Package flow is the application service of verification cases: it creates
// sessions from workflows, takes what a person submits, has every step judged, keeps
// lists, and queues what webhook destinations are to hear.
//
// It fails closed: a step that could not be measured is never approved, an error of
// any part leaves the session as it was, and nothing is answered before it is durable.
package flow

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/decide"
	"postern/agent/retention"
	"postern/agent/verify"
)

// records is what the service needs from the store.
type records interface {
	workflows
	sessions
	lists
	destinations
}

type workflows interface {
	PutWorkflow(w cases.Workflow) (cases.Workflow, error)
	Workflow(id string) (cases.Workflow, error)
	PublishedWorkflow(id string) (cases.Workflow, error)
	Workflows() ([]cases.Workflow, error)
	DeleteWorkflow(id string) error
}

type sessions interface {
	CreateSession(c cases.Session, a cases.Attachments, reuse func(*cases.Session) bool) (cases.Session, error)
	UpdateSession(id string, fn func(*cases.Session) (cases.Attachments, error)) (cases.Session, error)
	Session(id string) (cases.Session, error)
	SessionByToken(token string) (cases.Session, error)
	Sessions(q cases.SessionQuery) ([]cases.Session, int, error)
	DeleteSession(id string) (cases.Session, error)
	DueSessions(now time.Time, limit int) ([]string, error)
	Face(owner, id string) (agent.Template, error)
	EachFace(fn func(agent.Template) error) error
	Media(id string) (agent.Media, error)
	PruneReplays(before time.Time, limit int) (int, error)
}

type lists interface {
	ProvideBlocklists(application string) error
	CreateList(l cases.List) (cases.List, error)
	UpdateList(uuid string, fn func(*cases.List) error) (cases.List, error)
	List(uuid string) (cases.List, error)
	Lists() ([]cases.List, error)
	DeleteList(uuid string) ([]cases.Entry, error)
	AddEntry(e cases.Entry, face *agent.Template, picture *agent.Media) (cases.Entry, error)
	Entries(list string) ([]cases.Entry, error)
	DeleteEntry(list, uuid string) (cases.Entry, error)
}

type destinations interface {
	CreateDestination(d cases.Destination) (cases.Destination, error)
	UpdateDestination(uuid string, fn func(*cases.Destination) error) (cases.Destination, error)
	Destination(uuid string) (cases.Destination, error)
	Destinations() ([]cases.Destination, error)
	DeleteDestination(uuid string) error
	QueueTest(destination string) (cases.Delivery, error)
	Resend(uuid string) (cases.Delivery, error)
	Delivery(uuid string) (cases.Delivery, error)
	Deliveries(q cases.DeliveryQuery) ([]cases.Delivery, int, error)
	PruneDeliveries(before time.Time, limit int) (int, error)
}

// prober analyses a frame of a live capture, with liveness where a network is there.
type prober interface {
	ProbeLive(ctx context.Context, f *agent.Frame) (agent.Probe, error)
}

// enrolled decides about people who are enrolled; it counts and limits attempts.
type enrolled interface {
	Subject(id string) (agent.Subject, []agent.Template, error)
	Verify(ctx context.Context, subjectID string, ev *verify.Evidence) (agent.Result, error)
}

// Config assembles a Service. Wake and Log may be nil.
type Config struct {
	Store    records
	Prober   prober
	Enrolled enrolled
	Matcher  verify.Matcher
	Links    func() cases.Links // of the answers and webhooks
	Wake     func()             // tells the webhook deliverer that there is something new
	Secret   func() ([]byte, error)
	Audit    func(agent.AuditEvent) error // nil: nothing is recorded
	Now      func() time.Time
	Rand     io.Reader
	Log      *slog.Logger

	Idle        time.Duration                                      // silence after which a session in progress is abandoned
	KeepMedia   time.Duration                                      // how long pictures wait for a decision where the application keeps no images
	LinkLife    time.Duration                                      // how long links to pictures live
	Images      func(application string) (retention.Period, error) // how long an application keeps pictures
	KeepLog     time.Duration                                      // how long deliveries stay in the log
	SearchLimit int                                                // faces of former sessions that a search looks at
	PlainHTTP   bool                                               // webhook addresses may be http
}

// Service is the application service. Its methods may be called from any goroutine.
type Service struct {
	Config
	index *index
	turns turns
}

// New provides the blocklists and loads the faces that searches look at.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Prober == nil || c.Enrolled == nil || c.Matcher.Curve == nil || c.Now == nil || c.Rand == nil {
		return nil, errors.New("the case service needs a store, a pipeline, a matcher, a clock and randomness")
	}
	if c.Images == nil {
		c.Images = func(string) (retention.Period, error) { return retention.Off, nil }
	}
	if c.Wake == nil {
		c.Wake = func() {}
	}
	if c.Audit == nil {
		c.Audit = func(agent.AuditEvent) error { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.Store.ProvideBlocklists(agent.DefaultApplication); err != nil {
		return nil, fmt.Errorf("provide blocklists: %w", err)
	}
	s := &Service{Config: c, index: newIndex(c.SearchLimit), turns: turns{busy: map[string]chan struct{}{}}}
	if err := s.loadIndex(); err != nil {
		return nil, fmt.Errorf("load faces to search: %w", err)
	}
	return s, nil
}

// now is the time as the store keeps it.
func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Microsecond) }

// random is n random bytes.
func (s *Service) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.Rand, b); err != nil {
		return nil, &agent.Error{Code: agent.CodeInternal, Message: "there is no randomness", Err: err}
	}
	return b, nil
}

// token is 72 random bits in 12 URL-safe characters; 256 make a secret of 43.
func (s *Service) token(bytes int) (string, error) {
	b, err := s.random(bytes)
	return base64.RawURLEncoding.EncodeToString(b), err
}

func (s *Service) mediaID() (string, error) {
	b, err := s.random(16)
	return hex.EncodeToString(b), err
}

// turns lets one caller at a time work on a session: two submissions at once would
// both be judged on the same attempt.
type turns struct {
	mu   sync.Mutex // guards busy
	busy map[string]chan struct{}
}

func (t *turns) take(ctx context.Context, id string) (leave func(), err error) {
	for {
		t.mu.Lock()
		wait, taken := t.busy[id]
		if !taken {
			done := make(chan struct{})
			t.busy[id] = done
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, id)
				t.mu.Unlock()
				close(done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// curve is short for the score's.
func (s *Service) curve() *decide.Curve { return s.Matcher.Curve }

// audit records a deed that has been done. The deed stands even where its record
// cannot be written, which the log of the process then says.
func (s *Service) audit(action agent.AuditAction, actor string, detail map[string]string) {
	if err := s.Audit(agent.AuditEvent{Action: action, Actor: actor, Detail: detail}); err != nil {
		s.Log.Error("a deed is missing from the audit log", "action", action, "err", err)
	}
}

func notFound(what, id string) error {
	return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("there is no %s %.80q", what, id)}
}

// visible passes an error on, and turns what the caller may not see into "not found".
func visible(c cases.Scope, v cases.Session, err error) (cases.Session, error) {
	if err == nil && !c.Sees(&v) {
		return cases.Session{}, notFound("session", v.ID)
	}
	return v, err
}
