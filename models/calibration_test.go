package models_test

import (
	"encoding/json"
	"strings"
	"testing"

	"postern/models"
)

// table is a small calibration in a file of its own.
func table(tb testing.TB) object {
	tb.Helper()
	const raw = `{"id": "mine-1", "model": "m", "sha256": "ab", "data": "staff", "people": 30,
		"points": [{"cosine": -1, "score": 0},
			{"cosine": 0.3, "score": 50, "fmr": 0.001, "fmr_ci95": [0.0009, 0.0012], "fnmr": 0.01, "fnmr_ci95": [0.005, 0.02]},
			{"cosine": 0.5, "score": 90, "fmr_ci95": [0, 0.0001], "fnmr": 0.02, "fnmr_ci95": [0.01, 0.04]},
			{"cosine": 1, "score": 100}]}`
	var o object
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		tb.Fatal(err)
	}
	return o
}

func TestParseCalibration(t *testing.T) {
	for _, c := range []struct {
		path  string
		value any
		want  string // of the error; empty: none
	}{
		{"data", "other", ""},
		{"id", "", "no id"},
		{"model", "", "names no model"},
		{"sha256", "", "names no model"},
		{"surprise", 1, "unknown field"},
		{"points", []any{}, "points"},
		{"points.1.cosine", 0.6, "does not rise"},
		{"points.1.score", 95, "does not rise"},
		{"points.1.fmr", 2, "fmr 2"},
		{"points.1.fmr", 0.01, "fmr 0.01"},
		{"points.1.fmr_ci95", []float64{0.002, 0.001}, "fmr"},
		{"points.1.fnmr_ci95", []float64{0, 0}, "fnmr"},
		{"points.2.fmr_ci95", []float64{0, 0.5}, "run against"},
		{"points.2.fnmr", 0.001, "fnmr"},
		{"points.1.fnmr_ci95", []float64{0.005, 0.9}, "run against"},
	} {
		t.Run(c.path, func(t *testing.T) {
			o := table(t)
			set(o, c.path, c.value)
			_, err := models.ParseCalibration(rawOf(t, o))
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v lacks %q", err, c.want)
			}
		})
	}
	for _, raw := range []string{"", "null", "[]", "{", string(rawOf(t, table(t))) + "{}"} {
		if _, err := models.ParseCalibration([]byte(raw)); err == nil {
			t.Errorf("%.20q is taken", raw)
		}
	}
}

func TestRecalibrate(t *testing.T) {
	shipped, err := models.Default()
	if err != nil {
		t.Fatal(err)
	}
	man := shipped.Embedder.Manifest
	o := table(t)
	try := func() (*models.Manifest, error) {
		c, err := models.ParseCalibration(rawOf(t, o))
		if err != nil {
			t.Fatal(err)
		}
		m := man
		return &m, m.Recalibrate(c)
	}
	if m, err := try(); err == nil || m.Calibration.ID != man.Calibration.ID {
		t.Error("a table of another model is taken")
	}
	o["model"] = man.ID
	if _, err := try(); err == nil {
		t.Error("a table of another file is taken")
	}
	o["sha256"] = man.SHA256
	if m, err := try(); err != nil || m.Calibration.ID != "mine-1" {
		t.Errorf("calibration %s, %v", m.Calibration.ID, err)
	}
	near := shipped.Near.Manifest
	if err := near.Recalibrate(man.Calibration); err == nil {
		t.Error("a detector has a calibration")
	}
}

// The shipped table must say what the product says of it: anchors, and a rate with an
// interval at each.
func TestShippedCalibration(t *testing.T) {
	shipped, err := models.Default()
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[float64]float64{30: 1e-2, 50: 1e-3, 70: 1e-4, 90: 1e-5}
	for _, p := range shipped.Embedder.Manifest.Calibration.Points {
		if want, ok := anchors[p.Score]; ok {
			delete(anchors, p.Score)
			if p.FMRLimits == nil || p.FMR > want || p.FMR < 0.8*want || p.FNMR <= 0 || p.FNMRLimits == nil {
				t.Errorf("score %v: %+v, want FMR %v", p.Score, p, want)
			}
		}
	}
	if len(anchors) > 0 {
		t.Errorf("anchors missing: %v", anchors)
	}
}

func FuzzParseCalibration(f *testing.F) {
	f.Add([]byte(`{"id":"a","model":"m","sha256":"s","points":[{"cosine":-1,"score":0},{"cosine":1,"score":100}]}`))
	f.Add([]byte(`{"points":[{"fmr_ci95":[1]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := models.ParseCalibration(raw)
		if err != nil {
			return
		}
		for i, p := range c.Points[1:] {
			if !(p.Cosine > c.Points[i].Cosine && p.Score > c.Points[i].Score) {
				t.Errorf("a table that does not rise is taken: %+v", c.Points)
			}
		}
	})
}
