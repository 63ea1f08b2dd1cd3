package watch

import (
	"context"
	"time"

	"postern/agent"
	"postern/agent/verify"
)

// presentation is who stands before the camera now. The zero value is nobody.
type presentation struct {
	evidence *verify.Evidence
	since    time.Time // of the first face
	lastFace time.Time
	decided  bool
	refused  string // why there will be no decision: too many failed attempts
	looked   bool   // it has been compared, for claim
	claim    string
	others   int // frames in a row that show somebody else
	missed   int // frames in a row that show nobody

	asked  string // the claim that the time runs for
	before int    // frames seen before that
}

// swapFrames in a row must show another face before a decided presentation ends
// without a gap: one odd frame is not a new person.
const swapFrames = 2

// missedFrames in a row must show nobody before somebody has left, besides live.gone:
// a slow machine has but one frame in that time, and a face is missed now and then. No
// more than live.budget is waited, whatever the machine.
const missedFrames = 2

// see takes in one analysed frame.
func (p *presentation) see(now time.Time, pr *agent.Probe, w *Watcher) {
	if pr.Face == nil {
		p.missed++
		if p.evidence != nil && p.hasLeft(now.Sub(p.lastFace), w) {
			*p = presentation{}
		}
		return
	}
	if p.evidence == nil {
		*p = presentation{evidence: w.Decider.NewEvidence(w.Source, w.Settings.MinFrames), since: now}
	}
	p.lastFace, p.missed = now, 0
	if p.decided {
		p.watchForSwap(now, pr, w)
		return
	}
	if p.evidence.Add(pr) == verify.Different {
		p.restart(now, pr, w)
	}
}

// hasLeft reports whether a person who has not been seen for so long has left.
func (p *presentation) hasLeft(unseen time.Duration, w *Watcher) bool {
	return unseen >= w.Settings.Gone && (p.missed >= missedFrames || unseen >= w.Settings.Budget)
}

// watchForSwap notices that another person has stepped in without a gap.
func (p *presentation) watchForSwap(now time.Time, pr *agent.Probe, w *Watcher) {
	switch p.evidence.Compare(pr) {
	case verify.Different:
		if p.others++; p.others >= swapFrames {
			p.restart(now, pr, w)
		}
	case verify.Used:
		p.others = 0
	}
}

func (p *presentation) restart(now time.Time, pr *agent.Probe, w *Watcher) {
	*p = presentation{evidence: w.Decider.NewEvidence(w.Source, w.Settings.MinFrames), since: now, lastFace: now}
	p.evidence.Add(pr)
}

// ready reports whether the presentation should be decided now. The budget runs
// from the first face or, for who stood there before, from the claim; a machine that
// gets too few frames in it is given more time.
func (p *presentation) ready(now time.Time, w *Watcher, claim string, claimed time.Time) bool {
	if p.evidence == nil || p.decided || (claim == "" && !w.Identify) {
		return false
	}
	used, seen := p.evidence.Frames()
	from := p.since
	if claim != "" && claimed.After(from) {
		from = claimed
	}
	if claim != p.asked {
		p.asked, p.before = claim, seen-1 // this frame is the first for the claim
	}
	late := p.evidence.Late(now.Sub(from), w.Settings.Budget, seen-p.before)
	if used < p.evidence.Needs() {
		// Somebody who only walks past is not decided about; who claimed an
		// identity gets an answer.
		return late && claim != ""
	}
	return late || used >= w.Settings.MaxFrames && p.evidence.Task() == "" || p.sure(w, claim)
}

// sure reports whether the evidence would be approved already.
func (p *presentation) sure(w *Watcher, claim string) bool {
	var d agent.Decision
	var err error
	if claim != "" {
		d, err = w.Decider.LookupClaim(claim, p.evidence)
	} else {
		d, err = w.Decider.Lookup(p.evidence)
	}
	if err == nil {
		p.looked, p.claim = true, claim
	}
	return err == nil && d.Status == agent.Approved
}

// task is what the person is to do now, for the screen.
func (p *presentation) task(s State) string {
	if s != Looking {
		return ""
	}
	return string(p.evidence.Task())
}

// progress is the share of the frames needed that are there.
func (p *presentation) progress() float64 {
	if p.evidence == nil || p.evidence.Needs() < 1 {
		return 0
	}
	used, _ := p.evidence.Frames()
	return min(1, float64(used)/float64(p.evidence.Needs()))
}

func (p *presentation) state(deciding bool) State {
	switch {
	case p.evidence == nil:
		return Idle
	case p.refused != "":
		return Throttled
	case p.decided:
		return Decided
	case !deciding:
		return Waiting
	}
	return Looking
}

// pacer keeps the loop below a rate and measures it.
type pacer struct {
	last  time.Time
	fps   float64
	start time.Time
	count int
}

// wait sleeps until the next frame is due.
func (p *pacer) wait(ctx context.Context, maxRate float64) {
	if due := p.last.Add(time.Duration(float64(time.Second) / maxRate)); !p.last.IsZero() {
		if d := time.Until(due); d > 0 {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
	}
	p.last = time.Now()
	if p.start.IsZero() {
		p.start = p.last
	}
	p.count++
	if d := p.last.Sub(p.start); d >= time.Second {
		p.fps = float64(p.count) / d.Seconds()
		p.start, p.count = p.last, 0
	}
}

func (p *pacer) rate() float64 { return p.fps }
