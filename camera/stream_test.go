package camera_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent"
	"postern/camera"
	"postern/camera/cameratest"
	"postern/camera/cameratest/fake"
)

const ms = time.Millisecond

// openFake plays a script; time is virtual in a synctest bubble.
func openFake(t *testing.T, o camera.Options, c *fake.Camera) *camera.Stream {
	t.Helper()
	if o.Target == "" {
		o.Target = "fake"
	}
	s, err := camera.OpenReader(t.Context(), o, c.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := c.Live(); n != 0 {
			t.Errorf("%d readers are still open", n)
		}
	})
	return s
}

func TestFakePassesConformance(t *testing.T) {
	cameratest.Run(t, func(tb testing.TB) cameratest.Source {
		c := fake.New(fake.Frames(50, 64, 48, 10*ms)...)
		c.Repeat = true
		s, err := camera.OpenReader(tb.Context(), camera.Options{Target: "fake", Kind: camera.KindDevice}, c.Open)
		if err != nil {
			tb.Fatal(err)
		}
		return s
	})
}

// TestLockStep is a slow reader of a recorded source: nothing is dropped.
func TestLockStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openFake(t, camera.Options{Kind: camera.KindFile}, fake.New(fake.Frames(20, 16, 16, ms)...))
		var last uint64
		for i := range 20 {
			f := cameratest.Next(t, s, last)
			if f.Seq != last+1 || f.Pix[0] != byte(i+1) {
				t.Fatalf("frame %d shows %d after frame %d", f.Seq, f.Pix[0], last)
			}
			last = f.Seq
			time.Sleep(100 * ms)
		}
		if _, err := s.Next(t.Context(), last); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		if f, err := s.Next(t.Context(), last-1); err != nil || f.Seq != last {
			t.Errorf("the last frame is gone at the end: %v", err)
		}
		if st := s.Stats(); st.State != camera.StateEnded || st.Dropped != 0 || st.Captured != 20 || st.LastError != "" {
			t.Errorf("stats %+v", st)
		}
	})
}

// TestPace checks that the pace holds although a picture takes time to read.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := openFake(t, camera.Options{Kind: camera.KindFile, RealTime: true, FPS: 20}, fake.New(fake.Frames(101, 16, 16, 30*ms)...))
		for s.Stats().State != camera.StateEnded {
			time.Sleep(ms)
		}
		if d := time.Since(start); d < 5*time.Second || d > 5100*ms {
			t.Errorf("100 intervals at 20 frames/s took %v", d)
		}
		if st := s.Stats(); st.Dropped != 100 || st.FPS < 19 || st.FPS > 21 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := append(fake.Frames(3, 16, 16, 50*ms), fake.Step{Absent: 4})
		c := fake.New(append(script, fake.Frames(1000, 16, 16, 50*ms)...)...)
		s := openFake(t, camera.Options{Kind: camera.KindDevice, RetryMin: time.Second, RetryMax: 4 * time.Second}, c)
		seq := cameratest.Next(t, s, 2).Seq
		time.Sleep(500 * ms)
		if st := s.Stats(); st.State != camera.StateLost || !strings.Contains(st.LastError, "unplugged") {
			t.Fatalf("unplugged, but %+v", st)
		}
		lost := time.Now()
		f := cameratest.Next(t, s, seq)
		// Pauses of 1, 2, 4, 4, 4 s, each shortened by at most half.
		if d := time.Since(lost); d < 7*time.Second || d > 15*time.Second {
			t.Errorf("came back after %v", d)
		}
		if st := s.Stats(); f.Seq != 4 || st.State != camera.StateLive || st.Reconnects != 1 || c.Opens() != 6 {
			t.Errorf("frame %d, %d openings, stats %+v", f.Seq, c.Opens(), st)
		}
	})
}

// TestBackoffStartsOver checks that a frame resets the pause: a camera that
// blinks once an hour is back at once each time.
func TestBackoffStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var script []fake.Step
		for range 20 {
			script = append(append(script, fake.Frames(1, 16, 16, ms)...), fake.Step{})
		}
		c := fake.New(script...)
		c.Repeat = true
		s := openFake(t, camera.Options{Kind: camera.KindURL, RetryMin: time.Second}, c)
		start := time.Now()
		cameratest.Next(t, s, 19)
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("19 losses cost %v", d)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.New(fake.Frames(10, 16, 16, 50*ms)...)
		c.Unplug(3)
		s := openFake(t, camera.Options{Kind: camera.KindFile, Wait: true}, c)
		if f := cameratest.Next(t, s, 0); f.Seq != 1 {
			t.Errorf("first frame is %d", f.Seq)
		}
		if st := s.Stats(); st.Reconnects != 0 || c.Opens() != 4 {
			t.Errorf("%d openings, stats %+v", c.Opens(), st)
		}
	})
}

