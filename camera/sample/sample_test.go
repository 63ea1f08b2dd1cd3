package sample

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// puppet is a picture with a light oval for a face.
func puppet(shade byte) Person {
	f := &agent.Frame{Pix: make([]byte, 120*160*3), Width: 120, Height: 160}
	for i := range f.Pix {
		x, y := float64(i/3%120-60)/40, float64(i/3/120-60)/50
		if x*x+y*y < 1 {
			f.Pix[i] = shade
		}
	}
	return Person{Picture: f, Head: agent.Box{X: 20, Y: 10, W: 80, H: 100}}
}

func puppets() Cast {
	return Cast{Enrolled: puppet(200), Again: puppet(190), Print: puppet(210), Stranger: puppet(120)}
}

// quick renders few frames: one in five seconds, so every role is in one.
func quick(t *testing.T, seed uint64) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "film.avi")
	n := 0
	err := Render(t.Context(), out, puppets(), Options{FPS: 0.2, Seed: seed, Progress: func(done, total int) {
		if n++; done != n || total != 9 {
			t.Errorf("progress %d of %d at call %d", done, total, n)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if n != 9 || bytes.Count(b, []byte("00dc")) < 2*9 {
		t.Errorf("%d frames, %d bytes", n, len(b))
	}
	return b
}

func TestRenderIsReproducible(t *testing.T) {
	a, b := quick(t, 1), quick(t, 1)
	if !bytes.Equal(a, b) {
		t.Error("two renderings differ")
	}
	if bytes.Equal(a, quick(t, 2)) {
		t.Error("the seed changes nothing")
	}
}

func TestRenderCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	err := Render(ctx, filepath.Join(dir, "film.avi"), puppets(), Options{FPS: 0.2, Progress: func(done, _ int) {
		if done == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRenderErrors(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none", "film.avi")
	if err := Render(t.Context(), none, puppets(), Options{FPS: 1}); agent.ErrorCode(err) != agent.CodeStorage || !strings.Contains(err.Error(), none) {
		t.Errorf("no folder: %v", err)
	}
	cast := puppets()
	cast.Stranger = Person{}
	if err := Render(t.Context(), none, cast, Options{}); agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("no stranger: %v", err)
	}
}

func TestLoadCastNamesWhatIsMissing(t *testing.T) {
	_, err := LoadCast(t.TempDir())
	if agent.ErrorCode(err) != agent.CodeNotFound || !strings.Contains(err.Error(), EnrolFrom) {
		t.Errorf("got %v", err)
	}
}

func TestLoadCast(t *testing.T) {
	dir := filepath.Join("..", "..", ".cache", "faces")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the portraits are fetched by make run")
	}
	c, err := LoadCast(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Person{c.Enrolled, c.Again, c.Print, c.Stranger} {
		if len(p.Outline) < 20 || p.Head.H < 200 {
			t.Errorf("%s has %d points and head %+v", p.Picture.Source, len(p.Outline), p.Head)
		}
		for _, pt := range p.Outline {
			if pt.X < 0 || pt.Y < 0 || pt.X > float32(p.Picture.Width) || pt.Y > float32(p.Picture.Height) {
				t.Errorf("%s: outline leaves the picture at %+v", p.Picture.Source, pt)
			}
		}
	}
}

func TestOtherPictureOfThatName(t *testing.T) {
	p := person(puppet(1).Picture, portraits[EnrolFrom])
	if p.Outline != nil {
		t.Error("an outline was put on a picture of another size")
	}
	if p, err := p.complete(Print); err != nil || len(p.Outline) < 3 || p.Head.H <= 0 {
		t.Errorf("%+v, %v", p.Head, err)
	}
}

// TestScript: no gaps, and every scene with somebody starts and ends with
// nobody in view.
func TestScript(t *testing.T) {
	var end time.Duration
	for _, s := range Script() {
		if s.From != end || s.To <= s.From {
			t.Errorf("scene %+v does not follow %v", s, end)
		}
		end = s.To
		ks := walks[s.Who]
		if (s.Who == Nobody) != (len(ks) == 0) {
			t.Errorf("%s has %d keys", s.Who, len(ks))
		} else if len(ks) > 0 && math.Abs(ks[len(ks)-1].t-(s.To-s.From).Seconds()) > 1e-9 {
			t.Errorf("%s moves for %g s in a scene of %v", s.Who, ks[len(ks)-1].t, s.To-s.From)
		}
	}
	if end != Length() || end < 40*time.Second || end > time.Minute {
		t.Errorf("the film lasts %v", end)
	}
}

// TestMovementIsSmooth: nobody jumps between two frames.
func TestMovementIsSmooth(t *testing.T) {
	for who, ks := range walks {
		prev := pose(who, 0)
		for s := 0.05; s < ks[len(ks)-1].t; s += 0.05 {
			k := pose(who, s)
			if math.Abs(k.x-prev.x) > 70 || math.Abs(k.head-prev.head) > 60 || math.Abs(k.light-prev.light) > 0.06 {
				t.Errorf("%s jumps from %+v to %+v", who, prev, k)
			}
			prev = k
		}
	}
}

func TestMapsInvert(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	in := func(lo, hi float64) float64 { return lo + rnd.Float64()*(hi-lo) }
	for range 2000 {
		m := tilted(420, 540, in(-1, 1), in(-1, 1), in(-3, 3), in(0, 1280), in(0, 720), 1300)
		if rnd.IntN(2) == 0 {
			m = similarity(in(0.05, 2), in(-3, 3), in(0, 900), in(0, 900), in(0, 1280), in(0, 720))
		}
		x, y := in(0, 420), in(0, 540)
		bx, by := m.inverse().apply(m.apply(x, y))
		if math.Abs(bx-x) > 1e-3 || math.Abs(by-y) > 1e-3 {
			t.Fatalf("(%g, %g) comes back as (%g, %g)", x, y, bx, by)
		}
	}
}

func TestTiltedCentre(t *testing.T) {
	if x, y := tilted(420, 540, 0.4, -0.2, 0.1, 640, 380, 1300).apply(210, 270); math.Hypot(x-640, y-380) > 1e-6 {
		t.Errorf("the centre comes to (%g, %g)", x, y)
	}
	if x, y := tilted(420, 540, 0, 0, 0, 640, 380, 1300).apply(0, 0); math.Hypot(x-430, y-110) > 1e-6 {
		t.Errorf("flat, the corner comes to (%g, %g)", x, y)
	}
}

func TestMask(t *testing.T) {
	m := mask([]agent.Point{{X: 2, Y: 1}, {X: 6, Y: 1}, {X: 6, Y: 4}, {X: 2, Y: 4}}, 8, 5)
	for i, v := range m {
		x, y := i%8, i/8
		if in := x >= 2 && x < 6 && y >= 1 && y < 4; in != (v == 255) {
			t.Errorf("(%d, %d) is %d", x, y, v)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	st, err := newStage(puppets(), Options{FPS: 20})
	if err != nil {
		b.Fatal(err)
	}
	p := st.newPainter()
	for b.Loop() {
		if _, err := p.frame(6 * 20); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRenderPart: a part of the film shows what the whole one shows at that moment.
func TestRenderPart(t *testing.T) {
	for _, c := range []struct {
		from, long time.Duration
		frames     int
	}{{0, 0, 48}, {40 * time.Second, 0, 8}, {40 * time.Second, 3 * time.Second, 3}, {47 * time.Second, time.Hour, 1}, {time.Hour, 0, 1}} {
		st := &stage{o: Options{FPS: 1, From: c.from, For: c.long}}
		if n := st.frames(); n != c.frames || st.at(2) != c.from+2*time.Second {
			t.Errorf("from %v for %v: %d frames, the third at %v", c.from, c.long, n, st.at(2))
		}
	}
}
