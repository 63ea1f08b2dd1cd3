package evaluate

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"postern/agent"
)

// Pictures names the files that WritePictures makes: detection error trade-off,
// receiver operating characteristic, and the histogram of the cosines.
var Pictures = []string{"det.svg", "roc.svg", "histogram.svg"}

// NewPictureFolder makes dir, unless it is there, and checks that it has none of
// Pictures: call it before a long run, so that the run is not in vain.
func NewPictureFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot make the folder %q", dir), Err: err}
	}
	for _, name := range Pictures {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("%s is in folder %q already", name, dir),
				Fix: "name another folder; nothing is overwritten"}
		}
	}
	return nil
}

// WritePictures draws the report that Run made into dir, overwriting nothing.
func (r *Report) WritePictures(dir string) error {
	if err := NewPictureFolder(dir); err != nil {
		return err
	}
	if r.trials == nil || r.Genuine == 0 || r.Impostor == 0 {
		return &agent.Error{Code: agent.CodeInvalid, Message: "there are no pictures to draw without genuine and impostor pairs"}
	}
	curve := tradeOff(r.trials)
	for i, svg := range [][]byte{r.det(curve), r.roc(curve), r.histogram()} {
		if err := writeNew(filepath.Join(dir, Pictures[i]), svg); err != nil {
			return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write %s", Pictures[i]), Err: err}
		}
	}
	return nil
}

func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// trade is one threshold's pair of errors.
type trade struct{ fmr, fnmr float64 }

// stepsPerDecade is how finely tradeOff follows the false match rate.
const stepsPerDecade = 40

// tradeOff walks the threshold down from 1 and notes both errors each time the
// false matches have grown by a step: from a single one to all.
func tradeOff(t *trials) []trade {
	h := t.impostor
	var out []trade
	above, missed, next := 0, len(t.genuine), 1.0
	for i := binCount - 1; i >= 0; i-- {
		if h.bins[i] == 0 {
			continue
		}
		above += int(h.bins[i])
		edge := float64(i)/binCount*2 - 1
		if i == 0 {
			edge = math.Inf(-1) // below everything, what cannot be compared included
		}
		if float64(above) < next && above < h.total {
			continue
		}
		for missed > 0 && t.genuine[missed-1].cosine > edge {
			missed--
		}
		out = append(out, trade{share(above, h.total), share(missed, len(t.genuine))})
		next = float64(above) * math.Pow(10, 1.0/stepsPerDecade)
	}
	return out
}

// subtitle says what the data are.
func (r *Report) subtitle() string {
	return fmt.Sprintf("%s, %d pictures: %d genuine pairs, %d impostor pairs", r.ModelID, r.Images, r.Genuine, r.Impostor)
}

const fewMatches = "fewer than 10 false matches"

// supportedFMR is the lowest FMR that the data can support, as FalseMatchRate does.
func (r *Report) supportedFMR() float64 { return min(1, float64(minMatches)/float64(r.Impostor)) }

func (r *Report) fmrAxis() axis {
	return logAxis("False match rate (share of impostor pairs that match)", 1/float64(r.Impostor), 1)
}

// det draws FNMR against FMR, both logarithmic (ISO/IEC 19795-1).
func (r *Report) det(curve []trade) []byte {
	floor := 1 / float64(r.Genuine)
	p := newPlot("Detection error trade-off", r.subtitle(), r.fmrAxis(),
		logAxis("False non-match rate (share of genuine pairs that do not)", floor, 1))
	var points []xy
	for _, c := range curve {
		if c.fnmr > 0 { // a logarithm has no place for 0
			points = append(points, xy{c.fmr, c.fnmr})
		}
	}
	r.drawTrade(p, points, func(c trade) xy { return xy{c.fmr, c.fnmr} }, false)
	return p.bytes()
}

// roc draws the share of genuine pairs that match against FMR. What lies under its
// axis is where the data cannot support an FMR.
func (r *Report) roc(curve []trade) []byte {
	worst := 0.0
	for _, c := range curve {
		if c.fmr >= r.supportedFMR() {
			worst = max(worst, c.fnmr)
		}
	}
	for _, s := range r.marked() {
		worst = max(worst, share(s.FNMR.Errors, s.FNMR.Trials))
	}
	step, low := rocScale(worst)
	match := func(c trade) xy { return xy{c.fmr, 1 - c.fnmr} }
	var points []xy
	for _, c := range curve {
		if 1-c.fnmr >= low {
			points = append(points, match(c))
		}
	}
	p := newPlot("Receiver operating characteristic", r.subtitle(), r.fmrAxis(),
		linearAxis("True match rate (share of genuine pairs that match)", low, 1, step, percent))
	r.drawTrade(p, points, match, true)
	return p.bytes()
}

