package spoof

import (
	"math"
	"math/rand/v2"

	"postern/agent"
)

// sheet is a flat thing that shows a picture: paper or a screen.
type sheet struct {
	screen bool
	size   float64 // of its side in the frame
	margin float64 // white border of paper, dark bezel of a screen, in shares of the side
	bend   float64 // of paper around the head, in shares of the side
	dots   float64 // halftone: dots along the side; 0 for photo paper
	pixels float64 // of a screen along the side
	grid   float64 // how dark the gaps between pixels are, 0..1
	flat   float64 // loss of contrast, 0..1
	grain  float64 // paper texture, grey levels
	glare  float64 // reflection, grey levels
	pulse  float64 // of the backlight as the shutter sees it, 0..1
	gx, gy float64 // where the reflection is
	seed   float64
}

// newSheet is the attack's material: the more care, the fewer traces.
func newSheet(sp Species, severity int, r *rand.Rand) sheet {
	k := severity - 1
	s := sheet{gx: r.Float64(), gy: r.Float64(), seed: r.Float64() * 100}
	if s.screen = sp == ScreenStill || sp == ScreenVideo; s.screen {
		s.size = Side * []float64{0.69, 0.9, 1.3}[k] * (0.95 + 0.1*r.Float64())
		s.margin = []float64{0.09, 0.05, 0.02}[k]
		s.pixels = s.size * []float64{0.62, 0.93, 1.7}[k] * (0.9 + 0.2*r.Float64())
		s.grid, s.pulse = []float64{0.5, 0.4, 0.3}[k], []float64{0.10, 0.05, 0.015}[k]
		s.flat, s.glare = []float64{0.15, 0.1, 0.05}[k], []float64{60, 30, 10}[k]
		return s
	}
	s.size = Side * []float64{0.7, 0.9, 1.33}[k] * (0.95 + 0.1*r.Float64())
	s.margin = []float64{0.07, 0.03, 0.0}[k]
	s.dots = []float64{150, 260, 0}[k]
	s.flat, s.grain, s.glare = []float64{0.3, 0.2, 0.08}[k], []float64{6, 4, 2}[k], []float64{10, 20, 30}[k]
	if sp == PrintCutEyes {
		s.bend = []float64{0.02, 0.06, 0.12}[k]
	}
	return s
}

// hold draws the sheet with the picture before the scene at frame i.
func (p *performance) hold(picture *agent.Frame, i int) *agent.Frame {
	t := float64(i) * Interval.Seconds()
	m, s := p.move, p.sheet
	pose := placed(s.size*(1+m.near.at(t)), 1.6*m.yaw.at(t), 1.6*m.pitch.at(t), m.roll.at(t),
		Side/2+m.x.at(t), Side/2+m.y.at(t)+0.04*Side)
	phase := 2.4 * float64(i)
	return draw(Side, Side, func(x, y float64) [3]float64 {
		// Four samples a pixel: what is finer still aliases, as in a camera.
		var c [3]float64
		for k := range 4 {
			q := p.sheetAt(picture, pose, x-0.25+0.5*float64(k&1), y-0.25+0.5*float64(k>>1), phase)
			for j := range c {
				c[j] += q[j] / 4
			}
		}
		return c
	})
}

// sheetAt is the colour seen at a point of the frame: of the sheet, or behind it.
func (p *performance) sheetAt(picture *agent.Frame, pose plane, x, y, phase float64) [3]float64 {
	s := p.sheet
	u, v := pose.at(x, y)
	u += s.bend * (u - 0.5) * math.Abs(u-0.5) * 2 // bent paper: the sides lie further away
	if u < 0 || v < 0 || u > 1 || v > 1 {
		return at(p.scene, int(clamp(x, 0, Side-1)), int(clamp(y, 0, Side-1)))
	}
	inner := 1 - 2*s.margin
	pu, pv := (u-s.margin)/inner, (v-s.margin)/inner
	if pu < 0 || pv < 0 || pu > 1 || pv > 1 {
		if s.screen {
			return [3]float64{14, 14, 16}
		}
		return s.paper([3]float64{236, 234, 228}, u, v)
	}
	c := bilinear(picture, pu*(Side-1), pv*(Side-1))
	if s.screen {
		return s.shine(c, u, v, phase)
	}
	return s.paper(s.ink(c, pu, pv), u, v)
}

