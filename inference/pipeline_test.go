package inference

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProbe(t *testing.T) {
	e := newEngine(t)
	p := mustPipeline(t, e)
	f := flat(200, 160, 128)
	pr, err := p.Probe(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	if pr.Face == nil || pr.Faces != 1 || len(pr.Others) != 0 || pr.ModelID != models.DefaultEmbedder || pr.Space == "" || pr.Findings != nil {
		t.Errorf("probe %+v", pr)
	}
	if !pr.Embedding.Normalised() || len(pr.Embedding) != e.set.Embedder.Manifest.Embedder.Dim {
		t.Errorf("embedding of %d values", len(pr.Embedding))
	}
	for i, want := range []float64{1, 2, 3, 0} {
		if !near(float64(pr.Embedding[i]), want/math.Sqrt(14), 1e-6) {
			t.Errorf("value %d is %v", i, pr.Embedding[i])
		}
	}
	pts := pr.Face.Points
	if !(pts[0].X < pts[2].X && pts[2].X < pts[1].X && pts[0].Y < pts[2].Y && pts[2].Y < pts[3].Y && pts[3].X < pts[4].X) {
		t.Errorf("points %v", pts)
	}
	// The region is 1.5 times the box, which is 40 of 128 pixels of a 200 pixel
	// square; the mesh puts the eyes 52 of 192 apart.
	if want := 1.5 * 40 * 200 / 128 * 52 / 192; !near(float64(pr.Quality.EyeDistance), want, 0.01) || !near(float64(pts[1].X-pts[0].X), want, 0.01) {
		t.Errorf("eyes %v apart, want %v", pr.Quality.EyeDistance, want)
	}
	if q := pr.Quality; q.Yaw != 0 || q.Pitch != 0 || !near(float64(q.Roll), 0, 1e-3) {
		t.Errorf("quality %+v", q)
	}
	if pr.Timings.Total < pr.Timings.Embed || pr.Timings.Total <= 0 {
		t.Errorf("timings %+v", pr.Timings)
	}
}

func TestProbeWithoutAFace(t *testing.T) {
	for name, spoil := range map[string]func(*fakeEngine){
		"nothing detected":  func(e *fakeEngine) { e.run[models.DefaultNear] = e.detects() },
		"the mesh says no":  func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(-5, nil) },
		"the mesh says NaN": func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(nan, nil) },
		"both detections fail": func(e *fakeEngine) {
			e.run[models.DefaultNear] = e.detects(box{}, box{anchor: 895})
			e.run[models.DefaultMesh] = meshes(-5, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			spoil(e)
			p := mustPipeline(t, e)
			pr, err := p.Probe(context.Background(), flat(64, 64, 0))
			if err != nil || pr.Face != nil || pr.Embedding != nil || pr.Faces != 0 {
				t.Errorf("%+v, %v", pr, err)
			}
			if f, err := p.Aligned(context.Background(), flat(64, 64, 0)); f != nil || err != nil {
				t.Errorf("aligned %v, %v", f, err)
			}
		})
	}
}

func TestProbeSkipsWhatIsNoFace(t *testing.T) {
	e := newEngine(t)
	e.run[models.DefaultNear] = e.detects(box{anchor: 512 + 6*27, w: 60, h: 60}, box{anchor: 0, w: 30, h: 30}, box{anchor: 895, w: 20, h: 20})
	asked := 0
	yes, no := meshes(5, nil), meshes(-5, nil)
	e.run[models.DefaultMesh] = func(in, out []Data) error {
		if asked++; asked == 1 {
			return no(in, out)
		}
		return yes(in, out)
	}
	pr, err := mustPipeline(t, e).Probe(context.Background(), flat(128, 128, 0))
	if err != nil || pr.Face == nil || pr.Faces != 2 || len(pr.Others) != 1 || pr.Face.Box.W == 60 {
		t.Errorf("%+v, %v", pr, err)
	}
}

func TestProbeFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name  string
		spoil func(*fakeEngine)
		ctx   context.Context
		frame *agent.Frame
		want  string
	}{
		{"near detector", func(e *fakeEngine) { e.run[models.DefaultNear] = fails }, nil, nil, "detect"},
		{"far detector", func(e *fakeEngine) { e.run[models.DefaultNear] = e.detects(); e.run[models.DefaultFar] = fails }, nil, nil, "detect"},
		{"mesh", func(e *fakeEngine) { e.run[models.DefaultMesh] = fails }, nil, nil, "landmarks"},
		{"embedder", func(e *fakeEngine) { e.run[models.DefaultEmbedder] = fails }, nil, nil, "embed"},
		{"empty embedding", func(e *fakeEngine) { e.run[models.DefaultEmbedder] = embeds() }, nil, nil, "no direction"},
		{"points are not numbers", func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(5, func(p []float32) { p[noseTip*3] = nan }) }, nil, nil, "not a number"},
		{"depth is not a number", func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(5, func(p []float32) { p[chin*3+2] = nan }) }, nil, nil, "not a number"},
		{"points are infinite", func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(5, func(p []float32) { p[noseTip*3] = inf }) }, nil, nil, "not a number"},
		{"points coincide", func(e *fakeEngine) { e.run[models.DefaultMesh] = meshes(5, func(p []float32) { clear(p) }) }, nil, nil, "coincide"},
		{"cancelled", func(*fakeEngine) {}, cancelled, nil, "canceled"},
		{"no frame", func(*fakeEngine) {}, nil, &agent.Frame{}, "empty"},
		{"short frame", func(*fakeEngine) {}, nil, &agent.Frame{Width: 9, Height: 9, Pix: make([]byte, 9)}, "buffer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			c.spoil(e)
			if c.ctx == nil {
				c.ctx = context.Background()
			}
			if c.frame == nil {
				c.frame = flat(64, 64, 9)
			}
			p := mustPipeline(t, e)
			pr, err := p.Probe(c.ctx, c.frame)
			if err == nil || !strings.Contains(err.Error(), c.want) || pr.Embedding != nil {
				t.Errorf("error %v lacks %q; embedding %v", err, c.want, pr.Embedding)
			}
			if c.name == "embedder" || c.name == "empty embedding" {
				return // alignment alone works
			}
			if f, err := p.Aligned(c.ctx, c.frame); err == nil || f != nil {
				t.Errorf("aligned %v, %v", f, err)
			}
		})
	}
}

func TestAligned(t *testing.T) {
	f := flat(200, 200, 90)
	f.Source = "x.jpg"
	got, err := mustPipeline(t, newEngine(t)).Aligned(context.Background(), f)
	if err != nil || got.Width != 112 || got.Height != 112 || got.Check() != nil || got.Source != "x.jpg" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestClosedPipeline(t *testing.T) {
	p := mustPipeline(t, newEngine(t))
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errClosed) {
		t.Errorf("probe: %v", err)
	}
	if _, err := p.Aligned(context.Background(), flat(64, 64, 0)); !errors.Is(err, errClosed) {
		t.Errorf("aligned: %v", err)
	}
}

// Whatever does not fit its manifest is found at start, and nothing stays loaded
// (newEngine checks).
func TestNewFails(t *testing.T) {
	all := []string{models.DefaultNear, models.DefaultFar, models.DefaultMesh, models.DefaultEmbedder}
	for _, id := range all {
		for name, spoil := range map[string]func(e *fakeEngine){
			"not loadable": func(e *fakeEngine) {
				e.load = func(m string) error {
					if m == id {
						return errBroken
					}
					return nil
				}
			},
			"input type":      on(id, func(in, _ []Tensor) { in[0].Type = "uint8" }),
			"input shape":     on(id, func(in, _ []Tensor) { in[0].Shape = []int{1, 8, 8, 3} }),
			"input rank":      on(id, func(in, _ []Tensor) { in[0].Shape = []int{1} }),
			"output type":     on(id, func(_, out []Tensor) { out[0].Type = "float64" }),
			"output shape":    on(id, func(_, out []Tensor) { out[0].Shape = []int{1, 1} }),
			"output name":     on(id, func(_, out []Tensor) { out[0].Name = "other" }),
			"two of one name": on(id, func(_, out []Tensor) { out[len(out)-1].Name = "other" }),
		} {
			t.Run(id+" "+name, func(t *testing.T) {
				e := newEngine(t)
				spoil(e)
				p, err := New(e, e.set, Options{})
				if err == nil || p != nil || !strings.Contains(err.Error(), id) {
					t.Errorf("error %v", err)
				}
				if _, err := NewPool(e, e.set, Options{}, 3); err == nil {
					t.Error("a pool was made of it")
				}
			})
		}
	}
}

func on(id string, spoil func(in, out []Tensor)) func(*fakeEngine) {
	return func(e *fakeEngine) {
		e.tensor = func(m string, in, out []Tensor) {
			if m == id {
				spoil(in, out)
			}
		}
	}
}

