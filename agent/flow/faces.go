package flow

import (
	"postern/agent"
	"postern/agent/search"
)

// faces are embeddings by id. They lie in arenas outside of Go's heap, one for each
// dimension: locked, left out of core dumps, and zeroed when a face goes.
type faces struct {
	rows map[int]*faceRows // by dimension
	dims map[string]int    // of each id
}

// faceRows are the faces of one dimension.
type faceRows struct {
	matrix *search.Matrix
	ids    []string // of each row
	at     map[string]int
}

func newFaces() faces { return faces{map[int]*faceRows{}, map[string]int{}} }

// set copies a face in, in place of the one with the same id.
func (f *faces) set(id string, e agent.Embedding) {
	f.drop(id)
	r := f.rows[len(e)]
	if r == nil {
		r = &faceRows{matrix: search.New(len(e)), at: map[string]int{}}
		f.rows[len(e)] = r
	}
	row := r.matrix.Append()
	r.matrix.Set(row, e)
	r.ids, r.at[id], f.dims[id] = append(r.ids, id), row, len(e)
}

// drop wipes a face; one that is not there is no error.
func (f *faces) drop(id string) {
	dim, ok := f.dims[id]
	if !ok {
		return
	}
	r := f.rows[dim]
	row, last := r.at[id], len(r.ids)-1
	r.matrix.Remove(row)
	r.ids[row] = r.ids[last]
	r.at[r.ids[row]] = row
	r.ids = r.ids[:last]
	delete(r.at, id)
	delete(f.dims, id)
}

// cosine compares a face with another of its dimension; false where there is none.
func (f *faces) cosine(id string, e agent.Embedding) (float32, bool) {
	r := f.rows[len(e)]
	if r == nil {
		return 0, false
	}
	row, ok := r.at[id]
	if !ok {
		return 0, false
	}
	mine := r.matrix.At(row)
	return mine.Cosine(e), mine != nil
}

func (f *faces) close() {
	for _, r := range f.rows {
		r.matrix.Close()
	}
	*f = newFaces()
}
