package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/throttle"
)

// records is what the service needs from the store, which also gives ids and
// times to what has none.
type records interface {
	Subject(id string) (agent.Subject, error)
	// Templates returns copies, which are the caller's to wipe.
	Templates(subjectID string) ([]agent.Template, error)
	// EachTemplate zeroes an embedding when fn has returned.
	EachTemplate(space string, fn func(agent.Template) error) error
	// Enrol stores the subject and adds the templates in one transaction.
	Enrol(s agent.Subject, ts []agent.Template) (agent.Subject, []agent.Template, error)
	DeleteSubject(id string) (int, error)
	// Usable reports whether the subject's consent lets its templates be compared now.
	Usable(s agent.Subject) bool
	// AppendResult returns when the result is durable. It counts failed attempts.
	AppendResult(r agent.Result) (agent.Result, error)
	// Throttle reads that counting, of a subject or with "" of the device.
	Throttle(subjectID string) (throttle.State, error)
}

// Service decides about enrolled subjects and records every decision.
type Service struct {
	Matcher
	store   records
	gate    throttle.Gate
	gallery *gallery
	space   string
	source  string
	stale   func() bool

	changing sync.Mutex // held by Enrol and Delete, so that store and gallery change alike
}

// Config assembles a Service.
type Config struct {
	Matcher Matcher
	Store   records
	Space   string // embedding space of the matcher's model
	Source  string // default Source of results

	// Stale reports that what the store knows of people may be out of date: nobody is
	// Approved then. nil: it never is.
	Stale    func() bool
	Throttle throttle.Policy      // the zero value is the standard's strictest
	Mark     func() throttle.Mark // the store's; nil: throttle.System
}

