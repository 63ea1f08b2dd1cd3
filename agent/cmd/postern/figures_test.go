package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiffers(t *testing.T) {
	for _, c := range []struct {
		quoted, made string
		same         bool
	}{
		{"FNMR 1.56 %", "FNMR 1.56 %", true},
		{"FNMR 1.56 %", "FNMR 1.57 %", true},  // rounding
		{"FNMR 1.56 %", "FNMR 1.70 %", false}, // not rounding
		{"FNMR 1.56 %", "FMR 1.56 %", false},
		{"9.96e-05 (7.75e-05", "9.97e-05 (7.76e-05", true},
		{"9.96e-05", "9.96e-04", false},
		{"7,255,541 pairs", "7,255,541 pairs", true},
		{"0.00 %", "0.01 %", true},
		{"0.00 %", "0.05 %", false},
		{"a 1", "a 1 2", false},
	} {
		if why := differs(c.quoted, c.made); (why == "") != c.same {
			t.Errorf("%q and %q: %q", c.quoted, c.made, why)
		}
	}
}

func TestFigures(t *testing.T) {
	a := postern(t, "eval", "figures")
	if a.code != exitApproved || !strings.Contains(a.out, "of 10,000 strangers") || !strings.Contains(a.out, "figures: score-table") {
		t.Fatalf("exit %d:\n%s%s", a.code, a.out, a.err)
	}
	doc := filepath.Join(t.TempDir(), "doc.md")
	text := "before\n<!-- figures: answers -->\nold\n<!-- /figures -->\nbetween\n<!-- figures: robustness -->\nkept\n<!-- /figures -->\nafter\n"
	if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := postern(t, "eval", "figures", "--check", doc); a.code != exitConflict || !strings.Contains(a.out, "answers") {
		t.Errorf("exit %d: %s", a.code, a.out)
	}
	if a := postern(t, "eval", "figures", "--write", doc); a.code != exitApproved {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	got, err := os.ReadFile(doc)
	if err != nil || !strings.Contains(string(got), "strangers") || strings.Contains(string(got), "\nold\n") ||
		!strings.Contains(string(got), "\nkept\n") || !strings.HasPrefix(string(got), "before\n") || !strings.HasSuffix(string(got), "after\n") {
		t.Errorf("%v: %s", err, got)
	}
	a = postern(t, "eval", "figures", "--check", doc)
	if a.code != exitApproved || !strings.Contains(a.out, "1 blocks") || !strings.Contains(a.out, "did not measure") || !strings.Contains(a.out, "doc.md, robustness") {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	for _, args := range [][]string{{"--check"}, {"--check", "--write", doc}} {
		if a := postern(t, append([]string{"eval", "figures"}, args...)...); a.code != exitInvalid {
			t.Errorf("%v: exit %d", args, a.code)
		}
	}
}

// TestQuoted holds README and cards to the shipped tables.
func TestQuoted(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	cards, err := filepath.Glob(filepath.Join(root, "models", "*", "MODEL_CARD.md"))
	if err != nil || len(cards) == 0 {
		t.Fatal(cards, err)
	}
	files := append(cards, filepath.Join(root, "README.md"), filepath.Join(root, "docs", "evaluation.md"))
	a := postern(t, append([]string{"eval", "figures", "--check"}, files...)...)
	if a.code != exitApproved {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	for _, unmeasured := range []string{"README.md", "MODEL_CARD.md"} {
		if strings.Contains(a.out, unmeasured) {
			t.Errorf("a block of %s has no figures: %s", unmeasured, a.out)
		}
	}
}
