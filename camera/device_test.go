package camera

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestList(t *testing.T) {
	sys := t.TempDir()
	for dev, name := range map[string]string{
		"video0": "USB Camera\n", "video1": "USB Camera metadata\n", "video10": "Loopback\n", "video2": "", "vbi0": "Tuner\n", "v4l-subdev0": "x\n",
	} {
		if err := os.Mkdir(filepath.Join(sys, dev), 0o700); err != nil {
			t.Fatal(err)
		}
		if name == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(sys, dev, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ds, err := list(sys, "/dev", func(path string) (bool, error) {
		if path == "/dev/video10" {
			return false, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
		}
		return path != "/dev/video1", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{0, "/dev/video0", "USB Camera", ""}, {2, "/dev/video2", "unnamed", ""}, {10, "/dev/video10", "Loopback", "permission denied"},
	}
	if len(ds) != len(want) {
		t.Fatalf("got %+v", ds)
	}
	for i := range want {
		if ds[i] != want[i] {
			t.Errorf("device %d is %+v, want %+v", i, ds[i], want[i])
		}
	}
}

func TestListWithoutDevices(t *testing.T) {
	ds, err := list(filepath.Join(t.TempDir(), "none"), "/dev", captures)
	if len(ds) != 0 || err != nil {
		t.Errorf("got %v, %v", ds, err)
	}
}

func TestCapturesRefusesOtherFiles(t *testing.T) {
	if ok, err := captures("/dev/null"); ok || err == nil {
		t.Errorf("/dev/null captures: %v, %v", ok, err)
	}
}
