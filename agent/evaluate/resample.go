package evaluate

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// rounds of the bootstrap: enough that the ends of a 95 % interval rest on a dozen
// draws each.
const rounds = 500

// maxKept bounds the impostor pairs that a bootstrap keeps: 16 bytes each.
const maxKept = 4 << 20

// resample gives the 95 % intervals of FMR and FNMR at each of the rising cosines by
// drawing people, not pairs, with replacement (the subset bootstrap of Bolle, Ratha
// and Pankanti 2004): pairs of one person are not independent, and neither are the
// impostor pairs that share one. Where a bootstrap says less than the count itself
// does (no error can be drawn from none), the wider limit of the two is taken.
func resample(d *Dataset, faces []face, t *trials, cosines []float64) (fmr, fnmr []Interval) {
	b := newBootstrap(d, faces, t, cosines)
	draws := b.run()
	fmr, fnmr = make([]Interval, len(cosines)), make([]Interval, len(cosines))
	for k, c := range cosines {
		matches, misses := t.impostor.above(c), t.misses(c)
		fmr[k] = widen(Wilson(matches, t.impostor.total), upperBound(matches, t.impostor.total), draws.quantiles(draws.fmr, k))
		if k < b.lowest {
			fmr[k] = Wilson(matches, t.impostor.total)
		}
		fnmr[k] = widen(Wilson(misses, len(t.genuine)), upperBound(misses, len(t.genuine)), draws.quantiles(draws.fnmr, k))
	}
	return fmr, fnmr
}

// widen takes the wider limit on either side.
func widen(count Interval, bound float64, drawn Interval) Interval {
	return Interval{min(count.Low, drawn.Low), max(count.High, bound, drawn.High)}
}

// bootstrap holds, by person, what a drawing of people adds up.
type bootstrap struct {
	people  int
	images  []float64     // of each person
	genuine []float64     // pairs of each person
	misses  [][]float64   // at each cosine, of each person
	matches []personMatch // impostor pairs above the lowest kept cosine
	rows    int
	lowest  int // first cosine with a bootstrapped FMR: below, too many pairs match
}

// personMatch is one impostor pair: its people, and the highest cosine it is above.
type personMatch struct {
	a, b int32
	row  int32
}

func newBootstrap(d *Dataset, faces []face, t *trials, cosines []float64) *bootstrap {
	b, of := byPerson(d, t, cosines)
	for b.lowest < len(cosines) && t.impostor.above(cosines[b.lowest]) > maxKept {
		b.lowest++
	}
	b.collect(d, faces, of, cosines)
	return b
}

// missesByPerson has the genuine pairs only, at one threshold.
func missesByPerson(d *Dataset, t *trials, cosine float64) *bootstrap {
	b, _ := byPerson(d, t, []float64{cosine})
	return b
}

// byPerson counts pictures, genuine pairs and misses of each person, and gives the
// person of each picture.
func byPerson(d *Dataset, t *trials, cosines []float64) (b *bootstrap, of []int) {
	who := map[string]int{}
	of = make([]int, len(d.Images))
	b = &bootstrap{rows: len(cosines)}
	for i, im := range d.Images {
		k, ok := who[im.Person]
		if !ok {
			k = len(who)
			who[im.Person] = k
			b.images = append(b.images, 0)
		}
		of[i] = k
		b.images[k]++
	}
	b.people = len(who)
	b.genuine = make([]float64, b.people)
	for range cosines {
		b.misses = append(b.misses, make([]float64, b.people))
	}
	for _, g := range t.genuine {
		k := of[g.image]
		b.genuine[k]++
		for r, c := range cosines {
			if g.cosine <= c {
				b.misses[r][k]++
			}
		}
	}
	return b, of
}

// collect compares all pictures again and keeps the impostor pairs that matter.
func (b *bootstrap) collect(d *Dataset, faces []face, of []int, cosines []float64) {
	if b.lowest == len(cosines) {
		return
	}
	var mu sync.Mutex // guards b.matches
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var own []personMatch
			for i := int(next.Add(1)) - 1; i < len(faces); i = int(next.Add(1)) - 1 {
				for j := i + 1; j < len(faces); j++ {
					if of[i] == of[j] {
						continue
					}
					if c := cosine(faces[i].embedding, faces[j].embedding); c > cosines[b.lowest] {
						row, _ := slices.BinarySearch(cosines, c)
						own = append(own, personMatch{int32(of[i]), int32(of[j]), int32(row - 1)})
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			b.matches = append(b.matches, own...)
		})
	}
	wg.Wait()
}

// draws are the rates of each round at each cosine.
type draws struct{ fmr, fnmr [][]float64 } // [cosine][round]

func (b *bootstrap) run() draws {
	out := draws{make([][]float64, b.rows), make([][]float64, b.rows)}
	for k := range b.rows {
		out.fmr[k], out.fnmr[k] = make([]float64, rounds), make([]float64, rounds)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			weights := make([]float64, b.people)
			for r := int(next.Add(1)) - 1; r < rounds; r = int(next.Add(1)) - 1 {
				b.draw(weights, uint64(r))
				b.rates(weights, r, out)
			}
		})
	}
	wg.Wait()
	return out
}

// draw draws as many people as there are; the round's number is the seed, so the
// same data give the same intervals.
func (b *bootstrap) draw(weights []float64, round uint64) {
	rng := rand.New(rand.NewPCG(round, 1))
	clear(weights)
	for range b.people {
		weights[rng.IntN(b.people)]++
	}
}

func (b *bootstrap) rates(w []float64, round int, out draws) {
	var pictures, squares, genuine float64
	for k, n := range b.images {
		pictures += w[k] * n
		squares += w[k] * n * w[k] * n
		genuine += w[k] * b.genuine[k]
	}
	impostor := (pictures*pictures - squares) / 2
	matches := make([]float64, b.rows)
	for _, m := range b.matches {
		matches[m.row] += w[m.a] * w[m.b]
	}
	above := 0.0
	for k := b.rows - 1; k >= 0; k-- {
		above += matches[k]
		missed := 0.0
		for p, n := range b.misses[k] {
			missed += w[p] * n
		}
		out.fmr[k][round] = above / max(1, impostor)
		out.fnmr[k][round] = missed / max(1, genuine)
	}
}

// quantiles are the ends of the middle 95 %.
func (draws) quantiles(by [][]float64, row int) Interval {
	s := slices.Sorted(slices.Values(by[row]))
	tail := int(0.025 * float64(len(s)))
	return Interval{s[tail], s[len(s)-1-tail]}
}
