package search

import (
	"math"

	"postern/agent"
)

// Matrix holds embeddings of one dimension as rows, all in one arena outside of Go's
// heap: Close gives it back. Writes must not overlap with anything else; searches may
// overlap with each other.
type Matrix struct {
	dim    int
	stride int // bytes of an int8 row
	n      int
	arena  *arena // nil while there is no row
	parts         // of the arena
	scans  scanPool
}

// meta is what bounds a row: embedding = scale * int8 row + an error of length lost.
type meta struct{ scale, lost float32 }

// absent is the lost of a row that holds nothing: no bound of it ever reaches a cosine.
const absent = -8

// Hit is one row with its exact cosine.
type Hit struct {
	Row    int
	Cosine float32
}

// none is the hit that every row beats.
var none = Hit{Row: -1, Cosine: -2}

// New returns an empty matrix for embeddings of dim values.
func New(dim int) *Matrix {
	return &Matrix{dim: dim, stride: (dim + lane - 1) / lane * lane}
}

// Len is the number of rows, those without an embedding included.
func (m *Matrix) Len() int { return m.n }

// Dim is the number of values of an embedding.
func (m *Matrix) Dim() int { return m.dim }

// Bytes is what one search reads at least.
func (m *Matrix) Bytes() int { return m.n * m.stride }

// Vector names the vector instructions in use, "none" for plain Go.
func Vector() string { return vector }

// Unlocked says why the embeddings may be written to swap; nil when they may not.
func (m *Matrix) Unlocked() error {
	if m.arena == nil {
		return nil
	}
	return m.arena.lock
}

// Append adds a row without an embedding and returns its number.
func (m *Matrix) Append() int {
	if m.n == len(m.meta) {
		m.grow(max(4*group, 2*m.n))
	}
	m.meta[m.n] = meta{lost: absent}
	m.n++
	return m.n - 1
}

// grow moves the rows to a larger arena, wipes the old one and gives it back.
func (m *Matrix) grow(rows int) {
	a, p := newParts(rows, m.stride, m.dim)
	copy(p.ints, m.ints)
	copy(p.floats, m.floats)
	copy(p.meta, m.meta)
	m.free()
	m.arena, m.parts = a, p
}

// Set replaces a row. An embedding of another dimension, or without a length of 1,
// leaves the row without one: it is never found.
func (m *Matrix) Set(row int, e agent.Embedding) {
	ints, floats := m.ints[row*m.stride:][:m.stride], m.floats[row*m.dim:][:m.dim]
	clear(ints)
	clear(floats)
	m.meta[row] = meta{lost: absent}
	if len(e) != m.dim || !e.Normalised() {
		return
	}
	copy(floats, e)
	scale, lost := quantise(ints, e)
	m.meta[row] = meta{scale, lost}
}

// At returns a row's embedding, nil where it has none. It is the matrix's own memory,
// which a write moves and Close takes away: use it only until then.
func (m *Matrix) At(row int) agent.Embedding {
	if m.meta[row].lost == absent {
		return nil
	}
	return agent.Embedding(m.floats[row*m.dim:][:m.dim:m.dim])
}

// Remove drops a row; the last one takes its place and number.
func (m *Matrix) Remove(row int) {
	last := m.n - 1
	if row != last {
		copy(m.ints[row*m.stride:][:m.stride], m.ints[last*m.stride:][:m.stride])
		copy(m.floats[row*m.dim:][:m.dim], m.floats[last*m.dim:][:m.dim])
		m.meta[row] = m.meta[last]
	}
	m.Set(last, nil)
	m.n--
}

// Close wipes every embedding from memory; the matrix is empty afterwards.
func (m *Matrix) Close() {
	m.free()
	m.n = 0
}

func (m *Matrix) free() {
	if m.arena != nil {
		m.arena.free()
	}
	m.arena, m.parts = nil, parts{}
}

// quantise fills q with e/scale, rounded, and gives the length of what is lost by it.
func quantise(q []int8, e agent.Embedding) (scale, lost float32) {
	top := float32(0)
	for _, v := range e {
		top = max(top, max(v, -v))
	}
	if !(top > 0) {
		return 0, 0
	}
	scale = top / 127
	var sum float64
	for i, v := range e {
		r := math.RoundToEven(float64(v) / float64(scale))
		q[i] = int8(max(-127, min(127, r)))
		d := float64(v) - float64(scale)*float64(q[i])
		sum += d * d
	}
	// A hair more than the length, since it is rounded to float32.
	return scale, float32(math.Sqrt(sum)) * (1 + 1e-6)
}