// ink prints a colour: a halftone of round dots, and blacks that are not black.
func (s sheet) ink(c [3]float64, u, v float64) [3]float64 {
	for j := range c {
		if s.dots > 0 {
			// Each ink lies at its own angle (cyan 15, magenta 75, yellow 0 degrees).
			sin, cos := math.Sincos([3]float64{0.26, 1.31, 0}[j])
			a, b := (cos*u-sin*v)*s.dots*2*math.Pi, (sin*u+cos*v)*s.dots*2*math.Pi
			raster := 0.5 + 0.25*(math.Cos(a)+math.Cos(b))
			c[j] = 255*smooth(raster-0.3, raster+0.3, c[j]/255)*0.7 + c[j]*0.3
		}
		c[j] = c[j]*(1-s.flat) + s.flat*90
	}
	return c
}

// paper adds the texture of the sheet and the light on it.
func (s sheet) paper(c [3]float64, u, v float64) [3]float64 {
	g := s.grain*(noiseAt(u*190+s.seed, v*190)+0.5*noiseAt(u*60, v*60+s.seed)) + s.gloss(u, v)
	for j := range c {
		c[j] += g
	}
	return c
}

// shine is a colour on a screen: stripes of red, green and blue, gaps between rows,
// a backlight that pulses, and what is mirrored in the glass.
func (s sheet) shine(c [3]float64, u, v, phase float64) [3]float64 {
	col, row := u*s.pixels, v*s.pixels
	gap := 1 - s.grid*smooth(0.25, 0.5, math.Abs(frac(row)-0.5))
	band := 1 + s.pulse*math.Sin(2*math.Pi*1.3*v+phase)
	for j := range c {
		stripe := 1 - s.grid*smooth(0.1, 0.45, math.Abs(frac(col-float64(j)/3)-0.5))
		c[j] = (c[j]*(1-s.flat) + s.flat*70) * gap * stripe * band * (1 + 0.4*s.grid)
		c[j] += s.gloss(u, v)
	}
	c[2] *= 1.05
	return c
}

// gloss is the reflection of a lamp.
func (s sheet) gloss(u, v float64) float64 {
	d := math.Hypot(u-s.gx, v-s.gy)
	return s.glare * math.Exp(-d*d*7)
}

func frac(v float64) float64 { return v - math.Floor(v) }

// plane is a tilted square in space, seen from a camera: it maps a point of the frame
// to the square's own coordinates, 0 to 1.
type plane struct{ m [9]float64 }

// placed puts a square of this size at x, y, turned by angles in radians. The camera
// is two and a half frames away.
func placed(size, yaw, pitch, roll, x, y float64) plane {
	const depth = 2.5 * Side
	sy, cy := math.Sincos(yaw)
	sp, cp := math.Sincos(pitch)
	sr, cr := math.Sincos(roll)
	u := [3]float64{(cr*cy + sr*sp*sy) * size, sr * cp * size, (-cr*sy + sr*sp*cy) * size}
	v := [3]float64{(-sr*cy + cr*sp*sy) * size, cr * cp * size, (sr*sy + cr*sp*cy) * size}
	o := [3]float64{x - Side/2 - (u[0]+v[0])/2, y - Side/2 - (u[1]+v[1])/2, depth - (u[2]+v[2])/2}
	// A ray (X, Y, depth) s = o + a u + b v: rows of the inverse of [u v o].
	return plane{inverse([9]float64{u[0], v[0], o[0], u[1], v[1], o[1], u[2], v[2], o[2]})}
}

func (p plane) at(x, y float64) (u, v float64) {
	rx, ry, rz := x-Side/2, y-Side/2, 2.5*Side
	w := p.m[6]*rx + p.m[7]*ry + p.m[8]*rz
	return (p.m[0]*rx + p.m[1]*ry + p.m[2]*rz) / w, (p.m[3]*rx + p.m[4]*ry + p.m[5]*rz) / w
}

// inverse is exact up to a factor, which does not matter for such a map.
func inverse(m [9]float64) [9]float64 {
	return [9]float64{
		m[4]*m[8] - m[5]*m[7], m[2]*m[7] - m[1]*m[8], m[1]*m[5] - m[2]*m[4],
		m[5]*m[6] - m[3]*m[8], m[0]*m[8] - m[2]*m[6], m[2]*m[3] - m[0]*m[5],
		m[3]*m[7] - m[4]*m[6], m[1]*m[6] - m[0]*m[7], m[0]*m[4] - m[1]*m[3],
	}
}
