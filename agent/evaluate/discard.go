package evaluate

import (
	"cmp"
	"math"
	"slices"

	"postern/agent"
)

// FaceQuality is one scalar from 0 (no use) to 100 (nothing to object to). It is
// 100 times the product of six factors, each rising linearly from 0 to 1 between
// a value at which a face is of no use and one from which more does not help:
//
//	eye distance   10 to 35 pixels: what the embedder sees at 112x112
//	sharpness      0 to 100 grey levels squared at 112x112, on its square root,
//	               which is an amplitude
//	contrast       2 to 12 of 100
//	head turned    60 to 0 degrees away from the camera, yaw and pitch together
//	inside         0.5 to 1 of the face's box
//	confidence     0.5 to 1, the detector's: it falls for what no other factor
//	               measures (covered, badly lit, grimacing)
//
// Luminance has no factor of its own: what darkness or glare takes shows in the
// contrast. The limits are round numbers. Confidence was taken in, and the limits of
// sharpness, eye distance and pose moved, after a look at the development faces,
// where detector confidence predicts misses better than all the others; so a discard
// curve on those faces is not an independent proof.
func FaceQuality(p *agent.Probe) float64 {
	if p.Face == nil {
		return 0
	}
	q := &p.Quality
	turned := math.Hypot(float64(q.Yaw), float64(q.Pitch))
	return 100 * ramp(float64(q.EyeDistance), 10, 35) *
		ramp(math.Sqrt(max(0, float64(q.Sharpness))), 0, 10) *
		ramp(float64(q.Contrast), 2, 12) *
		ramp(turned, 60, 0) *
		ramp(float64(q.Inside), 0.5, 1) *
		ramp(float64(p.Face.Confidence), 0.5, 1)
}

// ramp is 0 at none and beyond, 1 at full and beyond, and straight between; 0 for
// what is not a number.
func ramp(v, none, full float64) float64 {
	x := (v - none) / (full - none)
	if math.IsNaN(x) {
		return 0
	}
	return min(1, max(0, x))
}

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
	// Of equal quality the better match goes first, so that a tie flatters nobody.
	slices.SortFunc(pairs, func(a, b trial) int {
		return cmp.Or(cmp.Compare(a.quality, b.quality), cmp.Compare(b.cosine, a.cosine))
	})
	all := missesIn(pairs, c.Cosine)
	for _, s := range discardShares {
		gone := int(s * float64(len(pairs)))
		left := pairs[gone:]
		p := DiscardPoint{Discarded: s, FNMR: FalseNonMatchRate(missesIn(left, c.Cosine), len(left)),
			Perfect: share(max(0, all-gone), len(left))}
		if len(left) > 0 {
			p.Quality = left[0].quality
		}
		c.Points = append(c.Points, p)
	}
	return c
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
