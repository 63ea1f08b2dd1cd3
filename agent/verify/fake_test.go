package verify_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/throttle"
	"postern/agent/verify"
)

const (
	space = "space-1"
	dim   = 32
)

var (
	errBroken = errors.New("broken on purpose")
	errDisk   = &agent.Error{Code: agent.CodeStorage, Message: "the disk is full"}
)

// person is the embedding of somebody who resembles nobody else.
func person(i int) agent.Embedding {
	e := make(agent.Embedding, dim)
	e[i] = 1
	return e
}

// like is an embedding with this cosine to person i, going away towards other.
func like(i int, cosine float64, other int) agent.Embedding {
	e := make(agent.Embedding, dim)
	e[i], e[other] = float32(cosine), float32(math.Sqrt(1-cosine*cosine))
	return e
}

// probeOf is a good picture of a face with this embedding.
func probeOf(e agent.Embedding) agent.Probe {
	return agent.Probe{
		Face: &agent.Face{Box: agent.Box{W: 100, H: 100}}, Faces: 1, Embedding: e, ModelID: "model-1", Space: space,
		Quality: agent.Quality{EyeDistance: 60, Luminance: 50, Sharpness: 100, Inside: 1},
	}
}

func blurred(p agent.Probe) agent.Probe {
	p.Quality.Sharpness = 1
	return p
}

var nobody = agent.Probe{ModelID: "model-1", Space: space}

// prober answers by the frame's Source.
type prober struct {
	mu    sync.Mutex // guards faces
	faces map[string]agent.Probe
	fail  func(source string) error
}

func (p *prober) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	if err := ctx.Err(); err != nil {
		return agent.Probe{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		if err := p.fail(f.Source); err != nil {
			return agent.Probe{}, err
		}
	}
	pr, ok := p.faces[f.Source]
	pr.Embedding = slices.Clone(pr.Embedding) // an enrolment wipes it
	if !ok {
		return agent.Probe{}, fmt.Errorf("the test has no face %q", f.Source)
	}
	return pr, nil
}

// picture registers a face and returns the frame that shows it.
func (p *prober) picture(name string, pr agent.Probe) *agent.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faces == nil {
		p.faces = map[string]agent.Probe{}
	}
	p.faces[name] = pr
	return &agent.Frame{Source: name, Width: 1, Height: 1, Pix: make([]byte, 3)}
}

// memory is a store without a disk. fail is asked before each verb.
type memory struct {
	mu        sync.Mutex // guards all below
	subjects  map[string]agent.Subject
	templates map[string][]agent.Template
	results   []agent.Result
	throttled map[string]throttle.State
	up        time.Duration // the clock of failed attempts
	fail      func(verb string) error
	onDelete  func() // called before a deletion
	onEnrol   func() // called after an enrolment is stored, before the service hears of it
}

func newMemory() *memory {
	return &memory{subjects: map[string]agent.Subject{}, templates: map[string][]agent.Template{}, throttled: map[string]throttle.State{}}
}

func (m *memory) begin(verb string) (func(), error) {
	m.mu.Lock()
	if m.fail != nil {
		if err := m.fail(verb); err != nil {
			m.mu.Unlock()
			return nil, err
		}
	}
	return m.mu.Unlock, nil
}

func (m *memory) Subject(id string) (agent.Subject, error) {
	end, err := m.begin("Subject")
	if err != nil {
		return agent.Subject{}, err
	}
	defer end()
	s, ok := m.subjects[id]
	if !ok {
		return s, &agent.Error{Code: agent.CodeNotFound, Message: "there is no subject " + id}
	}
	return s, nil
}

func (m *memory) Templates(id string) ([]agent.Template, error) {
	end, err := m.begin("Templates")
	if err != nil {
		return nil, err
	}
	defer end()
	return cloned(m.templates[id]), nil
}

