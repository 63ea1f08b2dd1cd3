package verify_test

import (
	"testing"

	"postern/agent"
	"postern/agent/decide"
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
