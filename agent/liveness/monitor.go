package liveness

import (
	"math"
	"slices"

	"postern/agent"
)

// window is how many frames a Monitor remembers.
const window = 64

// Penalty is what each suspicious signal takes off a liveness score.
const Penalty = 30

// attackScore is the most that remains of a score when a signal says attack.
const attackScore = 10

// Monitor gathers the traces of one presentation. The zero value is ready.
type Monitor struct {
	traces   []agent.Trace
	parallax parallax
}

// Add takes in one frame and reports whether it tells anything new: a frame that was
// seen before, bit for bit, does not. A source that shows the same frame again
// because it is paused (the same position, or the same time of capture) is ignored.
func (m *Monitor) Add(t *agent.Trace) bool {
	if n := len(m.traces); n > 0 && paused(&m.traces[n-1], t) {
		return false
	}
	fresh := !slices.ContainsFunc(m.traces, func(o agent.Trace) bool { return o.Digest == t.Digest })
	if len(m.traces) == window {
		m.traces = slices.Delete(m.traces, 0, 1)
	}
	m.traces = append(m.traces, *t)
	m.parallax.add(t)
	return fresh
}

// paused reports whether b is the very frame a, shown again.
func paused(a, b *agent.Trace) bool {
	return a.Digest == b.Digest && (a.Seq == b.Seq || a.At.Equal(b.At))
}

// Signals measures everything, in a fixed order; nothing without a frame.
func (m *Monitor) Signals() []agent.Signal {
	ts := m.traces
	if len(ts) == 0 {
		return nil
	}
	return []agent.Signal{
		Repeats(ts), Loop(ts), Still(ts), Cut(ts), Pattern(ts), Flicker(ts), m.parallax.signal(), Sheet(ts), Blinks(ts), Motion(ts),
	}
}

// Combine lowers a network's score by the signals: each suspicious one takes Penalty
// off, an attack leaves next to nothing. Nothing raises a score.
func Combine(score float64, signals []agent.Signal) float64 {
	for _, s := range signals {
		switch s.Grade {
		case agent.GradeSuspicious:
			score -= Penalty
		case agent.GradeAttack:
			score = min(score, attackScore)
		}
	}
	return max(0, score)
}

// graded makes a signal. Unknown is kept; else the value is suspicious or an attack
// at or beyond the limit, as bad says.
func graded(name agent.SignalName, value, limit float64, unit string, known, beyond bool, bad agent.Grade) agent.Signal {
	s := agent.Signal{Name: name, Value: value, Limit: limit, Unit: unit, Grade: agent.GradeUnknown}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		s.Value, known = 0, false
	}
	if known {
		s.Grade = agent.GradeNormal
		if beyond {
			s.Grade = bad
		}
	}
	return s
}

// middle is the median, the upper of two; 0 of nothing.
func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
