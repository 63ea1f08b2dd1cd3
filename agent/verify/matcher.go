// Package verify is the application service: match two pictures, enrol a
// subject, verify a claim 1:1, identify 1:N. The API, the kiosk and the CLI all
// call it, so a decision is made in one way wherever it is asked for.
//
// It fails closed: an error, a missing model, an empty gallery, a template of
// another embedding space or a result that cannot be stored never yields Approved.
package verify

import (
	"context"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/liveness"
)

// prober analyses one frame; an inference pipeline or pool.
type prober interface {
	Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error)
}

// Policy is what a deployer sets about decisions.
type Policy struct {
	Match agent.Thresholds // two pictures and 1:1
	// Identify sets the thresholds of 1:N, from the number of subjects and the table of
	// the Curve; nil turns 1:N off.
	Identify *decide.Search
	// IdentifyMargin is how far, in score, the best subject of a 1:N search must
	// be ahead of the second; closer is In Review.
	IdentifyMargin float64

	EnrolQuality  agent.QualityLimits // what an enrolment picture must meet
	VerifyQuality agent.QualityLimits // what a live frame must meet to be evidence

	// Liveness is what live captures must show; nil requires nothing of them.
	Liveness *decide.LivenessPolicy
	// Challenge makes the challenge of a live capture; nil where none is asked.
	Challenge func() *liveness.Challenge
}

// Matcher compares pictures. It keeps no state and needs no store.
type Matcher struct {
	Prober prober
	Curve  *decide.Curve
	Policy Policy
}

// Comparison is the answer to Match: the decision and what was seen in either
// picture.
type Comparison struct {
	Decision  agent.Decision
	Reference agent.Probe
	Probe     agent.Probe
}

// Match compares two pictures. A picture without a face is not an error: the
// decision is Declined with RiskNoReference.
func (m *Matcher) Match(ctx context.Context, reference, probe *agent.Frame) (Comparison, error) {
	start := time.Now()
	var c Comparison
	refs, probes, err := m.both(ctx, reference, probe)
	if err != nil {
		return c, err
	}
	c.Reference, c.Probe = refs, probes
	c.Decision = m.Compare(m.Policy.Match, &c.Reference, &c.Probe)
	c.Decision.Timings.Total = time.Since(start)
	return c, nil
}

// Compare decides about two analysed pictures under the given thresholds. It sets the
// findings of both.
func (m *Matcher) Compare(t agent.Thresholds, reference, probe *agent.Probe) agent.Decision {
	start := time.Now()
	reference.Findings = m.Policy.VerifyQuality.Findings(reference)
	probe.Findings = m.Policy.VerifyQuality.Findings(probe)
	ev := decide.Evidence{ModelID: probe.ModelID, Frames: 1}
	ev.Findings = append(append(ev.Findings, reference.Findings...), probe.Findings...)
	if scorable(reference, probe) {
		ev.Scored, ev.Cosine = true, reference.Embedding.Cosine(probe.Embedding)
	}
	ev.Timings = reference.Timings.Add(probe.Timings)
	ev.Timings.Match = time.Since(start)
	ev.Timings.Total += ev.Timings.Match
	return decide.Decide(m.Curve, t, ev)
}

// both analyses the two pictures at once; a prober that serves one at a time
// simply makes the second wait.
func (m *Matcher) both(ctx context.Context, a, b *agent.Frame) (pa, pb agent.Probe, err error) {
	var wg sync.WaitGroup
	var errA, errB error
	wg.Go(func() { pa, errA = m.Prober.Probe(ctx, a) })
	pb, errB = m.Prober.Probe(ctx, b)
	wg.Wait()
	if errA == nil {
		errA = errB
	}
	if errA != nil {
		return pa, pb, &agent.Error{Code: agent.CodeUnavailable, Message: "the comparison could not be computed", Err: errA}
	}
	return pa, pb, nil
}

func scorable(a, b *agent.Probe) bool {
	return a.Face != nil && b.Face != nil && a.Space != "" && a.Space == b.Space &&
		len(a.Embedding) > 0 && len(a.Embedding) == len(b.Embedding)
}
