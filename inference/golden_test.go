package inference_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"postern/agent"
	"postern/agent/photo"
	"postern/inference"
	"postern/inference/litert"
	"postern/models"
)

// golden is models/golden/portraits.json: what the reference pipeline in
// models/build computed on public-domain portraits.
type golden struct {
	Portraits []struct {
		File   string
		Width  int
		Height int
		Box    [4]float64
		Score  float64
		Points [5][2]float64 `json:"five_points"`
	}
	Cosines []struct {
		A, B string
		Int8 float64
	}
}

func openPipeline(tb testing.TB) *inference.Pipeline { return openWith(tb, inference.Options{}) }

// openEngine loads the runtime, and sees when the test ends that nothing is left of it.
func openEngine(tb testing.TB) litert.Engine {
	tb.Helper()
	lib := os.Getenv("TEST_LITERT")
	if lib == "" {
		lib = "../.cache/litert/libLiteRt.so"
	}
	rt, err := litert.Open(lib, nil)
	if err != nil {
		tb.Fatalf("%v (run \"make setup\")", err)
	}
	tb.Cleanup(func() {
		if err := rt.Close(); err != nil {
			tb.Error(err)
		}
		if n := litert.Live(); n != 0 {
			tb.Errorf("%d native objects are left", n)
		}
	})
	return litert.Engine{Runtime: rt}
}

