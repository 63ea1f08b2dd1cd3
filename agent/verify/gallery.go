package verify

import (
	"math"
	"sync"

	"postern/agent"
	"postern/agent/search"
)

// gallery holds the references of all subjects in memory, one a subject: the
// normalised mean of its templates. They lie in the matrix's arena and nowhere else. One reference a subject keeps the false match
// rate that of a single comparison; the best of several templates would multiply it.
type gallery struct {
	mu       sync.RWMutex    // guards what follows
	rows     *search.Matrix  // the references; nil before the first template
	subjects []subjectRow    // of each row
	index    map[string]int  // subject id to row
	sum      agent.Embedding // where add works; zero in between
}

// subjectRow is whose row it is. The sum of the templates is the reference times norm,
// so it needs no memory of its own.
type subjectRow struct {
	id   string
	norm float32
}

// candidate is one subject with its similarity.
type candidate struct {
	subject string
	cosine  float32
}

func (g *gallery) len() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.subjects)
}

// add counts the template in. It keeps nothing of it but the sum.
func (g *gallery) add(t agent.Template) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rows == nil {
		g.rows, g.index = search.New(len(t.Embedding)), map[string]int{}
		g.sum = make(agent.Embedding, len(t.Embedding))
	}
	row, ok := g.index[t.SubjectID]
	if !ok {
		row = g.rows.Append()
		g.index[t.SubjectID] = row
		g.subjects = append(g.subjects, subjectRow{id: t.SubjectID})
	}
	if len(t.Embedding) != g.rows.Dim() {
		return // another space slipped in: it must not be compared
	}
	sum := g.sum
	defer clear(sum)
	copy(sum, t.Embedding)
	s := &g.subjects[row]
	for i, v := range g.rows.At(row) {
		sum[i] += v * s.norm
	}
	s.norm = length(sum)
	if !sum.Normalise() {
		s.norm = 0 // templates that cancel out: no reference, and no sum
	}
	g.rows.Set(row, sum)
}

func (g *gallery) remove(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	row, ok := g.index[subject]
	if !ok {
		return
	}
	g.rows.Remove(row)
	last := len(g.subjects) - 1
	g.subjects[row] = g.subjects[last]
	g.index[g.subjects[row].id] = row
	g.subjects[last] = subjectRow{}
	g.subjects = g.subjects[:last]
	delete(g.index, subject)
}

// subject compares e with one subject; false when it has no reference.
func (g *gallery) subject(id string, e agent.Embedding) (float32, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	row, ok := g.index[id]
	if !ok {
		return -1, false
	}
	ref := g.rows.At(row)
	if ref == nil {
		return -1, false
	}
	return ref.Cosine(e), true
}

// search returns the two most similar subjects, empty candidates when there are fewer,
// and the number of subjects searched.
func (g *gallery) search(e agent.Embedding) (best, second candidate, among int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.rows == nil {
		return best, second, 0
	}
	b, s := g.rows.Best(e)
	return g.candidate(b), g.candidate(s), len(g.subjects)
}

func (g *gallery) candidate(h search.Hit) candidate {
	if h.Row < 0 {
		return candidate{}
	}
	return candidate{g.subjects[h.Row].id, h.Cosine}
}

// unlocked says why the references may be written to swap; nil when they may not.
func (g *gallery) unlocked() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.rows == nil {
		return nil
	}
	return g.rows.Unlocked()
}

// wipe zeroes the embeddings of templates that the gallery has taken over.
func wipe(ts []agent.Template) {
	for i := range ts {
		clear(ts[i].Embedding)
		ts[i].Embedding = nil
	}
}

// close wipes the references from memory.
func (g *gallery) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rows != nil {
		g.rows.Close()
	}
	clear(g.subjects)
	g.subjects, g.index = nil, map[string]int{}
}

func length(e agent.Embedding) float32 {
	var s float64
	for _, v := range e {
		s += float64(v) * float64(v)
	}
	return float32(math.Sqrt(s))
}
