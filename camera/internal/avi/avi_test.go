package avi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, pictures ...[]byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.avi")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(f, 320, 240, 12.5)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pictures {
		if err := w.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Frames() != len(pictures) || w.Add([]byte("late")) == nil {
		t.Error("wrong count, or a picture was added after Close")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLayout walks the file by its own lengths and finds the pictures through
// the index, as a player does.
func TestLayout(t *testing.T) {
	pictures := [][]byte{[]byte("odd"), []byte("even"), []byte("a longer one")}
	b := write(t, pictures...)
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	if string(b[:4]) != "RIFF" || string(b[8:12]) != "AVI " || u32(4) != len(b)-8 {
		t.Fatalf("bad outer chunk of %d in %d bytes", u32(4), len(b))
	}
	hdrl := 12
	movi := hdrl + 8 + u32(hdrl+4)
	idx := movi + 8 + u32(movi+4)
	if string(b[hdrl+8:hdrl+12]) != "hdrl" || string(b[movi+8:movi+12]) != "movi" || string(b[idx:idx+4]) != "idx1" {
		t.Fatalf("lists are not where the lengths say: %q %q %q", b[hdrl:hdrl+12], b[movi:movi+12], b[idx:idx+4])
	}
	if u32(idx+4) != 16*len(pictures) || idx+8+u32(idx+4) != len(b) {
		t.Fatalf("index of %d bytes", u32(idx+4))
	}
	for i, p := range pictures {
		e := idx + 8 + 16*i
		at, n := movi+8+u32(e+8), u32(e+12)
		if string(b[at:at+4]) != "00dc" || u32(at+4) != n || !bytes.Equal(b[at+8:at+8+n], p) {
			t.Errorf("picture %d is not where the index says", i)
		}
	}
}

func TestNewWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		w, h int
		fps  float64
	}{{0, 1, 1}, {1, -1, 1}, {1, 1 << 20, 1}, {1, 1, 0}, {1, 1, -3}, {1, 1, 1e9}} {
		if _, err := NewWriter(nil, c.w, c.h, c.fps); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

// fullDisk takes n bytes.
type fullDisk struct{ n int }

var errFull = errors.New("no space left")

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.n -= len(b); d.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func (d *fullDisk) Seek(int64, int) (int64, error) { return 0, nil }

var _ io.WriteSeeker = (*fullDisk)(nil)

func TestFullDisk(t *testing.T) {
	for n := range 600 {
		w, err := NewWriter(&fullDisk{n}, 320, 240, 10)
		if err == nil {
			err = errors.Join(w.Add(make([]byte, 51)), w.Add(make([]byte, 50)), w.Close())
		}
		// header twice, two pictures, index
		if full := n < 2*224+8+52+8+50+8+32; full != errors.Is(err, errFull) {
			t.Fatalf("with room for %d bytes: %v", n, err)
		}
	}
}
