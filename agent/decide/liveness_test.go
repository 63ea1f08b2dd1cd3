package decide_test

import (
	"slices"
	"testing"

	"postern/agent"
	"postern/agent/decide"
)

func livePolicy() decide.LivenessPolicy {
	return decide.LivenessPolicy{Thresholds: agent.Thresholds{Review: 70, Decline: 50},
		SeveralFaces: decide.NoAction, Quality: decide.ReviewAction, Dark: decide.NoAction, Bright: decide.DeclineAction}
}

func measured(score float64, ss ...agent.Signal) agent.Liveness {
	return agent.Liveness{Score: score, Measured: true, Method: agent.LivenessPassive, Signals: ss}
}

func finding(c agent.FindingCode) []agent.Finding { return []agent.Finding{{Code: c, Unit: "u"}} }

func TestLive(t *testing.T) {
	attack := agent.Signal{Name: "frozen_frames", Value: 1, Grade: agent.GradeAttack}
	for _, c := range []struct {
		name    string
		capture decide.Capture
		status  agent.Status
		risks   []agent.Risk
	}{
		{"alive", decide.Capture{Liveness: measured(90)}, agent.Approved, nil},
		{"just above review", decide.Capture{Liveness: measured(70.01)}, agent.Approved, nil},
		{"at review", decide.Capture{Liveness: measured(70)}, agent.InReview, []agent.Risk{agent.RiskLowLiveness}},
		{"just above decline", decide.Capture{Liveness: measured(50.01)}, agent.InReview, []agent.Risk{agent.RiskLowLiveness}},
		{"at decline", decide.Capture{Liveness: measured(50)}, agent.Declined, []agent.Risk{agent.RiskLowLiveness}},
		{"nothing", decide.Capture{}, agent.Declined, []agent.Risk{agent.RiskLivenessNotComputed}},
		{"score without a measurement", decide.Capture{Liveness: agent.Liveness{Score: 99}}, agent.Declined, []agent.Risk{agent.RiskLivenessNotComputed}},
		{"NaN", decide.Capture{Liveness: measured(nan)}, agent.Declined, []agent.Risk{agent.RiskLivenessNotComputed}},
		{"over 100", decide.Capture{Liveness: measured(100.5)}, agent.Declined, []agent.Risk{agent.RiskLivenessNotComputed}},
		{"a sign of attack", decide.Capture{Liveness: measured(99, attack)}, agent.Declined, []agent.Risk{agent.RiskFaceAttack}},
		{"a suspicion alone", decide.Capture{Liveness: measured(99, agent.Signal{Name: "x", Grade: agent.GradeSuspicious})}, agent.Approved, nil},
		{"no face", decide.Capture{Findings: finding(agent.FindingNoFace)}, agent.Declined, []agent.Risk{agent.RiskNoFace}},
		{"several faces, told", decide.Capture{Liveness: measured(90), Findings: finding(agent.FindingSeveralFaces)}, agent.Approved, []agent.Risk{agent.RiskSeveralFaces}},
		{"dark, told", decide.Capture{Liveness: measured(90), Findings: finding(agent.FindingTooDark)}, agent.Approved, []agent.Risk{agent.RiskDarkFace}},
		{"bright, declined", decide.Capture{Liveness: measured(90), Findings: finding(agent.FindingTooBright)}, agent.Declined, []agent.Risk{agent.RiskBrightFace}},
		{"blurred, in review", decide.Capture{Liveness: measured(90), Findings: finding(agent.FindingBlurred)}, agent.InReview, []agent.Risk{agent.RiskLowQuality}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.capture.Policy = livePolicy()
			check, ws := decide.Live(c.capture)
			var risks []agent.Risk
			for _, w := range ws {
				risks = append(risks, w.Risk)
				if w.Feature != agent.FeatureLiveness || w.Short == "" || w.Long == "" {
					t.Errorf("warning %+v", w)
				}
			}
			if check.Status != c.status || !slices.Equal(risks, c.risks) {
				t.Errorf("%s with %v, want %s with %v", check.Status, risks, c.status, c.risks)
			}
		})
	}
}

// TestLivePolicyThatMakesNoSense: thresholds or actions that cannot have been
// meant decline.
func TestLivePolicyThatMakesNoSense(t *testing.T) {
	p := livePolicy()
	p.Thresholds = agent.Thresholds{Review: 10, Decline: 20}
	if c, _ := decide.Live(decide.Capture{Policy: p, Liveness: measured(99)}); c.Status != agent.Declined {
		t.Errorf("thresholds upside down: %s", c.Status)
	}
	c, _ := decide.Live(decide.Capture{Policy: decide.LivenessPolicy{Thresholds: agent.Thresholds{Review: 70, Decline: 50}},
		Liveness: measured(99), Findings: finding(agent.FindingTooDark)})
	if c.Status != agent.Declined {
		t.Errorf("no action: %s", c.Status)
	}
}

// TestDecideWithLiveness: liveness can only lower the status of a comparison.
func TestDecideWithLiveness(t *testing.T) {
	for _, c := range []struct {
		cosine float32
		live   float64
		want   agent.Status
	}{
		{0.9, 90, agent.Approved}, {0.9, 60, agent.InReview}, {0.9, 40, agent.Declined},
		{0.6, 90, agent.InReview}, {0.6, 60, agent.InReview}, {0.4, 90, agent.Declined},
	} {
		d := decide.Decide(identity(t), agent.Thresholds{Review: 70, Decline: 50}, decide.Evidence{
			Scored: true, Cosine: c.cosine, Live: &decide.Capture{Policy: livePolicy(), Liveness: measured(c.live)}})
		if d.Status != c.want || d.Liveness == nil || d.Liveness.Score != c.live {
			t.Errorf("cosine %v with liveness %v: %s, %+v; want %s", c.cosine, c.live, d.Status, d.Liveness, c.want)
		}
	}
	d := decide.Decide(identity(t), agent.Thresholds{Review: 70, Decline: 50}, decide.Evidence{Scored: true, Cosine: 0.9, Live: &decide.Capture{Policy: livePolicy()}})
	if d.Status != agent.Declined {
		t.Errorf("required and not measured: %s", d.Status)
	}
}

// TestRequire: each status with each liveness; the worse of the two stands.
func TestRequire(t *testing.T) {
	rank := map[agent.Status]int{agent.Approved: 0, agent.InReview: 1, agent.Declined: 2}
	for _, before := range []agent.Status{agent.Approved, agent.InReview, agent.Declined} {
		for score, live := range map[float64]agent.Status{90: agent.Approved, 60: agent.InReview, 40: agent.Declined} {
			d := decide.Require(agent.Decision{Status: before}, decide.Capture{Policy: livePolicy(), Liveness: measured(score)})
			if want := max(rank[before], rank[live]); rank[d.Status] != want || d.Liveness == nil || d.Liveness.Status != live {
				t.Errorf("%s with liveness %v: %s", before, score, d.Status)
			}
		}
	}
}

// TestActive: a challenge that was not met is In Review at best, and never declines.
func TestActive(t *testing.T) {
	p := livePolicy()
	p.Active = true
	for state, want := range map[string]agent.Status{"met": agent.Approved, "pending": agent.InReview, "missed": agent.InReview, "": agent.InReview, "Met": agent.InReview} {
		l := measured(90)
		l.Challenge = state
		if c, _ := decide.Live(decide.Capture{Policy: p, Liveness: l}); c.Status != want {
			t.Errorf("challenge %q: %s, want %s", state, c.Status, want)
		}
	}
}
