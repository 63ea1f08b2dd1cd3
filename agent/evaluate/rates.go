package evaluate

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"postern/agent"
)

// histogram counts similarities in bins of 2e-6: finer than any threshold that
// is told apart, and small enough to keep for each worker.
type histogram struct {
	bins  []uint32
	total int
}

const binCount = 1 << 20

func newHistogram() *histogram { return &histogram{bins: make([]uint32, binCount)} }

func (h *histogram) add(cos float64) {
	i := int((cos + 1) / 2 * binCount)
	h.bins[min(binCount-1, max(0, i))]++
	h.total++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.bins {
		h.bins[i] += n
	}
	h.total += o.total
}

// threshold returns the smallest bin edge above which at most fmr of the counts lie.
func (h *histogram) threshold(fmr float64) float64 {
	allowed := int(fmr * float64(h.total))
	above := 0
	for i := binCount - 1; i >= 0; i-- {
		if above += int(h.bins[i]); above > allowed {
			return float64(i+1)/binCount*2 - 1
		}
	}
	return -1
}

// crossPairs compares every picture with every other: the genuine similarities,
// sorted, and the histogram of the impostor ones.
func crossPairs(d *Dataset, embs []agent.Embedding) ([]float64, *histogram) {
	workers := runtime.GOMAXPROCS(0)
	var mu sync.Mutex // guards genuine and impostor
	var genuine []float64
	impostor := newHistogram()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var g []float64
			h := newHistogram()
			for i := int(next.Add(1)) - 1; i < len(embs); i = int(next.Add(1)) - 1 {
				for j := i + 1; j < len(embs); j++ {
					c := cosine(embs[i], embs[j])
					if d.Images[i].Person == d.Images[j].Person {
						g = append(g, c)
					} else {
						h.add(c)
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			genuine = append(genuine, g...)
			impostor.merge(h)
		})
	}
	wg.Wait()
	slices.Sort(genuine)
	return genuine, impostor
}

// operatingPoint sets the threshold on the impostors and counts the genuine at or
// below it.
func operatingPoint(genuine []float64, impostor *histogram, fmr float64) OperatingPoint {
	t := impostor.threshold(fmr)
	misses, _ := slices.BinarySearchFunc(genuine, t, func(g, t float64) int {
		if g <= t {
			return -1
		}
		return 1
	})
	return OperatingPoint{FMR: fmr, Cosine: t, Misses: misses,
		FNMR: float64(misses) / float64(max(1, len(genuine))), CI: Wilson(misses, len(genuine))}
}

// Interval is a confidence interval.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Wilson is the 95 % score interval of k in n (Wilson 1927). It treats trials as
// independent, which cross pairs of the same people are not: read it as a lower
// bound on the uncertainty.
func Wilson(k, n int) Interval {
	if n == 0 {
		return Interval{0, 1}
	}
	const z = 1.959964
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{max(0, mid-half), min(1, mid+half)}
}
