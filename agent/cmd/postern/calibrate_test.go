package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent"
	"postern/models"
)

// calibrationFile writes the shipped table, changed, as a file of its own.
func calibrationFile(t *testing.T, change func(c *models.Calibration)) string {
	t.Helper()
	set, err := models.Default()
	if err != nil {
		t.Fatal(err)
	}
	m := set.Embedder.Manifest
	c := *m.Calibration
	c.ID, c.Model, c.SHA256 = "mine-1", m.ID, m.SHA256
	c.Points = append([]models.CalibrationPoint(nil), c.Points...)
	change(&c)
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "table.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOwnCalibration(t *testing.T) {
	pictures := []string{"match", face(t, "obama.jpg"), face(t, "obama2.jpg"), "--json", "--set"}
	good := calibrationFile(t, func(*models.Calibration) {})
	a := postern(t, append(pictures, "match.calibration="+good)...)
	if d := decode[agent.Decision](t, a); a.code != exitApproved || d.Calibration != "mine-1" {
		t.Errorf("exit %d, decision %+v:\n%s", a.code, d, a.err)
	}
	for name, path := range map[string]string{
		"of another model": calibrationFile(t, func(c *models.Calibration) { c.Model = "other" }),
		"of another file":  calibrationFile(t, func(c *models.Calibration) { c.SHA256 = strings.Repeat("0", 64) }),
		"not rising":       calibrationFile(t, func(c *models.Calibration) { c.Points[3].Cosine = 0 }),
		"damaged":          face(t, "obama.jpg"),
		"missing":          filepath.Join(t.TempDir(), "none.json"),
	} {
		a := postern(t, append(pictures, "match.calibration="+path)...)
		if a.code == exitApproved || a.code == exitInReview || !strings.Contains(a.err, "match.calibration") {
			t.Errorf("%s: exit %d: %s", name, a.code, a.err)
		}
	}
}

func TestCalibrateRefuses(t *testing.T) {
	dir := labelled(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"calibrate"}, exitInvalid, "--data"},
		{[]string{"calibrate", "--data", dir}, exitInvalid, "2 people are fewer than 20"},
		{[]string{"calibrate", "--data", dir, "--model", dir}, exitNotFound, "manifest.json"},
		{[]string{"calibrate", "--data", dir, "--out", face(t, "obama.jpg")}, exitConflict, "exists"},
	} {
		if a := postern(t, c.args...); a.code != c.code || !strings.Contains(a.err, c.says) {
			t.Errorf("%v: exit %d, want %d with %q:\n%s", c.args, a.code, c.code, c.says, a.err)
		}
	}
}

func TestBenchSearch(t *testing.T) {
	a := postern(t, "bench", "search", "--templates", "5000", "--dim", "64", "-n", "5", "--json")
	if r := decode[searchReport](t, a); a.code != exitApproved || r.Verified == 0 || r.ExactMatches != r.Verified || r.Search.Least <= 0 {
		t.Errorf("exit %d, %+v: %s", a.code, r, a.err)
	}
	if a := postern(t, "bench", "search", "--templates", "1"); a.code != exitInvalid {
		t.Errorf("exit %d", a.code)
	}
}
