package verify

import (
	"slices"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/liveness"
)

// minAgreement is the score that two frames of one presentation must reach with
// each other to count as the same person. It is that of a false match rate of
// 1e-3: frames of one person a moment apart score far higher.
const minAgreement = 50

// Evidence gathers the frames of one presentation: what one person shows at one
// time. Frames are fused by averaging their embeddings, which sharpens the answer
// without giving an impostor several tries, as the best of many would.
type Evidence struct {
	Source string

	need   int // frames without which nothing can be approved
	curve  *decide.Curve
	limits agent.QualityLimits
	live   *decide.LivenessPolicy // nil: liveness is not required

	used    int
	sum     agent.Embedding
	fused   agent.Embedding // where mean works
	space   string          // embedding space of sum
	modelID string
	timings agent.Timings
	last    []agent.Finding // of the last frame that was not good enough
	seen    int
	failed  bool

	liveness  agent.Liveness // the network's, fused over the frames used
	monitor   liveness.Monitor
	challenge *liveness.Challenge // nil: none is asked
}

// NewEvidence starts an empty live presentation under the service's quality limits.
// With fewer than minFrames good frames it is declined for its quality; where the
// policy requires liveness and its frames carry none, it is declined for that.
func (m *Matcher) NewEvidence(source string, minFrames int) *Evidence {
	e := m.NewPictureEvidence(source)
	e.need, e.live = max(1, minFrames), m.Policy.Liveness
	if e.live != nil {
		e.need = max(e.need, e.live.MinFrames)
		if m.Policy.Challenge != nil {
			e.challenge = m.Policy.Challenge()
		}
	}
	return e
}

// NewPictureEvidence starts evidence of stored pictures, of which no liveness can be
// asked: nobody knows how they were taken.
func (m *Matcher) NewPictureEvidence(source string) *Evidence {
	return &Evidence{Source: source, need: 1, curve: m.Curve, limits: m.Policy.VerifyQuality}
}

// Verdict says what Add did with a frame.
type Verdict int

// The verdicts.
const (
	Used      Verdict = iota // the frame is evidence now
	Unusable                 // no face, or quality findings
	Different                // another face than the frames before: a new presentation
)

// Add considers one analysed frame. It sets p.Findings.
func (e *Evidence) Add(p *agent.Probe) Verdict {
	e.seen++
	e.timings = e.timings.Add(p.Timings)
	e.modelID = p.ModelID
	switch v := e.Compare(p); v {
	case Unusable:
		e.last = p.Findings
		e.watch(p)
		return v
	case Different:
		return v
	}
	if !e.watch(p) || e.Task() != "" && abs(p.Quality.Yaw) > askedYaw {
		return Unusable // it was seen before, bit for bit; or the head is turned because we asked
	}
	e.used++
	e.fuseLiveness(p.Liveness)
	if e.sum == nil {
		e.sum, e.space = make(agent.Embedding, len(p.Embedding)), p.Space
	}
	for i, v := range p.Embedding {
		e.sum[i] += v
	}
	return Used
}

// Compare says what Add would, without adding.
func (e *Evidence) Compare(p *agent.Probe) Verdict {
	p.Findings = e.limits.Findings(p)
	switch {
	case len(p.Findings) > 0 || !p.Embedding.Normalised():
		return Unusable // what is not of length 1, or not a number, would poison the sum
	case e.sum != nil && p.Space != e.space:
		return Unusable // another model's embedding: it cannot be compared with those before
	case !e.agrees(p):
		return Different
	}
	return Used
}

// agrees reports whether the frame shows the person of the frames before it.
func (e *Evidence) agrees(p *agent.Probe) bool {
	f := e.mean()
	return f == nil || e.curve.Score(f.Cosine(p.Embedding)) > minAgreement
}

// Fail notes that a part failed while the evidence was gathered; it cannot be
// approved any more.
func (e *Evidence) Fail() { e.failed = true }

// Frames returns how many frames are evidence, and how many were seen.
func (e *Evidence) Frames() (used, seen int) { return e.used, e.seen }

// A slow machine sees few frames within a capture's budget. Before it has seen as many as
// an approval needs, and some spare ones, its time is not up; but never is more than so
// many budgets waited.
const (
	spareFrames = 2
	mostBudgets = 4
)

// Late reports whether the time of a capture is up: of the frames needed none is owed any
// more, or the machine had its chance at them. Elapsed and seen count from its beginning.
func (e *Evidence) Late(elapsed, budget time.Duration, seen int) bool {
	if elapsed < budget || e.used >= e.need {
		return elapsed >= budget
	}
	return seen >= e.need+spareFrames || elapsed >= mostBudgets*budget
}

// Needs returns how many frames must be evidence before anything can be approved.
func (e *Evidence) Needs() int { return e.need }

// Embedding returns a copy of the fused embedding, nil when there is none.
func (e *Evidence) Embedding() agent.Embedding {
	return append(agent.Embedding(nil), e.mean()...)
}

