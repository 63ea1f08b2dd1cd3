package evaluate_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"postern/agent"
	"postern/agent/evaluate"
	"postern/agent/evaluate/spoof"
)

// finds sees a face in the middle of every picture.
type finds struct{ nobody bool }

func (p finds) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	if p.nobody {
		return agent.Probe{}, ctx.Err()
	}
	w, h := float32(f.Width), float32(f.Height)
	return agent.Probe{Face: &agent.Face{Box: agent.Box{X: w / 3, Y: h / 3, W: w / 3, H: h / 3},
		Points: [5]agent.Point{{X: w * 0.4, Y: h * 0.45}, {X: w * 0.6, Y: h * 0.45}}}}, ctx.Err()
}

// judges knows the species by the frames' Source: prints pass for living, screens are
// in review, the rest is declined; the living are approved, with a score of 90.
func judges(_ context.Context, frames []*agent.Frame) (agent.LivenessCheck, error) {
	c := agent.LivenessCheck{Status: agent.Declined, Liveness: agent.Liveness{Score: 10, Measured: true, ModelID: "pad"}}
	switch spoof.Species(frames[0].Source) {
	case spoof.BonaFide:
		c.Status, c.Score = agent.Approved, 90
	case spoof.Print:
		c.Status, c.Score = agent.Approved, 80
	case spoof.ScreenStill:
		c.Status, c.Score = agent.InReview, 60
	case spoof.InjectedStill:
		c.Signals = []agent.Signal{{Name: "repeated_frames", Grade: agent.GradeAttack}}
	}
	return c, nil
}

func TestLiveness(t *testing.T) {
	paths, err := evaluate.OpenFaces(folder(t, "", "Ann_0001"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	var mu sync.Mutex
	kept := 0
	r, err := evaluate.Liveness(t.Context(), paths, finds{}, evaluate.LivenessOptions{Frames: 1, Workers: 2,
		Thresholds: agent.Thresholds{Review: 70, Decline: 50}, Judge: judges,
		Keep: func(string, []*agent.Frame) error { mu.Lock(); defer mu.Unlock(); kept++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if kept != 7*spoof.Severities || r.ModelID != "pad" || r.Skipped != 0 {
		t.Errorf("%d presentations kept, %+v", kept, r)
	}
	for _, c := range []struct {
		rows              []evaluate.LivenessRow
		species           spoof.Species
		atReview, decline int
		signs             int
	}{
		{r.BonaFide, spoof.BonaFide, 0, 0, 0}, {r.Attacks, spoof.Print, 3, 3, 0}, {r.Attacks, spoof.ScreenStill, 0, 3, 0},
		{r.Attacks, spoof.InjectedStill, 0, 0, 3}, {r.Attacks, spoof.ScreenVideo, 0, 0, 0},
	} {
		i := slices.IndexFunc(c.rows, func(w evaluate.LivenessRow) bool { return w.Species == c.species && w.Severity == 0 })
		w := c.rows[i]
		if w.AtReview.Errors != c.atReview || w.AtDecline.Errors != c.decline || w.AtReview.Trials != spoof.Severities || w.Signs != c.signs {
			t.Errorf("%s: %+v", c.species, w)
		}
	}
	if r.EER != 0 || r.EERScore < 80 || r.EERScore >= 90 {
		t.Errorf("equal error %v at %v", r.EER, r.EERScore)
	}
}

func TestLivenessWithoutFaces(t *testing.T) {
	paths, _ := evaluate.OpenFaces(folder(t, "", "Ann_0001"))
	r, err := evaluate.Liveness(t.Context(), paths, finds{nobody: true}, evaluate.LivenessOptions{Frames: 1, Judge: judges})
	if err != nil || r.Skipped != 1 || len(r.BonaFide) != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err := evaluate.OpenFaces(filepath.Join(t.TempDir(), "none")); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("no folder: %v", err)
	}
	if _, err := evaluate.OpenFaces(t.TempDir()); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestSpread(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	if got := evaluate.Spread(all, 2); !slices.Equal(got, []string{"a", "c"}) {
		t.Error(got)
	}
	if got := evaluate.Spread(all, 0); len(got) != 5 {
		t.Error(got)
	}
}
