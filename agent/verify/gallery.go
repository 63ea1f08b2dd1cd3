package verify

import (
	"sync"

	"postern/agent"
)

// gallery holds the references of all subjects in memory, one a subject: the
// normalised mean of its templates. One reference a subject keeps the false match
// rate that of a single comparison; the best of several templates would multiply it.
type gallery struct {
	mu      sync.RWMutex // guards entries and index
	entries []entry
	index   map[string]int // subject id to position in entries
}

type entry struct {
	subject   string
	sum       agent.Embedding // of the templates
	reference agent.Embedding // sum, normalised; nil while the sum has no direction
}

// candidate is one subject with its similarity.
type candidate struct {
	subject string
	cosine  float32
}

func (g *gallery) len() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.entries)
}

func (g *gallery) add(t agent.Template) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.index == nil {
		g.index = map[string]int{}
	}
	i, ok := g.index[t.SubjectID]
	if !ok {
		i = len(g.entries)
		g.index[t.SubjectID] = i
		g.entries = append(g.entries, entry{subject: t.SubjectID, sum: make(agent.Embedding, len(t.Embedding))})
	}
	e := &g.entries[i]
	if len(e.sum) != len(t.Embedding) {
		return // another space slipped in: it must not be compared
	}
	for k, v := range t.Embedding {
		e.sum[k] += v
	}
	ref := append(agent.Embedding(nil), e.sum...)
	e.reference = nil
	if ref.Normalise() {
		e.reference = ref
	}
}

func (g *gallery) remove(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok := g.index[subject]
	if !ok {
		return
	}
	clear(g.entries[i].sum)
	clear(g.entries[i].reference)
	last := len(g.entries) - 1
	g.entries[i] = g.entries[last]
	g.index[g.entries[i].subject] = i
	g.entries[last] = entry{}
	g.entries = g.entries[:last]
	delete(g.index, subject)
}

// subject compares e with one subject; false when it has no reference.
func (g *gallery) subject(id string, e agent.Embedding) (float32, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	i, ok := g.index[id]
	if !ok || g.entries[i].reference == nil {
		return -1, false
	}
	return g.entries[i].reference.Cosine(e), true
}

// search returns the two most similar subjects; empty candidates when there are
// fewer.
func (g *gallery) search(e agent.Embedding) (best, second candidate) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for i := range g.entries {
		if g.entries[i].reference == nil {
			continue
		}
		c := candidate{g.entries[i].subject, g.entries[i].reference.Cosine(e)}
		switch {
		case best.subject == "" || c.cosine > best.cosine:
			best, second = c, best
		case second.subject == "" || c.cosine > second.cosine:
			second = c
		}
	}
	return best, second
}
