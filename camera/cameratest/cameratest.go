// Package cameratest holds the rules that every source of frames keeps, as
// tests: a new kind of source, or a stand-in for one, passes Run.
package cameratest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/camera"
)

// Source is what consumers use of a *camera.Stream.
type Source interface {
	Next(ctx context.Context, after uint64) (*agent.Frame, error)
	Stats() camera.Stats
	Close() error
}

var _ Source = (*camera.Stream)(nil)

// patience is how long a source may take for anything; it is met only by a bug.
const patience = 20 * time.Second

// Run checks a source against the rules. open returns a new one that delivers
// frames without end in real time, at 10 a second or more.
func Run(t *testing.T, open func(testing.TB) Source) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Source)
	}{
		{"FramesArrive", framesArrive},
		{"SeqIncreases", seqIncreases},
		{"FramesAreOwned", framesAreOwned},
		{"NewestWins", newestWins},
		{"ConcurrentReaders", concurrentReaders},
		{"CancelReturns", cancelReturns},
		{"CloseWakesNext", closeWakesNext},
		{"CloseTwice", closeTwice},
		{"NextAfterClose", nextAfterClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			s := open(t)
			c.run(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			goleak.VerifyNone(t, before)
		})
	}
}

// Next is s.Next with a deadline that fails the test.
func Next(tb testing.TB, s Source, after uint64) *agent.Frame {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f, err := s.Next(ctx, after)
	if err != nil {
		tb.Fatalf("Next(%d): %v (%+v)", after, err, s.Stats())
	}
	return f
}

// Until polls ok until it is true, and fails the test when it stays false.
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func framesArrive(t *testing.T, s Source) {
	start := time.Now().Add(-time.Second)
	f := Next(t, s, 0)
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	if f.Seq == 0 || f.Source == "" || f.CapturedAt.Before(start) || f.CapturedAt.After(time.Now()) {
		t.Errorf("frame has seq %d, source %q, time %v", f.Seq, f.Source, f.CapturedAt)
	}
	st := s.Stats()
	if st.State != camera.StateLive || st.Width != f.Width || st.Height != f.Height || st.Captured < f.Seq {
		t.Errorf("stats %+v after a frame of %dx%d", st, f.Width, f.Height)
	}
}

func seqIncreases(t *testing.T, s Source) {
	var last uint64
	for range 6 {
		f := Next(t, s, last)
		if f.Seq <= last {
			t.Fatalf("frame %d after frame %d", f.Seq, last)
		}
		last = f.Seq
	}
	if st := s.Stats(); st.FPS <= 0 {
		t.Errorf("no rate is measured: %+v", st)
	}
}

// framesAreOwned holds a frame while others arrive: its bytes must stay.
func framesAreOwned(t *testing.T, s Source) {
	f := Next(t, s, 0)
	want, last := bytes.Clone(f.Pix), f.Seq
	for range 4 {
		last = Next(t, s, last).Seq
	}
	if !bytes.Equal(f.Pix, want) {
		t.Error("a frame changed after it was handed out")
	}
}

// newestWins is a reader that falls behind: it must get the newest frame, and
// what it missed must be counted.
func newestWins(t *testing.T, s Source) {
	first := Next(t, s, 0).Seq
	Until(t, "four frames more", func() bool { return s.Stats().Captured >= first+4 })
	before := s.Stats()
	if f := Next(t, s, first); f.Seq < before.Captured {
		t.Errorf("got frame %d when %d was there", f.Seq, before.Captured)
	}
	if before.Dropped < 3 || before.Dropped >= before.Captured {
		t.Errorf("counted %d dropped of %d", before.Dropped, before.Captured)
	}
}

func concurrentReaders(t *testing.T, s Source) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var last uint64
			for range 5 {
				f, err := s.Next(ctx, last)
				if err != nil || f.Seq <= last || f.Check() != nil {
					t.Errorf("Next(%d): %v, %v", last, f, err)
					return
				}
				last = f.Seq
				s.Stats()
			}
		})
	}
	wg.Wait()
}

func cancelReturns(t *testing.T, s Source) {
	const never = 1 << 60
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next past its deadline: %v", err)
	}
	Next(t, s, 0) // the source itself goes on
}

func closeWakesNext(t *testing.T, s Source) {
	got := make(chan error, 1)
	go func() {
		_, err := s.Next(context.Background(), 1<<60)
		got <- err
	}()
	time.Sleep(10 * time.Millisecond) // most likely it waits by now; either way it must return
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if !errors.Is(err, camera.ErrClosed) {
			t.Errorf("Next when closed: %v", err)
		}
	case <-time.After(patience):
		t.Error("Next still waits after Close")
	}
}

func closeTwice(t *testing.T, s Source) {
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.State != camera.StateClosed {
		t.Errorf("state %q after Close", st.State)
	}
}

func nextAfterClose(t *testing.T, s Source) {
	seq := Next(t, s, 0).Seq
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, seq} {
		if f, err := s.Next(context.Background(), after); f != nil || !errors.Is(err, camera.ErrClosed) {
			t.Errorf("Next(%d) after Close: %v, %v", after, f, err)
		}
	}
}
