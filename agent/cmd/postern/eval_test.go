package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent/evaluate"
)

// labelled is a folder of two people with their portraits.
func labelled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for to, from := range map[string]string{
		"obama/obama_0001.jpg": "obama.jpg", "obama/obama_0002.jpg": "obama2.jpg", "biden/biden_0001.jpg": "biden.jpg",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o700); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(face(t, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEval(t *testing.T) {
	dir, out := labelled(t), filepath.Join(t.TempDir(), "out")
	groups := filepath.Join(t.TempDir(), "groups.csv")
	if err := os.WriteFile(groups, []byte("person,group\nobama,old\nbush,old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := postern(t, "eval", "--data", dir, "--out", out, "--groups", groups)
	for _, want := range []string{"cross pairs: 1 genuine, 2 impostor", "0 of 2: too few for a rate", "error versus discard: 1 genuine pairs",
		"1 people in the groups file, without a picture: bush", "1 people with pictures, in no group: biden"} {
		if a.code != 0 || !strings.Contains(a.out, want) {
			t.Errorf("exit %d, %q is missing:\n%s%s", a.code, want, a.out, a.err)
		}
	}
	for _, name := range evaluate.Pictures {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	if a := postern(t, "eval", "--data", dir, "--out", out); a.code != exitConflict || !strings.Contains(a.err, "det.svg") {
		t.Errorf("drawn over: exit %d\n%s", a.code, a.err)
	}
	r := decode[evaluate.Report](t, postern(t, "eval", "--data", dir, "--json"))
	if r.Genuine != 1 || len(r.Scores) != 10 || r.Groups != nil || r.Scores[4].FNMR.Errors != 0 || r.Scores[4].FMR.Value != nil {
		t.Errorf("%+v", r)
	}
}

func TestEvalRobustness(t *testing.T) {
	r := decode[evaluate.RobustnessReport](t, postern(t, "eval", "robustness", "--data", labelled(t), "--json"))
	if r.People != 1 || len(r.Rows) != 21 || r.Rows[0].Name != "as it is" || r.Rows[0].At[0].FNMR.Errors != 0 || r.EyeDistance < 20 {
		t.Errorf("%+v", r)
	}
	if text := robustnessText(&r); strings.Count(text, "too few for a rate") != 63 {
		t.Errorf("%s", text)
	}
}

func TestEvalUsage(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"eval"}, exitInvalid, "--data"},
		{[]string{"eval", "--data", dir}, exitInvalid, "no sub-folders"},
		{[]string{"eval", "--data", filepath.Join(dir, "none")}, exitNotFound, "none"},
		{[]string{"eval", "--data", labelled(t), "--groups", filepath.Join(dir, "none.csv")}, exitNotFound, "none.csv"},
		{[]string{"eval", "robustness"}, exitInvalid, "--data"},
		{[]string{"eval", "robustness", "--data", dir, "--people", "-1"}, exitInvalid, "--people"},
		{[]string{"eval", "robustness", "--data", dir}, exitInvalid, "no sub-folders"},
	} {
		if a := postern(t, c.args...); a.code != c.code || !strings.Contains(a.err, c.says) {
			t.Errorf("%v: exit %d, want %d with %q:\n%s", c.args, a.code, c.code, c.says, a.err)
		}
	}
}

// What the texts say of rates, and of people whose names are unkind to a terminal.
func TestEvalTexts(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{fmrText(evaluate.FalseMatchRate(100, 100_000)), "1.00e-03 (8.22e-04 to 1.22e-03)"},
		{fmrText(evaluate.FalseMatchRate(0, 3000)), "below 1.0e-03 (0 of 3000: too few for a rate)"},
		{fnmrText(evaluate.FalseNonMatchRate(1, 100)), "1.00 % (0.18 to 5.45)"},
		{fnmrText(evaluate.FalseNonMatchRate(0, 30)), "below 10 % (0 of 30: too few for a rate)"},
		{someOf("here", nil), ""},
		{someOf("here", []string{"a\x1b[2J", "b"}), "2 people here: a [2J, b\n"},
		{someOf("here", strings.Split("abcdefghijk", "")), "11 people here: a, b, c, d, e, f, g, h, i, j, … (--json lists all)\n"},
		{discardText(&evaluate.DiscardCurve{}), ""},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestEvalQuality(t *testing.T) {
	r := decode[evaluate.QualityReport](t, postern(t, "eval", "quality", "--data", labelled(t), "--cover", "3", "--json"))
	if r.Images != 3 || len(r.Discard) != len(r.Spread) || len(r.Gates) != 2 || len(r.Covered) != 2 || r.ModelID == "" {
		t.Fatalf("%+v", r)
	}
	if m := r.Covered[0]; m.Covered.Trials == 0 || m.Covered.Errors != m.Covered.Trials || m.Plain.Errors != 0 {
		t.Errorf("masks on three portraits: %+v", m)
	}
	if text := qualityText(&r); !strings.Contains(text, "mouth covered") || !strings.Contains(text, "enrol") {
		t.Errorf("%s", text)
	}
}

// The shipped embedder, named as another, is no different from itself.
func TestEvalCompare(t *testing.T) {
	a := postern(t, "eval", "--data", labelled(t), "--compare", filepath.Join(root, "models/fr-feature-512-int8"))
	if a.code != exitApproved || !strings.Contains(a.out, "no difference shown") || strings.Contains(a.out, "better") {
		t.Errorf("exit %d:\n%s%s", a.code, a.out, a.err)
	}
}
