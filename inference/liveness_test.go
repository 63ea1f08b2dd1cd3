package inference

import (
	"errors"
	"math"
	"testing"

	"postern/agent"
	"postern/models"
)

// spoofModel is a network of three classes of which number 1 is the living; its
// score is 50 at even odds and 0 or 100 at log-odds of 5 either way.
func spoofModel() *models.Model {
	return &models.Model{Bytes: []byte{1}, Manifest: models.Manifest{
		ID: "pad", Role: models.RoleLiveness,
		Input:   models.Input{Name: "image", Shape: []int{1, 128, 128, 3}, DType: "float32", Color: "RGB", Std: 1},
		Outputs: []models.Output{{Name: "classes", Role: "classes", Shape: []int{1, 3}, DType: "float32"}},
		Liveness: &models.Liveness{Scale: 2.7, Live: 1, Calibration: models.LivenessCalibration{ID: "pad/1",
			Points: []models.LivenessPoint{{LogOdds: -5, Score: 0}, {LogOdds: 0, Score: 50}, {LogOdds: 5, Score: 100}}}},
	}}
}

// says makes the network give these logits.
func says(logits ...float32) func(in, out []Data) error {
	return func(_, out []Data) error {
		copy(out[0].Float32, logits)
		return nil
	}
}

func livePipeline(t *testing.T, e *fakeEngine) *Pipeline {
	t.Helper()
	e.set.Liveness = spoofModel()
	p, err := New(e, e.set, Options{Liveness: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestProbeLive(t *testing.T) {
	for _, c := range []struct {
		name   string
		logits []float32
		score  float64
	}{
		{"even", []float32{0, float32(math.Log(2)), 0}, 50},
		{"alive", []float32{-9, 9, -9}, 100},
		{"a print", []float32{9, -9, 0}, 0},
		{"between", []float32{-100, 2.5, 0}, 75},
		{"huge", []float32{3e38, -3e38, 3e38}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			e.run["pad"] = says(c.logits...)
			pr, err := livePipeline(t, e).ProbeLive(t.Context(), flat(300, 200, 90))
			if err != nil {
				t.Fatal(err)
			}
			l := pr.Liveness
			if !l.Measured || !near(l.Score, c.score, 1e-4) || l.ModelID != "pad" || l.Calibration != "pad/1" || l.Method != agent.LivenessPassive {
				t.Errorf("%+v, want score %v", l, c.score)
			}
		})
	}
}

// TestProbeLiveFailsClosed: what cannot be measured is an error, and Probe measures
// nothing.
func TestProbeLiveFailsClosed(t *testing.T) {
	e := newEngine(t)
	e.run["pad"] = says(0, nan, 0)
	p := livePipeline(t, e)
	if _, err := p.ProbeLive(t.Context(), flat(300, 200, 90)); err == nil {
		t.Error("a network that says NaN is believed")
	}
	e.run["pad"] = fails
	if _, err := p.ProbeLive(t.Context(), flat(300, 200, 90)); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	pr, err := p.Probe(t.Context(), flat(300, 200, 90))
	if err != nil || pr.Liveness.Measured {
		t.Errorf("Probe: %v, %+v", err, pr.Liveness)
	}
	e = newEngine(t)
	e.set.Liveness = nil
	if _, err := mustPipeline(t, e).ProbeLive(t.Context(), flat(300, 200, 90)); !errors.Is(err, errNoLiveness) {
		t.Errorf("without liveness: %v", err)
	}
	if _, err := New(e, e.set, Options{Liveness: true}); err == nil {
		t.Error("a set without a liveness network is accepted")
	}
}

// TestLateLiveness: a pipeline made without it loads the network with its first use, and
// measures nothing where that fails.
func TestLateLiveness(t *testing.T) {
	e := newEngine(t)
	e.set.Liveness = spoofModel()
	e.run["pad"] = says(-9, 9, -9)
	e.load = func(id string) error {
		if id == "pad" {
			return errBroken
		}
		return nil
	}
	p := mustPipeline(t, e)
	for range 2 {
		if pr, err := p.ProbeLive(t.Context(), flat(300, 200, 90)); !errors.Is(err, errBroken) || pr.Face != nil {
			t.Errorf("%v, %+v", err, pr)
		}
	}
	e.load = nil
	for range 2 {
		if pr, err := p.ProbeLive(t.Context(), flat(300, 200, 90)); err != nil || !pr.Liveness.Measured || e.live.Load() != 5 {
			t.Errorf("%v, %+v, %d networks", err, pr.Liveness, e.live.Load())
		}
	}
}

// TestLivenessCrop: the crop keeps inside the picture, first by size, then by place.
func TestLivenessCrop(t *testing.T) {
	face := func(x, y, w, h float32) []agent.Point3 {
		return []agent.Point3{{X: x, Y: y}, {X: x + w, Y: y + h}}
	}
	for _, c := range []struct {
		name       string
		mesh       []agent.Point3
		x, y, w, h float64
	}{
		{"in the middle", face(150, 150, 100, 120), 65, 48, 270, 324},
		{"at the left", face(0, 150, 100, 120), 0, 48, 270, 324},
		{"at the lower right", face(300, 280, 100, 120), 130, 76, 270, 324},
		{"too large", face(0, 0, 400, 200), 0, 0, 400, 200},
	} {
		m := livenessCrop(flat(400, 400, 0), c.mesh, 2.7, 128)
		x, y := m.apply(-0.5, -0.5)
		w, h := m.a*128, m.e*128
		if !near(x+0.5, c.x, 1e-6) || !near(y+0.5, c.y, 1e-6) || !near(w, c.w, 1e-4) || !near(h, c.h, 1e-4) {
			t.Errorf("%s: %v, %v and %v x %v", c.name, x+0.5, y+0.5, w, h)
		}
	}
}
