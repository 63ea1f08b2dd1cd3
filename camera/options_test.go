package camera

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

func TestKindOf(t *testing.T) {
	dir := t.TempDir()
	for target, want := range map[string]Kind{
		"0": KindDevice, "12": KindDevice, "/dev/video0": KindDevice, "/dev/v4l/by-id/usb-cam-index0": KindDevice,
		"rtsp://u:p@10.0.0.1/live": KindURL, "RTSPS://cam/1": KindURL, "http://cam:8080/?action=stream": KindURL, "https://cam/": KindURL,
		dir: KindFolder, filepath.Join(dir, "missing.avi"): KindFile, "film.avi": KindFile,
		"ftp://x/y": KindFile, "-1": KindFile, "1.5": KindFile,
	} {
		if got := kindOf(target); got != want {
			t.Errorf("kindOf(%q) = %q, want %q", target, got, want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string // part of the message
	}{
		"NoTarget":     {Options{}, "no camera is named"},
		"BlankTarget":  {Options{Target: " \t"}, "no camera is named"},
		"ZeroByte":     {Options{Target: "a\x00b"}, "zero byte"},
		"Kind":         {Options{Target: "0", Kind: "webcam"}, `kind "webcam"`},
		"Rotate":       {Options{Target: "0", Rotate: 45}, "45 degrees"},
		"Width":        {Options{Target: "0", Width: -1}, "-1x0"},
		"FPS":          {Options{Target: "0", FPS: math.NaN()}, "NaN frames/s"},
		"CropNegative": {Options{Target: "0", Crop: Rect{-1, 0, 1, 1}}, "crop"},
		"CropNaN":      {Options{Target: "0", Crop: Rect{0, 0, math.NaN(), 1}}, "crop"},
		"CropEmpty":    {Options{Target: "0", Crop: Rect{0.5, 0.5, 0, 0.5}}, "empty"},
		"Retry":        {Options{Target: "0", RetryMin: time.Hour, RetryMax: time.Second}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.o.check()
			if agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an invalid error with %q", err, c.want)
			}
		})
	}
}

func TestCheckDefaults(t *testing.T) {
	o, err := Options{Target: " rtsp://user:secret@cam/1 "}.check()
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind != KindURL || o.RetryMin <= 0 || o.RetryMax < o.RetryMin || o.Stall <= 0 || o.CloseWait <= 0 || o.Log == nil {
		t.Errorf("defaults are %+v", o)
	}
	if strings.Contains(o.ID, "secret") || !strings.Contains(o.ID, "cam/1") {
		t.Errorf("id is %q", o.ID)
	}
	if o, _ := (Options{Target: t.TempDir()}).check(); o.FPS != 5 {
		t.Errorf("a folder's pace is %g", o.FPS)
	}
}

func TestRedactUnparsable(t *testing.T) {
	if got := redact("rtsp://user:sec%ret@cam/"); strings.Contains(got, "ret") {
		t.Errorf("password shows in %q", got)
	}
}

func TestRectIn(t *testing.T) {
	for name, c := range map[string]struct {
		r    Rect
		want [4]int
		ok   bool
	}{
		"Whole":       {Rect{}, [4]int{0, 0, 640, 480}, true},
		"WholeShares": {Rect{0, 0, 1, 1}, [4]int{0, 0, 640, 480}, true},
		"Middle":      {Rect{0.25, 0.25, 0.5, 0.5}, [4]int{160, 120, 480, 360}, true},
		"Pixels":      {Rect{10, 20, 100, 50}, [4]int{10, 20, 110, 70}, true},
		"CutAtEdge":   {Rect{600, 0, 100, 480}, [4]int{600, 0, 640, 480}, true},
		"Outside":     {Rect{700, 0, 100, 100}, [4]int{}, false},
		"Tiny":        {Rect{0, 0, 0.01, 1}, [4]int{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			x0, y0, x1, y1, err := c.r.in(640, 480)
			if (err == nil) != c.ok || [4]int{x0, y0, x1, y1} != c.want {
				t.Errorf("got %d %d %d %d, %v", x0, y0, x1, y1, err)
			}
		})
	}
}
