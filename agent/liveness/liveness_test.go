package liveness

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/liveness/livenesstest"
)

var start = time.Unix(1_700_000_000, 0)

// pose is how a made-up head stands before the camera.
type pose struct {
	x, y  float64 // of its centre in the frame
	yaw   float64 // degrees
	open  float64 // of the eyes, 1 is open
	grain float64 // noise of the mesh, pixels
}

func head(p pose, r *rand.Rand) []agent.Point3 {
	return livenesstest.Head(livenesstest.Pose{X: p.x, Y: p.y, Yaw: p.yaw, Open: p.open, Grain: p.grain}, r)
}

// scene says how frame i of a sequence looks.
type scene struct {
	pose   func(i int) pose
	attach bool                         // the background moves with the face
	shift  func(i int) int              // of the whole picture: the camera moves
	face   func(i int) float64          // brightness of the face, 1 is as it is
	paint  func(i, x, y int, v int) int // last change of a pixel
	noise  int                          // of the sensor, grey levels
	same   func(i int) int              // frame that is shown instead; nil: i
}

const fw, fh = 960, 540

// frames draws a sequence: a textured wall, and a head with soft shading.
func (s scene) frames(n int) []*agent.Frame {
	out := make([]*agent.Frame, n)
	for i := range out {
		k := i
		if s.same != nil {
			k = s.same(i)
		}
		out[i] = s.frame(k)
		out[i].Seq, out[i].CapturedAt = uint64(i+1), start.Add(time.Duration(i)*50*time.Millisecond)
	}
	return out
}

func (s scene) frame(i int) *agent.Frame {
	r := uint32(i)*977 + 1
	f := &agent.Frame{Width: fw, Height: fh, Pix: make([]byte, fw*fh*3)}
	p := s.pose(i)
	dx := 0
	if s.attach {
		dx = int(p.x) - fw/2
	}
	if s.shift != nil {
		dx = s.shift(i)
	}
	for y := range fh {
		for x := range fw {
			wx, wy := (x-dx+4*fw)/13, y/11
			v := 60 + int((uint32(wx)*2654435761^uint32(wy)*2246822519)>>24)%120
			ex, ey := (float64(x)-p.x)/100, (float64(y)-p.y)/130
			if d := ex*ex + ey*ey; d < 1 {
				g := 1.0
				if s.face != nil {
					g = s.face(i)
				}
				v = int(g * (170 - 60*d))
			}
			if s.paint != nil {
				v = s.paint(i, x, y, v)
			}
			r = r*1664525 + 1013904223
			v += int(r>>16)%(2*s.noise+1) - s.noise
			b := byte(min(255, max(0, v)))
			o := (y*fw + x) * 3
			f.Pix[o], f.Pix[o+1], f.Pix[o+2] = b, b, b
		}
	}
	return f
}

// watch shows the sequence to a monitor.
func (s scene) watch(n int) *Monitor {
	var m Monitor
	for i, f := range s.frames(n) {
		m.Add(Observe(f, head(s.pose(i), rand.New(rand.NewPCG(3, uint64(i))))))
	}
	return &m
}

func grade(t *testing.T, m *Monitor, name agent.SignalName) agent.Signal {
	t.Helper()
	for _, s := range m.Signals() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no signal %s", name)
	return agent.Signal{}
}

// standing still, breathing: what a living person does who just waits.
func standing(i int) pose {
	return pose{x: fw/2 + 0.4*math.Sin(float64(i)/3), y: fh / 2, yaw: 1, open: 1, grain: 0.3}
}

// swaying from side to side by 60 pixels.
func swaying(i int) pose {
	return pose{x: fw/2 + 60*math.Sin(float64(i)/3), y: fh / 2, yaw: 2, open: 1, grain: 0.3}
}

// TestStillPersonIsNotRefused: whoever stands still gives no signal that costs
// anything, with the noise of a good sensor and of a poor one.
func TestStillPersonIsNotRefused(t *testing.T) {
	for _, noise := range []int{1, 3, 8} {
		m := scene{pose: standing, noise: noise}.watch(12)
		for _, s := range m.Signals() {
			if s.Grade == agent.GradeSuspicious || s.Grade == agent.GradeAttack {
				t.Errorf("noise %d: %+v", noise, s)
			}
		}
		if got := Combine(92, m.Signals()); got != 92 {
			t.Errorf("noise %d: score %v", noise, got)
		}
	}
}

