package evaluate

import (
	"fmt"
	"math"

	"postern/agent"
	"postern/models"
)

// ScoreFMR is the false match rate that a score from 10 to 100 stands for: 30 for
// 1e-2, 50 for 1e-3, 70 for 1e-4, 90 for 1e-5; above 90 each further factor of ten
// takes 8 points, so that a table on many people still has rows left.
func ScoreFMR(score float64) float64 {
	if score > 90 {
		return math.Pow(10, -5-(score-90)/8)
	}
	return math.Pow(10, -0.5-score/20)
}

// fittedScores are the rows of a calibration: every quarter of a decade.
var fittedScores = []float64{10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 92, 94, 96, 98}

// topAnchor is the last score that every table must place, measured or not.
const topAnchor = 90

// leastScore is the last score whose rate must be measured, for a table to be fitted
// at all: without it even the decline threshold would be a guess.
const leastScore = 50

// minPeople is how many people a table must rest on.
const minPeople = 20

// Fit makes the calibration table of a network from a finished Run on the same data.
// Rates that rest on fewer than ten false matches are bounds; their cosines are
// extrapolated from the last measured decade along a straight line of log FMR, which
// errs towards higher cosines, since the tail falls ever faster.
func (r *Report) Fit(id, data string) (*models.Calibration, error) {
	t := r.trials
	c := &models.Calibration{ID: id, Data: data, People: people(r.dataset), Images: r.Images, Genuine: r.Genuine, Impostor: r.Impostor}
	if err := enough(c); err != nil {
		return nil, err
	}
	cosines, scores, err := knots(t.impostor)
	if err != nil {
		return nil, err
	}
	fmr, fnmr := resample(r.dataset, r.faces, t, cosines)
	c.Points = append(c.Points, models.CalibrationPoint{Cosine: -1, Score: 0})
	for k, cos := range cosines {
		p := models.CalibrationPoint{Cosine: cos, Score: scores[k],
			FMRLimits: &models.Limits{0, digits(fmr[k].High)}, FNMRLimits: &models.Limits{0, digits(fnmr[k].High)}}
		if v := FalseMatchRate(t.impostor.above(cos), t.impostor.total).Value; v != nil {
			p.FMR, p.FMRLimits[0] = digits(*v), min(digits(fmr[k].Low), digits(*v))
		}
		if v := FalseNonMatchRate(t.misses(cos), len(t.genuine)).Value; v != nil {
			p.FNMR, p.FNMRLimits[0] = digits(*v), min(digits(fnmr[k].Low), digits(*v))
		}
		c.Points = append(c.Points, p)
	}
	c.Points = append(c.Points, models.CalibrationPoint{Cosine: 1, Score: 100})
	return c, nil
}

func people(d *Dataset) int {
	seen := map[string]bool{}
	for _, im := range d.Images {
		seen[im.Person] = true
	}
	return len(seen)
}

// enough refuses data on which no table can rest, and says what it lacks.
func enough(c *models.Calibration) error {
	need := int(math.Ceil(minMatches / ScoreFMR(leastScore)))
	switch {
	case c.People < minPeople:
		return tooFew(fmt.Sprintf("%d people are fewer than %d", c.People, minPeople))
	case c.Genuine < minGenuine:
		return tooFew(fmt.Sprintf("%d pairs of pictures of one person are fewer than %d", c.Genuine, minGenuine))
	case c.Impostor < need:
		return tooFew(fmt.Sprintf("%d pairs of pictures of two people are fewer than the %d that score %d (FMR %.0e) needs",
			c.Impostor, need, leastScore, ScoreFMR(leastScore)))
	}
	return nil
}

func tooFew(why string) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: "too little data to calibrate on: " + why,
		Fix: "add people and pictures; 150 people with two pictures each support score 50, 1,500 score 90"}
}

// knots places the rows: cosines and scores, both rising.
func knots(h *histogram) (cosines, scores []float64, err error) {
	measured := 0
	for _, s := range fittedScores {
		fmr := ScoreFMR(s)
		// A touch of slack: 10^-6 times a million is not quite one in binary.
		if fmr*float64(h.total) < minMatches-1e-6 {
			if s > topAnchor && measured < len(cosines) {
				break // one bound above the top anchor is as much as can be said
			}
			cosines = append(cosines, extrapolate(cosines[:measured], scores[:measured], fmr))
		} else {
			cosines = append(cosines, ceil4(h.threshold(fmr)))
			measured++
		}
		scores = append(scores, s)
	}
	for i, c := range cosines {
		if c >= 1 || c <= -1 || i > 0 && c <= cosines[i-1] {
			return nil, nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf(
				"no rising table fits these data: score %v would lie at cosine %.4f", scores[i], c),
				Fix: "check that each folder holds one person, and each person one folder"}
		}
	}
	return cosines, scores, nil
}

// extrapolate continues the last measured decade.
func extrapolate(cosines, scores []float64, fmr float64) float64 {
	last := len(cosines) - 1
	first := max(0, last-4)
	a, b := math.Log10(ScoreFMR(scores[first])), math.Log10(ScoreFMR(scores[last]))
	return ceil4(cosines[last] + (cosines[last]-cosines[first])*(b-math.Log10(fmr))/(a-b))
}

// ceil4 rounds a threshold up to what a table prints.
func ceil4(v float64) float64 { return math.Ceil(v*1e4-1e-6) / 1e4 }

// digits keeps four significant digits.
func digits(v float64) float64 {
	if v == 0 {
		return 0
	}
	k := math.Pow(10, 3-math.Floor(math.Log10(v)))
	return math.Round(v*k) / k
}
