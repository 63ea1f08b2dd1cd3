//go:build cgo && !nocamera

package sample_test

import (
	"io"
	"path/filepath"
	"testing"

	"postern/agent"
	"postern/camera"
	"postern/camera/sample"
)

// TestFilmPlays reads a film back as the agent does.
func TestFilmPlays(t *testing.T) {
	pix := make([]byte, 64*64*3)
	p := sample.Person{Picture: &agent.Frame{Pix: pix, Width: 64, Height: 64}}
	out := filepath.Join(t.TempDir(), "film.avi")
	if err := sample.Render(t.Context(), out, sample.Cast{Enrolled: p, Again: p, Print: p, Stranger: p}, sample.Options{FPS: 0.2}); err != nil {
		t.Fatal(err)
	}
	s, err := camera.Open(t.Context(), camera.Options{Target: out})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var n uint64
	for {
		f, err := s.Next(t.Context(), n)
		if err == io.EOF {
			break
		}
		if err != nil || f.Width != sample.Width || f.Height != sample.Height {
			t.Fatalf("frame %d: %v", n+1, err)
		}
		n = f.Seq
	}
	if n != 9 {
		t.Errorf("%d frames", n)
	}
}