func openWith(tb testing.TB, o inference.Options) *inference.Pipeline {
	tb.Helper()
	e := openEngine(tb)
	set, err := models.ForProfile(models.Accurate)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := inference.New(e, set, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

func readGolden(tb testing.TB) golden {
	tb.Helper()
	raw, err := os.ReadFile("../models/golden/portraits.json")
	if err != nil {
		tb.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		tb.Fatal(err)
	}
	return g
}

func loadFace(tb testing.TB, name string) *agent.Frame {
	tb.Helper()
	f, err := photo.Load(filepath.Join("../.cache/faces", name))
	if err != nil {
		tb.Fatalf("%v (run \"make setup\")", err)
	}
	return f
}

// TestGolden holds the pipeline against the reference: another JPEG decoder and
// another arithmetic, so points may differ by a hundredth of the face and cosines
// by a little more than int8 rounding.
func TestGolden(t *testing.T) {
	p, g := openPipeline(t), readGolden(t)
	embs := map[string]agent.Embedding{}
	for _, want := range g.Portraits {
		t.Run(want.File, func(t *testing.T) {
			f := loadFace(t, want.File)
			if f.Width != want.Width || f.Height != want.Height {
				t.Fatalf("%dx%d, want %dx%d", f.Width, f.Height, want.Width, want.Height)
			}
			pr, err := p.Probe(t.Context(), f)
			if err != nil || pr.Face == nil {
				t.Fatalf("no face: %v", err)
			}
			embs[want.File] = pr.Embedding
			side := want.Box[2] - want.Box[0]
			got := [4]float64{float64(pr.Face.Box.X), float64(pr.Face.Box.Y), float64(pr.Face.Box.X + pr.Face.Box.W), float64(pr.Face.Box.Y + pr.Face.Box.H)}
			for i := range got {
				near(t, "box", got[i], want.Box[i]+0.5, side/50)
			}
			near(t, "score", float64(pr.Face.Confidence), want.Score, 0.02)
			for i, q := range want.Points {
				near(t, "point x", float64(pr.Face.Points[i].X), q[0]+0.5, side/100)
				near(t, "point y", float64(pr.Face.Points[i].Y), q[1]+0.5, side/100)
			}
		})
	}
	for _, c := range g.Cosines {
		near(t, c.A+" and "+c.B, float64(embs[c.A].Cosine(embs[c.B])), c.Int8, 0.03)
	}
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %.4f, want %.4f within %.4f", what, got, want, tolerance)
	}
}

// TestKnownAnswersOfShipped: every shipped network answers the drawn pictures as its
// manifest says, on whatever CPU this runs.
func TestKnownAnswersOfShipped(t *testing.T) {
	e := openEngine(t)
	for profile := range models.Profiles {
		set, err := models.ForProfile(profile)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range set.All() {
			if err := inference.Verify(e, m); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestMirrored: a mirrored picture turns the other way and stays the same person.
func TestMirrored(t *testing.T) {
	p, f := openPipeline(t), loadFace(t, "obama2.jpg")
	m := &agent.Frame{Pix: make([]byte, len(f.Pix)), Width: f.Width, Height: f.Height}
	for y := range f.Height {
		for x := range f.Width {
			copy(m.Pix[(y*f.Width+x)*3:], f.Pix[(y*f.Width+f.Width-1-x)*3:][:3])
		}
	}
	a, err := p.Probe(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Probe(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if a.Quality.Yaw*b.Quality.Yaw >= 0 || a.Quality.Roll*b.Quality.Roll >= 0 {
		t.Errorf("yaw %.1f and %.1f, roll %.1f and %.1f: the mirrored ones should have the other sign", a.Quality.Yaw, b.Quality.Yaw, a.Quality.Roll, b.Quality.Roll)
	}
	near(t, "pitch", float64(b.Quality.Pitch), float64(a.Quality.Pitch), 4)
	if c := a.Embedding.Cosine(b.Embedding); c < 0.8 {
		t.Errorf("cosine with the mirrored picture is %.2f", c)
	}
}

// TestFarFace: a face too small in the picture for the near detector is found by
// the far one.
func TestFarFace(t *testing.T) {
	p, f := openPipeline(t), loadFace(t, "obama.jpg")
	const w, h, k = 2400, 1350, 3
	scene := &agent.Frame{Pix: make([]byte, w*h*3), Width: w, Height: h}
	for i := range scene.Pix {
		scene.Pix[i] = 110
	}
	for y := range f.Height / k {
		for x := range f.Width / k {
			copy(scene.Pix[((y+600)*w+x+1100)*3:], f.Pix[(y*k*f.Width+x*k)*3:][:3])
		}
	}
	pr, err := p.Probe(t.Context(), scene)
	if err != nil {
		t.Fatal(err)
	}
	if pr.Face == nil {
		t.Fatal("the far face was not found")
	}
	if x := pr.Face.Box.X; x < 1180 || x > 1240 {
		t.Fatalf("found at %+v", pr.Face.Box)
	}
}

// TestGoldenLiveness holds the whole way from picture to liveness score to the log-odds
// that the reference pipeline (models/build) computes with the same file.
func TestGoldenLiveness(t *testing.T) {
	p := openWith(t, inference.Options{Liveness: true})
	for name, want := range map[string]float64{"obama.jpg": 98.6, "obama2.jpg": 95.7, "obama3.jpg": 93.3, "biden.jpg": 100} {
		pr, err := p.ProbeLive(t.Context(), loadFace(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if l := pr.Liveness; !l.Measured || math.Abs(l.Score-want) > 2 || len(pr.Trace.Mesh) != 468 {
			t.Errorf("%s: %+v, want score %v", name, l, want)
		}
	}
}

// TestSameOnAnotherCPU compares this machine's embeddings with those that the same test
// has left in the file TEST_EMBEDDINGS on another; where there is no file yet it leaves
// them. "make qemu" runs it on amd64 and then on arm64.
func TestSameOnAnotherCPU(t *testing.T) {
	file := os.Getenv("TEST_EMBEDDINGS")
	if file == "" {
		t.Skip("TEST_EMBEDDINGS names no file; make qemu does")
	}
	const tolerance = 1e-2 // of the cosine; int8 sums are the same everywhere, float ones nearly
	here := map[string]agent.Embedding{}
	p := openPipeline(t)
	for _, want := range readGolden(t).Portraits {
		pr, err := p.Probe(t.Context(), loadFace(t, want.File))
		if err != nil || len(pr.Embedding) == 0 {
			t.Fatalf("%s: %d values, %v", want.File, len(pr.Embedding), err)
		}
		here[want.File] = pr.Embedding
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = json.Marshal(here); err == nil {
			err = os.WriteFile(file, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("left %d embeddings", len(here))
		return
	}
	there := map[string]agent.Embedding{}
	if err == nil {
		err = json.Unmarshal(raw, &there)
	}
	if err != nil || len(there) != len(here) {
		t.Fatalf("%d embeddings, want %d: %v", len(there), len(here), err)
	}
	for name, e := range here {
		c := float64(e.Cosine(there[name]))
		t.Logf("%s: cosine %.6f", name, c)
		near(t, name, c, 1, tolerance)
	}
}
