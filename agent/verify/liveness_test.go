package verify_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/liveness"
	"postern/agent/liveness/livenesstest"
	"postern/agent/verify"
)

// needsLiveness turns liveness on.
func needsLiveness(p *verify.Policy) {
	p.Liveness = &decide.LivenessPolicy{Thresholds: agent.Thresholds{Review: 70, Decline: 50},
		SeveralFaces: decide.NoAction, Quality: decide.NoAction, Dark: decide.NoAction, Bright: decide.NoAction}
}

// alive is a good frame with this liveness score; below 0 it was not measured.
func alive(score float64) agent.Probe {
	p := probeOf(person(0))
	if score >= 0 {
		p.Liveness = agent.Liveness{Score: score, Measured: true, Method: agent.LivenessPassive, ModelID: "pad-1"}
	}
	return p
}

func TestLivenessIsRequiredOfLiveCaptures(t *testing.T) {
	for _, c := range []struct {
		name   string
		scores []float64
		status agent.Status
		risk   agent.Risk
	}{
		{"alive", []float64{90, 95, 85}, agent.Approved, ""},
		{"a print", []float64{10, 20, 5}, agent.Declined, agent.RiskLowLiveness},
		{"between", []float64{60, 65, 70}, agent.InReview, agent.RiskLowLiveness},
		{"never measured", []float64{-1, -1, -1}, agent.Declined, agent.RiskLivenessNotComputed},
		{"first not measured", []float64{-1, 95, 95}, agent.Declined, agent.RiskLivenessNotComputed},
		{"last not measured", []float64{95, 95, -1}, agent.Declined, agent.RiskLivenessNotComputed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, needsLiveness)
			r.mustEnrol(t, "ada", person(0))
			ev := r.NewEvidence("cam", 3)
			for _, s := range c.scores {
				p := alive(s)
				ev.Add(&p)
			}
			res, err := r.Verify(t.Context(), "ada", ev)
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, res.Decision, c.status, c.risk)
			if l := res.Decision.Liveness; l == nil || l.Measured && l.Frames != 3 {
				t.Errorf("liveness %+v", l)
			}
		})
	}
}

// TestPicturesHaveNoLiveness: stored pictures are compared without it, and the
// decision says so by having none.
func TestPicturesHaveNoLiveness(t *testing.T) {
	r := newRig(t, needsLiveness)
	r.mustEnrol(t, "ada", person(0))
	ev := r.NewPictureEvidence("cli")
	p := alive(-1)
	ev.Add(&p)
	d := r.look(t, "ada", ev)
	checkDecision(t, d, agent.Approved, "")
	if d.Liveness != nil {
		t.Errorf("liveness %+v of a picture", d.Liveness)
	}
}

// frameOf is a good living frame, i frames into a capture, with the head turned.
func frameOf(i int, yaw, open float64) agent.Probe {
	p := alive(95)
	p.Quality.Yaw = float32(yaw)
	mesh := livenesstest.Head(livenesstest.Pose{X: 480, Y: 270, Yaw: yaw, Open: open, Grain: 0.3}, rand.New(rand.NewPCG(1, uint64(i))))
	grid := make([]byte, agent.GridWidth*agent.GridHeight)
	p.Trace = &agent.Trace{At: time.Unix(1_700_000_000, 0).Add(time.Duration(i) * 50 * time.Millisecond), Seq: uint64(i + 1),
		Digest: uint64(i), Width: 960, Height: 540, Mesh: mesh, Grid: grid, Face: 120, Rest: 80}
	return p
}