// A manifest and a network that agree with each other but not with what the
// pipeline needs.
func TestNewRefusesOtherSizes(t *testing.T) {
	for name, spoil := range map[string]func(s *models.Set){
		"anchors":     func(s *models.Set) { s.Near.Manifest.Detector.Anchors = s.Near.Manifest.Detector.Anchors[:1] },
		"landmarks":   func(s *models.Set) { s.Mesh.Manifest.Outputs[0].Shape = []int{1, 3} },
		"presence":    func(s *models.Set) { s.Mesh.Manifest.Outputs[1].Shape = []int{1, 2} },
		"dimension":   func(s *models.Set) { s.Embedder.Manifest.Embedder.Dim = 128 },
		"int8 mesh":   func(s *models.Set) { int8Output(&s.Mesh.Manifest.Outputs[0], []int{1, 3}) },
		"int8 scores": func(s *models.Set) { int8Output(&s.Near.Manifest.Outputs[1], []int{1, 3}) },
		"longer int8": func(s *models.Set) { s.Embedder.Manifest.Outputs[0].Shape = []int{1, 1024} },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			spoil(e.set)
			if p, err := New(e, e.set, Options{}); err == nil || p != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

func int8Output(o *models.Output, shape []int) { o.DType, o.Scale, o.Shape = "int8", 0.5, shape }

func TestFill(t *testing.T) {
	e := newEngine(t)
	for _, c := range []struct {
		m    *models.Model
		want func(n *net, i int) bool
	}{
		// mean = std = 128, scale 1/128: the pixel less 128, blue first.
		{e.set.Embedder, func(n *net, i int) bool { return n.in[0].Int8[i] == int8(int(n.pix[i-i%3+2-i%3])-128) }},
		{e.set.Near, func(n *net, i int) bool { return near(float64(n.in[0].Float32[i]), float64(n.pix[i])/127.5-1, 1e-6) }},
		{e.set.Mesh, func(n *net, i int) bool { return near(float64(n.in[0].Float32[i]), float64(n.pix[i])/255, 1e-6) }},
	} {
		t.Run(c.m.Manifest.ID, func(t *testing.T) {
			n, err := load(e, c.m, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer n.close()
			for i := range n.pix {
				n.pix[i] = byte(i * 7)
			}
			n.fill()
			for i := range n.pix {
				if !c.want(n, i) {
					t.Fatalf("value %d of pixel value %d is wrong", i, n.pix[i])
				}
			}
		})
	}
}

func TestQuantisation(t *testing.T) {
	e := newEngine(t)
	in := &e.set.Embedder.Manifest.Input
	in.Mean, in.Std, in.Scale, in.ZeroPoint = 100, 50, 0.02, 10
	out := &e.set.Embedder.Manifest.Outputs[0]
	out.Scale, out.ZeroPoint = 0.5, -3
	e.run[models.DefaultEmbedder] = embeds(-3, 7, -128, 127)
	n, err := newEmbedder(e, e.set.Embedder, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for v, want := range map[int]int8{0: -90, 100: 10, 150: 60, 255: 127} {
		if n.lutQ[v] != want {
			t.Errorf("grey level %d becomes %d, want %d", v, n.lutQ[v], want)
		}
	}
	if err := n.run(flat(8, 8, 0), affine{a: 1, e: 1}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{0, 5, -62.5, 65, 1.5} {
		if got := n.output("embedding", n.buf)[i]; got != want {
			t.Errorf("value %d is %v, want %v", i, got, want)
		}
	}
	if n.output("none", nil) != nil {
		t.Error("an output from nowhere")
	}
}

func TestPose(t *testing.T) {
	for _, c := range []struct {
		name       string
		spoil      func(p []float32)
		yaw, pitch float64
	}{
		{"straight", nil, 0, 0},
		{"nose to the right", func(p []float32) { p[eyeRightOuter*3+2] = 72 }, 45, 0},
		{"nose to the left", func(p []float32) { p[eyeLeftOuter*3+2] = 72 }, -45, 0},
		{"looking up", func(p []float32) { p[foreheadCentre*3+2] = 120 }, 0, 45},
		{"looking down", func(p []float32) { p[chin*3+2] = 120 }, 0, -45},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			e.run[models.DefaultMesh] = meshes(5, c.spoil)
			pr, err := mustPipeline(t, e).Probe(context.Background(), flat(64, 64, 0))
			if err != nil || !near(float64(pr.Quality.Yaw), c.yaw, 1e-3) || !near(float64(pr.Quality.Pitch), c.pitch, 1e-3) {
				t.Errorf("yaw %v pitch %v, want %v and %v; %v", pr.Quality.Yaw, pr.Quality.Pitch, c.yaw, c.pitch, err)
			}
		})
	}
}

// A face that lies on its side is turned upright for the mesh, and its points
// come back to where they are.
func TestRegionTurnsWithTheEyes(t *testing.T) {
	d := det(60, 40, 80, 1)
	d.keys[0], d.keys[1] = agent.Point{X: 100, Y: 60}, agent.Point{X: 100, Y: 100} // eyes one above the other
	m := region(d, 192)
	if x, y := m.apply(95.5, 95.5); !near(x, 99.5, 1e-9) || !near(y, 79.5, 1e-9) {
		t.Errorf("the middle is at %v,%v", x, y)
	}
	ax, ay := m.apply(0, 95.5)
	bx, by := m.apply(191, 95.5)
	if !near(ax, bx, 1e-6) || !(ay < by) || !near(m.scale(), 1.5*80/192, 1e-9) {
		t.Errorf("the eye line runs from %v,%v to %v,%v", ax, ay, bx, by)
	}
}

func TestMeasure(t *testing.T) {
	const size = 112
	frame := flat(100, 100, 0)
	level := landmarks{points: [5]agent.Point{{X: 10, Y: 20}, {X: 40, Y: 60}}, yaw: 1, pitch: 2, roll: 3}
	whole := detection{box: agent.Box{X: 10, Y: 10, W: 50, H: 50}}
	for _, c := range []struct {
		name                       string
		f                          *agent.Frame
		luminance, contrast, sharp float64
	}{
		{"black", flat(size, size, 0), 0, 0, 0},
		{"white", flat(size, size, 255), 100, 0, 0},
		{"grey", flat(size, size, 128), 50.2, 0, 0},
		{"red", picture(size, size, func(int, int) [3]byte { return [3]byte{255, 0, 0} }), 29.9, 0, 0},
		{"halves", picture(size, size, func(x, _ int) [3]byte { v := byte(255 * (x / 56)); return [3]byte{v, v, v} }), 50, 50, 2 * 255 * 255 / 110.},
		{"ramp", picture(size, size, func(x, _ int) [3]byte { return [3]byte{byte(x), byte(x), byte(x)} }), 55.5 / 2.55, 32.33 / 2.55, 0},
		{"finest pattern", picture(size, size, func(x, y int) [3]byte { v := byte(255 * ((x + y) & 1)); return [3]byte{v, v, v} }), 50, 50, 1020 * 1020},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := measure(c.f.Pix, size, level, whole, frame)
			if !near(float64(q.Luminance), c.luminance, 0.01) || !near(float64(q.Contrast), c.contrast, 0.01) || !near(float64(q.Sharpness), c.sharp, 1+c.sharp*1e-3) {
				t.Errorf("luminance %v contrast %v sharpness %v", q.Luminance, q.Contrast, q.Sharpness)
			}
			if q.EyeDistance != 50 || q.Yaw != 1 || q.Pitch != 2 || q.Roll != 3 || q.Inside != 1 {
				t.Errorf("quality %+v", q)
			}
		})
	}
	for b, want := range map[agent.Box]float64{
		{X: -10, Y: 0, W: 20, H: 20}: 0.5, {X: 90, Y: 90, W: 20, H: 20}: 0.25, {X: -30, Y: 0, W: 20, H: 20}: 0,
		{X: 200, Y: 0, W: 20, H: 20}: 0, {X: 5, Y: 5}: 0, {X: -100, Y: -100, W: 300, H: 300}: 1. / 9,
	} {
		if got := inside(b, frame); !near(float64(got), want, 1e-6) {
			t.Errorf("inside(%+v) = %v, want %v", b, got, want)
		}
	}
}

func mustPool(tb testing.TB, e *fakeEngine, n int) *Pool {
	tb.Helper()
	p, err := NewPool(e, e.set, Options{}, n)
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

func TestPoolSize(t *testing.T) {
	for n, want := range map[int]int{-1: 1, 0: 1, 1: 1, 3: 3} {
		e := newEngine(t)
		if p := mustPool(t, e, n); p.Size() != want || e.live.Load() != 4 {
			t.Errorf("a pool of %d may have %d pipelines and has %d networks", n, p.Size(), e.live.Load())
		}
	}
}

// TestPoolGrowsWithNeed: a second pipeline is loaded when the first is at work, and not
// before; from bytes that were released, too.
func TestPoolGrowsWithNeed(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 2)
	e.forget()
	for range 3 {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil || e.live.Load() != 4 {
			t.Fatalf("%v, %d networks for one frame after the other", err, e.live.Load())
		}
	}
	entered, release := hold(e)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if pr, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil || pr.Face == nil {
				t.Error(err)
			}
		})
	}
	<-entered
	<-entered
	if e.live.Load() != 8 {
		t.Errorf("%d networks for two frames at once", e.live.Load())
	}
	close(release)
	wg.Wait()
}

