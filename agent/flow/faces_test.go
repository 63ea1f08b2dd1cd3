package flow

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/cases"
)

func unit(seed, dim int) agent.Embedding {
	e := make(agent.Embedding, dim)
	for i := range e {
		e[i] = float32(math.Sin(float64(seed*31+i*7) + 0.5))
	}
	e.Normalise()
	return e
}

// TestFacesModel sets and drops faces of two dimensions at random, and compares with a map.
func TestFacesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, want := newFaces(), map[string]agent.Embedding{}
		id := func() string { return fmt.Sprint("f", rapid.IntRange(0, 6).Draw(t, "id")) }
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, e := id(), unit(rapid.IntRange(0, 9).Draw(t, "seed"), rapid.SampledFrom([]int{4, 8}).Draw(t, "dim"))
				want[k] = append(agent.Embedding(nil), e...)
				f.set(k, e)
				clear(e) // it was copied
			},
			"drop":  func(t *rapid.T) { k := id(); f.drop(k); delete(want, k) },
			"close": func(t *rapid.T) { f.close(); clear(want) },
			"": func(t *rapid.T) {
				probes := []agent.Embedding{unit(3, 4), unit(3, 8), unit(3, 5)}
				for i := range 7 {
					for _, p := range probes {
						k := fmt.Sprint("f", i)
						c, ok := f.cosine(k, p)
						if w, there := want[k]; ok != (there && len(w) == len(p)) || ok && math.Abs(float64(c-w.Cosine(p))) > 1e-6 {
							t.Fatalf("%s: %v %v, want %v", k, c, ok, w)
						}
					}
				}
			},
		})
	})
}

// TestIndexForgets: what is dropped, or too much, is not in the arena any more either.
func TestIndexForgets(t *testing.T) {
	x := newIndex(2)
	for i := range 4 {
		x.addSession(&cases.Session{ID: fmt.Sprint("s", i)}, unit(i, 8))
	}
	q := &SearchQuery{Embedding: unit(3, 8)}
	if hits := x.search(q, -1); len(hits) != 2 || hits[0].session != "s3" || hits[0].cosine < 0.99 {
		t.Errorf("%+v", hits)
	}
	x.dropSession("s3")
	if _, ok := x.faces.cosine(owner("s3"), unit(3, 8)); ok || len(x.faces.dims) != 1 {
		t.Errorf("faces of %v", x.faces.dims)
	}
	x.close()
	if hits := x.search(q, -1); len(hits) != 0 {
		t.Errorf("after closing %+v", hits)
	}
}
