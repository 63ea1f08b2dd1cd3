package inference

import (
	"math"
	"testing"

	"postern/agent"
)

// faceAt is a mesh whose points of the upper and the lower face lie in the middle of
// the upper and the lower half of a picture.
func faceAt(size int) []agent.Point3 {
	m := make([]agent.Point3, meshPoints)
	put := func(of []int, y float32) {
		for k, i := range of {
			m[i] = agent.Point3{X: float32(size) * (0.2 + 0.6*float32(k)/float32(len(of))), Y: float32(size) * y}
		}
	}
	put(upperSkin, 0.1)
	put(eyeWhole, 0.3)
	put(eyeMiddles, 0.3)
	put(eyeSkin, 0.25)
	put(cheeks, 0.5)
	put(noseRidge, 0.5)
	put(noseSides, 0.7)
	put(nostrils, 0.7)
	put(lowerSkin, 0.9)
	put(aroundLips, 0.85)
	put(lips, 0.8)
	put(mouthLine, 0.8)
	return m
}

func TestCoversAreFound(t *testing.T) {
	const size = 112
	skin := [3]byte{190, 140, 120}
	paint := func(f func(y int) [3]byte) *agent.Frame {
		return picture(size, size, func(_, y int) [3]byte { return f(y) })
	}
	face := func(y int) [3]byte { // dark nostrils, red lips, dark line of brows and eyes
		switch {
		case y > 28 && y < 38:
			return [3]byte{120, 85, 75}
		case y > 75 && y < 83:
			return [3]byte{90, 60, 50}
		case y > 86 && y < 93:
			return [3]byte{150, 70, 70}
		case y > 95:
			return [3]byte{170, 125, 105}
		}
		return skin
	}
	for _, c := range []struct {
		name        string
		f           *agent.Frame
		mouth, eyes bool
	}{
		{"seen", paint(face), false, false},
		{"blue mask", paint(func(y int) [3]byte {
			if y > 60 {
				return [3]byte{128, 178, 214}
			}
			return face(y)
		}), true, false},
		{"dark glasses", paint(func(y int) [3]byte {
			if y > 22 && y < 40 {
				return [3]byte{20, 24, 32}
			}
			return face(y)
		}), false, true},
	} {
		s := sampler{c.f.Pix, size, affine{a: 1, e: 1}, faceAt(size)}
		mouth, eyes := s.mouthCovered(), s.eyesCovered()
		if (mouth > 0.8) != c.mouth || (eyes > 0.8) != c.eyes || !(mouth >= 0 && mouth <= 1) || !(eyes >= 0 && eyes <= 1) {
			t.Errorf("%s: mouth %v, eyes %v", c.name, mouth, eyes)
		}
	}
}

// Patches at the border and beyond it do not read outside the picture.
func TestSamplerStaysInside(t *testing.T) {
	m := make([]agent.Point3, meshPoints)
	for i := range m {
		m[i] = agent.Point3{X: float32(i) - 200, Y: 300 - float32(i)}
	}
	s := sampler{flat(112, 112, 9).Pix, 112, affine{a: 1, e: 1}, m}
	for i := range m {
		if c := s.at(i); c.luma() != 0 && math.Abs(c.luma()-9) > 0.1 {
			t.Fatalf("point %d: %+v", i, c)
		}
	}
	if v := s.mouthCovered(); !(v >= 0 && v <= 1) {
		t.Errorf("%v", v)
	}
}

func TestEyesOpen(t *testing.T) {
	m := make([]agent.Point3, meshPoints)
	set := func(opening float32) {
		for _, e := range eyelids {
			m[e[0]], m[e[1]] = agent.Point3{X: 0}, agent.Point3{X: 20}
			for k := 2; k < 8; k += 2 {
				m[e[k]], m[e[k+1]] = agent.Point3{X: 10, Y: -opening / 2}, agent.Point3{X: 10, Y: opening / 2}
			}
		}
	}
	for opening, want := range map[float32]float64{0: 0, 6: 0.3, 2: 0.1} {
		set(opening)
		if got := eyesOpen(m); math.Abs(float64(got)-want) > 1e-6 {
			t.Errorf("%v of 20: %v, want %v", opening, got, want)
		}
	}
	if got := eyesOpen(make([]agent.Point3, meshPoints)); got != 0 {
		t.Errorf("a mesh in one point: %v", got)
	}
}