// TestPoolGrowthFails: who needed the pipeline that cannot be loaded gets the error, and
// the first one goes on working.
func TestPoolGrowthFails(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 2)
	e.load = func(id string) error {
		if id == models.DefaultMesh {
			return errBroken
		}
		return nil
	}
	entered, release := hold(e)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil {
			t.Error(err)
		}
	})
	<-entered
	for range 2 {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errBroken) || e.live.Load() != 4 {
			t.Errorf("%v, %d networks", err, e.live.Load())
		}
	}
	close(release)
	wg.Wait()
	if _, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil {
		t.Error(err)
	}
}

// TestPoolClosesWhileGrowing: what is loaded after Close does not stay.
func TestPoolClosesWhileGrowing(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 2)
	loading, goOn := make(chan struct{}), make(chan struct{})
	e.load = func(id string) error {
		if id == models.DefaultNear {
			close(loading)
			<-goOn
		}
		return nil
	}
	entered, release := hold(e)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil {
			t.Error(err)
		}
	})
	<-entered
	wg.Go(func() {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errClosed) {
			t.Errorf("got %v", err)
		}
	})
	<-loading
	close(release)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	close(goOn)
	wg.Wait() // newEngine sees that no network is left
}

// As many frames as there are pipelines are analysed at once: all must have met
// before any goes on. No network runs twice at a time (fakeNetwork checks).
func TestPoolWorksInParallel(t *testing.T) {
	const size = 3
	e := newEngine(t)
	var together sync.WaitGroup
	together.Add(size)
	var once [size]sync.Once
	next := make(chan int, size)
	for i := range size {
		next <- i
	}
	e.busy = func(id string) func() {
		if id == models.DefaultEmbedder {
			select {
			case i := <-next:
				once[i].Do(together.Done)
				together.Wait()
			default:
			}
		}
		return func() {}
	}
	p := mustPool(t, e, size)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if pr, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil || pr.Face == nil {
				t.Error(pr, err)
			}
		})
	}
	wg.Wait()
}

