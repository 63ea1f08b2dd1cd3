// Package watch is the agent's loop: it takes the newest camera frame, analyses
// it, follows who stands before the camera and turns each presentation into one
// stored decision.
//
// A presentation starts with a face and ends when the face has gone or another
// one has taken its place. It is decided once, as soon as the evidence suffices
// or its time is up. A badge (Claim) makes it a 1:1 decision; without one it is
// 1:N where the deployer has enabled that, and otherwise nothing is decided.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/verify"
)

type frameSource interface {
	Next(ctx context.Context, after uint64) (*agent.Frame, error)
}

type prober interface {
	Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error)
}

type decider interface {
	NewEvidence(source string, minFrames int) *verify.Evidence
	Subject(id string) (agent.Subject, []agent.Template, error)
	Lookup(ev *verify.Evidence) (agent.Decision, error)
	LookupClaim(subjectID string, ev *verify.Evidence) (agent.Decision, error)
	Identify(ctx context.Context, ev *verify.Evidence) (agent.Result, error)
	Verify(ctx context.Context, subjectID string, ev *verify.Evidence) (agent.Result, error)
}

// State is what the loop is doing, for the screen.
type State string

// The states.
const (
	Idle      State = "idle"      // nobody there
	Looking   State = "looking"   // somebody there, gathering evidence
	Decided   State = "decided"   // decided; waiting for the person to leave
	Waiting   State = "waiting"   // somebody there, but 1:N is off and no badge was read
	Throttled State = "throttled" // too many failed attempts; Problem says until when
	NoCamera  State = "no_camera" // the camera gives no frames
	OutOfWork State = "failed"    // a part failed; nobody is let in
	Closed    State = "closed"    // nothing is decided now; see Watcher.Closed
)

// Update is what the loop tells the screen after each frame.
type Update struct {
	State  State        `json:"state"`
	At     time.Time    `json:"at"`
	Seq    uint64       `json:"seq"`
	Width  int          `json:"width"`
	Height int          `json:"height"`
	Face   *agent.Face  `json:"face,omitempty"`
	Others []agent.Face `json:"others,omitempty"`
	// Findings say what keeps the face from being evidence, for guidance.
	Findings []agent.Finding `json:"findings,omitempty"`
	Claim    string          `json:"claim,omitempty"`
	// Task is what the liveness challenge asks for now: turn_left, turn_right, blink.
	Task string `json:"task,omitempty"`
	// Progress is how much of the evidence that a decision needs is there, 0 to 1.
	Progress float64       `json:"progress,omitempty"`
	Result   *agent.Result `json:"-"` // set on the frame that was decided
	Problem  string        `json:"problem,omitempty"`
	RateFPS  float64       `json:"rate_fps"` // frames analysed a second
}

// Settings are the loop's times and counts; see config.Live.
type Settings struct {
	Budget    time.Duration
	MinFrames int
	MaxFrames int
	Gone      time.Duration
	MaxRate   float64
	// ClaimFor is how long a badge waits for its face.
	ClaimFor time.Duration
	// Stalled is how long the camera may give nothing before the screen says so.
	Stalled time.Duration
}

// Watcher is the loop. Fill the exported fields, then Run.
type Watcher struct {
	Frames   frameSource
	Prober   prober
	Decider  decider
	Settings Settings
	Now      func() time.Time
	Log      *slog.Logger
	Publish  func(Update) // called from Run's goroutine; must not block
	Identify bool         // 1:N is enabled
	Source   string
	// Closed says that nothing may be decided now; nil: never. Who stands there is looked
	// at anew when it has ended.
	Closed func() bool

	mu      sync.Mutex // guards claim and claimed
	claim   string
	claimed time.Time

	p     presentation
	pace  pacer
	fails int
}

// Claim notes that the person before the camera says to be this subject. It
// fails with CodeNotFound for an unknown one.
func (w *Watcher) Claim(subjectID string) error {
	if w.closed() {
		return &agent.Error{Code: agent.CodeUnavailable, Message: "nothing is decided here now", Fix: "use another way in"}
	}
	if _, _, err := w.Decider.Subject(subjectID); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claim, w.claimed = subjectID, w.Now()
	return nil
}

// claimNow returns the claim that is waiting and since when, "" when none is or
// it is too old.
func (w *Watcher) claimNow() (subjectID string, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claim != "" && w.Now().Sub(w.claimed) > w.Settings.ClaimFor {
		w.claim = ""
	}
	return w.claim, w.claimed
}

func (w *Watcher) dropClaim(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claim == id {
		w.claim = ""
	}
}