func TestSignals(t *testing.T) {
	const n = 12
	for _, c := range []struct {
		name   string
		scene  scene
		signal agent.SignalName
		want   agent.Grade
	}{
		{"one frame over and over", scene{pose: standing, noise: 2, same: func(int) int { return 0 }}, RepeatedFrames, agent.GradeAttack},
		{"each frame twice, as of a raised rate", scene{pose: standing, noise: 2, same: func(i int) int { return i / 2 }}, RepeatedFrames, agent.GradeNormal},
		{"each frame twice is no loop", scene{pose: standing, noise: 2, same: func(i int) int { return i / 2 }}, LoopedFrames, agent.GradeNormal},
		{"a clip of five frames", scene{pose: swaying, noise: 2, same: func(i int) int { return i % 5 }}, LoopedFrames, agent.GradeAttack},
		{"no clip", scene{pose: swaying, noise: 2}, LoopedFrames, agent.GradeNormal},
		{"a face on a dead picture", scene{pose: swaying, paint: onlyFaceLives}, StillRest, agent.GradeSuspicious},
		{"a sensor", scene{pose: swaying, noise: 2}, StillRest, agent.GradeNormal},
		{"a splice", scene{pose: standing, noise: 2, paint: splice(6)}, SceneCut, agent.GradeSuspicious},
		{"the lamp goes on", scene{pose: standing, noise: 2, paint: lamp(6)}, SceneCut, agent.GradeNormal},
		{"pixels of a screen", scene{pose: standing, noise: 2, paint: pixels}, RegularPattern, agent.GradeSuspicious},
		{"skin", scene{pose: standing, noise: 2}, RegularPattern, agent.GradeNormal},
		{"a pulsing backlight", scene{pose: standing, noise: 2, face: pulse}, LightFlicker, agent.GradeSuspicious},
		{"a cloud", scene{pose: standing, noise: 2, face: cloud}, LightFlicker, agent.GradeNormal},
		{"lamps that flicker on all", scene{pose: standing, noise: 2, paint: flickering}, LightFlicker, agent.GradeNormal},
		{"a print takes its background along", scene{pose: swaying, noise: 2, attach: true, paint: wallStays}, BackgroundMoves, agent.GradeSuspicious},
		{"a head before a wall", scene{pose: swaying, noise: 2}, BackgroundMoves, agent.GradeNormal},
		{"a head that stands still", scene{pose: standing, noise: 2}, BackgroundMoves, agent.GradeUnknown},
		{"a camera that is bumped", scene{pose: swaying, noise: 2, shift: func(i int) int { return int(swaying(i).x) - fw/2 }}, BackgroundMoves, agent.GradeUnknown},
		{"no sensor's picture", scene{pose: dead, noise: 2}, MicroMotion, agent.GradeSuspicious},
		{"a face", scene{pose: standing, noise: 2}, MicroMotion, agent.GradeNormal},
		{"a blink", scene{pose: blinking, noise: 2}, BlinkCount, agent.GradeNormal},
		{"no blink proves nothing", scene{pose: standing, noise: 2}, BlinkCount, agent.GradeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s := grade(t, c.scene.watch(n), c.signal); s.Grade != c.want {
				t.Errorf("%+v, want %s", s, c.want)
			}
		})
	}
}

func dead(i int) pose { p := standing(i); p.grain = 0; return p }

func blinking(i int) pose {
	p := standing(i)
	if i == 5 || i == 6 {
		p.open = 0.2
	}
	return p
}

// onlyFaceLives adds noise to the face alone.
func onlyFaceLives(i, x, y, v int) int {
	p := swaying(i)
	if math.Hypot((float64(x)-p.x)/100, (float64(y)-p.y)/130) < 1 {
		return v + (x*7+y*13+i*29)%5
	}
	return 90
}

func splice(at int) func(i, x, y, v int) int {
	return func(i, x, y, v int) int {
		if i < at {
			return v
		}
		return 60 + int((uint32(x/17+91)*2246822519^uint32(y/19+7)*2654435761)>>24)%120
	}
}

func lamp(at int) func(i, x, y, v int) int {
	return func(i, _, _, v int) int {
		if i < at {
			return v / 2
		}
		return v
	}
}

func pixels(_, x, y, v int) int { return v + int(9*math.Cos(float64(x)*2.1+float64(y)*0.9)) }

func pulse(i int) float64 { return 1 + 0.1*math.Cos(2.4*float64(i)) }

func cloud(i int) float64 { return 1 - 0.01*float64(i) }

func flickering(i, _, _, v int) int { return int(float64(v) * pulse(i)) }

// wallStays puts the room's wall beyond the sheet.
func wallStays(i, x, y, v int) int {
	if math.Abs(float64(x)-swaying(i).x) < 260 {
		return v
	}
	return 60 + int((uint32(x/13)*40503^uint32(y/11)*2246822519)>>8)%120
}

