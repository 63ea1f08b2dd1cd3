package cameratest

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"postern/camera/internal/avi"
)

// Picture returns picture i of a synthetic film as a JPEG file: a white bar on
// a dark ground moves right with i, and the top left quarter is red, so that a
// turned, mirrored or colour-swapped picture shows.
func Picture(tb testing.TB, i, width, height int) []byte {
	tb.Helper()
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.RGBA{20, 20, 60, 255}
			switch {
			case x < width/2 && y < height/2:
				c = color.RGBA{220, 20, 20, 255}
			case (x+width-i*4%width)%width < width/8:
				c = color.RGBA{240, 240, 240, 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 92}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Video writes a motion-JPEG film of n Pictures to path.
func Video(tb testing.TB, path string, n, width, height int, fps float64) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	w, err := avi.NewWriter(f, width, height, fps)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		if err := w.Add(Picture(tb, i, width, height)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
}

// Folder writes n Pictures into dir as 000.jpg, 001.jpg and so on.
func Folder(tb testing.TB, dir string, n, width, height int) {
	tb.Helper()
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.jpg", i)), Picture(tb, i, width, height), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}
