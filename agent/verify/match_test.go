package verify_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"postern/agent"
)

func TestMatch(t *testing.T) {
	nan := person(0)
	nan[3] = float32(math.NaN())
	otherSpace, noSpace := probeOf(person(0)), probeOf(person(0))
	otherSpace.Space, noSpace.Space = "space-2", ""
	noEmbedding := probeOf(nil)
	for _, c := range []struct {
		name       string
		a, b       agent.Probe
		want       agent.Status
		risk       agent.Risk
		wantScored bool
	}{
		{"same person", probeOf(person(0)), probeOf(like(0, 0.9, 1)), agent.Approved, "", true},
		{"alike", probeOf(person(0)), probeOf(like(0, 0.6, 1)), agent.InReview, agent.RiskLowSimilarity, true},
		{"somebody else", probeOf(person(0)), probeOf(person(1)), agent.Declined, agent.RiskLowSimilarity, true},
		{"no face in the reference", nobody, probeOf(person(0)), agent.Declined, agent.RiskNoReference, false},
		{"no face in the probe", probeOf(person(0)), nobody, agent.Declined, agent.RiskNoReference, false},
		{"no face in either", nobody, nobody, agent.Declined, agent.RiskNoReference, false},
		{"a blurred picture explains, it does not decide", probeOf(person(0)), blurred(probeOf(person(0))), agent.Approved, agent.RiskLowQuality, true},
		{"spaces differ", probeOf(person(0)), otherSpace, agent.Declined, agent.RiskNoReference, false},
		{"no space", noSpace, noSpace, agent.Declined, agent.RiskNoReference, false},
		{"no embedding", noEmbedding, noEmbedding, agent.Declined, agent.RiskNoReference, false},
		{"lengths differ", probeOf(person(0)), probeOf(person(0)[:8]), agent.Declined, agent.RiskNoReference, false},
		{"not a number", probeOf(nan), probeOf(nan), agent.Declined, agent.RiskLowSimilarity, true},
		{"not normalised", probeOf(agent.Embedding{9, 9}), probeOf(agent.Embedding{9, 9}), agent.Declined, agent.RiskLowSimilarity, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			got, err := r.Match(context.Background(), r.p.picture("a", c.a), r.p.picture("b", c.b))
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, got.Decision, c.want, c.risk)
			if got.Decision.Scored != c.wantScored || got.Decision.Frames != 1 || got.Decision.Calibration != "curve-1" {
				t.Errorf("decision %+v", got.Decision)
			}
			if (got.Reference.Face == nil) != (c.a.Face == nil) || (got.Probe.Face == nil) != (c.b.Face == nil) {
				t.Error("the probes are mixed up")
			}
		})
	}
}

func TestMatchFails(t *testing.T) {
	for _, broken := range []string{"a", "b"} {
		t.Run(broken, func(t *testing.T) {
			r := newRig(t)
			a, b := r.p.picture("a", probeOf(person(0))), r.p.picture("b", probeOf(person(0)))
			r.p.fail = failOn(broken, errBroken)
			got, err := r.Match(context.Background(), a, b)
			checkCode(t, err, agent.CodeUnavailable)
			if !errors.Is(err, errBroken) || got.Decision.Status != "" {
				t.Errorf("%v, decision %+v", err, got.Decision)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		got, err := r.Match(ctx, r.p.picture("a", probeOf(person(0))), r.p.picture("b", probeOf(person(0))))
		if !errors.Is(err, context.Canceled) || got.Decision.Status != "" {
			t.Errorf("%v, decision %+v", err, got.Decision)
		}
	})
}

func TestMatchSaysWhatIsWrong(t *testing.T) {
	r := newRig(t)
	got, err := r.Match(context.Background(), r.p.picture("a", blurred(probeOf(person(0)))), r.p.picture("b", nobody))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, w := range got.Decision.Warnings {
		text.WriteString(w.Long)
	}
	for _, want := range []string{"the face is blurred (1 sharpness, limit 15)", "no face was found"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q lacks %q", text.String(), want)
		}
	}
	if !got.Reference.Has(agent.FindingBlurred) || !got.Probe.Has(agent.FindingNoFace) {
		t.Error("the probes lack their findings")
	}
}
