package evaluate

import (
	"bytes"
	"math"
	"testing"

	"postern/agent"
)

// picture is a picture of one grey value that do may change.
func picture(w, h int, v byte, do func(x, y int) byte) *agent.Frame {
	f := &agent.Frame{Width: w, Height: h, Pix: make([]byte, 3*w*h), Source: "x"}
	for i := range f.Pix {
		f.Pix[i] = v
		if do != nil {
			f.Pix[i] = do(i/3%w, i/3/w)
		}
	}
	return f
}

// frontal is a face whose mask and glasses are circles about (40, 40).
var frontal = &agent.Face{Mesh: MeshOver(40, 40, 20, 8)}

// Every degradation leaves the size and the original as they are, and says the same
// twice.
func TestDegradations(t *testing.T) {
	f := picture(80, 70, 0, func(x, y int) byte { return byte(3*x ^ 5*y) })
	before := bytes.Clone(f.Pix)
	names := map[string]bool{}
	for _, d := range degradations() {
		a, err := d.apply(f, frontal, 7)
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.apply(f, frontal, 7)
		if err != nil {
			t.Fatal(err)
		}
		if a.Check() != nil || a.Width != f.Width || a.Height != f.Height || a.Source != "x" {
			t.Errorf("%s: %v, %dx%d from %q", d.name, a.Check(), a.Width, a.Height, a.Source)
		}
		if bytes.Equal(a.Pix, f.Pix) || !bytes.Equal(a.Pix, b.Pix) || !bytes.Equal(before, f.Pix) {
			t.Errorf("%s: nothing changed, or not twice alike, or the original too", d.name)
		}
		if names[d.name] {
			t.Errorf("%s twice", d.name)
		}
		names[d.name] = true
	}
	if len(names) != 20 {
		t.Errorf("%d degradations", len(names))
	}
}

func TestFlatStaysFlat(t *testing.T) {
	f := picture(40, 30, 120, nil)
	for name, g := range map[string]*agent.Frame{"blur": blur(f, 2), "rescale": rescale(f, 4), "rotate": rotate(f, 30)} {
		if !bytes.Equal(g.Pix, f.Pix) {
			t.Errorf("%s changed a flat picture", name)
		}
	}
}

func TestBlurSpreadsAPoint(t *testing.T) {
	f := picture(21, 21, 0, func(x, y int) byte {
		if x == 10 && y == 10 {
			return 255
		}
		return 0
	})
	g := blur(f, 1)
	// The middle of a normalised Gaussian of sigma 1 is 0.3991 squared.
	if v := channel(g, 10, 10, 0); v < 40 || v > 42 {
		t.Errorf("middle %d", v)
	}
	if a, b := channel(g, 12, 10, 1), channel(g, 10, 8, 1); a != b || a == 0 || channel(g, 15, 10, 0) != 0 {
		t.Errorf("sides %d, %d", a, b)
	}
}

func TestBrighten(t *testing.T) {
	for _, c := range []struct {
		v    byte
		k    float64
		want byte
	}{{100, 0.5, 50}, {100, 0.25, 25}, {101, 0.5, 51}, {200, 1.5, 255}, {0, 1.5, 0}} {
		if got := brighten(picture(1, 1, c.v, nil), c.k).Pix[0]; got != c.want {
			t.Errorf("%d x %g is %d, want %d", c.v, c.k, got, c.want)
		}
	}
}

func TestNoise(t *testing.T) {
	f := picture(200, 200, 128, nil)
	g := noise(f, 15, 1)
	var sum, sq float64
	for _, v := range g.Pix {
		sum += float64(v) - 128
		sq += (float64(v) - 128) * (float64(v) - 128)
	}
	n := float64(len(g.Pix))
	if mean, sd := sum/n, math.Sqrt(sq/n); math.Abs(mean) > 0.2 || math.Abs(sd-15) > 0.2 {
		t.Errorf("mean %v, deviation %v", mean, sd)
	}
	if bytes.Equal(g.Pix, noise(f, 15, 2).Pix) {
		t.Error("the seed does not matter")
	}
}

