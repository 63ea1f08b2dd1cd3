package inference

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"postern/agent"
)

var noise = func(r *rand.Rand) func(int, int) [3]byte {
	return func(int, int) [3]byte { return [3]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))} }
}(rand.New(rand.NewPCG(1, 1)))

// smooth is a picture that no sampling should change much.
func smooth(x, y int) [3]byte { return [3]byte{byte(40 + x), byte(60 + y), byte(50 + (x+y)/2)} }

func warped(w, h int, src *agent.Frame, m affine) *agent.Frame {
	f := &agent.Frame{Width: w, Height: h, Pix: bytes.Repeat([]byte{99}, w*h*3)}
	var p warper
	p.warp(f.Pix, w, h, src, m)
	return f
}

func at(f *agent.Frame, x, y int) [3]byte { return [3]byte(f.Pix[(y*f.Width+x)*3:]) }

func TestWarpIdentity(t *testing.T) {
	src := picture(17, 11, noise)
	if got := warped(17, 11, src, affine{a: 1, e: 1}); !bytes.Equal(got.Pix, src.Pix) {
		t.Error("the identity changed the picture")
	}
}

func TestWarpTurns(t *testing.T) {
	src := picture(6, 4, noise)
	for name, c := range map[string]struct {
		m    affine
		w, h int
		from func(x, y int) (int, int)
	}{
		"quarter turn":   {affine{b: 1, d: -1, f: 3}, 4, 6, func(x, y int) (int, int) { return y, 3 - x }},
		"half turn":      {affine{a: -1, e: -1, c: 5, f: 3}, 6, 4, func(x, y int) (int, int) { return 5 - x, 3 - y }},
		"mirror":         {affine{a: -1, e: 1, c: 5}, 6, 4, func(x, y int) (int, int) { return 5 - x, y }},
		"shift by pixel": {affine{a: 1, e: 1, c: 2, f: 1}, 4, 3, func(x, y int) (int, int) { return x + 2, y + 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			got := warped(c.w, c.h, src, c.m)
			for y := range c.h {
				for x := range c.w {
					sx, sy := c.from(x, y)
					if at(got, x, y) != at(src, sx, sy) {
						t.Fatalf("pixel %d,%d is %v, want %v", x, y, at(got, x, y), at(src, sx, sy))
					}
				}
			}
		})
	}
}

