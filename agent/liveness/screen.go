package liveness

import (
	"math"

	"postern/agent"
)

// The names of the signals on screens and prints.
const (
	RegularPattern agent.SignalName = "regular_pattern"
	LightFlicker   agent.SignalName = "face_flicker"
)

// maxPattern in decibels: a random spectrum's strongest line of a ring of this size
// lies about 9 dB above the ring's median, a face's below 17.
const maxPattern = 22

// Pattern is the regular pattern on the face, the median over the frames.
func Pattern(ts []agent.Trace) agent.Signal {
	var v []float64
	for _, t := range ts {
		if t.Comb > 0 {
			v = append(v, t.Comb)
		}
	}
	m := middle(v)
	return graded(RegularPattern, m, maxPattern, "dB above its surroundings", len(v) >= 3, m > maxPattern, agent.GradeSuspicious)
}

// maxFlicker is in per cent. A screen's backlight pulses by more where the shutter
// does not cover whole periods; the box of a living face jitters by less.
const maxFlicker = 4

// Flicker is how much the brightness of the face, against that of the rest, jumps from
// frame to frame. Lamps flicker on both; slow changes, as of a cloud, cancel.
func Flicker(ts []agent.Trace) agent.Signal {
	var sum float64
	n := 0
	for i := 2; i < len(ts); i++ {
		a, b, c := ratio(&ts[i-2]), ratio(&ts[i-1]), ratio(&ts[i])
		d := a - 2*b + c
		sum += d * d
		n++
	}
	rms := 0.0
	if n > 0 {
		rms = 100 * math.Sqrt(sum/float64(n)/6) // 6: the variance of a second difference
	}
	return graded(LightFlicker, rms, maxFlicker, "per cent", n >= 4, rms > maxFlicker, agent.GradeSuspicious)
}

func ratio(t *agent.Trace) float64 { return math.Log((t.Face + 1) / (t.Rest + 1)) }
