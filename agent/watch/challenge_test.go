package watch_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/liveness"
	"postern/agent/verify"
	"postern/agent/watch"
)

// asking is the stage's decider with a challenge on every presentation.
type asking struct {
	*verify.Service
	m verify.Matcher
}

func (a asking) NewEvidence(source string, n int) *verify.Evidence { return a.m.NewEvidence(source, n) }

// TestChallengeOnScreen: while a task is asked the screen says which, and the person
// gets the whole time for it; the answer of somebody who does nothing is no approval.
func TestChallengeOnScreen(t *testing.T) {
	s := newStage(t, true, "ada x 40")
	svc := s.Decider.(*verify.Service)
	m := svc.Matcher
	m.Policy.Liveness = &decide.LivenessPolicy{Thresholds: agent.Thresholds{Review: 70, Decline: 50}, MinFrames: 4, Active: true}
	m.Policy.Challenge = func() *liveness.Challenge {
		return liveness.NewChallenge(rand.New(rand.NewPCG(1, 2)), 2, 10*time.Second)
	}
	s.Decider = asking{svc, m}
	s.play(t)
	decided := slices.IndexFunc(s.updates, func(u watch.Update) bool { return u.Result != nil })
	if decided < 28 { // 3 s at 100 ms, well after MaxFrames
		t.Fatalf("decided at frame %d: %s", decided, s.states())
	}
	if u := s.updates[5]; !slices.Contains(liveness.Tasks(), liveness.Task(u.Task)) {
		t.Errorf("the screen asks for %q", u.Task)
	}
	if u := s.updates[decided+1]; u.Task != "" {
		t.Errorf("after the decision the screen asks for %q", u.Task)
	}
	if st := s.updates[decided].Result.Decision.Status; st == agent.Approved {
		t.Error("approved without the challenge")
	}
}
