package evaluate

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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

// above counts what lies above a cosine, rounded down to a bin's edge: up to one
// bin more than there is, so a false match rate is never told too small.
func (h *histogram) above(cos float64) int {
	n := 0
	for _, k := range h.bins[min(binCount-1, max(0, int((cos+1)/2*binCount))):] {
		n += int(k)
	}
	return n
}

// trial is one genuine pair.
type trial struct {
	cosine  float64
	quality float64 // the lower of the two faces' face_quality
	faces   bool    // a face was found in both pictures
	image   int     // the first of the two
	other   int     // the second
}

// trials are all cross pairs of a data set.
type trials struct {
	genuine  []trial // by rising cosine
	impostor *histogram
}

func (t *trials) merge(o *trials) {
	t.genuine = append(t.genuine, o.genuine...)
	t.impostor.merge(o.impostor)
}

// misses counts the genuine pairs at or below a cosine: what is not above a
// threshold does not match.
func (t *trials) misses(cos float64) int {
	n, _ := slices.BinarySearchFunc(t.genuine, cos, func(g trial, cos float64) int {
		if g.cosine <= cos {
			return -1
		}
		return 1
	})
	return n
}

// crossPairs compares every picture with every other.
func crossPairs(d *Dataset, faces []face) *trials {
	var mu sync.Mutex // guards all
	all := &trials{impostor: newHistogram()}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			own := &trials{impostor: newHistogram()}
			for i := int(next.Add(1)) - 1; i < len(faces); i = int(next.Add(1)) - 1 {
				for j := i + 1; j < len(faces); j++ {
					own.add(d, faces, i, j)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.merge(own)
		})
	}
	wg.Wait()
	slices.SortFunc(all.genuine, func(a, b trial) int { return cmp.Compare(a.cosine, b.cosine) })
	return all
}

func (t *trials) add(d *Dataset, faces []face, i, j int) {
	a, b := &faces[i], &faces[j]
	c := cosine(a.embedding, b.embedding)
	if d.Images[i].Person == d.Images[j].Person {
		t.genuine = append(t.genuine, trial{c, min(a.quality, b.quality), a.embedding != nil && b.embedding != nil, i, j})
	} else {
		t.impostor.add(c)
	}
}

// operatingPoint sets the threshold on the impostors and counts the genuine at or
// below it.
func operatingPoint(t *trials, fmr float64) OperatingPoint {
	cos := t.impostor.threshold(fmr)
	misses := t.misses(cos)
	return OperatingPoint{FMR: fmr, Cosine: cos, Misses: misses,
		FNMR: share(misses, len(t.genuine)), CI: Wilson(misses, len(t.genuine))}
}

func share(k, n int) float64 { return float64(k) / float64(max(1, n)) }

// Rate is an error rate as ISO/IEC 19795-1 reports it: with its trials and its
// uncertainty.
type Rate struct {
	Errors int      `json:"errors"`
	Trials int      `json:"trials"`
	Value  *float64 `json:"value"` // Errors/Trials; null where the data cannot support it
	CI     Interval `json:"ci95"`
	Below  float64  `json:"below"` // the rate lies below this with 95 % confidence, one-sided
}

const (
	// minMatches is how many false matches a false match rate must rest on: with
	// ten the 95 % interval is still a factor of 1.8 either way.
	minMatches = 10
	// minGenuine is how many genuine pairs a false non-match rate must rest on:
	// with fewer, even a run without an error leaves more than 3 % open.
	minGenuine = 100
)

// FalseMatchRate is k false matches in n impostor pairs; below ten there is only a bound.
func FalseMatchRate(k, n int) Rate { return rate(k, n, k >= minMatches) }

// FalseNonMatchRate is k misses in n genuine pairs; below a hundred pairs there is
// only a bound.
func FalseNonMatchRate(k, n int) Rate { return rate(k, n, n >= minGenuine) }

func rate(k, n int, supported bool) Rate {
	r := Rate{Errors: k, Trials: n, CI: Wilson(k, n), Below: upperBound(k, n)}
	if supported && n > 0 {
		v := share(k, n)
		r.Value = &v
	}
	return r
}

// poissonUpper is the 95 % one-sided upper limit of a Poisson mean when k events
// were seen (Garwood 1936): half the 0.95 quantile of chi-squared with 2k+2
// degrees of freedom. The first is the "rule of three".
var poissonUpper = [minMatches]float64{2.996, 4.744, 6.296, 7.754, 9.154, 10.513, 11.842, 13.148, 14.435, 15.705}

// upperBound of k in n: Poisson for few, which for a share errs upwards, else Wilson's.
func upperBound(k, n int) float64 {
	switch {
	case n == 0:
		return 1
	case k < len(poissonUpper):
		return min(1, poissonUpper[k]/float64(n))
	}
	return Wilson(k, n).High
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
