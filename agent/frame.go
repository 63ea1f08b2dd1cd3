package agent

import (
	"fmt"
	"time"
)

// Frame is one upright picture in memory that Go owns: 8-bit RGB, rows tightly
// packed from the top left. A Frame is never changed after it is made, so it
// may be shared between goroutines.
type Frame struct {
	Pix    []byte // Width*Height*3 bytes, R G B
	Width  int
	Height int

	Source     string    // camera id or file name, for people
	Seq        uint64    // position in the source, from 1; 0 for a still picture
	CapturedAt time.Time // when the source delivered it
}

// Check reports whether the buffer has the length that the size promises.
func (f *Frame) Check() error {
	if f == nil || f.Width <= 0 || f.Height <= 0 {
		return &Error{Code: CodeInvalid, Message: "the picture is empty"}
	}
	if want := f.Width * f.Height * 3; len(f.Pix) != want {
		return &Error{Code: CodeInternal, Message: fmt.Sprintf(
			"picture buffer has %d bytes, %dx%d RGB needs %d", len(f.Pix), f.Width, f.Height, want)}
	}
	return nil
}

// Point is a position in a frame in pixels, from the top left.
type Point struct {
	X float32 `json:"x"`
	Y float32 `json:"y"`
}

// Point3 is a position in a frame with its depth, all in pixels. Depth counts from
// the middle of the head, smaller is nearer to the camera.
type Point3 struct {
	X float32 `json:"x"`
	Y float32 `json:"y"`
	Z float32 `json:"z"`
}

// Box is an axis-aligned rectangle in a frame in pixels. It may reach outside
// the frame when the face does.
type Box struct {
	X float32 `json:"x"`
	Y float32 `json:"y"`
	W float32 `json:"w"`
	H float32 `json:"h"`
}

// Area returns the box's area in square pixels.
func (b Box) Area() float32 { return b.W * b.H }
