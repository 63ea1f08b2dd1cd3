package evaluate_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/evaluate"
)

// measured answers by the picture's name, quality included.
type measured map[string]agent.Probe

func (m measured) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	return m[strings.TrimSuffix(f.Source, ".png")], ctx.Err()
}

// rated is a face of that quality.
func rated(e agent.Embedding, quality float64) agent.Probe {
	return agent.Probe{Face: &agent.Face{Confidence: 1}, Embedding: e, Quality: agent.Quality{Score: float32(quality)}}
}

// straight maps score s to the cosine s/100.
func straight(s float64) float64 { return s / 100 }

func TestRateSupport(t *testing.T) {
	for _, c := range []struct {
		name  string
		rate  evaluate.Rate
		value float64 // -1: not told
		below float64
	}{
		{"rule of three", evaluate.FalseMatchRate(0, 3000), -1, 0.0009987},
		{"one", evaluate.FalseMatchRate(1, 1000), -1, 0.004744},
		{"nine", evaluate.FalseMatchRate(9, 1000), -1, 0.015705},
		{"ten", evaluate.FalseMatchRate(10, 1000), 0.01, 0.018311},
		{"no pairs", evaluate.FalseMatchRate(0, 0), -1, 1},
		{"more than all", evaluate.FalseMatchRate(0, 2), -1, 1},
		{"99 genuine", evaluate.FalseNonMatchRate(0, 99), -1, 0.030263},
		{"100 genuine", evaluate.FalseNonMatchRate(2, 100), 0.02, 0.06296},
		{"no genuine", evaluate.FalseNonMatchRate(0, 0), -1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := -1.0
			if c.rate.Value != nil {
				got = *c.rate.Value
			}
			if !near(got, c.value) || math.Abs(c.rate.Below-c.below) > 1e-5 {
				t.Errorf("value %v, below %v; want %v, %v", got, c.rate.Below, c.value, c.below)
			}
		})
	}
}

// crowd is n people with two pictures, 1 degree apart, and 360/n from the next.
func crowd(tb testing.TB, n int) (*evaluate.Dataset, prober) {
	tb.Helper()
	var names []string
	p := prober{}
	for i := range n {
		for j := range 2 {
			name := fmt.Sprintf("p%03d_%04d", i, j+1)
			names = append(names, name)
			p[name] = at(float64(i)*360/float64(n) + float64(j))
		}
	}
	return open(tb, folder(tb, "", names...)), p
}