// Run works until ctx ends or the source does; the end of a source that does not
// loop is not an error.
func (w *Watcher) Run(ctx context.Context) error {
	var after uint64
	for {
		f, err := w.next(ctx, after)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			w.settle(ctx, w.p)
			w.forget() // who stands there afterwards is somebody new
			w.Publish(Update{State: NoCamera, At: w.Now(), Problem: "the camera gives no picture"})
			continue
		case err != nil:
			return fmt.Errorf("read camera: %w", err)
		}
		after = f.Seq
		w.pace.wait(ctx, w.Settings.MaxRate)
		if w.closed() {
			w.settle(ctx, w.p)
			w.forget()
			w.Publish(Update{State: Closed, At: w.Now(), Seq: f.Seq, Width: f.Width, Height: f.Height})
			continue
		}
		if u := w.step(ctx, f); ctx.Err() == nil || u.Result != nil {
			w.Publish(u) // a part that fails because of the stop is no news
		}
	}
}

func (w *Watcher) closed() bool { return w.Closed != nil && w.Closed() }

func (w *Watcher) next(ctx context.Context, after uint64) (*agent.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, w.Settings.Stalled)
	defer cancel()
	return w.Frames.Next(ctx, after)
}

// step analyses one frame and moves the presentation on.
func (w *Watcher) step(ctx context.Context, f *agent.Frame) Update {
	u := Update{At: w.Now(), Seq: f.Seq, Width: f.Width, Height: f.Height, RateFPS: w.pace.rate()}
	pr, err := w.Prober.Probe(ctx, f)
	defer clear(pr.Embedding) // the evidence has what it needs of it
	if err != nil {
		w.settle(ctx, w.p)
		return w.failed(ctx, u, "the picture could not be analysed", err)
	}
	claim, claimed := w.claimNow()
	u.Face, u.Others, u.Claim = pr.Face, pr.Others, claim
	if claim != "" && w.p.decided {
		w.forget() // a badge read after a decision asks for another one
	}
	before := w.p
	w.p.see(u.At, &pr, w)
	u.Findings = pr.Findings
	if w.p.evidence != before.evidence || claim != before.claim {
		w.settle(ctx, before)
		w.p.looked = false
		if before.evidence != w.p.evidence {
			before.evidence.Wipe()
		}
	}
	if w.p.ready(u.At, w, claim, claimed) {
		if err := w.decide(ctx, &u); err != nil {
			return w.failed(ctx, u, "the decision could not be made or stored", err)
		}
	}
	w.fails = 0
	u.State = w.p.state(w.Identify || u.Claim != "")
	u.Task, u.Progress = w.p.task(u.State), w.p.progress()
	if w.p.refused != "" {
		u.Problem = w.p.refused
	}
	return u
}

// forget ends the presentation and wipes its evidence.
func (w *Watcher) forget() {
	w.p.evidence.Wipe()
	w.p = presentation{}
}

// settle decides about a presentation that was compared and has ended before its time,
// so that nobody gets comparisons that are not counted by stepping aside.
func (w *Watcher) settle(ctx context.Context, p presentation) {
	if !p.looked || p.decided || ctx.Err() != nil {
		return
	}
	r, err := w.judge(ctx, p.claim, p.evidence)
	if err != nil {
		w.Log.Error("an attempt that ended early could not be counted", "err", err, "source", w.Source)
		return
	}
	w.Publish(Update{State: Decided, At: w.Now(), Claim: p.claim, Result: &r})
}

// judge asks for the decision and stores it.
func (w *Watcher) judge(ctx context.Context, claim string, ev *verify.Evidence) (r agent.Result, err error) {
	if claim != "" {
		r, err = w.Decider.Verify(ctx, claim, ev)
	} else {
		r, err = w.Decider.Identify(ctx, ev)
	}
	if err == nil {
		w.Log.Info("decision", "kind", r.Kind, "status", r.Decision.Status, "score", r.Decision.Score,
			"subject", r.SubjectID, "frames", r.Decision.Frames, "seq", r.Seq)
	}
	return r, err
}

func (w *Watcher) decide(ctx context.Context, u *Update) error {
	r, err := w.judge(ctx, u.Claim, w.p.evidence)
	w.dropClaim(u.Claim)
	if agent.ErrorCode(err) == agent.CodeThrottled {
		w.Log.Warn("attempt refused", "err", err, "source", w.Source)
		w.p.decided, w.p.refused = true, err.Error()
		return nil
	}
	if err != nil {
		w.forget()
		return err
	}
	w.p.decided = true
	u.Result = &r
	return nil
}

// failed reports a failure on the screen and, once in a row, in the log. Whoever
// stands there is not let in.
func (w *Watcher) failed(ctx context.Context, u Update, what string, err error) Update {
	if w.fails++; w.fails == 1 && ctx.Err() == nil {
		w.Log.Error(what, "err", err, "source", w.Source)
	}
	w.forget()
	u.State, u.Problem, u.Result = OutOfWork, what, nil
	return u
}