// hold makes the embedder wait until release; entered gets a token for each.
func hold(e *fakeEngine) (entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	e.busy = func(id string) func() {
		if id == models.DefaultEmbedder {
			entered <- struct{}{}
			<-release
		}
		return func() {}
	}
	return entered, release
}

func TestPoolWaitEndsWithContext(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 1)
	entered, release := hold(e)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil {
			t.Error(err)
		}
	})
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Probe(ctx, flat(64, 64, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if _, err := p.Bare(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("bare: %v", err)
	}
	close(release)
	wg.Wait()
}

// Close waits for who is at work, ends the waiting of who is not, and leaves
// nothing loaded.
func TestPoolClose(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 1)
	entered, release := hold(e)
	var wg sync.WaitGroup
	wg.Go(func() {
		if pr, err := p.Probe(context.Background(), flat(64, 64, 0)); err != nil || pr.Embedding == nil {
			t.Errorf("who was at work got %v", err)
		}
	})
	<-entered
	wg.Go(func() {
		if _, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errClosed) {
			t.Errorf("who waited got %v", err)
		}
	})
	for range 2 {
		wg.Go(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if n := e.live.Load(); n != 0 {
				t.Errorf("%d networks are loaded after Close", n)
			}
		})
	}
	<-p.done
	close(release)
	wg.Wait()
	if _, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errClosed) {
		t.Errorf("err = %v", err)
	}
	if _, err := p.Bare(context.Background(), 1); !errors.Is(err, errClosed) {
		t.Errorf("bare: %v", err)
	}
}

func TestBare(t *testing.T) {
	e := newEngine(t)
	p := mustPool(t, e, 1)
	times, err := p.Bare(context.Background(), 3)
	if err != nil || len(times) != 4 {
		t.Fatal(times, err)
	}
	for _, b := range times {
		if len(b.Times) != 3 || b.PerFace == (b.Model == models.DefaultFar) {
			t.Errorf("%+v", b)
		}
	}
	e.run[models.DefaultMesh] = fails
	if _, err := p.Bare(context.Background(), 1); !errors.Is(err, errBroken) {
		t.Errorf("err = %v", err)
	}
	if pr, err := p.Probe(context.Background(), flat(64, 64, 0)); !errors.Is(err, errBroken) || pr.Embedding != nil {
		t.Errorf("%+v, %v", pr, err)
	}
}