func runWith(tb testing.TB, d *evaluate.Dataset, p interface {
	Probe(context.Context, *agent.Frame) (agent.Probe, error)
}, o evaluate.Options) *evaluate.Report {
	tb.Helper()
	r, err := evaluate.Run(context.Background(), d, p, o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// 12 people at each 30 degrees, their two pictures a degree apart: each person has
// four impostor pairs with the next (29, 30, 30, 31 degrees) and four with the one
// after that (59, 60, 60, 61).
func TestScoreTable(t *testing.T) {
	d, p := crowd(t, 12)
	r := runWith(t, d, p, evaluate.Options{Cosine: straight})
	if len(r.Scores) != 10 || r.Scores[0].Score != 10 || r.Scores[9].Score != 95 {
		t.Fatalf("rows %+v", r.Scores)
	}
	for _, c := range []struct{ row, matches int }{
		{3, 12 * 8}, // above 0.4: within 66 degrees
		{6, 12 * 4}, // above 0.7: within 45 degrees
		{8, 0},      // above 0.9: within 25 degrees
		{9, 0},
	} {
		s := r.Scores[c.row]
		if s.FMR.Errors != c.matches || s.FMR.Trials != 12*11/2*4 || s.FNMR.Errors != 0 || s.FNMR.Trials != 12 {
			t.Errorf("score %g: %+v, want %d matches and no miss", s.Score, s, c.matches)
		}
	}
	if r.Scores[6].FMR.Value == nil || r.Scores[8].FMR.Value != nil || r.Scores[6].FNMR.Value != nil {
		t.Errorf("support: %+v", r.Scores)
	}
	if r := runWith(t, d, p, evaluate.Options{Groups: evaluate.Groups{"p000": "g"}}); r.Scores != nil || r.Groups != nil {
		t.Error("tables without a curve")
	}
}

// Ten people; the pair of person i has quality 10*(i+1), and the two worst are missed.
func TestDiscard(t *testing.T) {
	for _, c := range []struct {
		name    string
		quality func(i int) float64
		misses  []int // after 0, 2, 5, 10, 20 %
		lowest  float64
	}{
		{"quality tells", func(i int) float64 { return 10 * float64(i+1) }, []int{2, 2, 2, 1, 0}, 30},
		{"quality misleads", func(i int) float64 { return 100 - 10*float64(i) }, []int{2, 2, 2, 2, 2}, 30},
		{"all alike: nothing is gained", func(int) float64 { return 50 }, []int{2, 2, 2, 2, 2}, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			var names []string
			m := measured{}
			for i := range 10 {
				a, b := fmt.Sprintf("p%d_0001", i), fmt.Sprintf("p%d_0002", i)
				// Each person has axes of their own: impostor cosines are 0.
				first, second := make(agent.Embedding, 20), make(agent.Embedding, 20)
				first[2*i], second[2*i] = 1, 1
				if i < 2 {
					second[2*i], second[2*i+1] = -0.6, 0.8
				}
				m[a], m[b] = rated(first, 100), rated(second, c.quality(i))
				names = append(names, a, b)
			}
			names = append(names, "p0_0003") // no face: not in the curve
			r := runWith(t, open(t, folder(t, "", names...)), m, evaluate.Options{})
			if r.Discard.Genuine != 10 || r.Discard.NoFace != 2 || len(r.Discard.Points) != 5 {
				t.Fatalf("%+v", r.Discard)
			}
			for i, p := range r.Discard.Points {
				left := []int{10, 10, 10, 9, 8}[i]
				perfect := float64(max(0, 2-(10-left))) / float64(left)
				if p.FNMR.Errors != c.misses[i] || p.FNMR.Trials != left || !near(p.Perfect, perfect) {
					t.Errorf("%v discarded: %+v", p.Discarded, p)
				}
			}
			if q := r.Discard.Points[4].Quality; math.Abs(q-c.lowest) > 0.01 {
				t.Errorf("quality from %v, want %v", q, c.lowest)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	d, p := crowd(t, 12)
	p["p000_0002"] = at(90) // one miss, in group x; matches p002 and p003, who are in y
	g := evaluate.Groups{"stranger": "y"}
	for i := range 11 {
		g[fmt.Sprintf("p%03d", i)] = "y"
	}
	g["p000"], g["p001"] = "x", "x"
	r := runWith(t, d, p, evaluate.Options{Cosine: straight, Groups: g}).Groups
	if len(r.Rows) != 2 || fmt.Sprint(r.Unknown, r.Ungrouped) != "[stranger] [p011]" {
		t.Fatalf("%+v", r)
	}
	x, y := r.Rows[0], r.Rows[1]
	if x.Group != "x" || x.People != 2 || x.Images != 4 || y.People != 9 || y.Images != 18 || len(x.At) != 2 {
		t.Fatalf("%+v", r.Rows)
	}
	// Within x: p000_0001 (0) to p001 (30, 31) match at 0.7, p000_0002 (90) does not, but for 0.5.
	at70 := x.At[1]
	if at70.Score != 70 || at70.FNMR.Errors != 1 || at70.FNMR.Trials != 2 || at70.FMR.Errors != 2 || at70.FMR.Trials != 4 || at70.FMR.Value != nil {
		t.Errorf("x at 70: %+v", at70)
	}
	if x.Small != "2 people, fewer than 30" || y.Small == "" {
		t.Errorf("too small: %q, %q", x.Small, y.Small)
	}
	// Intervals are of drawings of people, and never narrower than those of the count.
	if w := evaluate.Wilson(2, 4); at70.FMR.CI.Low > w.Low || at70.FMR.CI.High < w.High {
		t.Errorf("interval of x at 70 %+v is inside Wilson's %+v", at70.FMR.CI, w)
	}
	if w := evaluate.Wilson(1, 2); at70.FNMR.CI.Low != 0 || at70.FNMR.CI.High != 1 {
		t.Errorf("interval of x's misses %+v: the one person of two who misses is drawn never or always (Wilson: %+v)", at70.FNMR.CI, w)
	}
	// y: 9 people in a row, so 8 neighbours at 29, 30, 30, 31 degrees.
	at70 = y.At[1]
	if at70.FNMR.Errors != 0 || at70.FNMR.Trials != 9 || at70.FMR.Errors != 32 || at70.FMR.Trials != 9*8/2*4 || at70.FMR.Value == nil {
		t.Errorf("y at 70: %+v", at70)
	}
}

func TestOpenGroups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "groups.csv")
	for _, c := range []struct{ text, want string }{ // want: the groups, or part of the error
		{"ada,x\nbob,y\n", "map[ada:x bob:y]"},
		{"Person, Group\nada, x \n\"bob\",\"y, z\"\n", "map[ada:x bob:y, z]"},
		{"ada,x\nada,x\n", "map[ada:x]"},
		{"ada,x\nada,y\n", "line 2: ada is in x and in y"},
		{"ada,x\nbob\n", "line 2"},
		{"ada,x\n,y\n", "line 2: person or group is empty"},
		{"ada,\n", "line 1"},
		{"person,group\n", "no person"},
		{"", "no person"},
		{"\"ada,x\n", "groups.csv"},
	} {
		write(t, path, c.text)
		g, err := evaluate.OpenGroups(path)
		if err == nil && fmt.Sprint(map[string]string(g)) != c.want {
			t.Errorf("%q: %v, want %s", c.text, g, c.want)
		}
		if err != nil && (agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(fmt.Sprint(err, errors.Unwrap(err)), c.want)) {
			t.Errorf("%q: %v lacks %q", c.text, err, c.want)
		}
	}
	if _, err := evaluate.OpenGroups(path + "x"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("a missing file: %v", err)
	}
}

func TestPictures(t *testing.T) {
	d, p := crowd(t, 12)
	r := runWith(t, d, p, evaluate.Options{Cosine: straight})
	r.ModelID = "a<b> & \"c\""
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := r.WritePictures(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range evaluate.Pictures {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		texts := textsOf(t, name, data)
		if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, r.ModelID) }) || !slices.Contains(texts, "score 70") {
			t.Errorf("%s says only %q", name, texts)
		}
		if s := string(data); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") || strings.Contains(s, "%!") {
			t.Errorf("%s has a number that is none", name)
		}
	}
	if err := r.WritePictures(dir); agent.ErrorCode(err) != agent.CodeConflict {
		t.Errorf("drawn over: %v", err)
	}
	if err := evaluate.NewPictureFolder(d.Images[0].Path); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("a file as folder: %v", err)
	}
	none := runWith(t, open(t, folder(t, "", "a_0001")), prober{}, evaluate.Options{})
	if err := none.WritePictures(t.TempDir()); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("drawn from nothing: %v", err)
	}
}

// Without a face nowhere, or with one value only, a picture is dull but whole.
func TestPicturesOfLittle(t *testing.T) {
	for _, p := range []prober{{}, {"a_0001": at(0), "a_0002": at(0), "b_0001": at(0), "b_0002": at(0)}} {
		r := run(t, open(t, folder(t, "", four...)), p)
		dir := t.TempDir()
		if err := r.WritePictures(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range evaluate.Pictures {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || strings.Contains(string(data), "NaN") {
				t.Errorf("%s: %v", name, err)
			}
			textsOf(t, name, data)
		}
	}
}

// textsOf parses the whole picture.
func textsOf(t *testing.T, name string, data []byte) []string {
	t.Helper()
	var out []string
	dec := xml.NewDecoder(strings.NewReader(string(data)))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s, ok := tok.(xml.CharData); ok && strings.TrimSpace(string(s)) != "" {
			out = append(out, string(s))
		}
	}
}
