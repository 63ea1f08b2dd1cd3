package inference

import (
	"context"
	"fmt"
	"testing"

	"postern/agent"
	"postern/models"
)

func TestAnchors(t *testing.T) {
	set := newEngine(t).set
	for _, c := range []struct {
		m    *models.Model
		want int
		last [2]float32
	}{
		{set.Near, 896, [2]float32{7.5 / 8, 7.5 / 8}},
		{set.Far, 2304, [2]float32{47.5 / 48, 47.5 / 48}},
	} {
		got := anchors(c.m.Manifest.Input.Shape[1], c.m.Manifest.Detector.Anchors)
		if len(got) != c.want || got[len(got)-1] != c.last {
			t.Errorf("%s: %d anchors ending at %v", c.m.Manifest.ID, len(got), got[len(got)-1])
		}
		for _, a := range got {
			if !(a[0] > 0 && a[0] < 1 && a[1] > 0 && a[1] < 1) {
				t.Errorf("anchor %v", a)
			}
		}
	}
	near := anchors(128, set.Near.Manifest.Detector.Anchors)
	for i, want := range map[int][2]float32{0: {0.5 / 16, 0.5 / 16}, 1: {0.5 / 16, 0.5 / 16}, 2: {1.5 / 16, 0.5 / 16},
		32: {0.5 / 16, 1.5 / 16}, 512: {0.5 / 8, 0.5 / 8}, 517: {0.5 / 8, 0.5 / 8}, 518: {1.5 / 8, 0.5 / 8}} {
		if near[i] != want {
			t.Errorf("anchor %d is %v, want %v", i, near[i], want)
		}
	}
}

func det(x, y, side, score float32) detection {
	d := detection{box: agent.Box{X: x, Y: y, W: side, H: side}, score: score}
	for i := range d.keys {
		d.keys[i] = agent.Point{X: x, Y: y}
	}
	return d
}

func TestWeightedNMS(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []detection
		want []detection
	}{
		{"none", nil, nil},
		{"one", []detection{det(10, 10, 20, 0.9)}, []detection{det(10, 10, 20, 0.9)}},
		{"apart", []detection{det(10, 10, 20, 0.6), det(100, 10, 20, 0.9)}, []detection{det(100, 10, 20, 0.9), det(10, 10, 20, 0.6)}},
		{"merged by score", []detection{det(14, 10, 20, 0.3), det(10, 10, 20, 0.9)}, []detection{det(11, 10, 20, 0.9)}},
		{"touching", []detection{det(0, 0, 10, 0.9), det(10, 0, 10, 0.8)}, []detection{det(0, 0, 10, 0.9), det(10, 0, 10, 0.8)}},
		{"no area", []detection{det(5, 5, 0, 0.9), det(5, 5, 0, 0.8)}, []detection{det(5, 5, 0, 0.9), det(5, 5, 0, 0.8)}},
		{"a chain is not one face", []detection{det(0, 0, 20, 0.9), det(8, 0, 20, 0.8), det(16, 0, 20, 0.7)},
			[]detection{det(0+8*0.8/1.7, 0, 20, 0.9), det(16, 0, 20, 0.7)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := weightedNMS(c.in, 0.3)
			if len(got) != len(c.want) {
				t.Fatalf("%+v", got)
			}
			for i, w := range c.want {
				g := got[i]
				if !near(float64(g.box.X), float64(w.box.X), 1e-4) || g.box.Y != w.box.Y || !near(float64(g.box.W), float64(w.box.W), 1e-4) || g.score != w.score ||
					!near(float64(g.keys[5].X), float64(w.keys[5].X), 1e-4) {
					t.Errorf("face %d is %+v, want %+v", i, g, w)
				}
			}
		})
	}
	if got := weightedNMS([]detection{det(nan, nan, nan, nan), det(nan, nan, nan, nan)}, 0.3); len(got) != 2 {
		t.Errorf("NaN: %+v", got)
	}
}

// The frame is 256x128: one network pixel is two frame pixels, and 64 rows of the
// square are above the picture.
func TestDecode(t *testing.T) {
	centre := 512 + 6*(4*8+4) // anchor at 4.5/8, 4.5/8: network pixel 72, 72; frame 144, 80
	for _, c := range []struct {
		name string
		box  box
		want string // x y w h of the box; "" for none
	}{
		{"at the anchor", box{anchor: centre}, "104 40 80 80"},
		{"beside it", box{anchor: centre, dx: 8, dy: -4}, "120 32 80 80"},
		{"its own size", box{anchor: centre, w: 10, h: 20}, "134 60 20 40"},
		{"at the threshold", box{anchor: centre, logit: 1e-9}, "104 40 80 80"},
		{"below the threshold", box{anchor: centre, logit: -0.001}, ""},
		{"score NaN", box{anchor: centre, logit: nan}, ""},
		{"score infinite", box{anchor: centre, logit: inf}, "104 40 80 80"},
		{"negative size", box{anchor: centre, w: -40, h: 40}, ""},
		{"no height", box{anchor: centre, w: 40, h: 0}, ""},
		{"NaN size", box{anchor: centre, w: nan, h: 40}, ""},
		{"NaN place", box{anchor: centre, dx: nan}, ""},
		{"infinite place", box{anchor: centre, dy: -inf}, ""},
		{"absurd place", box{anchor: centre, dx: 3e38}, ""},
		{"absurd size", box{anchor: centre, w: 1000, h: 1000}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			e.run[models.DefaultNear] = e.detects(c.box)
			d, err := newDetector(e, e.set.Near, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer d.close()
			found, err := d.detect(flat(256, 128, 100))
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, f := range found {
				got += fmt.Sprintf("%.4g %.4g %.4g %.4g", f.box.X, f.box.Y, f.box.W, f.box.H)
				if mid := f.box.X + f.box.W/2; !near(float64(f.keys[1].X-f.keys[0].X), 40, 1e-3) || !near(float64(f.keys[0].X), float64(mid-20), 1e-3) {
					t.Errorf("keys %v of box %v", f.keys, f.box)
				}
			}
			if got != c.want {
				t.Errorf("box %q, want %q", got, c.want)
			}
		})
	}
}

// The face that the picture is about comes first: large and in the middle.
func TestDetectOrder(t *testing.T) {
	e := newEngine(t)
	e.run[models.DefaultNear] = e.detects(box{anchor: 0, w: 12, h: 12}, box{anchor: 895, w: 20, h: 20, logit: 9}, box{anchor: 512 + 6*36, w: 18, h: 18})
	d, err := newDetector(e, e.set.Near, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	found, err := d.detect(flat(128, 128, 0))
	if err != nil || len(found) != 3 {
		t.Fatal(found, err)
	}
	if found[0].box.W != 18 || found[2].box.W != 12 && found[2].box.W != 20 {
		t.Errorf("order %+v", found)
	}
}

func TestFarOnlyWhenNearSeesNobody(t *testing.T) {
	for name, c := range map[string]struct{ near, far int }{"near": {1, 1}, "far": {0, 1}, "nobody": {0, 0}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			asked := 0
			e.run[models.DefaultNear] = e.detects(make([]box, c.near)...)
			far := e.detects(make([]box, c.far)...)
			e.run[models.DefaultFar] = func(in, out []Data) error {
				asked++
				return far(in, out)
			}
			pr, err := mustPipeline(t, e).Probe(context.Background(), flat(100, 100, 50))
			if err != nil || (pr.Face != nil) != (c.near+c.far > 0) || (asked == 1) != (c.near == 0) {
				t.Errorf("face %v, far asked %d times, %v", pr.Face, asked, err)
			}
		})
	}
}
