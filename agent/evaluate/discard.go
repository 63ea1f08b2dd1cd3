package evaluate

import (
	"cmp"
	"slices"
)

// DiscardCurve is the error-versus-discard characteristic (ISO/IEC 29794-1; Grother
// and Tabassi 2007): the FNMR at a fixed threshold when the genuine pairs of the
// lowest quality are left out. A quality that predicts misses makes it fall.
type DiscardCurve struct {
	FMR     float64        `json:"fmr"` // that the threshold was set for, on all impostor pairs
	Cosine  float64        `json:"cosine"`
	NoFace  int            `json:"no_face"` // genuine pairs left out throughout: a face was not found
	Genuine int            `json:"genuine"` // genuine pairs of two faces
	Points  []DiscardPoint `json:"points"`
}

// DiscardPoint is one share left out. Its pairs' quality is the lower of their two
// faces'.
type DiscardPoint struct {
	Discarded float64 `json:"discarded"` // share
	Quality   float64 `json:"quality"`   // the lowest that is left
	FNMR      Rate    `json:"fnmr"`
	// Perfect is the FNMR if quality told exactly which pairs are missed.
	Perfect float64 `json:"perfect"`
}

const discardFMR = 1e-3

var discardShares = []float64{0, 0.02, 0.05, 0.10, 0.20}

func discard(t *trials, fmr float64) *DiscardCurve {
	c := &DiscardCurve{FMR: fmr, Cosine: t.impostor.threshold(fmr)}
	pairs := make([]trial, 0, len(t.genuine))
	for _, g := range t.genuine {
		if g.faces {
			pairs = append(pairs, g)
		}
	}
	c.Genuine, c.NoFace = len(pairs), len(t.genuine)-len(pairs)
	c.Points = discardPoints(pairs, c.Cosine)
	return c
}

// discardPoints sorts the pairs and leaves out each share of the worst.
func discardPoints(pairs []trial, cosine float64) (points []DiscardPoint) {
	// Of equal quality the better match goes first, so that a tie flatters nobody.
	slices.SortFunc(pairs, func(a, b trial) int {
		return cmp.Or(cmp.Compare(a.quality, b.quality), cmp.Compare(b.cosine, a.cosine))
	})
	all := missesIn(pairs, cosine)
	for _, s := range discardShares {
		gone := int(s * float64(len(pairs)))
		left := pairs[gone:]
		p := DiscardPoint{Discarded: s, FNMR: FalseNonMatchRate(missesIn(left, cosine), len(left)),
			Perfect: share(max(0, all-gone), len(left))}
		if len(left) > 0 {
			p.Quality = left[0].quality
		}
		points = append(points, p)
	}
	return points
}

func missesIn(ts []trial, cos float64) int {
	n := 0
	for _, t := range ts {
		if t.cosine <= cos {
			n++
		}
	}
	return n
}
