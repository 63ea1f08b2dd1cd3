package camera

import (
	"bytes"
	"fmt"
	"testing"

	"postern/agent"
)

// grid is a reference picture: a value a pixel, moved around the plain way.
type grid [][]byte

func turn(g grid) grid { // 90 degrees clockwise
	out := make(grid, len(g[0]))
	for y := range out {
		for x := range len(g) {
			out[y] = append(out[y], g[len(g)-1-x][y])
		}
	}
	return out
}

func mirror(g grid) grid {
	out := make(grid, len(g))
	for y, row := range g {
		for x := range row {
			out[y] = append(out[y], row[len(row)-1-x])
		}
	}
	return out
}

func (g grid) pix(bgr bool) []byte {
	var b []byte
	for _, row := range g {
		for _, v := range row {
			if bgr {
				b = append(b, v+2, v+1, v)
			} else {
				b = append(b, v, v+1, v+2)
			}
		}
	}
	return b
}

func testGrid(w, h int) grid {
	g := make(grid, h)
	for y := range g {
		for x := range w {
			g[y] = append(g[y], byte(y*w+x))
		}
	}
	return g
}

func TestToFrame(t *testing.T) {
	for _, rotate := range []int{0, 90, 180, 270} {
		for _, flip := range []bool{false, true} {
			for _, bgr := range []bool{false, true} {
				for _, crop := range []Rect{{}, {1, 2, 17, 16}} {
					name := fmt.Sprintf("rotate=%d/mirror=%v/bgr=%v/crop=%v", rotate, flip, bgr, crop.W > 0)
					t.Run(name, func(t *testing.T) { checkFrame(t, rotate, flip, bgr, crop) })
				}
			}
		}
	}
}

func checkFrame(t *testing.T, rotate int, flip, bgr bool, crop Rect) {
	g := testGrid(20, 19)
	src := Picture{Pix: g.pix(bgr), Width: 20, Height: 19, BGR: bgr}
	for range rotate / 90 {
		g = turn(g)
	}
	if flip {
		g = mirror(g)
	}
	if crop != (Rect{}) {
		g = g[2:18]
		for y := range g {
			g[y] = g[y][1:18]
		}
	}
	f, err := toFrame(src, Options{Rotate: rotate, Mirror: flip, Crop: crop})
	if err != nil {
		t.Fatal(err)
	}
	if f.Width != len(g[0]) || f.Height != len(g) || f.Check() != nil {
		t.Fatalf("size %dx%d, want %dx%d", f.Width, f.Height, len(g[0]), len(g))
	}
	if want := g.pix(false); !bytes.Equal(f.Pix, want) {
		t.Errorf("pixels differ:\n%v\n%v", f.Pix, want)
	}
}

func TestToFrameRefusesWrongLength(t *testing.T) {
	for _, p := range []Picture{
		{}, {Pix: make([]byte, 11), Width: 2, Height: 2}, {Pix: make([]byte, 12), Width: -2, Height: -2},
	} {
		if _, err := toFrame(p, Options{}); agent.ErrorCode(err) != agent.CodeUnavailable {
			t.Errorf("%dx%d with %d bytes: %v", p.Width, p.Height, len(p.Pix), err)
		}
	}
}

func BenchmarkToFrame720p(b *testing.B) {
	p := Picture{Pix: make([]byte, 1280*720*3), Width: 1280, Height: 720, BGR: true}
	for _, rotate := range []int{0, 90} {
		b.Run(fmt.Sprint(rotate), func(b *testing.B) {
			for b.Loop() {
				if _, err := toFrame(p, Options{Rotate: rotate}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
