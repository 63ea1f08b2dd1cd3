// Package avi writes motion-JPEG AVI files in Go: the same bytes on every
// machine, and no need of a codec library to make test and sample videos.
package avi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// maxSize keeps every offset within the signed 32 bits that old readers use
// (AVI 1.0 without the OpenDML extension).
const maxSize = 1 << 31

// headerSize is the length of everything before the first picture.
const headerSize = 224

// Writer appends JPEG pictures to an AVI file. Close completes the file: the
// header holds totals that are known only then.
type Writer struct {
	w             io.WriteSeeker
	width, height int
	fps           float64
	index         []entry
	pos           int64
	largest       int
	closed        bool
}

// entry is one picture's place, as the index at the end of the file wants it.
type entry struct{ offset, size uint32 }

// NewWriter starts a file of width x height pictures shown fps times a second.
// It does not close w.
func NewWriter(w io.WriteSeeker, width, height int, fps float64) (*Writer, error) {
	if width <= 0 || height <= 0 || width > math.MaxInt16 || height > math.MaxInt16 || !(fps > 0 && fps <= 1000) {
		return nil, fmt.Errorf("write AVI: bad format %dx%d at %g pictures/s", width, height, fps)
	}
	a := &Writer{w: w, width: width, height: height, fps: fps}
	return a, a.write(a.header())
}

// Add appends one picture, a complete JPEG file of the writer's size.
func (a *Writer) Add(jpeg []byte) error {
	if a.closed {
		return errors.New("write AVI: the writer is closed")
	}
	if a.pos+int64(len(jpeg))+int64(len(a.index)+1)*16+64 > maxSize {
		return errors.New("write AVI: the file would be larger than 2 GB")
	}
	// Index offsets count from the "movi" tag, four bytes before the first chunk.
	a.index = append(a.index, entry{uint32(a.pos - headerSize + 4), uint32(len(jpeg))})
	a.largest = max(a.largest, len(jpeg))
	if err := a.write(chunk("00dc", uint32(len(jpeg)))); err != nil {
		return err
	}
	if err := a.write(jpeg); err != nil {
		return err
	}
	if len(jpeg)%2 == 1 {
		return a.write([]byte{0}) // chunks start at even offsets
	}
	return nil
}

// Frames returns the number of pictures added.
func (a *Writer) Frames() int { return len(a.index) }

// Close writes the index and the final header. It may be called twice.
func (a *Writer) Close() error {
	if a.closed {
		return nil
	}
	a.closed = true
	moviEnd := a.pos
	idx := chunk("idx1", uint32(len(a.index)*16))
	for _, e := range a.index {
		idx = append(idx, "00dc"...)
		idx = put32(idx, 0x10, e.offset, e.size) // 0x10: every picture is a key frame
	}
	if err := a.write(idx); err != nil {
		return err
	}
	end := a.pos
	if _, err := a.w.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write AVI: %w", err)
	}
	h := a.header()
	binary.LittleEndian.PutUint32(h[4:], uint32(end-8))
	binary.LittleEndian.PutUint32(h[headerSize-8:], uint32(moviEnd-headerSize+4))
	if err := a.write(h); err != nil {
		return err
	}
	_, err := a.w.Seek(0, io.SeekEnd)
	return err
}

// header builds everything up to the first picture: RIFF, the main header, one
// video stream and the opening of the list of pictures.
func (a *Writer) header() []byte {
	const scale = 1000 // rates are fractions; three decimals are plenty
	n, rate := uint32(len(a.index)), uint32(math.Round(a.fps*scale))
	w, h, big := uint32(a.width), uint32(a.height), uint32(a.largest)

	b := append(chunk("RIFF", 0), "AVI "...)
	b = append(append(b, chunk("LIST", 192)...), "hdrl"...)
	b = append(b, chunk("avih", 56)...)
	b = put32(b, uint32(1e6/a.fps), uint32(float64(big)*a.fps), 0, 0x10, n, 0, 1, big, w, h, 0, 0, 0, 0)
	b = append(append(b, chunk("LIST", 116)...), "strl"...)
	b = append(b, chunk("strh", 56)...)
	b = append(b, "vidsMJPG"...)
	b = put32(b, 0, 0, 0, scale, rate, 0, n, big, 0xffffffff, 0, 0, w|h<<16)
	b = append(b, chunk("strf", 40)...)
	b = put32(b, 40, w, h, 1|24<<16)
	b = append(b, "MJPG"...)
	b = put32(b, w*h*3, 0, 0, 0, 0)
	return append(append(b, chunk("LIST", 4)...), "movi"...)
}

func (a *Writer) write(b []byte) error {
	n, err := a.w.Write(b)
	a.pos += int64(n)
	if err != nil {
		return fmt.Errorf("write AVI: %w", err)
	}
	return nil
}

func chunk(tag string, size uint32) []byte { return put32([]byte(tag), size) }

func put32(b []byte, vs ...uint32) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
