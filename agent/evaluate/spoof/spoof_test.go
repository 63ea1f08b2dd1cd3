package spoof

import (
	"bytes"
	"math"
	"testing"

	"postern/agent"
)

// face is a light oval with two dark eyes before a striped wall.
func face() Subject {
	f := draw(200, 200, func(x, y float64) [3]float64 {
		switch {
		case math.Hypot(x-75, y-90) < 8 || math.Hypot(x-125, y-90) < 8:
			return [3]float64{30, 30, 30}
		case math.Hypot((x-100)/50, (y-100)/65) < 1:
			return [3]float64{210, 170, 150}
		}
		return [3]float64{60 + 40*math.Mod(math.Floor(x/10), 2), 90, 110}
	})
	return Subject{Picture: f, Face: agent.Face{Box: agent.Box{X: 60, Y: 55, W: 80, H: 90},
		Points: [5]agent.Point{{X: 75, Y: 90}, {X: 125, Y: 90}, {X: 100, Y: 110}, {X: 85, Y: 130}, {X: 115, Y: 130}}}}
}

func TestPresent(t *testing.T) {
	for i, sp := range append([]Species{BonaFide}, Attacks()...) {
		severity := 1 + i%Severities
		fs := face().Present(sp, severity, 2, 7)
		if len(fs) != 2 {
			t.Fatalf("%s: %d frames", sp, len(fs))
		}
		for i, f := range fs {
			if err := f.Check(); err != nil || f.Width != Side || f.Seq != uint64(i+1) {
				t.Errorf("%s frame %d: %v, %d wide, number %d", sp, i, err, f.Width, f.Seq)
			}
		}
		if same := bytes.Equal(fs[0].Pix, fs[1].Pix); same != (sp == InjectedStill) {
			t.Errorf("%s: two frames alike: %v", sp, same)
		}
		if again := face().Present(sp, severity, 1, 7); !bytes.Equal(again[0].Pix, fs[0].Pix) {
			t.Errorf("%s differs the second time", sp)
		}
	}
}

// TestLoop: the clip of an injected loop starts again, bit for bit.
func TestLoop(t *testing.T) {
	fs := face().Present(InjectedLoop, 1, 7, 1)
	if !bytes.Equal(fs[0].Pix, fs[5].Pix) || bytes.Equal(fs[0].Pix, fs[4].Pix) {
		t.Error("the loop is not five frames long")
	}
}

// TestPlaced: the square's corners come where a square of that size lies, and a
// square that is turned away looks narrower.
func TestPlaced(t *testing.T) {
	p := placed(100, 0, 0, 0, 150, 160)
	for _, c := range [][4]float64{{100, 110, 0, 0}, {200, 210, 1, 1}, {150, 160, 0.5, 0.5}} {
		if u, v := p.at(c[0], c[1]); math.Abs(u-c[2]) > 1e-9 || math.Abs(v-c[3]) > 1e-9 {
			t.Errorf("(%v, %v) is at (%v, %v) of the square", c[0], c[1], u, v)
		}
	}
	if u, _ := placed(100, 0.6, 0, 0, Side/2, Side/2).at(Side/2+45, Side/2); u < 1 {
		t.Errorf("turned by 34 degrees it still reaches %v", u)
	}
}

// TestEyesOnly: behind the holes of a cut print the eyes move, the rest does not.
func TestEyesOnly(t *testing.T) {
	p := &performance{face: face().portrait(), severity: 1}
	p.move.x = wave{size: 6, speed: 3}
	a, b := p.throughHoles(0), p.throughHoles(9)
	e := p.face.eyes[0]
	if at(a, int(e.X)-10, int(e.Y)) == at(b, int(e.X)-10, int(e.Y)) {
		t.Error("the eyes stand still")
	}
	if at(a, int(p.face.x), int(p.face.y)+40) != at(b, int(p.face.x), int(p.face.y)+40) {
		t.Error("the print moves by itself")
	}
}

func BenchmarkScreen(b *testing.B) {
	for b.Loop() {
		face().Present(ScreenVideo, 2, 1, 1)
	}
}
