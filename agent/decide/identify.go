package decide

import (
	"fmt"
	"math"

	"postern/agent"
)

// Rate is one row of a model's table: when scores above Score match, the false match
// rate lies below FMR with 95 % confidence.
type Rate struct{ Score, FMR float64 }

// Search says how often a 1:N search may name somebody for a stranger (FPIR, false
// positive identification rate): Approved, and In Review or better.
type Search struct {
	FPIR       float64
	ReviewFPIR float64
}

// WithRates returns the curve with the rates of its table, which must fall as the
// scores rise. Without rates there is no 1:N search.
func (c *Curve) WithRates(rates []Rate) (*Curve, error) {
	for i, r := range rates {
		if !(r.Score >= 0 && r.Score <= 100) || !(r.FMR > 0 && r.FMR <= 1) {
			return nil, fmt.Errorf("calibration %s: rate %d is out of range", c.id, i)
		}
		if i > 0 && (r.Score <= rates[i-1].Score || r.FMR > rates[i-1].FMR) {
			return nil, fmt.Errorf("calibration %s: rate %d runs against its score", c.id, i)
		}
	}
	out := *c
	out.rates = append([]Rate(nil), rates...)
	return &out, nil
}

// ScoreAt is the lowest score of the table at which the false match rate is surely at
// most fmr; false when the table goes not so far. Scores between rows are not used:
// between two rows nobody has measured.
func (c *Curve) ScoreAt(fmr float64) (float64, bool) {
	for _, r := range c.rates {
		if r.FMR <= fmr {
			return r.Score, true
		}
	}
	return 100, false
}

// Thresholds are those of a search among n subjects: a stranger is compared n times,
// so FPIR is at most n times FMR. They are never below those of a comparison with one.
// A table that cannot support them is an error, which names the most it can.
func (s Search) Thresholds(c *Curve, n int, one agent.Thresholds) (agent.Thresholds, error) {
	n = max(1, n)
	review, ok := c.ScoreAt(s.FPIR / float64(n))
	decline, ok2 := c.ScoreAt(s.ReviewFPIR / float64(n))
	if !ok || !ok2 || !(s.FPIR > 0) {
		return agent.Thresholds{}, s.unsupported(c, n)
	}
	t := agent.Thresholds{Review: max(review, one.Review), Decline: max(decline, one.Decline)}
	t.Review = max(t.Review, t.Decline)
	return t, ValidateThresholds(t)
}

// Most is the largest number of subjects that the table supports; 0 without rates.
func (s Search) Most(c *Curve) int {
	if len(c.rates) == 0 || !(s.FPIR > 0) {
		return 0
	}
	least := c.rates[len(c.rates)-1].FMR
	// A touch of slack for 1e-3 / 1e-5, which is not quite 100 in binary.
	return int(math.Floor(min(s.FPIR, s.ReviewFPIR) / least * (1 + 1e-12)))
}

func (s Search) unsupported(c *Curve, n int) error {
	most := s.Most(c)
	fix := "verify a claimed subject instead"
	if most > 0 {
		least := c.rates[len(c.rates)-1].FMR
		fix = fmt.Sprintf("%s, accept more by identify.fpir (%.1e would do for %d), or calibrate on more people", fix, least*float64(n), n)
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf(
		"identification among %d subjects with identify.fpir %g needs a false match rate of %.1e, which calibration %s does not support (at most %d subjects)",
		n, s.FPIR, s.FPIR/float64(n), c.id, most), Fix: fix}
}
