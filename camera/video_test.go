//go:build cgo && !nocamera

package camera_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/camera"
	"postern/camera/cameratest"
)

func film(tb testing.TB, n int, fps float64) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "film.avi")
	cameratest.Video(tb, path, n, 160, 120, fps)
	return path
}

func TestFilePassesConformance(t *testing.T) {
	path := film(t, 20, 40)
	cameratest.Run(t, func(tb testing.TB) cameratest.Source {
		return open(tb, camera.Options{Target: path, Loop: true, RealTime: true})
	})
}

// TestFileEveryFrame reads in lock step: all frames, in order, then the end.
func TestFileEveryFrame(t *testing.T) {
	s := open(t, camera.Options{Target: film(t, 30, 40)})
	var n uint64
	for {
		f, err := s.Next(t.Context(), n)
		if err == io.EOF {
			break
		}
		if err != nil || f.Seq != n+1 || f.Width != 160 || f.Height != 120 || f.Check() != nil {
			t.Fatalf("after frame %d: %+v, %v", n, f, err)
		}
		n = f.Seq
	}
	if st := s.Stats(); n != 30 || st.Dropped != 0 {
		t.Errorf("%d frames, stats %+v", n, st)
	}
}

// TestColourAndTurn finds the red quarter where it must be: a swap of red and
// blue, or of left and right, shows.
func TestColourAndTurn(t *testing.T) {
	path := film(t, 3, 40)
	for name, c := range map[string]struct {
		o    camera.Options
		x, y float64 // where red is, in shares
	}{
		"Plain":  {camera.Options{}, 0.25, 0.25},
		"90":     {camera.Options{Rotate: 90}, 0.75, 0.25},
		"180":    {camera.Options{Rotate: 180}, 0.75, 0.75},
		"270":    {camera.Options{Rotate: 270}, 0.25, 0.75},
		"Mirror": {camera.Options{Mirror: true}, 0.75, 0.25},
		"Crop":   {camera.Options{Crop: camera.Rect{X: 0.25, Y: 0.25, W: 0.5, H: 0.5}}, 0.25, 0.25},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Target = path
			f := cameratest.Next(t, open(t, c.o), 0)
			i := (int(c.y*float64(f.Height))*f.Width + int(c.x*float64(f.Width))) * 3
			if r, g, b := f.Pix[i], f.Pix[i+1], f.Pix[i+2]; r < 180 || g > 80 || b > 80 {
				t.Errorf("colour is %d %d %d, not red", r, g, b)
			}
		})
	}
}

func TestFilePace(t *testing.T) {
	s := open(t, camera.Options{Target: film(t, 21, 20), RealTime: true})
	start := cameratest.Next(t, s, 0).CapturedAt
	end := cameratest.Next(t, s, 20).CapturedAt
	if d := end.Sub(start); d < 900*ms || d > 2*time.Second {
		t.Errorf("20 intervals at 20 frames/s took %v", d)
	}
}

// TestFileVanishesAndReturns also swaps the film for another one in between.
func TestFileVanishesAndReturns(t *testing.T) {
	path := film(t, 4, 40)
	s := open(t, camera.Options{Target: path, Loop: true, RealTime: true, RetryMin: 10 * ms, RetryMax: 20 * ms})
	cameratest.Next(t, s, 0)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	cameratest.Until(t, "the loss is noticed", func() bool { return s.Stats().State == camera.StateLost })
	if st := s.Stats(); !strings.Contains(st.LastError, "does not exist") {
		t.Errorf("lost because %q", st.LastError)
	}
	seq := s.Stats().Captured
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	cameratest.Next(t, s, seq)
	if st := s.Stats(); st.Reconnects != 1 || st.State != camera.StateLive {
		t.Errorf("back, but %+v", st)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.avi")
	empty := filepath.Join(dir, "empty.avi")
	for path, data := range map[string]string{text: strings.Repeat("this is no video\n", 500), empty: ""} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		target string
		code   agent.Code
		want   string
	}{
		"NoDevice":    {"57", agent.CodeUnavailable, `camera "/dev/video57" does not exist`},
		"NoDevPath":   {"/dev/video57", agent.CodeUnavailable, `camera "/dev/video57" does not exist`},
		"OtherDevice": {"/dev/null", agent.CodeInvalid, `"/dev/null" is not a camera`},
		"NoFile":      {filepath.Join(dir, "none.avi"), agent.CodeNotFound, "none.avi"},
		"Text":        {text, agent.CodeInvalid, "text.avi"},
		"Empty":       {empty, agent.CodeInvalid, "empty.avi"},
		"Refused":     {"http://me:secret@" + closedAddress(t) + "/cam", agent.CodeUnavailable, "no video comes from"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := camera.Open(t.Context(), camera.Options{Target: c.target})
			if agent.ErrorCode(err) != c.code || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %q (%s)", err, agent.ErrorCode(err))
			}
		})
	}
}

// closedAddress is one where nobody listens.
func closedAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestHalfFile is a film whose copy was cut off: what is there is shown.
func TestHalfFile(t *testing.T) {
	path := film(t, 30, 40)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()/2); err != nil {
		t.Fatal(err)
	}
	s := open(t, camera.Options{Target: path})
	var n uint64
	for {
		f, err := s.Next(t.Context(), n)
		if err != nil {
			break
		}
		n = f.Seq
	}
	if n < 10 || n > 20 {
		t.Errorf("half of 30 frames gave %d", n)
	}
}

// mjpeg is a network camera: an endless HTTP stream of JPEG pictures.
func mjpeg(tb testing.TB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace;boundary=frame")
		for i := 0; r.Context().Err() == nil; i++ {
			p := cameratest.Picture(tb, i, 160, 120)
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(p), p)
			w.(http.Flusher).Flush()
			time.Sleep(15 * ms)
		}
	})
}

// serve starts a network camera at address ("127.0.0.1:0" for any).
func serve(tb testing.TB, address string, h http.Handler) *httptest.Server {
	tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	tb.Cleanup(func() { stop(srv) })
	return srv
}

// stop pulls the cable: connections first, Close would wait for them.
func stop(srv *httptest.Server) {
	srv.CloseClientConnections()
	srv.Close()
}

func TestURLComesBack(t *testing.T) {
	srv := serve(t, "127.0.0.1:0", mjpeg(t))
	s := open(t, camera.Options{Target: srv.URL + "/live", RetryMin: 20 * ms, RetryMax: 50 * ms})
	cameratest.Next(t, s, 5)
	stop(srv)
	cameratest.Until(t, "the loss is noticed", func() bool { return s.Stats().State == camera.StateLost })
	seq := s.Stats().Captured
	serve(t, srv.Listener.Addr().String(), mjpeg(t))
	cameratest.Next(t, s, seq+5)
	if st := s.Stats(); st.Reconnects != 1 || st.State != camera.StateLive || st.LastError == "" {
		t.Errorf("back, but %+v", st)
	}
}

// TestURLThatHangs accepts a connection and never answers.
func TestURLThatHangs(t *testing.T) {
	done := make(chan struct{})
	srv := serve(t, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer close(done)
	ctx, cancel := context.WithTimeout(t.Context(), 200*ms)
	defer cancel()
	start := time.Now()
	_, err := camera.Open(ctx, camera.Options{Target: srv.URL})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	// Stopping the server lets FFmpeg return; TestMain sees that the goroutine ends.
}
