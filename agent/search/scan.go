package search

import (
	"runtime"
	"sync"
	"sync/atomic"

	"postern/agent"
)

const (
	// block is how many rows are scored at once: their scores stay in the fastest cache.
	block = 256
	// share is how many rows a worker takes at a time, and how many must be there for a
	// second worker to be worth waking.
	share = 16 * block
)

// scan is one search under way. Scans are reused, so that a search allocates nothing.
type scan struct {
	m     *Matrix
	query agent.Embedding
	ints  []int8 // query, quantised
	meta  meta   // of the query
	next  atomic.Int64
	wg    sync.WaitGroup
	parts []*part
}

// part is one worker's.
type part struct {
	best, second Hit
	run          func()
	_            [64]byte // no two workers' hits on one cache line
}

// scanPool keeps scans between searches.
type scanPool struct{ sync.Pool }

func (m *Matrix) scan() *scan {
	if s, ok := m.scans.Get().(*scan); ok {
		return s
	}
	s := &scan{m: m, ints: make([]int8, m.stride)}
	for range runtime.GOMAXPROCS(0) {
		p := &part{}
		p.run = func() {
			s.work(p)
			s.wg.Done()
		}
		s.parts = append(s.parts, p)
	}
	return s
}

// Best returns the two rows most like the query, each with its exact cosine; of equal
// ones the lower row first. Row is -1 where there is none. A query of another
// dimension, or without a length of 1, has a cosine of -1 with every row.
func (m *Matrix) Best(query agent.Embedding) (best, second Hit) {
	s := m.scan()
	s.query = query
	s.next.Store(0)
	clear(s.ints)
	s.meta = meta{lost: 4} // cannot be bounded: every row is compared as float32
	if len(query) == m.dim && query.Normalised() {
		s.meta.scale, s.meta.lost = quantise(s.ints, query)
	}
	workers := min(len(s.parts), m.n/share+1)
	for _, p := range s.parts[:workers] {
		p.best, p.second = none, none
	}
	for _, p := range s.parts[1:workers] {
		s.wg.Add(1)
		go p.run()
	}
	s.work(s.parts[0])
	s.wg.Wait()
	first := s.parts[0]
	for _, p := range s.parts[1:workers] {
		first.add(p.best)
		first.add(p.second)
	}
	best, second = first.best, first.second
	s.query = nil
	clear(s.ints)
	m.scans.Put(s)
	return best, second
}

// work takes shares of the rows until none is left.
func (s *scan) work(p *part) {
	for {
		from := int(s.next.Add(share)) - share
		if from >= s.m.n {
			return
		}
		for to := min(from+share, s.m.n); from < to; from += block {
			s.rows(p, from, min(from+block, to))
		}
	}
}

// unit is the longest that agent.Embedding.Cosine takes for length 1.
const unit = 1.01

// rows compares the rows from up to to. With row = r + e and query = q + f, where r and
// q are the int8 parts and |e|, |f| what they lost, row·query - r·q = e·query + r·f,
// at most |e|*unit + (unit+|e|)*|f|: so much is added to r·q for a bound from above. The
// rounding of float32 sums is far below dim * 2^-23, which is added too.
func (s *scan) rows(p *part, from, to int) {
	m := s.m
	var buf [block]int32
	// Rows are padded to whole groups; what lies beyond to is not looked at.
	scores := buf[:(to-from+group-1)/group*group]
	dots(scores, m.ints[from*m.stride:], s.ints)
	fixed := unit*s.meta.lost + float32(m.dim)/(1<<23)
	grow := unit + s.meta.lost
	for i, meta := range m.meta[from:to] {
		bound := float32(scores[i])*(meta.scale*s.meta.scale) + meta.lost*grow + fixed
		if meta.lost == absent || bound < p.second.Cosine {
			continue
		}
		p.add(Hit{from + i, m.At(from + i).Cosine(s.query)})
	}
}

// add keeps the hit if it is among the two best so far.
func (p *part) add(h Hit) {
	switch {
	case h.Row < 0:
	case h.beats(p.best):
		p.best, p.second = h, p.best
	case h.beats(p.second):
		p.second = h
	}
}

func (h Hit) beats(o Hit) bool {
	return h.Cosine > o.Cosine || h.Cosine == o.Cosine && h.Row < o.Row
}