func TestRescaleAverages(t *testing.T) {
	f := picture(40, 40, 0, func(x, y int) byte { return byte((x + y) % 2 * 200) })
	for i, v := range rescale(f, 2).Pix {
		if v != 100 {
			t.Fatalf("%d at %d", v, i)
		}
	}
}

// A quarter turn clockwise takes the right end of a row to the bottom.
func TestRotate(t *testing.T) {
	f := picture(11, 11, 0, func(x, y int) byte {
		if x == 9 && y == 5 {
			return 255
		}
		return 0
	})
	g := rotate(f, 90)
	if channel(g, 5, 9, 0) != 255 || channel(g, 9, 5, 0) != 0 {
		t.Errorf("%v", g.Pix)
	}
}

// MeshOver is a mesh about (x, y): the outline of the mask is a circle of one radius,
// those of the lenses, the bridge and the arms circles of another.
func MeshOver(x, y, mask, lens float64) []agent.Point3 {
	m := make([]agent.Point3, 468)
	round := func(outline []int, radius float64) {
		for i, k := range outline {
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(len(outline)))
			m[k] = agent.Point3{X: float32(x + radius*cos), Y: float32(y + radius*sin)}
		}
	}
	round(maskOutline, mask)
	for _, o := range glassesOutlines {
		round(o, lens)
	}
	return m
}

func TestWear(t *testing.T) {
	f := picture(80, 80, 128, nil)
	face := &agent.Face{Box: agent.Box{X: 10, Y: 10, W: 60, H: 60}, Mesh: MeshOver(40, 40, 20, 10)}
	colours := map[byte]bool{}
	for seed := range uint64(20) {
		for _, c := range []struct {
			worn    *agent.Frame
			in, out [][2]int
		}{
			{mask(f, face, seed), [][2]int{{40, 40}, {25, 40}, {40, 57}}, [][2]int{{40, 63}, {16, 40}, {60, 60}}},
			{sunglasses(f, face, seed), [][2]int{{40, 40}, {46, 40}}, [][2]int{{40, 52}, {25, 40}}},
		} {
			for _, p := range c.in {
				if v := channel(c.worn, p[0], p[1], 2); v == 128 && channel(c.worn, p[0], p[1], 0) == 128 {
					t.Errorf("seed %d leaves %v free", seed, p)
				}
			}
			for _, p := range c.out {
				if channel(c.worn, p[0], p[1], 0) != 128 {
					t.Errorf("seed %d covers %v", seed, p)
				}
			}
			colours[channel(c.worn, 40, 40, 2)/8] = true
		}
		if !bytes.Equal(mask(f, face, seed).Pix, mask(f, face, seed).Pix) {
			t.Error("a seed gives two masks")
		}
	}
	if len(colours) < 4 {
		t.Errorf("only the colours %v", colours)
	}
	if g := mask(f, &agent.Face{}, 1); g != f {
		t.Error("a mask without a mesh")
	}
}

func TestWithin(t *testing.T) {
	square := []agent.Point{{X: 0, Y: 0}, {X: 4, Y: 0}, {X: 4, Y: 4}, {X: 0, Y: 4}}
	for p, want := range map[[2]float64]bool{{2, 2}: true, {0.1, 3.9}: true, {5, 2}: false, {2, -1}: false, {-1, -1}: false} {
		if got := within(square, p[0], p[1]); got != want {
			t.Errorf("%v: %v", p, got)
		}
	}
	if within(nil, 0, 0) {
		t.Error("a point in nothing")
	}
}

func TestRecompress(t *testing.T) {
	f := picture(32, 32, 0, func(x, y int) byte { return byte(8 * x) })
	far := func(q int) (worst int) {
		g, err := recompress(f, q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Pix {
			worst = max(worst, int(math.Abs(float64(f.Pix[i])-float64(g.Pix[i]))))
		}
		return worst
	}
	if a, b := far(100), far(5); a > 4 || b <= a {
		t.Errorf("largest change %d at quality 100, %d at 5", a, b)
	}
}