// TestPausedFilm: a source that shows the same frame again because it is paused
// (same position) is no attack, and no evidence either.
func TestPausedFilm(t *testing.T) {
	var m Monitor
	s := scene{pose: standing, noise: 2}
	f := s.frame(0)
	f.Seq, f.CapturedAt = 1, start
	tr := Observe(f, head(standing(0), rand.New(rand.NewPCG(1, 1))))
	if !m.Add(tr) {
		t.Error("the first frame is not new")
	}
	for range 20 {
		if m.Add(tr) {
			t.Error("the same frame again counts as new")
		}
	}
	if g := grade(t, &m, RepeatedFrames).Grade; g == agent.GradeAttack {
		t.Error("a pause is taken for an attack")
	}
}

// TestRepeatsAreNotNew: a frame that was seen before is no further evidence.
func TestRepeatsAreNotNew(t *testing.T) {
	var m Monitor
	fresh := 0
	s := scene{pose: swaying, noise: 2, same: func(i int) int { return i % 4 }}
	for i, f := range s.frames(12) {
		if m.Add(Observe(f, head(swaying(i), rand.New(rand.NewPCG(3, uint64(i)))))) {
			fresh++
		}
	}
	if fresh != 4 {
		t.Errorf("%d of 12 frames are new, want 4", fresh)
	}
}

func TestCombine(t *testing.T) {
	sus, att := agent.Signal{Grade: agent.GradeSuspicious}, agent.Signal{Grade: agent.GradeAttack}
	for _, c := range []struct {
		score float64
		ss    []agent.Signal
		want  float64
	}{
		{90, nil, 90}, {90, []agent.Signal{{Grade: agent.GradeNormal}, {Grade: agent.GradeUnknown}}, 90},
		{90, []agent.Signal{sus}, 60}, {90, []agent.Signal{sus, sus, sus, sus}, 0}, {90, []agent.Signal{att}, attackScore}, {5, []agent.Signal{att}, 5},
	} {
		if got := Combine(c.score, c.ss); got != c.want {
			t.Errorf("%v with %v: %v, want %v", c.score, c.ss, got, c.want)
		}
	}
}

// TestMonitorForgets: memory is bounded however long somebody stands there.
func TestMonitorForgets(t *testing.T) {
	var m Monitor
	s := scene{pose: standing}
	f := s.frame(0)
	tr := Observe(f, head(standing(0), rand.New(rand.NewPCG(1, 1))))
	for i := range 3 * window {
		next := *tr
		next.Digest, next.Seq = uint64(i), uint64(i)
		m.Add(&next)
	}
	if len(m.traces) != window {
		t.Errorf("%d traces are kept", len(m.traces))
	}
}

// TestSmallFrames: nothing breaks on frames smaller than the grids, or without a face.
func TestSmallFrames(t *testing.T) {
	var m Monitor
	for i, size := range []int{1, 2, 7, 63, 64, 65, 200} {
		f := &agent.Frame{Width: size, Height: size, Pix: make([]byte, size*size*3), Seq: uint64(i + 1)}
		m.Add(Observe(f, []agent.Point3{{X: 0, Y: 0}, {X: float32(size), Y: float32(size)}}))
		m.Add(Observe(f, nil))
	}
	for _, s := range m.Signals() {
		if math.IsNaN(s.Value) {
			t.Errorf("%+v", s)
		}
	}
}

// TestPlanar: a sheet that turns fits a projective map, a head does not.
func TestPlanar(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a, b := head(pose{x: 400, y: 300, open: 1}, r), head(pose{x: 430, y: 290, yaw: 25, open: 1}, r)
	if v := planar(a, b); v < 2 {
		t.Errorf("a head that turns leaves %.2f %%", v)
	}
	sheet := make([]agent.Point3, len(a))
	for i, p := range a {
		x, y := float64(p.X)-400, float64(p.Y)-300
		k := 1200 / (1200 + 0.42*x) // turned by 25 degrees
		sheet[i] = agent.Point3{X: float32(420 + 0.9*x*k), Y: float32(300 + y*k)}
	}
	if v := planar(a, sheet); v > 0.05 {
		t.Errorf("a sheet that turns leaves %.3f %%", v)
	}
	if s := anisotropy(a, sheet); s < 5 {
		t.Errorf("foreshortened by %.1f %%", s)
	}
}

func BenchmarkObserve(b *testing.B) {
	f := &agent.Frame{Width: 1280, Height: 720, Pix: make([]byte, 1280*720*3)}
	mesh := head(pose{x: 640, y: 360, open: 1}, rand.New(rand.NewPCG(1, 1)))
	for b.Loop() {
		Observe(f, mesh)
	}
}

func BenchmarkSignals(b *testing.B) {
	m := scene{pose: swaying, noise: 2}.watch(12)
	for b.Loop() {
		m.Signals()
	}
}