func TestOpenFails(t *testing.T) {
	c := fake.New()
	c.Unplug(1)
	_, err := camera.OpenReader(t.Context(), camera.Options{Target: "0"}, c.Open)
	if agent.ErrorCode(err) != agent.CodeUnavailable || !errors.Is(err, fake.ErrUnplugged) {
		t.Errorf("got %v", err)
	}
}

// TestOpenHangs is a driver that does not return from opening.
func TestOpenHangs(t *testing.T) {
	release := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
	defer cancel()
	c := fake.New()
	_, err := camera.OpenReader(ctx, camera.Options{Target: "0"}, func() (camera.Reader, error) {
		<-release
		return c.Open()
	})
	if agent.ErrorCode(err) != agent.CodeUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(release)
	cameratest.Until(t, "the late reader is closed", func() bool { return c.Opens() == 1 && c.Live() == 0 })
}

// TestHungDriver is a read that never returns: the state says so, Close gives
// up, and the source is freed when the driver comes back.
func TestHungDriver(t *testing.T) {
	c := fake.New(fake.Frames(5, 16, 16, 0)...)
	c.Hold = make(chan struct{}, 1)
	s, err := camera.OpenReader(t.Context(), camera.Options{Target: "0", Stall: 30 * ms, CloseWait: 20 * ms}, c.Open)
	if err != nil {
		t.Fatal(err)
	}
	c.Hold <- struct{}{}
	cameratest.Next(t, s, 0)
	cameratest.Until(t, "the silence is noticed", func() bool { return s.Stats().State == camera.StateLost })
	if st := s.Stats(); !strings.Contains(st.LastError, "has sent nothing") || st.Captured != 1 {
		t.Errorf("stats %+v", st)
	}
	if err := s.Close(); agent.ErrorCode(err) != agent.CodeUnavailable || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("Close of a hung driver: %v", err)
	}
	close(c.Hold)
	cameratest.Until(t, "the reader is closed", func() bool { return c.Live() == 0 })
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestRecordedSourceBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		s := openFake(t, camera.Options{Kind: camera.KindFile}, fake.New(append(fake.Frames(2, 16, 16, ms), fake.Step{Err: boom})...))
		cameratest.Next(t, s, 0)
		cameratest.Next(t, s, 1)
		if _, err := s.Next(t.Context(), 2); !errors.Is(err, boom) {
			t.Errorf("got %v", err)
		}
		if st := s.Stats(); st.State != camera.StateEnded || st.LastError != "boom" {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestEmptyRecording(t *testing.T) {
	s := openFake(t, camera.Options{Kind: camera.KindFile, ID: "film"}, fake.New())
	if _, err := s.Next(t.Context(), 0); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("got %v", err)
	}
}

// TestEmptyLoopDoesNotSpin: a recording without pictures must not be opened
// again and again without a pause.
func TestEmptyLoopDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.New()
		openFake(t, camera.Options{Kind: camera.KindFile, Loop: true, RetryMin: time.Second, RetryMax: time.Second}, c)
		time.Sleep(10 * time.Second)
		if n := c.Opens(); n < 5 || n > 25 {
			t.Errorf("opened %d times in 10 s", n)
		}
	})
}

func TestWrongPictureIsALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := fake.Step{Show: &agent.Frame{Pix: make([]byte, 5), Width: 2, Height: 2}}
		c := fake.New(append([]fake.Step{bad}, fake.Frames(100, 16, 16, 50*ms)...)...)
		s := openFake(t, camera.Options{Kind: camera.KindDevice}, c)
		if f := cameratest.Next(t, s, 0); f.Check() != nil {
			t.Error("a wrong picture came through")
		}
		if st := s.Stats(); st.Reconnects != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestStatsRateFallsToZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.New(append(fake.Frames(30, 16, 16, 100*ms), fake.Step{After: time.Hour})...)
		s := openFake(t, camera.Options{Kind: camera.KindURL, CloseWait: 2 * time.Hour}, c)
		time.Sleep(2500 * ms)
		if fps := s.Stats().FPS; fps < 9.5 || fps > 10.5 {
			t.Errorf("rate %g at 10 frames/s", fps)
		}
		time.Sleep(10 * time.Second)
		if st := s.Stats(); st.FPS != 0 || st.State != camera.StateLost {
			t.Errorf("silent, but %+v", st)
		}
	})
}
