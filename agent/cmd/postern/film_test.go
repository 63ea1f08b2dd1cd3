package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"postern/agent"
	"postern/camera/sample"
	"postern/inference/litert"
)

// film renders the sample feed at a low rate and returns its path.
func film(t *testing.T, fps float64) string {
	t.Helper()
	cast, err := sample.LoadCast(filepath.Dir(portrait(t, sample.EnrolFrom)))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "feed.avi")
	if err := sample.Render(t.Context(), out, cast, sample.Options{FPS: fps}); err != nil {
		t.Fatal(err)
	}
	return out
}

// enrolled makes a data folder with the film's enrolled person in it.
func enrolled(t *testing.T) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "store")
	if a := postern(t, "enroll", "b44", face(t, sample.EnrolFrom), "--data", data); a.code != 0 {
		t.Fatal(a.err)
	}
	return data
}

// TestFilm plays the sample feed, a video file through GoCV, and expects one
// decision a person: the enrolled one recognised, the stranger refused, and the
// print of the enrolled one refused for its liveness.
func TestFilm(t *testing.T) {
	if testing.Short() {
		t.Skip("renders a film: run without -short (make test does)")
	}
	data := enrolled(t)
	// In lock step no frame is missed, however slow the machine is; the times of
	// the loop shrink with the film's.
	s := start(t, "--data", data, "--set", "camera.source="+film(t, 4), "--set", "camera.real_time=false",
		"--set", "identify.enabled=true", "--set", "live.gone=100ms", "--set", "live.max_frames=12", "--set", "live.max_rate=60")
	want := []agent.Status{agent.Approved, agent.Declined, agent.Approved, agent.Declined}
	var got []agent.Status
	waitFor(t, func() bool {
		var rs []agent.Result
		_, body := get(t, s.url+"results")
		if err := json.Unmarshal([]byte(body), &rs); err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, r := range slices.Backward(rs) {
			got = append(got, r.Decision.Status)
		}
		return len(got) >= len(want)
	}, s.out.String)
	if !slices.Equal(got, want) {
		t.Fatalf("decisions %v, want %v\n%s", got, want, s.out)
	}
}

// sampled is what the soak watches.
type sampled struct{ rss, own, goroutines, native int }

// TestSoak runs the agent on a looped source and sees that neither memory nor
// goroutines nor native objects grow. TEST_SOAK sets how long: a few seconds
// here, an hour with "make soak", on the film TEST_SOAK_FILM; TEST_SOAK_FAST plays
// it as fast as it can be analysed.
func TestSoak(t *testing.T) {
	long := 6 * time.Second
	source := cameraOf(t, "obama.jpg")
	if v := os.Getenv("TEST_SOAK"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("TEST_SOAK: %v", err)
		}
		long = d
		source = []string{"--set", "camera.source=" + os.Getenv("TEST_SOAK_FILM"), "--set", "camera.loop=true"}
		if os.Getenv("TEST_SOAK_FAST") != "" { // as many frames a second as the machine can do
			source = append(source, "--set", "camera.real_time=false", "--set", "live.max_rate=240")
		}
	}
	s := start(t, append(source, "--data", enrolled(t), "--set", "identify.enabled=true")...)
	s.firstResult(t)
	var samples []sampled
	tick := time.NewTicker(long / 60)
	defer tick.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); <-tick.C {
		rss, err := residentMB(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, sampled{rss.Total, rss.Anonymous, runtime.NumGoroutine(), int(litert.Live())})
		t.Logf("%+v", samples[len(samples)-1])
	}
	u, err := firstUpdate(t.Context(), s.url+"events")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames captured, %.0f a second analysed", u.Seq, u.RateFPS)
	if code := s.stop(); code != 0 {
		t.Fatalf("stopped with %d:\n%s", code, s.out)
	}
	settled, last := highest(samples[len(samples)/6:len(samples)/2]), highest(samples[len(samples)/2:])
	if last.own > settled.own+settled.own/10+4 || last.goroutines > settled.goroutines+2 || last.native > settled.native {
		t.Fatalf("from %+v in the first half to %+v in the second: something grows", settled, last)
	}
}

// highest is the maximum of each figure.
func highest(ss []sampled) sampled {
	var m sampled
	for _, s := range ss {
		m = sampled{max(m.rss, s.rss), max(m.own, s.own), max(m.goroutines, s.goroutines), max(m.native, s.native)}
	}
	return m
}
