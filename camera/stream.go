package camera

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"postern/agent"
)

// ErrClosed is what Next returns after Close.
var ErrClosed error = &agent.Error{Code: agent.CodeUnavailable, Message: "the camera is closed"}

// Stream is an opened camera. Its methods may be called from any goroutine.
type Stream struct {
	o      Options
	open   opener
	ctx    context.Context // cancelled by Close
	cancel context.CancelFunc
	opened chan error    // result of the first attempt to open
	done   chan struct{} // closed when the capture goroutine has ended
	took   chan struct{} // a token when somebody has taken the newest frame (lock step)
	pace   pacer         // used by the capture goroutine only; kept over loops

	mu     sync.Mutex    // guards everything below
	wake   chan struct{} // closed and replaced when something below changes
	frame  *agent.Frame  // the newest; nil before the first
	taken  bool          // some Next has returned frame
	stats  Stats
	meter  meter
	since  time.Time // when the source was last opened, for the stall limit
	wasUp  bool      // the source was open before, so the next opening is a return
	ending error     // what Next returns once there is no newer frame; nil while running
}

// start runs the capture goroutine and, unless o.Wait, waits until the source
// is open.
func start(ctx context.Context, o Options, open opener) (*Stream, error) {
	s := &Stream{
		o: o, open: open,
		opened: make(chan error, 1), done: make(chan struct{}), took: make(chan struct{}, 1),
		wake: make(chan struct{}), stats: Stats{State: StateOpening},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.capture()
	if o.Wait {
		return s, nil
	}
	select {
	case err := <-s.opened:
		if err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		s.cancel() // the goroutine frees the source when the driver returns
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("camera %q did not open in time", o.ID), Err: ctx.Err()}
	}
}

// Next waits for a frame with Seq greater than after and returns the newest
// there is. It returns io.EOF at the end of a source that does not loop, the
// reason when such a source breaks, ErrClosed after Close, and ctx's error.
// While a live source is lost it waits; Stats tells why.
func (s *Stream) Next(ctx context.Context, after uint64) (*agent.Frame, error) {
	for {
		f, wake, err := s.newest(after)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// newest returns a frame after the given one, or a channel that is closed when
// it is worth asking again, or a final error.
func (s *Stream) newest(after uint64) (*agent.Frame, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats.State == StateClosed {
		return nil, nil, ErrClosed
	}
	if s.frame != nil && s.frame.Seq > after {
		if !s.taken {
			s.taken = true
			s.took <- struct{}{} // never blocks: deliver empties it before each frame
		}
		return s.frame, nil, nil
	}
	return nil, s.wake, s.ending
}

// Stats returns the counters and the state as of now.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, now := s.stats, time.Now()
	st.FPS = s.meter.at(now)
	heard := s.since
	if st.LastFrame.After(heard) {
		heard = st.LastFrame
	}
	// The goroutine may hang in the driver, so silence is noticed here.
	if silent := now.Sub(heard); s.o.live() && st.State == StateLive && silent > s.o.Stall {
		st.State = StateLost
		st.LastError = fmt.Sprintf("camera %q has sent nothing for %.0f s", s.o.ID, silent.Seconds())
	}
	return st
}

// Close stops the capture and frees the source. It may be called twice and from
// several goroutines. It returns an error only when a driver hangs: then the
// source is freed later, when the driver returns.
func (s *Stream) Close() error {
	s.cancel()
	s.set(func() { s.stats.State = StateClosed })
	hung := time.NewTimer(s.o.CloseWait)
	defer hung.Stop()
	select {
	case <-s.done:
		return nil
	case <-hung.C:
		return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf(
			"camera %q did not stop within %v; its driver hangs", s.o.ID, s.o.CloseWait)}
	}
}

// capture is the goroutine's life: sessions with the source, with pauses when
// it is lost, until Close or the end of a source that does not loop.
func (s *Stream) capture() {
	defer close(s.done)
	pause := s.o.RetryMin
	for {
		n, err := s.session()
		if s.ctx.Err() != nil {
			return
		}
		ended := errors.Is(err, io.EOF)
		switch {
		case ended && n > 0 && s.o.Loop && !s.o.live():
			continue
		case !s.o.live() && !s.o.Loop && !(s.o.Wait && !s.wasUp):
			s.end(err, n)
			return
		case n > 0:
			pause = s.o.RetryMin
		}
		s.lost(err)
		if !s.sleep(jitter(pause)) {
			return
		}
		pause = min(pause*2, s.o.RetryMax)
	}
}