func TestWarpBorderIsBlack(t *testing.T) {
	src := flat(8, 8, 200)
	got := warped(12, 12, src, affine{a: 1, e: 1, c: -2, f: -2})
	for y := range 12 {
		for x := range 12 {
			want := byte(0)
			if x >= 2 && x < 10 && y >= 2 && y < 10 {
				want = 200
			}
			if at(got, x, y) != [3]byte{want, want, want} {
				t.Fatalf("pixel %d,%d is %v, want %d", x, y, at(got, x, y), want)
			}
		}
	}
	t.Run("half a pixel outside is half as bright", func(t *testing.T) {
		if got := at(warped(1, 1, src, affine{a: 1, e: 1, c: -0.5, f: 3}), 0, 0); got[0] != 100 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("far away", func(t *testing.T) {
		for _, d := range []float64{-1e9, 1e9} {
			if got := at(warped(1, 1, src, affine{a: 1, e: 1, c: d, f: d}), 0, 0); got[0] != 0 {
				t.Errorf("shift %v: %v", d, got)
			}
		}
	})
}

func TestWarpAverages(t *testing.T) {
	t.Run("flat stays flat", func(t *testing.T) {
		for _, k := range []float64{0.3, 1, 1.5, 2, 2.7, 3, 5.2, 8} {
			n := int(40 / k)
			shift := k/2 - 0.5 + math.Ceil(k)
			got := warped(n-4, n-4, flat(40, 40, 77), affine{a: k, e: k, c: shift, f: shift})
			if got.Pix[0] != 77 || got.Pix[len(got.Pix)/2] != 77 {
				t.Errorf("scale %v: %d, %d", k, got.Pix[0], got.Pix[len(got.Pix)/2])
			}
		}
	})
	t.Run("a fine pattern becomes grey", func(t *testing.T) {
		board := picture(64, 64, func(x, y int) [3]byte {
			v := byte(255 * ((x + y) & 1))
			return [3]byte{v, v, v}
		})
		for _, k := range []float64{2, 4} {
			got := warped(int(64/k), int(64/k), board, affine{a: k, e: k, c: k/2 - 0.5, f: k/2 - 0.5})
			for i, v := range got.Pix {
				if v < 127 || v > 128 {
					t.Fatalf("scale %v: byte %d is %d", k, i, v)
				}
			}
		}
	})
	t.Run("blocks are means", func(t *testing.T) {
		src := picture(12, 9, noise)
		got := warped(4, 3, src, affine{a: 3, e: 3, c: 1, f: 1})
		for y := range 3 {
			for x := range 4 {
				sum := 0
				for i := range 9 {
					sum += int(at(src, x*3+i%3, y*3+i/3)[1])
				}
				if g := int(at(got, x, y)[1]); g != (sum+4)/9 {
					t.Fatalf("pixel %d,%d is %d, want %d", x, y, g, (sum+4)/9)
				}
			}
		}
	})
}

// Against plain floating point, on pictures and maps of all kinds.
func TestWarpIsBilinear(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	src := picture(50, 40, smooth)
	for range 200 {
		sin, cos := math.Sincos(r.Float64() * 2 * math.Pi)
		s := 0.2 + r.Float64()*3.5
		m := affine{a: cos * s, b: -sin * s, d: sin * s, e: cos * s}
		m.c, m.f = 25-m.a*10-m.b*10, 20-m.d*10-m.e*10
		got := warped(20, 20, src, m)
		for y := range 20 {
			for x := range 20 {
				sx, sy := m.apply(float64(x), float64(y))
				k := math.Ceil(s) // stay clear of the border, where neighbours are black
				if sx < k || sy < k || sx > 49-k || sy > 39-k {
					continue
				}
				want := [3]float64{40 + sx, 60 + sy, 50 + (sx+sy)/2}
				for i, g := range at(got, x, y) {
					if !near(float64(g), want[i], 1.6) {
						t.Fatalf("scale %v: pixel %d,%d channel %d is %d, want %v", s, x, y, i, g, want[i])
					}
				}
			}
		}
	}
}

// A detector can be made to say anything; a warp must stay inside its buffers for
// every turned, scaled and shifted square (all that the pipeline makes).
func TestWarpNeverLeavesItsBuffers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	values := []float64{0, 1, -1, 0.5, 2, -3.7, 40, 1e3, -1e3, 1e6, -1e6, 1e12, -1e12, 1e30}
	pick := func() float64 { return values[r.IntN(len(values))] }
	for range 3000 {
		src := flat(1+r.IntN(30), 1+r.IntN(30), 9)
		m := affine{a: pick(), b: pick(), c: pick(), f: pick()}
		m.d, m.e = -m.b, m.a
		warped(1+r.IntN(16), 1+r.IntN(16), src, m)
	}
}

func TestInvert(t *testing.T) {
	m := affine{a: 2, b: -1, c: 5, d: 1, e: 2, f: -3}
	inv, ok := m.invert()
	if !ok {
		t.Fatal("not invertible")
	}
	if x, y := inv.apply(m.apply(7, 11)); !near(x, 7, 1e-9) || !near(y, 11, 1e-9) {
		t.Errorf("back at %v,%v", x, y)
	}
	for _, bad := range []affine{{}, {a: 1, b: 1, d: 1, e: 1}, {a: math.NaN(), e: 1}} {
		if _, ok := bad.invert(); ok {
			t.Errorf("%+v was inverted", bad)
		}
	}
}

func TestLetterbox(t *testing.T) {
	for _, c := range []struct{ w, h int }{{640, 480}, {480, 640}, {128, 128}, {64, 64}, {1280, 720}, {16, 400}} {
		t.Run(fmt.Sprintf("%dx%d", c.w, c.h), func(t *testing.T) {
			m := letterbox(&agent.Frame{Width: c.w, Height: c.h}, 128)
			// Corner of the square, in pixel centres, is the corner of the longer side.
			long := float64(max(c.w, c.h))
			x, y := m.apply(-0.5, -0.5)
			if !near(x, (float64(c.w)-long)/2-0.5, 1e-9) || !near(y, (float64(c.h)-long)/2-0.5, 1e-9) {
				t.Errorf("the first corner is at %v,%v", x, y)
			}
			if x, y := m.apply(63.5, 63.5); !near(x, float64(c.w)/2-0.5, 1e-9) || !near(y, float64(c.h)/2-0.5, 1e-9) {
				t.Errorf("the centre is at %v,%v", x, y)
			}
			if !near(m.scale(), long/128, 1e-12) || m.b != 0 || m.d != 0 {
				t.Errorf("map %+v", m)
			}
		})
	}
}

func TestSimilarity(t *testing.T) {
	template := newEngine(t).set.Embedder.Manifest.Embedder.Template
	r := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		sin, cos := math.Sincos(r.Float64() * 2 * math.Pi)
		s, tx, ty := 0.3+r.Float64()*5, r.Float64()*800, r.Float64()*600
		want := affine{a: cos * s, b: -sin * s, c: tx, d: sin * s, e: cos * s, f: ty}
		var pts [5]agent.Point
		for i, p := range template {
			x, y := want.apply(p[0], p[1])
			pts[i] = agent.Point{X: float32(x + 0.5), Y: float32(y + 0.5)} // from the pixel's corner
		}
		got, ok := similarity(pts, template)
		if !ok {
			t.Fatal("degenerate")
		}
		for i, p := range template {
			gx, gy := got.apply(p[0], p[1])
			wx, wy := want.apply(p[0], p[1])
			if !near(gx, wx, 0.01) || !near(gy, wy, 0.01) {
				t.Fatalf("point %d at %v,%v, want %v,%v", i, gx, gy, wx, wy)
			}
		}
	}
}

func TestSimilarityDegenerate(t *testing.T) {
	template := newEngine(t).set.Embedder.Manifest.Embedder.Template
	good := [5]agent.Point{{X: 30, Y: 40}, {X: 70, Y: 40}, {X: 50, Y: 60}, {X: 35, Y: 80}, {X: 65, Y: 80}}
	with := func(v float32) [5]agent.Point {
		p := good
		p[2].X = v
		return p
	}
	for name, pts := range map[string][5]agent.Point{
		"one point": {}, "one point, elsewhere": {{X: 9, Y: 9}, {X: 9, Y: 9}, {X: 9, Y: 9}, {X: 9, Y: 9}, {X: 9, Y: 9}},
		"NaN": with(nan), "infinite": with(inf), "absurd": with(1e30),
	} {
		if m, ok := similarity(pts, template); ok {
			t.Errorf("%s: %+v", name, m)
		}
	}
	flat := make([][2]float64, 5)
	if _, ok := similarity(good, flat); ok {
		t.Error("a template of one point was accepted")
	}
}
