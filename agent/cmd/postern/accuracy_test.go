package main

import (
	"os"
	"path/filepath"
	"testing"

	"postern/agent/evaluate"
)

// developmentFaces returns the folder of labelled development faces: TEST_FACES, or
// where a checkout may have it beside it. They are no part of this repository.
func developmentFaces() string {
	if dir := os.Getenv("TEST_FACES"); dir != "" {
		return dir
	}
	return filepath.Join(root, "../shared/data/lfw-dev")
}

// TestAccuracy holds the whole Go pipeline to the accuracy that the int8 network
// was chosen by, within 0.3 points: more would be a fault before the network.
func TestAccuracy(t *testing.T) {
	if testing.Short() {
		t.Skip("accuracy was not measured: -short")
	}
	dir := developmentFaces()
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("accuracy was not measured: no labelled faces at %s (name them in TEST_FACES)", dir)
	}
	r := decode[evaluate.Report](t, postern(t, "eval", "--data", dir, "--json"))
	t.Logf("%d pictures, accuracy %.4f, %+v", r.Images, r.Accuracy, r.Points)
	if len(r.Undetected) > 0 {
		t.Errorf("no face in %v", r.Undetected)
	}
	limits := map[float64]float64{1e-3: 0.0154 + 0.003, 1e-4: 0.0340 + 0.003}
	for _, p := range r.Points {
		if limit, ok := limits[p.FMR]; ok && p.FNMR > limit {
			t.Errorf("FNMR %.4f at FMR %g, want at most %.4f", p.FNMR, p.FMR, limit)
		}
	}
	if r.Accuracy < 0.9927-0.003 {
		t.Errorf("accuracy %.4f on the pairs", r.Accuracy)
	}
}