// session opens the source and delivers its frames until it ends or breaks or
// the stream is closed. It returns how many frames it delivered.
func (s *Stream) session() (n int, _ error) {
	r, err := s.open()
	if err != nil {
		s.firstResult(err)
		return 0, err
	}
	defer r.Close()
	s.up()
	s.firstResult(nil)
	s.pace.period = s.period(r)
	for s.ctx.Err() == nil {
		pic, err := r.Read()
		if err != nil {
			return n, err
		}
		f, err := toFrame(pic, s.o)
		if err != nil {
			return n, err
		}
		if !s.sleep(s.pace.wait(time.Now())) {
			break
		}
		s.deliver(f)
		n++
		if !s.o.live() && !s.o.RealTime && !s.waitTaken() {
			break
		}
	}
	return n, s.ctx.Err()
}

// firstResult reports the first attempt to Open; later ones find the channel full.
func (s *Stream) firstResult(err error) {
	select {
	case s.opened <- err:
	default:
	}
}

// period is the time between two frames that we have to keep ourselves; 0 when
// the source or the reader keeps it.
func (s *Stream) period(r Reader) time.Duration {
	if s.o.live() || !s.o.RealTime {
		return 0
	}
	rate := s.o.FPS
	if rate == 0 {
		rate = r.Rate()
	}
	if !(rate > 0 && rate <= maxFPS) {
		rate = 25 // the container does not say; the most common answer
	}
	return time.Duration(float64(time.Second) / rate)
}

// deliver makes f the newest frame.
func (s *Stream) deliver(f *agent.Frame) {
	now := time.Now()
	s.set(func() {
		if s.frame != nil && !s.taken {
			s.stats.Dropped++
		}
		select {
		case <-s.took:
		default:
		}
		s.stats.Captured++
		f.Source, f.Seq, f.CapturedAt = s.o.ID, s.stats.Captured, now
		s.frame, s.taken = f, false
		s.stats.Width, s.stats.Height, s.stats.LastFrame = f.Width, f.Height, now
		s.meter.tick(now)
	})
}

// waitTaken waits until somebody has taken the newest frame.
func (s *Stream) waitTaken() bool {
	select {
	case <-s.took:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// up notes that the source is open.
func (s *Stream) up() {
	s.set(func() {
		if s.stats.State == StateLost && s.wasUp {
			s.stats.Reconnects++
			s.o.Log.Info("camera is back", "reconnects", s.stats.Reconnects)
		}
		s.stats.State, s.since, s.wasUp = StateLive, time.Now(), true
	})
}

// lost notes why the source broke. Only the first loss in a row is logged: a
// camera that stays away would fill the log.
func (s *Stream) lost(err error) {
	if errors.Is(err, io.EOF) {
		err = &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("camera %q sends no more pictures", s.o.ID)}
	}
	s.set(func() {
		// A first attempt that fails is Open's error to tell, not the log's.
		if s.stats.State != StateLost && (s.wasUp || s.o.Wait) {
			s.o.Log.Warn("camera is lost, trying again", "error", err)
		}
		s.stats.State, s.stats.LastError = StateLost, err.Error()
	})
}

// end notes that a recorded source is through, or broke after n frames.
func (s *Stream) end(err error, n int) {
	if errors.Is(err, io.EOF) && n == 0 {
		err = invalid(fmt.Sprintf("%q holds no pictures", s.o.ID), "")
	}
	s.set(func() {
		s.stats.State, s.ending = StateEnded, err
		if !errors.Is(err, io.EOF) {
			s.stats.LastError = err.Error()
		}
	})
}

// set changes the guarded fields and wakes every Next. After Close nothing
// changes any more.
func (s *Stream) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats.State == StateClosed {
		return
	}
	change()
	close(s.wake)
	s.wake = make(chan struct{})
}

// sleep waits for d and reports whether the stream is still open.
func (s *Stream) sleep(d time.Duration) bool {
	if d <= 0 {
		return s.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// jitter spreads d over d/2..d, so that many agents that lost the same server
// do not come back in step.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// pacer spaces frames evenly. It keeps a schedule instead of sleeping a fixed
// time, so that the work between frames does not slow the pace.
type pacer struct {
	period time.Duration
	due    time.Time
}

// wait returns how long to wait before the next frame is due.
func (p *pacer) wait(now time.Time) time.Duration {
	if p.period == 0 {
		return 0
	}
	p.due = p.due.Add(p.period)
	if now.Sub(p.due) > p.period*2 { // first frame, or too slow: start a new schedule, no burst
		p.due = now
	}
	return p.due.Sub(now)
}
