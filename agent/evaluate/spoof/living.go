package spoof

import (
	"math"
	"math/rand/v2"

	"postern/agent"
)

// motion is how somebody, or who holds something, moves: slow waves, each with its
// own size, speed and phase.
type motion struct{ x, y, yaw, pitch, roll, near wave }

type wave struct{ size, speed, phase float64 }

func (w wave) at(t float64) float64 { return w.size * math.Sin(w.speed*t+w.phase) }

func newMotion(r *rand.Rand) motion {
	w := func(lo, hi float64) wave {
		return wave{lo + r.Float64()*(hi-lo), 1 + 2.5*r.Float64(), 2 * math.Pi * r.Float64()}
	}
	return motion{x: w(1, 7), y: w(0.5, 3), yaw: w(0.02, 0.12), pitch: w(0.01, 0.06), roll: w(0, 0.03), near: w(0, 0.02)}
}

// live draws the living head at frame i: it turns as a solid thing does, blinks, and
// the room behind it stays.
func (p *performance) live(i int) *agent.Frame {
	t := float64(i) * Interval.Seconds()
	m, f := p.move, p.face
	shut := blink(t, m.x.phase)
	return draw(Side, Side, func(x, y float64) [3]float64 {
		ex, ey := (x-f.x)/f.a, (y-f.y)/f.b
		r2 := ex*ex + ey*ey
		w := 1 - smooth(1, 1.7, math.Sqrt(r2))
		if w == 0 {
			return bilinear(f.picture, x, y)
		}
		z := f.a * math.Sqrt(math.Max(0, 1-r2)) // how far the point is before the head's axis
		dx := m.x.at(t) + z*math.Sin(m.yaw.at(t))
		dy := m.y.at(t) + z*math.Sin(m.pitch.at(t))
		sx, sy := x-w*dx, y-w*dy
		return bilinear(f.picture, sx, sy-f.lid(sx, sy)*shut)
	})
}

// blink is how far the eyes are shut at t, 0 to 1: once in two to three seconds.
func blink(t, phase float64) float64 {
	period := 2.2 + 0.12*phase
	at := math.Mod(t+period*phase/(2*math.Pi), period)
	return math.Max(0, 1-math.Abs(at-0.15)/0.12)
}

// lid is how far above a point of the eye the lid's skin lies, in pixels.
func (f portrait) lid(x, y float64) float64 {
	d := math.Hypot(float64(f.eyes[1].X-f.eyes[0].X), float64(f.eyes[1].Y-f.eyes[0].Y))
	for _, e := range f.eyes {
		ex, ey := (x-float64(e.X))/(0.3*d), (y-float64(e.Y))/(0.16*d)
		if r := math.Hypot(ex, ey); r < 1 {
			return 0.18 * d * (1 - r*r)
		}
	}
	return 0
}

// throughHoles is the print with living eyes where the printed ones were.
func (p *performance) throughHoles(i int) *agent.Frame {
	alive, f := p.live(i), p.face
	d := math.Hypot(float64(f.eyes[1].X-f.eyes[0].X), float64(f.eyes[1].Y-f.eyes[0].Y))
	return draw(Side, Side, func(x, y float64) [3]float64 {
		for _, e := range f.eyes {
			r := math.Hypot((x-float64(e.X))/(0.27*d), (y-float64(e.Y))/(0.15*d))
			if r < 1 {
				c := bilinear(alive, x, y)
				for k := range c { // eyes lie deeper, in the shade of the sheet
					c[k] *= 0.75 - 0.2*smooth(0.7, 1, r)
				}
				return c
			}
		}
		return bilinear(f.picture, x, y)
	})
}

// light is the camera and the room's light.
type light struct {
	gain, warm, side, blur, noise float64
	quality                       int
	seed                          uint64
}

func newLight(r *rand.Rand, severity int) light {
	hard := float64(severity-1) / (Severities - 1)
	return light{
		gain: 1 + (r.Float64()-0.5)*(0.15+0.55*hard), warm: (r.Float64() - 0.5) * 0.12, side: (r.Float64() - 0.5) * (0.1 + 0.4*hard),
		blur: 0.45 + 0.35*r.Float64(), noise: 1.2 + 1.5*r.Float64() + 1.5*hard, quality: 92 - int(8*hard), seed: r.Uint64(),
	}
}

// camera is what a camera makes of what is before it: lens, light, noise, JPEG.
func (p *performance) camera(f *agent.Frame, i int) *agent.Frame {
	l := p.light
	r := rand.New(rand.NewPCG(l.seed, uint64(i)))
	f = soften(f, l.blur)
	out := draw(f.Width, f.Height, func(x, y float64) [3]float64 {
		c := at(f, int(x), int(y))
		g := l.gain * (1 + l.side*(x/Side-0.5))
		n := r.NormFloat64() * l.noise
		return [3]float64{c[0]*g*(1+l.warm) + n, c[1]*g + n, c[2]*g*(1-l.warm) + n}
	})
	return recompress(out, l.quality)
}
