// Package throttle limits how often a face may be tried, after NIST SP 800-63B-4,
// section 3.2.3: no more than 5 consecutive failed attempts (10 where presentation
// attacks are detected), then at least 30 seconds before each further one, and an
// end at 50 (100), after which another factor has to be used.
//
// The rules are pure: Limits.Judge takes a State, how many attempts are under way
// and the present Mark, and answers what a further attempt may do. Count says what
// a result does to the State. Gate applies both to attempts that run at once. The
// store keeps the State, in the transaction of the result that changed it.
//
// # Clocks
//
// Waits are measured by the time since boot, which nobody can set. Across a reboot
// the only thing certain is how long the machine has run since, so that is what
// counts: a wait starts again with the boot, and ends.
package throttle

import (
	"fmt"
	"time"

	"postern/agent"
)

// Limits are the rules for one subject, or for the whole device. The zero value
// of a field means Strict's.
type Limits struct {
	Failures int           `yaml:"failures" json:"failures"` // consecutive failures after which every attempt has to wait
	Delay    time.Duration `yaml:"delay" json:"delay_ns"`    // before each of those, since the failure before it
	Stop     int           `yaml:"stop" json:"stop"`         // consecutive failures after which there are no further attempts
}

// What the standard allows at most: without detection of presentation attacks, and
// with it.
var (
	Strict       = Limits{Failures: 5, Delay: 30 * time.Second, Stop: 50}
	WithLiveness = Limits{Failures: 10, Delay: 30 * time.Second, Stop: 100}
)

// Or returns l with base's value for each field that is zero or negative.
func (l Limits) Or(base Limits) Limits {
	if l.Failures <= 0 {
		l.Failures = base.Failures
	}
	if l.Delay <= 0 {
		l.Delay = base.Delay
	}
	if l.Stop <= 0 {
		l.Stop = base.Stop
	}
	return l
}

// LooserThan tells whether l allows anything that other does not.
func (l Limits) LooserThan(other Limits) bool {
	return l.Failures > other.Failures || l.Delay < other.Delay || l.Stop > other.Stop
}

// State is what has to be remembered about a subject or the device. The zero value
// has no failures.
type State struct {
	Failures int  `json:"failures"` // in a row
	Last     Mark `json:"last"`     // of the newest failure
}

// Mark is a moment on the clock that runs from boot, also while the machine sleeps.
// At is for people: no rule looks at it.
type Mark struct {
	Boot string        `json:"boot"` // differs from boot to boot; empty: not known
	Up   time.Duration `json:"up"`   // since boot
	At   time.Time     `json:"at"`
}

// Since returns how much time has passed for certain since the mark m.
func (now Mark) Since(m Mark) time.Duration {
	if now.Boot != "" && now.Boot == m.Boot && now.Up >= m.Up {
		return now.Up - m.Up
	}
	// Another boot, or a clock that contradicts itself: nothing is known about the
	// time before this boot.
	return max(0, now.Up)
}

// Effect is what a result does to the counting.
type Effect int

// The effects.
const (
	None    Effect = iota // nothing was compared: no face, a poor picture, a part that failed
	Success               // the counting starts anew
	Failure               // one more in a row
)

// EffectOf classifies a result. Every comparison with enrolled people that is not an
// approval is a failed attempt, In Review as well: the person was not let in. A
// presentation attack is one even if nothing was compared. A picture in which there
// was nothing to compare is no attempt (ISO/IEC 19795-1 calls it a failure to
// acquire): it tells an impostor nothing.
func EffectOf(r agent.Result) Effect {
	switch {
	case r.Kind != agent.KindVerify && r.Kind != agent.KindIdentify:
		return None
	case r.Decision.Status == agent.Approved:
		return Success
	case r.Decision.Scored || attacked(r.Decision):
		return Failure
	}
	return None
}

func attacked(d agent.Decision) bool {
	for _, w := range d.Warnings {
		if w.Risk == agent.RiskFaceAttack || w.Risk == agent.RiskLowLiveness {
			return true
		}
	}
	return false
}

// After returns the state after an attempt.
func (s State) After(e Effect, now Mark) State {
	switch e {
	case Success:
		return State{}
	case Failure:
		return State{Failures: s.Failures + 1, Last: now}
	}
	return s
}

// Verdict is what a further attempt may do now.
type Verdict struct {
	Answer Answer
	Wait   time.Duration // Later: for so long
}

// Answer is the kind of a Verdict.
type Answer int

// The answers. The zero value refuses.
const (
	Stopped Answer = iota // never again, until somebody unlocks
	Later                 // after Wait
	Busy                  // when an attempt that is under way has ended: it may be the last one
	Allowed               // now
)

// Judge answers for one more attempt while others are under way. Each of those may
// fail, so it counts as if it had.
func (l Limits) Judge(s State, underWay int, now Mark) Verdict {
	l = l.Or(Strict)
	switch {
	case s.Failures >= l.Stop:
		return Verdict{Answer: Stopped}
	case s.Failures+underWay < min(l.Failures, l.Stop):
		return Verdict{Answer: Allowed}
	case underWay > 0:
		return Verdict{Answer: Busy}
	}
	if wait := l.Delay - now.Since(s.Last); wait > 0 {
		return Verdict{Answer: Later, Wait: wait}
	}
	return Verdict{Answer: Allowed}
}

// refusal is the error for a verdict that is neither Allowed nor Busy.
func refusal(subject string, s State, v Verdict) error {
	who := "this device has"
	if subject != "" {
		who = fmt.Sprintf("subject %q has", subject)
	}
	e := &agent.Error{Code: agent.CodeThrottled, RetryAfter: v.Wait}
	if v.Answer == Stopped {
		e.Message = fmt.Sprintf("%s failed %d times in a row, no further attempt is made", who, s.Failures)
		e.Fix = `use another factor; "postern throttle unlock" starts the counting anew`
		return e
	}
	e.RetryAfter = (v.Wait + time.Second - 1).Truncate(time.Second)
	e.Message = fmt.Sprintf("%s failed %d times in a row, the next attempt is possible in %s", who, s.Failures, e.RetryAfter)
	e.Fix = "wait, or use another factor"
	return e
}
