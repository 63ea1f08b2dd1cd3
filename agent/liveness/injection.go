package liveness

import (
	"math"

	"postern/agent"
)

// The names of the signals on frames that did not come from a sensor.
const (
	RepeatedFrames agent.SignalName = "repeated_frames"
	LoopedFrames   agent.SignalName = "looped_frames"
	StillRest      agent.SignalName = "unchanging_background"
	SceneCut       agent.SignalName = "scene_similarity"
)

// maxRepeats is how many equal frames in a row a camera may give: a stream that was
// raised to a higher rate repeats each frame a few times. A sensor has noise and never
// gives two equal ones.
const maxRepeats = 5

// Repeats is the longest run of equal frames.
func Repeats(ts []agent.Trace) agent.Signal {
	longest, run := 1, 1
	for i := 1; i < len(ts); i++ {
		if ts[i].Digest == ts[i-1].Digest {
			run++
		} else {
			run = 1
		}
		longest = max(longest, run)
	}
	return graded(RepeatedFrames, float64(longest), maxRepeats, "equal frames in a row", len(ts) > 1, longest > maxRepeats, agent.GradeAttack)
}

// minLoop is how many frames that were seen before, others between, make a loop.
const minLoop = 2

// Loop counts frames that equal one further back with others between: a clip that
// starts again. A loop longer than the presentation is not seen.
func Loop(ts []agent.Trace) agent.Signal {
	again := 0
	last := map[uint64]int{}
	for i, t := range ts {
		if at, ok := last[t.Digest]; ok && i-at > 1 {
			again++
		}
		last[t.Digest] = i
	}
	return graded(LoopedFrames, float64(again), minLoop, "frames seen before", len(ts) > 2, again >= minLoop, agent.GradeAttack)
}

// Limits of Still. Video compression leaves still areas unchanged for some frames, but
// not for all; five pairs are a quarter of a second at 20 frames a second.
const (
	maxStill  = 0.995
	stillPair = 5
)

// Still is the least share, over all pairs of frames, of the pixels outside the face
// that did not change at all while the face did: a face laid over a dead picture.
func Still(ts []agent.Trace) agent.Signal {
	least, pairs := 1.0, 0
	for i := 1; i < len(ts); i++ {
		rest, face := unchanged(&ts[i-1], &ts[i])
		if face == 1 || len(ts[i].Dots) != len(ts[i-1].Dots) {
			continue // the whole frame repeats: Repeats counts that
		}
		least, pairs = min(least, rest), pairs+1
	}
	return graded(StillRest, least, maxStill, "share of pixels", pairs >= stillPair, least > maxStill, agent.GradeSuspicious)
}

// unchanged is the share of equal dots outside and inside the face.
func unchanged(a, b *agent.Trace) (rest, face float64) {
	const w, h = 48, 27
	f := bounds(b.Mesh)
	f.x0, f.x1 = f.x0-f.w()/4, f.x1+f.w()/4 // ears, hair and what they uncover
	f.y0, f.y1 = f.y0-f.h()/4, f.y1+f.h()/4
	var same, all [2]float64
	for i := range min(len(a.Dots), len(b.Dots)) {
		x, y := float64(i%w)/w*float64(b.Width), float64(i/w)/h*float64(b.Height)
		in := 0
		if x > f.x0 && x < f.x1 && y > f.y0 && y < f.y1 {
			in = 1
		}
		all[in]++
		if a.Dots[i] == b.Dots[i] {
			same[in]++
		}
	}
	return same[0] / max(1, all[0]), same[1] / max(1, all[1])
}

// minSimilar is the correlation of two frames, one after the other, below which the
// picture has been exchanged. Light that is switched changes brightness, not shape.
const minSimilar = 0.3

// Cut is the least correlation of a frame's surroundings of the face with the frame
// before: a spliced clip jumps.
func Cut(ts []agent.Trace) agent.Signal {
	least := 1.0
	for i := 1; i < len(ts); i++ {
		least = min(least, correlation(ts[i-1].Grid, ts[i].Grid))
	}
	return graded(SceneCut, least, minSimilar, "correlation", len(ts) > 1, least < minSimilar, agent.GradeSuspicious)
}

// correlation of two grids; 1 where one has no contrast.
func correlation(a, b []byte) float64 {
	n := float64(min(len(a), len(b)))
	var sa, sb, aa, bb, ab float64
	for i := range int(n) {
		x, y := float64(a[i]), float64(b[i])
		sa, sb, aa, bb, ab = sa+x, sb+y, aa+x*x, bb+y*y, ab+x*y
	}
	va, vb := aa-sa*sa/n, bb-sb*sb/n
	if n == 0 || va < n || vb < n { // a standard deviation below one grey level
		return 1
	}
	return (ab - sa*sb/n) / math.Sqrt(va*vb)
}