// New loads the gallery from the store.
func New(c Config) (*Service, error) {
	if c.Space == "" { // to the store it would mean every space
		return nil, errors.New("the embedding space has no name")
	}
	if c.Mark == nil {
		c.Mark = throttle.System
	}
	s := &Service{Matcher: c.Matcher, store: c.Store, gallery: &gallery{}, space: c.Space, source: c.Source, stale: c.Stale,
		gate: throttle.Gate{Policy: c.Throttle, Now: c.Mark, State: c.Store.Throttle}}
	err := c.Store.EachTemplate(c.Space, func(t agent.Template) error {
		if t.Space == c.Space {
			s.gallery.add(t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load templates: %w", err)
	}
	return s, nil
}

// Space is the embedding space in which people are compared.
func (s *Service) Space() string { return s.space }

// Enrolled returns the number of subjects with templates of the current space.
func (s *Service) Enrolled() int { return s.gallery.len() }

// Unlocked says why the references may be written to swap; nil when they may not.
func (s *Service) Unlocked() error { return s.gallery.unlocked() }

// Subject returns a subject and its templates, without their embeddings.
func (s *Service) Subject(id string) (agent.Subject, []agent.Template, error) {
	sub, err := s.store.Subject(id)
	if err != nil {
		return sub, nil, err
	}
	ts, err := s.store.Templates(id)
	wipe(ts)
	return sub, ts, err
}

// Delete removes a subject and its templates and returns how many there were.
// The gallery forgets first, so a failure leaves nobody recognised by mistake.
func (s *Service) Delete(id string) (int, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.gallery.remove(id)
	n, err := s.store.DeleteSubject(id)
	if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
		if back := s.reload(id); back != nil {
			err = fmt.Errorf("%w; its templates stay unused until restart: %v", err, back)
		}
	}
	return n, err
}

// Change runs fn, which erases a subject or changes whether its templates may be
// used, with the subject out of the gallery, and takes back what may be used then.
func (s *Service) Change(id string, fn func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.gallery.remove(id)
	err := fn()
	if back := s.reload(id); back != nil && agent.ErrorCode(back) != agent.CodeNotFound {
		err = errors.Join(err, fmt.Errorf("its templates stay unused until restart: %w", back))
	}
	return err
}

// ChangeMany is Change for several subjects at once.
func (s *Service) ChangeMany(ids []string, fn func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, id := range ids {
		s.gallery.remove(id)
	}
	err := fn()
	for _, id := range ids {
		if back := s.reload(id); back != nil && agent.ErrorCode(back) != agent.CodeNotFound {
			err = errors.Join(err, fmt.Errorf("templates of a subject stay unused until restart: %w", back))
		}
	}
	return err
}

// Forget takes a subject out of the gallery in memory; the store keeps it. Change puts it
// back.
func (s *Service) Forget(id string) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.gallery.remove(id)
}

// mayCompare reports whether a subject's templates may be used now.
func (s *Service) mayCompare(id string) bool {
	sub, err := s.store.Subject(id)
	return err == nil && s.store.Usable(sub)
}

// reload puts a subject's stored templates back into the gallery.
func (s *Service) reload(id string) error {
	sub, err := s.store.Subject(id)
	if err != nil || !s.store.Usable(sub) {
		return err
	}
	ts, err := s.store.Templates(id)
	if err != nil {
		return err
	}
	defer wipe(ts)
	for _, t := range ts {
		if t.Space == s.space {
			s.gallery.add(t)
		}
	}
	return nil
}

// Verify decides whether the evidence shows the claimed subject, and stores the
// result. A subject without usable templates is Declined with RiskNoReference; an
// unknown subject is an error with CodeNotFound, and one that has failed too often
// one with CodeThrottled, without a comparison.
func (s *Service) Verify(ctx context.Context, subjectID string, ev *Evidence) (agent.Result, error) {
	if _, err := s.store.Subject(subjectID); err != nil {
		return agent.Result{}, err
	}
	leave, err := s.gate.Enter(ctx, subjectID)
	if err != nil {
		return agent.Result{}, err
	}
	defer leave()
	d := s.compareClaim(subjectID, ev)
	return s.record(ctx, agent.Result{Kind: agent.KindVerify, SubjectID: subjectID, Source: ev.Source, Decision: d})
}

// LookupClaim is Verify without a record: where the evidence stands now. Whoever looks
// ends with Verify, whatever the answer was: only that counts the attempt.
func (s *Service) LookupClaim(subjectID string, ev *Evidence) (agent.Decision, error) {
	if err := s.gate.Allow(subjectID); err != nil {
		return agent.Decision{Status: agent.Declined}, err
	}
	return s.compareClaim(subjectID, ev), nil
}

func (s *Service) compareClaim(subjectID string, ev *Evidence) agent.Decision {
	start := time.Now()
	e := s.base(ev)
	if e.Scored && !s.mayCompare(subjectID) {
		e.Scored = false // consent was withdrawn or has expired: as if there were no template
	}
	if e.Scored {
		e.Cosine, e.Scored = s.gallery.subject(subjectID, ev.mean())
	}
	e.Timings.Match = time.Since(start)
	e.Timings.Total += e.Timings.Match
	return decide.Decide(s.Curve, s.Policy.Match, e)
}

// Identify decides who of all subjects the evidence shows, and stores the result.
// The result names a subject only when it is Approved or In Review.
func (s *Service) Identify(ctx context.Context, ev *Evidence) (agent.Result, error) {
	if err := s.identifyAllowed(); err != nil {
		return agent.Result{}, err
	}
	leave, err := s.gate.Enter(ctx, "")
	if err != nil {
		return agent.Result{}, err
	}
	defer leave()
	best, d, err := s.rank(ev)
	if err != nil {
		return agent.Result{}, err
	}
	r := agent.Result{Kind: agent.KindIdentify, Source: ev.Source, Decision: d}
	if d.Status == agent.Approved || d.Status == agent.InReview {
		r.SubjectID = best.subject
	}
	return s.record(ctx, r)
}

// Lookup is Identify without a record, as LookupClaim is Verify without one.
func (s *Service) Lookup(ev *Evidence) (agent.Decision, error) {
	if err := errors.Join(s.identifyAllowed(), s.gate.Allow("")); err != nil {
		return agent.Decision{Status: agent.Declined}, err
	}
	_, d, err := s.rank(ev)
	return d, err
}

// rank finds the best subject and decides with the thresholds for as many as were
// searched.
// searchAllowed searches the gallery. Who is found but may not be compared any more,
// for their consent has expired since, leaves it.
func (s *Service) searchAllowed(e agent.Embedding) (best, second candidate, among int) {
	for {
		best, second, among = s.gallery.search(e)
		if best.subject == "" || s.mayCompare(best.subject) {
			return best, second, among
		}
		s.gallery.remove(best.subject)
	}
}

func (s *Service) rank(ev *Evidence) (candidate, agent.Decision, error) {
	start := time.Now()
	e := s.base(ev)
	var best, second candidate
	among := s.gallery.len()
	if e.Scored {
		best, second, among = s.searchAllowed(ev.mean())
		e.Scored, e.Cosine = best.subject != "", best.cosine
	}
	limits, err := s.identifyLimits(among)
	if err != nil {
		return candidate{}, agent.Decision{Status: agent.Declined}, err
	}
	if second.subject != "" {
		score := s.Curve.Score(best.cosine)
		gap := score - s.Curve.Score(second.cosine)
		e.Ambiguous = !(gap >= s.Policy.IdentifyMargin) && score > limits.Decline
	}
	e.Timings.Match = time.Since(start)
	e.Timings.Total += e.Timings.Match
	return best, decide.Decide(s.Curve, limits, e), nil
}

// base is the evidence's own part of the decision. Evidence of another embedding
// space than the gallery's cannot be compared with it.
func (s *Service) base(ev *Evidence) decide.Evidence {
	e := ev.base()
	e.Stale = s.stale != nil && s.stale()
	if e.Scored && ev.space != s.space {
		e.Scored, e.Missing = false, agent.RiskNotComputed
	}
	return e
}

func (s *Service) identifyAllowed() error {
	_, err := s.identifyLimits(s.gallery.len())
	return err
}

// identifyLimits are the thresholds of a search among n subjects.
func (s *Service) identifyLimits(n int) (agent.Thresholds, error) {
	if s.Policy.Identify == nil {
		return agent.Thresholds{}, &agent.Error{Code: agent.CodeUnavailable, Message: "identification 1:N is turned off",
			Fix: "set identify.enabled, or verify a claimed subject"}
	}
	return s.Policy.Identify.Thresholds(s.Curve, n, s.Policy.Match)
}

// Close wipes the references from memory. The service knows nobody afterwards.
func (s *Service) Close() { s.gallery.close() }

// record stores the result. A result that is not durable is not a result: the
// caller gets the error and nothing to act on.
func (s *Service) record(ctx context.Context, r agent.Result) (agent.Result, error) {
	if err := ctx.Err(); err != nil {
		return agent.Result{}, err
	}
	if r.Source == "" {
		r.Source = s.source
	}
	if r.Application == "" && r.SubjectID != "" { // who enrolled the person says how long it is kept
		if sub, err := s.store.Subject(r.SubjectID); err == nil {
			r.Application = sub.Application
		}
	}
	stored, err := s.store.AppendResult(r)
	if err != nil {
		return agent.Result{}, err
	}
	return stored, nil
}