// drawTrade draws the curve and marks the scores on it that have a false match. A
// rising curve leaves room above its left end and under the rest, a falling one the
// other way round.
func (r *Report) drawTrade(p *plot, points []xy, at func(trade) xy, rising bool) {
	p.shade(r.supportedFMR(), fewMatches, rising)
	p.curve(blue, points)
	for _, s := range r.marked() {
		if s.FMR.Errors > 0 {
			p.mark(at(trade{share(s.FMR.Errors, s.FMR.Trials), share(s.FNMR.Errors, s.FNMR.Trials)}), fmt.Sprintf("score %g", s.Score), rising)
		}
	}
	p.key(blue, "all thresholds")
}

// rocScale picks the step and the lower end of an axis that shows misses up to worst.
func rocScale(worst float64) (step, low float64) {
	for _, step := range []float64{0.01, 0.02, 0.05, 0.1} {
		if n := math.Ceil(worst/step + 0.2); n <= 8 {
			return step, 1 - n*step
		}
	}
	return 0.2, 0
}

func percent(v float64) string { return fmt.Sprintf("%.4g %%", math.Round(v*1e6)/1e4) }

// marked are the rows of the score table that a picture names: decline, review
// and what 1:N asks.
func (r *Report) marked() []ScoreRow {
	var out []ScoreRow
	for _, s := range r.Scores {
		if s.Score == 50 || s.Score == 70 || s.Score == 90 {
			out = append(out, s)
		}
	}
	return out
}

// cosineBin is the width of the histogram's bins.
const cosineBin = 0.02

// histogram draws how the cosines of either kind of pairs spread.
func (r *Report) histogram() []byte {
	bins := int(math.Round(2 / cosineBin))
	genuine, impostor := make([]float64, bins), make([]float64, bins)
	bin := func(cos float64) int { return min(bins-1, max(0, int(math.Floor((cos+1)/cosineBin+1e-9)))) }
	for _, g := range r.trials.genuine {
		genuine[bin(g.cosine)] += 1 / float64(r.Genuine)
	}
	for i, n := range r.trials.impostor.bins {
		if n > 0 {
			impostor[bin(float64(i)/binCount*2-1)] += float64(n) / float64(r.Impostor)
		}
	}
	low, top := 1.0, 0.0
	for i := range bins {
		if at := -1 + float64(i)*cosineBin; (genuine[i] > 0 || impostor[i] > 0) && at < low {
			low = at
		}
		top = max(top, genuine[i], impostor[i])
	}
	low = math.Floor(low*5+1e-9) / 5
	p := newPlot("Cosines of genuine and impostor pairs", r.subtitle(),
		linearAxis("Cosine of the two embeddings", low, 1, 0.2, func(v float64) string { return fmt.Sprintf("%.1f", v) }),
		shareAxis(top))
	p.area(orange, steps(impostor, low))
	p.area(blue, steps(genuine, low))
	for _, s := range r.marked() {
		p.threshold(s.Cosine, fmt.Sprintf("score %g", s.Score))
	}
	p.key(orange, "impostor pairs")
	p.key(blue, "genuine pairs")
	return p.bytes()
}

// shareAxis goes from 0 to at least top in about five round steps.
func shareAxis(top float64) axis {
	step := 0.001
	for _, s := range []float64{0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2} {
		if top/step <= 6 {
			break
		}
		step = s
	}
	high := math.Ceil(top/step+0.1) * step
	return linearAxis(fmt.Sprintf("Share of pairs in each step of %g", cosineBin), 0, high, step, percent)
}

// steps turns bins into the outline of their bars, from low on.
func steps(bins []float64, low float64) []xy {
	var out []xy
	for i, v := range bins {
		if at := -1 + float64(i)*cosineBin; at > low-cosineBin/2 {
			out = append(out, xy{at, v}, xy{at + cosineBin, v})
		}
	}
	return out
}