// mean is the fused embedding in memory of the evidence's own, which the next call and
// Wipe change; nil when there is none. Copies would be left to the garbage collector.
func (e *Evidence) mean() agent.Embedding {
	if e.sum == nil {
		return nil
	}
	if e.fused == nil {
		e.fused = make(agent.Embedding, len(e.sum))
	}
	copy(e.fused, e.sum)
	if !e.fused.Normalise() {
		clear(e.fused)
		return nil
	}
	return e.fused
}

// Wipe zeroes what the evidence knows of a face: the comparison is over. It cannot be
// approved any more. Wiping nil does nothing.
func (e *Evidence) Wipe() {
	if e == nil {
		return
	}
	clear(e.sum)
	clear(e.fused)
	e.sum, e.fused, e.failed = nil, nil, true
}

// base is the part of the decision's evidence that does not depend on whom the
// face is compared with.
func (e *Evidence) base() decide.Evidence {
	d := decide.Evidence{ModelID: e.modelID, Frames: e.used, Timings: e.timings}
	switch {
	case e.failed:
		d.Missing = agent.RiskNotComputed
	case e.used >= e.need && e.mean() != nil:
		d.Scored = true
	case e.used > 0 || len(e.last) > 0 && e.last[0].Code != agent.FindingNoFace:
		d.Missing, d.Findings = agent.RiskLowQuality, e.last
	}
	if e.live != nil {
		d.Live = &decide.Capture{Policy: *e.live, Liveness: e.Liveness()}
		if e.used == 0 {
			d.Live.Findings = e.last
		}
	}
	return d
}

// fuseLiveness takes the liveness of one more frame into the presentation's. One
// frame without a measurement leaves the presentation without one.
func (e *Evidence) fuseLiveness(l agent.Liveness) {
	n := float64(e.used)
	if e.used > 1 {
		l.Measured = l.Measured && e.liveness.Measured
		l.Score = e.liveness.Score + (l.Score-e.liveness.Score)/n
	}
	l.Frames, l.Signals = e.used, keepWorst(e.liveness.Signals, l.Signals)
	e.liveness = l
}

// keepWorst adds the signals of one more frame to those of the frames before: of each
// name the first that says attack, else the first suspicious one. What a single frame
// shows stays true of the presentation.
func keepWorst(kept, more []agent.Signal) []agent.Signal {
	for _, s := range more {
		if s.Grade != agent.GradeAttack && s.Grade != agent.GradeSuspicious {
			continue
		}
		i := slices.IndexFunc(kept, func(k agent.Signal) bool { return k.Name == s.Name })
		switch {
		case i < 0:
			kept = append(slices.Clone(kept), s)
		case s.Grade == agent.GradeAttack && kept[i].Grade != agent.GradeAttack:
			kept = slices.Clone(kept)
			kept[i] = s
		}
	}
	return kept
}

// Live is where the liveness of the presentation stands now. Where the policy asks for
// none it is declined, as what was not measured is.
func (e *Evidence) Live() agent.LivenessCheck {
	c := decide.Capture{Liveness: e.Liveness()}
	if e.live != nil {
		c.Policy = *e.live
	}
	check, _ := decide.Live(c)
	return check
}

// watch shows the frame to the signals over several frames and reports whether it
// is a new one.
func (e *Evidence) watch(p *agent.Probe) bool {
	if p.Trace == nil {
		return true
	}
	fresh := e.monitor.Add(p.Trace)
	if e.challenge != nil && fresh {
		e.challenge.See(p.Trace.At, p.Trace.Mesh)
	}
	return fresh
}

// askedYaw is the turn of the head, in degrees, from which a frame is not used for
// the comparison while a challenge asks for turns.
const askedYaw = 20

func abs(v float32) float32 { return max(v, -v) }

// Task is what the challenge asks for now; "" when it asks for nothing.
func (e *Evidence) Task() liveness.Task {
	if e.challenge == nil {
		return ""
	}
	return e.challenge.Task()
}

// Liveness is the presentation's liveness as far as it was seen: the mean of the
// network's scores, lowered by what the frames together say.
func (e *Evidence) Liveness() agent.Liveness {
	l := e.liveness
	l.Signals = slices.Concat(l.Signals, e.monitor.Signals())
	l.Score = liveness.Combine(l.Score, l.Signals)
	if e.challenge != nil {
		l.Challenge = string(e.challenge.State())
		if l.Challenge == decide.ChallengeMet {
			l.Method = agent.LivenessActive3D
		}
	}
	return l
}

// Enough reports whether there are as many good frames as an approval needs.
func (e *Evidence) Enough() bool { return e.used >= e.need }

// Attacked reports whether a signal over several frames says attack.
func (e *Evidence) Attacked() bool {
	return slices.ContainsFunc(e.Liveness().Signals, func(s agent.Signal) bool { return s.Grade == agent.GradeAttack })
}
