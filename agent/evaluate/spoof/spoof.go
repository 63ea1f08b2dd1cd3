// Package spoof makes presentation attacks out of pictures of faces: prints held up
// to a camera, screens, injected files; and, to compare with, the same face as a
// living person before the same camera. Everything is drawn, so that a liveness check
// can be measured by anyone, with pictures that they may use.
//
// Drawn attacks are not a laboratory's: they show what a change breaks and which
// kinds are easy, not how a determined attacker fares.
//
// Where to start reading: Kinds, then Subject.Present.
package spoof

import (
	"math"
	"math/rand/v2"
	"time"

	"postern/agent"
)

// Species names a kind of presentation, spelt as in reports.
type Species string

// The species. BonaFide is no attack.
const (
	BonaFide      Species = "bona_fide"
	Print         Species = "print"          // a photo on paper, held and tilted
	PrintCutEyes  Species = "print_cut_eyes" // the same, bent, with living eyes behind holes
	ScreenStill   Species = "screen_still"   // a photo on a phone or tablet
	ScreenVideo   Species = "screen_video"   // a video on a phone or tablet
	InjectedStill Species = "injected_still" // one picture instead of the camera's frames
	InjectedLoop  Species = "injected_loop"  // a short clip, over and over, instead of them
)

// Attacks lists the species that are attacks.
func Attacks() []Species {
	return []Species{Print, PrintCutEyes, ScreenStill, ScreenVideo, InjectedStill, InjectedLoop}
}

// Severities is the number of degrees of care: 1 is crude, the highest careful, with
// fewer traces. For bona fide presentations it is how difficult the light is.
const Severities = 3

// Side is the width and height of the frames in pixels.
const Side = 320

// Interval is the time between two frames.
const Interval = 50 * time.Millisecond

// Subject is a picture and the face in it.
type Subject struct {
	Picture *agent.Frame
	Face    agent.Face
}

// Present draws n frames of one presentation. The same arguments give the same
// frames.
func (s Subject) Present(sp Species, severity, n int, seed uint64) []*agent.Frame {
	r := rand.New(rand.NewPCG(seed, uint64(severity)<<8|uint64(len(sp))))
	p := &performance{face: s.portrait(), r: r, severity: min(Severities, max(1, severity))}
	p.prepare(sp)
	out := make([]*agent.Frame, n)
	for i := range out {
		out[i] = p.frame(sp, i)
		out[i].Seq = uint64(i + 1)
		out[i].CapturedAt = time.Unix(1_700_000_000, 0).Add(time.Duration(i) * Interval)
		out[i].Source = string(sp)
	}
	return out
}

// performance is what the frames of one presentation share.
type performance struct {
	face     portrait
	r        *rand.Rand
	severity int
	move     motion
	sheet    sheet
	light    light
	scene    *agent.Frame
	loop     []*agent.Frame
}

func (p *performance) prepare(sp Species) {
	p.move, p.light = newMotion(p.r), newLight(p.r, p.severity)
	p.scene = room(p.r)
	p.sheet = newSheet(sp, p.severity, p.r)
	if sp == ScreenStill || sp == ScreenVideo {
		p.face.picture = recompress(p.face.picture, []int{45, 65, 88}[p.severity-1])
	}
	n := 0
	switch sp {
	case InjectedStill:
		n = 1
	case InjectedLoop:
		n = 3 + 2*p.severity
	}
	for i := range n {
		p.loop = append(p.loop, p.camera(p.live(i), i))
	}
}

// frame draws frame i.
func (p *performance) frame(sp Species, i int) *agent.Frame {
	switch sp {
	case BonaFide:
		return p.camera(p.live(i), i)
	case InjectedStill, InjectedLoop:
		f := *p.loop[i%len(p.loop)]
		return &f
	case ScreenVideo:
		return p.camera(p.hold(p.live(i), i), i)
	case PrintCutEyes:
		return p.camera(p.hold(p.throughHoles(i), i), i)
	}
	return p.camera(p.hold(p.face.picture, i), i)
}

// portrait is the head with its surroundings, Side x Side.
type portrait struct {
	picture    *agent.Frame
	x, y, a, b float64 // centre and half axes of the head
	eyes       [2]agent.Point
}

// portrait cuts a square of up to three faces around the face and scales it.
func (s Subject) portrait() portrait {
	b := s.Face.Box
	side := math.Min(2.9*float64(max(b.W, b.H)), float64(min(s.Picture.Width, s.Picture.Height)))
	x := clamp(float64(b.X+b.W/2)-side/2, 0, float64(s.Picture.Width)-side)
	y := clamp(float64(b.Y+b.H/2)-side/2, 0, float64(s.Picture.Height)-side)
	k := side / Side
	to := func(px, py float32) agent.Point {
		return agent.Point{X: float32((float64(px) - x) / k), Y: float32((float64(py) - y) / k)}
	}
	c := to(b.X+b.W/2, b.Y+b.H/2)
	return portrait{
		picture: resample(s.Picture, x, y, side),
		x:       float64(c.X), y: float64(c.Y), a: float64(b.W) / k * 0.55, b: float64(b.H) / k * 0.68,
		eyes: [2]agent.Point{to(s.Face.Points[0].X, s.Face.Points[0].Y), to(s.Face.Points[1].X, s.Face.Points[1].Y)},
	}
}

func clamp(v, lo, hi float64) float64 { return math.Max(lo, math.Min(v, hi)) }

func smooth(lo, hi, v float64) float64 {
	f := clamp((v-lo)/(hi-lo), 0, 1)
	return f * f * (3 - 2*f)
}
