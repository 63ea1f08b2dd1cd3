package camera

import "time"

// State says how a stream is doing.
type State string

// The states of a stream.
const (
	StateOpening State = "opening" // not opened yet
	StateLive    State = "live"    // delivering
	StateLost    State = "lost"    // broken or silent; being tried again
	StateEnded   State = "ended"   // a recorded source is at its end, or broke without Loop
	StateClosed  State = "closed"
)

// Stats describe a stream since it was opened.
type Stats struct {
	State      State
	Captured   uint64  // frames read from the source
	Dropped    uint64  // of these, replaced by a newer one before anybody took them
	Reconnects uint64  // times the source came back after a loss
	LastError  string  // why the source was last lost or why it ended; kept after it came back
	FPS        float64 // rate of capture over the last second or so; 0 while nothing arrives
	Width      int     // size of the frames delivered, 0 before the first
	Height     int
	LastFrame  time.Time // when the newest frame was captured; zero before the first
}

// meter measures a rate with an average over about a second.
type meter struct {
	last time.Time
	rate float64
}

func (m *meter) tick(now time.Time) {
	d := now.Sub(m.last).Seconds()
	first := m.last.IsZero()
	m.last = now
	if first || d <= 0 {
		return
	}
	if m.rate == 0 {
		m.rate = 1 / d
		return
	}
	// The weight grows with the interval, so that the memory is a time and not
	// a number of frames.
	a := min(1, d)
	m.rate = 1 / ((1-a)/m.rate + a*d)
}

// at returns the rate as of now; it is zero when frames stopped coming.
func (m *meter) at(now time.Time) float64 {
	if m.rate == 0 || now.Sub(m.last).Seconds() > 2+3/m.rate {
		return 0
	}
	return m.rate
}
