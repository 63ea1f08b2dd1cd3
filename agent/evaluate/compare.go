package evaluate

import (
	"math"
	"slices"
)

// Comparison sets two models side by side on the same pictures. Every difference is
// paired: the same pairs, and the same drawings of people.
type Comparison struct {
	A, B *Report
	// Pairs of the protocol that one decides rightly and the other wrongly, and how
	// likely so uneven a split is by chance (McNemar's test, exact, two-sided).
	OnlyA   int     `json:"only_a"`
	OnlyB   int     `json:"only_b"`
	McNemar float64 `json:"mcnemar_p"`
	// Differences of the FNMR, B less A, at the same FMR, each at its own threshold.
	FNMR []Difference `json:"fnmr"`
}

// Difference is B's FNMR less A's at one FMR, with a 95 % interval over people. It is
// significant where the interval leaves out 0.
type Difference struct {
	FMR         float64  `json:"fmr"`
	Value       float64  `json:"value"`
	CI          Interval `json:"ci95"`
	Significant bool     `json:"significant"`
}

// Compare needs two finished runs on the same data set.
func Compare(a, b *Report) *Comparison {
	c := &Comparison{A: a, B: b}
	rightA, rightB := a.right, b.right
	for i := range min(len(rightA), len(rightB)) {
		switch {
		case rightA[i] && !rightB[i]:
			c.OnlyA++
		case rightB[i] && !rightA[i]:
			c.OnlyB++
		}
	}
	c.McNemar = mcNemar(c.OnlyA, c.OnlyB)
	for k := range a.Points {
		c.FNMR = append(c.FNMR, difference(a, b, k))
	}
	return c
}

// difference at the k-th operating point.
func difference(a, b *Report, k int) Difference {
	ta, tb := a.Points[k].Cosine, b.Points[k].Cosine
	ba := missesByPerson(a.dataset, a.trials, ta)
	bb := missesByPerson(b.dataset, b.trials, tb)
	w := make([]float64, ba.people)
	var ds []float64
	for r := range rounds {
		ba.draw(w, uint64(r))
		var missedA, missedB, genuine float64
		for p, n := range w {
			missedA += n * ba.misses[0][p]
			missedB += n * bb.misses[0][p]
			genuine += n * ba.genuine[p]
		}
		ds = append(ds, (missedB-missedA)/max(1, genuine))
	}
	slices.Sort(ds)
	tail := int(0.025 * float64(len(ds)))
	d := Difference{FMR: a.Points[k].FMR, Value: b.Points[k].FNMR - a.Points[k].FNMR, CI: Interval{ds[tail], ds[len(ds)-1-tail]}}
	d.Significant = d.CI.Low > 0 || d.CI.High < 0
	return d
}

// mcNemar is the two-sided probability of a split at least as uneven as k to n by
// tossing coins.
func mcNemar(k, n int) float64 {
	total := k + n
	if total == 0 {
		return 1
	}
	p := 0.0
	for i := 0; i <= min(k, n); i++ {
		lg, _ := math.Lgamma(float64(total + 1))
		li, _ := math.Lgamma(float64(i + 1))
		lr, _ := math.Lgamma(float64(total - i + 1))
		p += math.Exp(lg - li - lr - float64(total)*math.Ln2)
	}
	return min(1, 2*p)
}
