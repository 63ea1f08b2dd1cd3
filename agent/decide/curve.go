// Package decide turns evidence into decisions: cosine to score, score and
// thresholds to status, findings to warnings. Everything here is a pure function.
package decide

import (
	"errors"
	"fmt"
	"math"
	"sort"

	"postern/agent"
)

// Point is one knot of a curve.
type Point struct{ Cosine, Score float64 }

// Curve maps a cosine to the 0..100 score, monotone and piecewise linear. The
// score means the same error rates whatever the model: 50, 70 and 90 stand for
// false match rates of 1e-3, 1e-4 and 1e-5 as measured for the model's table.
type Curve struct {
	id     string
	points []Point
	rates  []Rate // for 1:N; may be empty
}

// NewCurve checks that the points rise in both coordinates, that the scores span
// 0 to 100 and that no score above 0 is given to a cosine of -1, which stands for
// "cannot be compared".
func NewCurve(id string, points []Point) (*Curve, error) {
	if id == "" || len(points) < 2 {
		return nil, errors.New("a calibration needs an id and at least two points")
	}
	for i, p := range points {
		if !(p.Cosine >= -1 && p.Cosine <= 1) || !(p.Score >= 0 && p.Score <= 100) {
			return nil, fmt.Errorf("calibration %s: point %d is out of range", id, i)
		}
		if i > 0 && (p.Cosine <= points[i-1].Cosine || p.Score <= points[i-1].Score) {
			return nil, fmt.Errorf("calibration %s: point %d does not rise", id, i)
		}
	}
	if points[0].Score != 0 || points[len(points)-1].Score != 100 {
		return nil, fmt.Errorf("calibration %s: scores do not span 0 to 100", id)
	}
	return &Curve{id: id, points: append([]Point(nil), points...)}, nil
}

// ID names the calibration that a decision records.
func (c *Curve) ID() string { return c.id }

// Score returns the score of a cosine, rounded to two decimals. What cannot be a
// cosine (not a number, above 1) scores 0.
func (c *Curve) Score(cosine float32) float64 {
	x := float64(cosine)
	if !(x > c.points[0].Cosine && x <= 1) {
		return 0
	}
	i := sort.Search(len(c.points), func(i int) bool { return c.points[i].Cosine >= x })
	if i == len(c.points) {
		return 100
	}
	a, b := c.points[i-1], c.points[i]
	s := a.Score + (x-a.Cosine)/(b.Cosine-a.Cosine)*(b.Score-a.Score)
	return math.Round(s*100) / 100
}

// Cosine is the inverse of Score: the cosine at which a score is reached.
func (c *Curve) Cosine(score float64) float32 {
	i := sort.Search(len(c.points), func(i int) bool { return c.points[i].Score >= score })
	switch i {
	case 0:
		return float32(c.points[0].Cosine)
	case len(c.points):
		return float32(c.points[len(c.points)-1].Cosine)
	}
	a, b := c.points[i-1], c.points[i]
	return float32(a.Cosine + (score-a.Score)/(b.Score-a.Score)*(b.Cosine-a.Cosine))
}

// ValidateThresholds checks 0 <= decline <= review < 100: at 100 nothing could be
// approved, and a decline above review would make the order of the tests matter.
func ValidateThresholds(t agent.Thresholds) error {
	if !(t.Decline >= 0 && t.Decline <= t.Review && t.Review < 100) {
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf(
			"thresholds review %v and decline %v are not 0 <= decline <= review < 100", t.Review, t.Decline)}
	}
	return nil
}
