package litert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// reader reads a FlatBuffer without trusting it: every access is checked against
// the bytes, and the first one outside them is remembered in err. After that all
// reads give zero, so callers check err once.
type reader struct {
	b   []byte
	err error
}

var errBounds = errors.New("an offset points outside the file")

// span returns n bytes at pos, or zeros and an error when they are not there.
func (r *reader) span(pos, n int) []byte {
	if pos < 0 || n < 0 || pos > len(r.b)-n {
		r.fail(errBounds)
		return nil
	}
	return r.b[pos : pos+n]
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) u16(pos int) int {
	if s := r.span(pos, 2); s != nil {
		return int(binary.LittleEndian.Uint16(s))
	}
	return 0
}

func (r *reader) u32(pos int) uint32 {
	if s := r.span(pos, 4); s != nil {
		return binary.LittleEndian.Uint32(s)
	}
	return 0
}

func (r *reader) u64(pos int) uint64 {
	if s := r.span(pos, 8); s != nil {
		return binary.LittleEndian.Uint64(s)
	}
	return 0
}

// follow reads the forward offset at pos and gives where it points.
func (r *reader) follow(pos int) int {
	off := r.u32(pos)
	if off == 0 || off > math.MaxInt32 {
		r.fail(errBounds)
	}
	return pos + int(off)
}

// table is one table. The zero table has no fields.
type table struct {
	r    *reader
	pos  int
	vt   int // position of its vtable
	size int // bytes of its vtable
}

func (r *reader) table(pos int) table {
	vt := pos - int(int32(r.u32(pos)))
	t := table{r, pos, vt, r.u16(vt)}
	if t.size < 4 || t.size%2 != 0 {
		r.fail(fmt.Errorf("a table has a layout of %d bytes", t.size))
	}
	r.span(vt, t.size)
	r.span(pos, r.u16(vt+2))
	if r.err != nil {
		return table{}
	}
	return t
}

// field is the position of field i, or 0 when the table leaves it out.
func (t table) field(i int) int {
	at := 4 + 2*i
	if t.r == nil || at+2 > t.size {
		return 0
	}
	off := t.r.u16(t.vt + at)
	if off == 0 {
		return 0
	}
	return t.pos + off
}

func (t table) has(i int) bool { return t.field(i) != 0 }

func (t table) i8(i int, def int) int {
	if p := t.field(i); p != 0 {
		if s := t.r.span(p, 1); s != nil {
			return int(int8(s[0]))
		}
	}
	return def
}

func (t table) i32(i int, def int) int {
	if p := t.field(i); p != 0 {
		return int(int32(t.r.u32(p)))
	}
	return def
}

func (t table) u32(i int) int {
	if p := t.field(i); p != 0 {
		return int(t.r.u32(p))
	}
	return 0
}

func (t table) u64(i int) uint64 {
	if p := t.field(i); p != 0 {
		return t.r.u64(p)
	}
	return 0
}

// table gives the table in field i, or the zero table.
func (t table) table(i int) table {
	if p := t.field(i); p != 0 {
		return t.r.table(t.r.follow(p))
	}
	return table{}
}

// str gives the string in field i and whether there is one.
func (t table) str(i int) (string, bool) {
	v := t.vector(i, 1)
	return string(v.bytes()), t.has(i)
}

// vector is one vector of n elements of size bytes.
type vector struct {
	r       *reader
	pos     int
	n, size int
}

func (t table) vector(i, size int) vector {
	p := t.field(i)
	if p == 0 {
		return vector{}
	}
	p = t.r.follow(p)
	n := int(t.r.u32(p))
	if n > len(t.r.b) {
		t.r.fail(errBounds)
		return vector{}
	}
	v := vector{t.r, p + 4, n, size}
	if t.r.span(v.pos, n*size) == nil {
		return vector{}
	}
	return v
}

func (v vector) bytes() []byte {
	if v.n == 0 {
		return nil
	}
	return v.r.span(v.pos, v.n*v.size)
}

func (v vector) table(i int) table { return v.r.table(v.r.follow(v.pos + 4*i)) }
func (v vector) i32(i int) int     { return int(int32(v.r.u32(v.pos + 4*i))) }
func (v vector) i64(i int) int64   { return int64(v.r.u64(v.pos + 8*i)) }
func (v vector) f32(i int) float32 { return math.Float32frombits(v.r.u32(v.pos + 4*i)) }

// ints reads a vector of 32-bit integers of at most limit elements.
func (t table) ints(i, limit int) []int {
	v := t.vector(i, 4)
	if v.n > limit {
		t.r.fail(fmt.Errorf("a list has %d entries, want at most %d", v.n, limit))
		return nil
	}
	out := make([]int, v.n)
	for k := range out {
		out[k] = v.i32(k)
	}
	return out
}
