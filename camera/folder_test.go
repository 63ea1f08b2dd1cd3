package camera_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent"
	"postern/camera"
	"postern/camera/cameratest"
)

func open(tb testing.TB, o camera.Options) *camera.Stream {
	tb.Helper()
	s, err := camera.Open(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestFolderPassesConformance(t *testing.T) {
	dir := t.TempDir()
	cameratest.Folder(t, dir, 5, 64, 48)
	cameratest.Run(t, func(tb testing.TB) cameratest.Source {
		return open(tb, camera.Options{Target: dir, Loop: true, RealTime: true, FPS: 50})
	})
}

func TestFolderInOrder(t *testing.T) {
	dir := t.TempDir()
	cameratest.Folder(t, dir, 3, 64, 48)
	for name, data := range map[string]string{"001a.jpg": "not a picture", "notes.txt": "x", "002b.png": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, camera.Options{Target: dir, Rotate: 90, ID: "door"})
	for i := range uint64(3) {
		f := cameratest.Next(t, s, i)
		if f.Seq != i+1 || f.Width != 48 || f.Height != 64 || f.Source != "door" {
			t.Errorf("frame %d is %dx%d from %q", f.Seq, f.Width, f.Height, f.Source)
		}
	}
	if _, err := s.Next(t.Context(), 3); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFolderErrors(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		o    camera.Options
		code agent.Code
	}{
		"Missing": {camera.Options{Target: filepath.Join(dir, "none"), Kind: camera.KindFolder}, agent.CodeNotFound},
		"Empty":   {camera.Options{Target: dir}, agent.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := camera.Open(t.Context(), c.o)
			if agent.ErrorCode(err) != c.code || !strings.Contains(err.Error(), c.o.Target) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFolderOfDamagedPictures(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.jpg"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, camera.Options{Target: dir})
	if _, err := s.Next(t.Context(), 0); agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), "a.jpg") {
		t.Errorf("got %v", err)
	}
}