func (m *memory) EachTemplate(_ string, fn func(agent.Template) error) error {
	end, err := m.begin("EachTemplate")
	if err != nil {
		return err
	}
	defer end()
	for _, ts := range m.templates {
		for _, t := range cloned(ts) { // of every space: the service must not rely on the filter
			err := fn(t)
			clear(t.Embedding) // as the store does
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// cloned are templates with embeddings of their own.
func cloned(ts []agent.Template) []agent.Template {
	out := slices.Clone(ts)
	for i := range out {
		out[i].Embedding = slices.Clone(out[i].Embedding)
	}
	return out
}

func (m *memory) Enrol(s agent.Subject, ts []agent.Template) (agent.Subject, []agent.Template, error) {
	if m.onEnrol != nil {
		defer m.onEnrol() // when the store is unlocked again
	}
	end, err := m.begin("Enrol")
	if err != nil {
		return agent.Subject{}, nil, err
	}
	defer end()
	m.subjects[s.ID] = s
	stored := cloned(ts)
	for i := range stored {
		stored[i].ID = fmt.Sprintf("%s-%d", s.ID, len(m.templates[s.ID])+i)
	}
	m.templates[s.ID] = append(m.templates[s.ID], stored...)
	return s, cloned(stored), nil
}

func (m *memory) DeleteSubject(id string) (int, error) {
	if m.onDelete != nil {
		m.onDelete()
	}
	end, err := m.begin("DeleteSubject")
	if err != nil {
		return 0, err
	}
	defer end()
	if _, ok := m.subjects[id]; !ok {
		return 0, &agent.Error{Code: agent.CodeNotFound, Message: "there is no subject " + id}
	}
	n := len(m.templates[id])
	delete(m.subjects, id)
	delete(m.templates, id)
	return n, nil
}

func (m *memory) Usable(s agent.Subject) bool {
	return !s.Consent.Given() || s.Consent.Holds(time.Now())
}

func (m *memory) AppendResult(r agent.Result) (agent.Result, error) {
	end, err := m.begin("AppendResult")
	if err != nil {
		return agent.Result{}, err
	}
	defer end()
	r.Seq = uint64(len(m.results) + 1)
	r.ID = fmt.Sprintf("result-%d", r.Seq)
	m.results = append(m.results, r)
	for _, k := range []string{"", r.SubjectID} {
		m.throttled[k] = m.throttled[k].After(throttle.EffectOf(r), m.mark())
	}
	return r, nil
}

// Throttle counts as a store does, on a clock that stands still unless moved.
func (m *memory) Throttle(subject string) (throttle.State, error) {
	end, err := m.begin("Throttle")
	if err != nil {
		return throttle.State{}, err
	}
	defer end()
	return m.throttled[subject], nil
}

func (m *memory) mark() throttle.Mark { return throttle.Mark{Boot: "boot-1", Up: m.up} }

func (m *memory) stored() []agent.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.results)
}

// failOn fails the verbs with this name.
func failOn(verb string, err error) func(string) error {
	return func(v string) error {
		if v == verb {
			return err
		}
		return nil
	}
}

// policy approves above cosine 0.7 (1:1) and 0.9 (1:N).
func policy() verify.Policy {
	return verify.Policy{
		Match: agent.Thresholds{Review: 70, Decline: 50},
		// Up to 90 subjects: review 90, decline 70.
		Identify: &decide.Search{FPIR: 9e-4, ReviewFPIR: 9e-2}, IdentifyMargin: 10,
		EnrolQuality:  agent.QualityLimits{MinSharpness: 40, OtherFaceShare: 0.3},
		VerifyQuality: agent.QualityLimits{MinSharpness: 15},
	}
}

// rig is a service with its fakes. The curve makes a cosine of 0.7 a score of 70.
type rig struct {
	*verify.Service
	p *prober
	m *memory

	throttle throttle.Policy
}

// unlimited lets the tests of decisions fail as often as they like.
var unlimited = throttle.Limits{Failures: 1e6, Delay: 1, Stop: 1e7}

func newRig(tb testing.TB, change ...func(*verify.Policy)) *rig {
	tb.Helper()
	r := &rig{p: &prober{}, m: newMemory(), throttle: throttle.Policy{Subject: unlimited, Device: unlimited}}
	r.open(tb, change...)
	return r
}

// open makes the service anew on the same store, as a restart does.
func (r *rig) open(tb testing.TB, change ...func(*verify.Policy)) {
	tb.Helper()
	pol := policy()
	for _, c := range change {
		c(&pol)
	}
	curve, err := decide.NewCurve("curve-1", []decide.Point{{Cosine: 0, Score: 0}, {Cosine: 1, Score: 100}})
	if err == nil {
		curve, err = curve.WithRates([]decide.Rate{{Score: 50, FMR: 1e-2}, {Score: 70, FMR: 1e-3}, {Score: 90, FMR: 1e-5}})
	}
	if err != nil {
		tb.Fatal(err)
	}
	r.Service, err = verify.New(verify.Config{
		Matcher: verify.Matcher{Prober: r.p, Curve: curve, Policy: pol}, Store: r.m, Space: space, Source: "test", Mark: r.m.mark, Throttle: r.throttle})
	if err != nil {
		tb.Fatal(err)
	}
}

func (r *rig) mustEnrol(tb testing.TB, id string, es ...agent.Embedding) {
	tb.Helper()
	q := verify.Enrolment{SubjectID: id, AllowDuplicate: true}
	for i, e := range es {
		q.Pictures = append(q.Pictures, r.p.picture(fmt.Sprintf("%s-%d.jpg", id, i), probeOf(e)))
	}
	if _, err := r.Enrol(context.Background(), q); err != nil {
		tb.Fatal(err)
	}
}

// evidence is a presentation of these embeddings.
func (r *rig) evidence(es ...agent.Embedding) *verify.Evidence {
	ev := r.NewEvidence("cam", 1)
	for _, e := range es {
		p := probeOf(e)
		ev.Add(&p)
	}
	return ev
}

// look is LookupClaim, whose decision is Declined when it fails.
func (r *rig) look(tb testing.TB, id string, ev *verify.Evidence) agent.Decision {
	tb.Helper()
	d, err := r.LookupClaim(id, ev)
	if err != nil && d.Status != agent.Declined {
		tb.Errorf("%v with %+v", err, d)
	}
	return d
}

func checkCode(tb testing.TB, err error, want agent.Code) {
	tb.Helper()
	if got := agent.ErrorCode(err); got != want {
		tb.Fatalf("error %v has code %q, want %q", err, got, want)
	}
}

func checkDecision(tb testing.TB, d agent.Decision, want agent.Status, risk agent.Risk) {
	tb.Helper()
	if d.Status != want {
		tb.Errorf("status %s (score %v), want %s", d.Status, d.Score, want)
	}
	if risk != "" && !slices.ContainsFunc(d.Warnings, func(w agent.Warning) bool { return w.Risk == risk }) {
		tb.Errorf("warnings %+v lack %s", d.Warnings, risk)
	}
	if d.Warnings == nil {
		tb.Error("warnings are nil")
	}
}
