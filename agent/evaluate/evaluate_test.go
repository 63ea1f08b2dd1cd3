package evaluate_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/agent/evaluate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder writes empty pictures "person/person_0001.png" and pairs.txt.
func folder(tb testing.TB, pairs string, names ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, n := range names {
		path := filepath.Join(dir, n[:strings.LastIndex(n, "_")], n+".png")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			tb.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, image.NewGray(image.Rect(0, 0, 16, 16))), f.Close()); err != nil {
			tb.Fatal(err)
		}
	}
	if pairs != "" {
		write(tb, filepath.Join(dir, "pairs.txt"), pairs)
	}
	return dir
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func open(tb testing.TB, dir string) *evaluate.Dataset {
	tb.Helper()
	d, err := evaluate.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// at is the unit vector at an angle: cosines between such are easy to say.
func at(degrees float64) agent.Embedding {
	s, c := math.Sincos(degrees * math.Pi / 180)
	return agent.Embedding{float32(c), float32(s)}
}

// prober answers by the picture's name; a missing one has no face.
type prober map[string]agent.Embedding

func (p prober) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	e := p[strings.TrimSuffix(f.Source, ".png")]
	return agent.Probe{Embedding: e, ModelID: "model-1"}, ctx.Err()
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-4 }

func run(tb testing.TB, d *evaluate.Dataset, p prober) *evaluate.Report {
	tb.Helper()
	r, err := evaluate.Run(context.Background(), d, p, evaluate.Options{Workers: 3})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

const twoFolds = "2 1\na 1 2\na 1 b 1\nb 1 2\na 2 b 2\n"

var four = []string{"a_0001", "a_0002", "b_0001", "b_0002"}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name     string
		p        prober
		accuracy float64
		missed   int     // undetected
		fnmr     float64 // at FMR 1e-2
		cosine   float64 // threshold there
	}{
		// Impostor angles: a1-b1 90, a1-b2 100, a2-b1 80, a2-b2 90.
		{"apart", prober{"a_0001": at(0), "a_0002": at(10), "b_0001": at(90), "b_0002": at(100)}, 1, 0, 0, math.Cos(80 * math.Pi / 180)},
		// a1 is nearer to b1 (30) than to a2 (60): one of two genuine pairs is missed.
		{"one mixed up", prober{"a_0001": at(0), "a_0002": at(-60), "b_0001": at(30), "b_0002": at(31)}, 0.5, 0, 0.5, math.Cos(30 * math.Pi / 180)},
		{"a face not found is a miss", prober{"a_0001": at(0), "b_0001": at(120), "b_0002": at(121)}, 0.75, 1, 0.5, -0.5},
		{"no face found at all", prober{}, 0.5, 4, 1, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, open(t, folder(t, twoFolds, four...)), c.p)
			if r.Images != 4 || r.Pairs != 4 || r.Genuine != 2 || r.Impostor != 4 || r.ModelID != "model-1" || r.Workers != 3 {
				t.Errorf("report %+v", r)
			}
			if len(r.Undetected) != c.missed {
				t.Errorf("undetected %v", r.Undetected)
			}
			if !near(r.Accuracy, c.accuracy) {
				t.Errorf("accuracy %v, want %v", r.Accuracy, c.accuracy)
			}
			if len(r.Points) != 4 || r.Points[0].FMR != 1e-2 {
				t.Fatalf("points %+v", r.Points)
			}
			p := r.Points[0]
			if !near(p.FNMR, c.fnmr) || math.Abs(p.Cosine-c.cosine) > 1e-5 || p.CI.Low > p.FNMR || p.CI.High < p.FNMR {
				t.Errorf("point %+v, want FNMR %v at cosine %v", p, c.fnmr, c.cosine)
			}
		})
	}
}

// At FMR 1e-2 of 300 impostor pairs three may lie above the threshold, and no more.
func TestThresholdCounts(t *testing.T) {
	d, p := &evaluate.Dataset{}, prober{}
	add := func(person string, e agent.Embedding) {
		i := len(d.Images) + 1
		name := fmt.Sprintf("p_%04d", i)
		path := filepath.Join(folder(t, "", name), "p", name+".png")
		d.Images = append(d.Images, evaluate.Image{Person: person, Path: path})
		p[name] = e
	}
	for i := range 25 { // 25 people: 300 impostor pairs, no genuine
		add(fmt.Sprint(i), at(float64(i)*float64(i)/4))
	}
	r := run(t, d, p)
	if r.Genuine != 0 || r.Impostor != 300 {
		t.Fatalf("%d genuine, %d impostor", r.Genuine, r.Impostor)
	}
	for _, pt := range r.Points {
		above := 0
		for i := range 25 {
			for j := range i {
				if float64(p[fmt.Sprintf("p_%04d", i+1)].Cosine(p[fmt.Sprintf("p_%04d", j+1)])) > pt.Cosine {
					above++
				}
			}
		}
		if want := int(pt.FMR * 300); above > want || pt.FMR == 1e-2 && above != 3 {
			t.Errorf("FMR %v: %d impostors above %v, allowed %d", pt.FMR, above, pt.Cosine, want)
		}
		if pt.FNMR != 0 || pt.CI != (evaluate.Interval{Low: 0, High: 1}) {
			t.Errorf("without genuine pairs: %+v", pt)
		}
	}
}

