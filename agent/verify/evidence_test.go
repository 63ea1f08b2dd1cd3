package verify_test

import (
	"math"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/verify"
)

func TestEvidence(t *testing.T) {
	nan, inf := person(0), person(0)
	nan[1], inf[1] = float32(math.NaN()), float32(math.Inf(1))
	otherSpace := probeOf(person(0))
	otherSpace.Space = "space-2"
	good := probeOf(like(0, 0.95, 1))
	for _, c := range []struct {
		name     string
		need     int
		frames   []agent.Probe
		verdicts []verify.Verdict
		want     agent.Status
		risk     agent.Risk
	}{
		{"enough", 2, []agent.Probe{good, good}, []verify.Verdict{verify.Used, verify.Used}, agent.Approved, ""},
		{"one too few", 2, []agent.Probe{good}, []verify.Verdict{verify.Used}, agent.Declined, agent.RiskLowQuality},
		{"need below 1", -3, []agent.Probe{good}, []verify.Verdict{verify.Used}, agent.Approved, ""},
		{"none at all", 0, nil, nil, agent.Declined, agent.RiskNoReference},
		{"no face", 1, []agent.Probe{nobody}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskNoReference},
		{"blurred only", 1, []agent.Probe{blurred(good)}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskLowQuality},
		{"blurred between", 2, []agent.Probe{good, blurred(good), good}, []verify.Verdict{verify.Used, verify.Unusable, verify.Used}, agent.Approved, ""},
		{"a stranger steps in", 1, []agent.Probe{good, probeOf(person(5)), good},
			[]verify.Verdict{verify.Used, verify.Different, verify.Used}, agent.Approved, ""},
		{"just a different person", 1, []agent.Probe{good, probeOf(like(0, 0.5, 5))},
			[]verify.Verdict{verify.Used, verify.Different}, agent.Approved, ""},
		{"NaN first", 1, []agent.Probe{probeOf(nan), good}, []verify.Verdict{verify.Unusable, verify.Used}, agent.Approved, ""},
		{"NaN only", 1, []agent.Probe{probeOf(nan)}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskNoReference},
		{"NaN later", 1, []agent.Probe{good, probeOf(nan)}, []verify.Verdict{verify.Used, verify.Unusable}, agent.Approved, ""},
		{"infinite", 1, []agent.Probe{probeOf(inf)}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskNoReference},
		{"not normalised", 1, []agent.Probe{probeOf(agent.Embedding{2, 0})}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskNoReference},
		{"no embedding", 1, []agent.Probe{probeOf(nil)}, []verify.Verdict{verify.Unusable}, agent.Declined, agent.RiskNoReference},
		{"another length", 1, []agent.Probe{good, probeOf(person(0)[:8])}, []verify.Verdict{verify.Used, verify.Different}, agent.Approved, ""},
		{"another space", 1, []agent.Probe{good, otherSpace}, []verify.Verdict{verify.Used, verify.Unusable}, agent.Approved, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.mustEnrol(t, "ada", person(0))
			ev := r.NewEvidence("cam", c.need)
			used := 0
			for i, p := range c.frames {
				if look := ev.Compare(&p); look != c.verdicts[i] {
					t.Errorf("frame %d: Compare says %d, want %d", i, look, c.verdicts[i])
				}
				if got := ev.Add(&p); got != c.verdicts[i] {
					t.Errorf("frame %d: Add says %d, want %d", i, got, c.verdicts[i])
				} else if got == verify.Used {
					used++
				}
			}
			if u, seen := ev.Frames(); u != used || seen != len(c.frames) {
				t.Errorf("%d used of %d seen, want %d of %d", u, seen, used, len(c.frames))
			}
			d := r.look(t, "ada", ev)
			checkDecision(t, d, c.want, c.risk)
			if d.Frames != used {
				t.Errorf("the decision counts %d frames, want %d", d.Frames, used)
			}
		})
	}
}

// TestLate: a capture has its budget; a machine that saw too few frames in it has more.
func TestLate(t *testing.T) {
	const budget = 3 * time.Second
	for _, c := range []struct {
		name    string
		elapsed time.Duration
		good    int // of the two needed
		seen    int
		want    bool
	}{
		{"in time", budget - 1, 0, 100, false},
		{"in time with enough", budget - 1, 2, 2, false},
		{"enough", budget, 2, 2, true},
		{"too few good ones of many", budget, 1, 30, true},
		{"none seen yet", budget, 0, 0, false},
		{"a spare one is owed", budget, 1, 3, false},
		{"all had their chance", budget, 1, 4, true},
		{"waited long enough", 4 * budget, 0, 0, true},
	} {
		ev := newRig(t).NewEvidence("cam", 2)
		for range c.good {
			p := probeOf(person(0))
			ev.Add(&p)
		}
		if got := ev.Late(c.elapsed, budget, c.seen); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A part that failed while the evidence was gathered spoils it for good.
func TestEvidenceFail(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ada", person(0))
	ev := r.evidence(person(0), person(0))
	ev.Fail()
	checkEvidenceDeclined(t, r, ev, agent.RiskNotComputed)
	p := probeOf(person(0))
	ev.Add(&p)
	checkEvidenceDeclined(t, r, ev, agent.RiskNotComputed)
}

// Averaging does not give an impostor several tries: the fused score of many
// half-matches is not above the best of them by luck alone.
func TestEvidenceIsFused(t *testing.T) {
	r := newRig(t)
	ev := r.evidence(like(0, 0.8, 1), like(0, 0.8, 2), like(0, 0.8, 3))
	e := ev.Embedding()
	if !e.Normalised() {
		t.Fatalf("embedding %v", e)
	}
	if got, want := e.Cosine(person(0)), float32(0.917); got < want-0.01 || got > want+0.01 {
		t.Errorf("cosine %v, want %v", got, want)
	}
	e[0] = 99
	if again := ev.Embedding(); again[0] == 99 {
		t.Error("the evidence hands out its own memory")
	}
	if r.NewEvidence("cam", 1).Embedding() != nil {
		t.Error("empty evidence has an embedding")
	}
}

func TestEvidenceExplains(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ada", person(0))
	ev := r.NewEvidence("cam", 2)
	one, dim := probeOf(person(0)), blurred(probeOf(person(0)))
	ev.Add(&one)
	ev.Add(&dim)
	if !dim.Has(agent.FindingBlurred) {
		t.Error("Add did not set the findings")
	}
	d := r.look(t, "ada", ev)
	if len(d.Warnings) != 2 || d.Warnings[0].LogType != agent.LogInformation || d.Warnings[1].LogType != agent.LogError {
		t.Errorf("warnings %+v", d.Warnings)
	}
}