// TestChallenge: in mode active an approval needs the challenge met; who does not meet
// it is In Review, not declined; and no doing lifts a low score.
func TestChallenge(t *testing.T) {
	for _, c := range []struct {
		name   string
		yaw    float64 // of the head after the first second
		score  float64
		status agent.Status
		risk   agent.Risk
		state  string
	}{
		{"met", 25, 95, agent.Approved, "", "met"},
		{"not done", 0, 95, agent.InReview, agent.RiskChallengeNotMet, "pending"},
		{"the wrong way", -25, 95, agent.InReview, agent.RiskChallengeNotMet, "missed"},
		{"met by what looks like a print", 25, 20, agent.Declined, agent.RiskLowLiveness, "met"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, needsLiveness, func(p *verify.Policy) {
				p.Liveness.Active = true
				p.Challenge = func() *liveness.Challenge { return turnLeft() }
			})
			r.mustEnrol(t, "ada", person(0))
			ev := r.NewEvidence("cam", 3)
			if ev.Task() != liveness.TurnLeft {
				t.Fatalf("asks for %q", ev.Task())
			}
			for i := range 40 {
				yaw := 0.0
				if i >= 20 && i < 30 {
					yaw = c.yaw
				}
				p := frameOf(i, yaw, 1)
				p.Liveness.Score = c.score
				ev.Add(&p)
			}
			d := lookup(t, r, ev)
			checkDecision(t, d, c.status, c.risk)
			if d.Liveness.Challenge != c.state || (d.Liveness.Method == agent.LivenessActive3D) != (c.state == "met") {
				t.Errorf("%+v", d.Liveness)
			}
		})
	}
}

// turnLeft draws until the one task is a turn to the left.
func turnLeft() *liveness.Challenge {
	for seed := uint64(0); ; seed++ {
		if c := liveness.NewChallenge(rand.New(rand.NewPCG(seed, 1)), 1, 5*time.Second); c.Task() == liveness.TurnLeft {
			return c
		}
	}
}

// TestActiveWithoutChallenge: a policy that wants a challenge and makes none approves
// nobody.
func TestActiveWithoutChallenge(t *testing.T) {
	r := newRig(t, needsLiveness, func(p *verify.Policy) { p.Liveness.Active = true })
	r.mustEnrol(t, "ada", person(0))
	ev := r.NewEvidence("cam", 1)
	for i := range 12 {
		p := frameOf(i, 0, 1)
		ev.Add(&p)
	}
	checkDecision(t, lookup(t, r, ev), agent.InReview, agent.RiskChallengeNotMet)
}

// TestRepeatedFrames: the same frame over and over is no evidence, and an attack.
func TestRepeatedFrames(t *testing.T) {
	r := newRig(t, needsLiveness)
	r.mustEnrol(t, "ada", person(0))
	ev := r.NewEvidence("cam", 3)
	for i := range 12 {
		p := frameOf(i, 0, 1)
		p.Trace.Digest = 7
		ev.Add(&p)
	}
	if used, _ := ev.Frames(); used != 1 || !ev.Attacked() {
		t.Errorf("%d frames used, attacked %v", used, ev.Attacked())
	}
	checkDecision(t, lookup(t, r, ev), agent.Declined, agent.RiskFaceAttack)
}

func lookup(t *testing.T, r *rig, ev *verify.Evidence) agent.Decision {
	t.Helper()
	d, err := r.LookupClaim("ada", ev)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSignalsOfOneFrame: a sign of attack in any one frame stays with the presentation,
// with traces of its frames and without.
func TestSignalsOfOneFrame(t *testing.T) {
	for _, at := range []int{0, 5, 11} {
		for _, traced := range []bool{true, false} {
			r := newRig(t, needsLiveness)
			r.mustEnrol(t, "ada", person(0))
			ev := r.NewEvidence("cam", 3)
			for i := range 12 {
				p := frameOf(i, 0, 1)
				if !traced {
					p.Trace = nil
				}
				grade := agent.GradeNormal
				if i == at {
					grade = agent.GradeAttack
				}
				p.Liveness.Signals = []agent.Signal{{Name: "of_one_frame", Grade: grade}}
				ev.Add(&p)
			}
			checkDecision(t, lookup(t, r, ev), agent.Declined, agent.RiskFaceAttack)
		}
	}
}