func TestProgress(t *testing.T) {
	var seen []int
	_, err := evaluate.Run(context.Background(), open(t, folder(t, "", four...)), prober{},
		evaluate.Options{Workers: 2, Progress: func(n int) { seen = append(seen, n) }})
	if err != nil || fmt.Sprint(seen) != "[1 2 3 4]" {
		t.Errorf("progress %v, %v", seen, err)
	}
}

type failing struct {
	once   sync.Once
	cancel func()
}

var errBroken = errors.New("broken on purpose")

func (f *failing) Probe(ctx context.Context, _ *agent.Frame) (agent.Probe, error) {
	if f.cancel != nil {
		f.once.Do(f.cancel)
		return agent.Probe{}, ctx.Err()
	}
	return agent.Probe{}, errBroken
}

func TestRunFails(t *testing.T) {
	d := open(t, folder(t, "", four...))
	if _, err := evaluate.Run(context.Background(), d, &failing{}, evaluate.Options{}); !errors.Is(err, errBroken) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := evaluate.Run(ctx, d, &failing{cancel: cancel}, evaluate.Options{Workers: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	write(t, d.Images[2].Path, "not a picture")
	if _, err := evaluate.Run(context.Background(), d, prober{}, evaluate.Options{Workers: 2}); agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), "b_0001.png") {
		t.Errorf("err = %v", err)
	}
}

func TestOpen(t *testing.T) {
	dir := folder(t, twoFolds, four...)
	write(t, filepath.Join(dir, "a", "notes.txt"), "x")
	write(t, filepath.Join(dir, "loose.png"), "x")
	d := open(t, dir)
	if len(d.Images) != 4 || d.Images[0].Person != "a" || d.Folds != 2 || len(d.Pairs) != 4 {
		t.Fatalf("%+v", d)
	}
	want := []evaluate.Pair{{A: 0, B: 1, Genuine: true}, {A: 0, B: 2}, {A: 2, B: 3, Genuine: true, Fold: 1}, {A: 1, B: 3, Fold: 1}}
	for i := range want {
		if d.Pairs[i] != want[i] {
			t.Errorf("pair %d is %+v, want %+v", i, d.Pairs[i], want[i])
		}
	}
	if d := open(t, folder(t, "", four...)); d.Pairs != nil || run(t, d, prober{}).Accuracy != 0 {
		t.Error("pairs from nowhere")
	}
	if _, err := evaluate.Open(filepath.Join(dir, "none")); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("a missing folder: %v", err)
	}
	if _, err := evaluate.Open(t.TempDir()); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestPairsAreRefused(t *testing.T) {
	for _, c := range []struct{ name, pairs, want string }{
		{"blank", "\n", ":1:"},
		{"header of one", "2\n", ":1:"},
		{"header of words", "two one\n", ":1:"},
		{"one fold", "1 2\na 1 2\nb 1 2\na 1 b 1\na 2 b 2\n", ":1:"},
		{"no pairs a fold", "2 0\n", ":1:"},
		{"negative", "-2 -1\n", ":1:"},
		{"overflow", "2 9223372036854775807\na 1 2\n", ":1:"},
		{"large", "999999999 999999999\n", ":1:"},
		{"no pairs", "2 1\n", "0 pairs"},
		{"a pair too few", strings.TrimSuffix(twoFolds, "a 2 b 2\n"), "3 pairs, the header says 4"},
		{"a pair too many", twoFolds + "a 1 2\n", "5 pairs, the header says 4"},
		{"two fields", "2 1\na 1\n", ":2:"},
		{"five fields", "2 1\na 1 b 1 c\n", ":2:"},
		{"unknown person", "2 1\nc 1 2\n", "no picture c_0001"},
		{"unknown picture", "2 1\na 1 3\n", "a_0003"},
		{"long line", "2 1\n" + strings.Repeat("x", 1<<17), "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := evaluate.Open(folder(t, c.pairs, four...))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "pairs.txt") {
				t.Errorf("error %v lacks %q", err, c.want)
			}
		})
	}
}

func FuzzPairs(f *testing.F) {
	dir := folder(f, "", four...)
	path := filepath.Join(dir, "pairs.txt")
	for _, s := range []string{twoFolds, "", "2 1", "2\t1\r\na\t1\t2\r\n", "9999999 1\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		write(t, path, text)
		d, err := evaluate.Open(dir)
		if err != nil {
			return
		}
		for _, p := range d.Pairs {
			if p.Fold < 0 || p.Fold >= d.Folds || p.A >= len(d.Images) || p.B >= len(d.Images) {
				t.Fatalf("pair %+v of %+v", p, d)
			}
		}
	})
}

func TestWilson(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 0, 0, 1},
		{0, 10, 0, 0.2775}, // Agresti and Coull 1998, and R's prop.test without correction
		{10, 10, 0.7225, 1},
		{5, 10, 0.2366, 0.7634},
		{1, 100, 0.0018, 0.0545},
		{81, 263, 0.2553, 0.3662}, // Newcombe 1998, table I
	} {
		got := evaluate.Wilson(c.k, c.n)
		if math.Abs(got.Low-c.low) > 1e-4 || math.Abs(got.High-c.high) > 1e-4 {
			t.Errorf("Wilson(%d, %d) = %+v, want %v to %v", c.k, c.n, got, c.low, c.high)
		}
	}
}
