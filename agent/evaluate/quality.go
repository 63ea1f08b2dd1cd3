package evaluate

import (
	"context"
	"maps"
	"math"
	"runtime"
	"slices"

	"postern/agent"
	"postern/agent/photo"
)

// QualityOptions say how to run Quality.
type QualityOptions struct {
	Options
	Limits map[string]agent.QualityLimits // gates to measure, by name
	Cover  int                            // pictures to cover with masks and sunglasses, spread evenly
}

// QualityReport is what the measures of quality are worth on labelled faces.
type QualityReport struct {
	Images  int          `json:"images"`
	ModelID string       `json:"model_id"`
	Spread  []SpreadRow  `json:"spread"`  // of each measure over the pictures
	Discard []DiscardRow `json:"discard"` // by each measure
	Gates   []GateRow    `json:"gates"`   // what the limits leave
	Covered []CoverRow   `json:"covered"` // how often a cover is found
	FMR     float64      `json:"fmr"`     // that the threshold was set for
	Cosine  float64      `json:"cosine"`  // the threshold
	Report  *Report      `json:"-"`       // the error rates on the same faces
}

// SpreadRow is one measure: its 1st, 5th, 50th, 95th and 99th percentile.
type SpreadRow struct {
	Measure string     `json:"measure"`
	At      [5]float64 `json:"percentiles"`
}

// DiscardRow is the FNMR when the pairs of the lowest values are left out.
type DiscardRow struct {
	Measure string `json:"measure"`
	FNMR    []Rate `json:"fnmr"` // at discardShares
}

// GateRow is the FNMR of the pairs whose pictures both meet the limits.
type GateRow struct {
	Gate    string `json:"gate"`
	Refused Rate   `json:"refused"` // pictures that do not
	All     Rate   `json:"fnmr_all"`
	Passed  Rate   `json:"fnmr_passed"`
}

// CoverRow is how often each kind of picture is taken for covered at the limit.
type CoverRow struct {
	Measure string  `json:"measure"`
	Limit   float32 `json:"limit"`
	Plain   Rate    `json:"plain"`   // as they are: false alarms, but for those who do wear something
	Covered Rate    `json:"covered"` // with the cover drawn over the mesh: found
	Other   Rate    `json:"other"`   // with the other cover
}

// measures are what a discard can go by: the higher, the better.
var measures = []struct {
	name string
	of   func(q *agent.Quality, confidence float32) float64
}{
	{"score", func(q *agent.Quality, _ float32) float64 { return float64(q.Score) }},
	{"detector's confidence", func(_ *agent.Quality, c float32) float64 { return float64(c) }},
	{"pitch (least turned)", func(q *agent.Quality, _ float32) float64 { return -math.Abs(float64(q.Pitch)) }},
	{"yaw (least turned)", func(q *agent.Quality, _ float32) float64 { return -math.Abs(float64(q.Yaw)) }},
	{"roll (least turned)", func(q *agent.Quality, _ float32) float64 { return -math.Abs(float64(q.Roll)) }},
	{"sharpness", func(q *agent.Quality, _ float32) float64 { return float64(q.Sharpness) }},
	{"eye distance", func(q *agent.Quality, _ float32) float64 { return float64(q.EyeDistance) }},
	{"eyes open", func(q *agent.Quality, _ float32) float64 { return float64(q.EyesOpen) }},
	{"luminance", func(q *agent.Quality, _ float32) float64 { return float64(q.Luminance) }},
	{"contrast", func(q *agent.Quality, _ float32) float64 { return float64(q.Contrast) }},
	{"mouth seen", func(q *agent.Quality, _ float32) float64 { return -float64(q.MouthCovered) }},
	{"eyes seen", func(q *agent.Quality, _ float32) float64 { return -float64(q.EyesCovered) }},
}

// Quality measures what each quality measure says about misses, what the limits leave,
// and how often covers drawn over the mesh are found.
func Quality(ctx context.Context, d *Dataset, p prober, o QualityOptions) (*QualityReport, error) {
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	probes := make([]agent.Probe, len(d.Images))
	faces := make([]face, len(d.Images))
	every := max(1, len(d.Images)/max(1, o.Cover))
	var covered [2][]agent.Probe // with a mask, with sunglasses
	covered[0], covered[1] = make([]agent.Probe, len(d.Images)), make([]agent.Probe, len(d.Images))
	err := each(ctx, len(d.Images), o.Workers, o.Progress, func(ctx context.Context, i int) error {
		f, err := photo.Load(d.Images[i].Path)
		if err != nil {
			return err
		}
		if probes[i], err = p.Probe(ctx, f); err != nil || probes[i].Face == nil {
			return err
		}
		if i%every == 0 && o.Cover > 0 {
			for k, wear := range []func(*agent.Frame, *agent.Face, uint64) *agent.Frame{mask, sunglasses} {
				if covered[k][i], err = p.Probe(ctx, wear(f, probes[i].Face, uint64(i))); err != nil {
					return err
				}
			}
		}
		faces[i] = face{probes[i].Embedding, float64(probes[i].Quality.Score)}
		probes[i].Face.Mesh = nil // half a megabyte a hundred pictures, and of no more use
		return nil
	})
	if err != nil {
		return nil, err
	}
	return qualityReport(d, faces, probes, covered, o), nil
}

func qualityReport(d *Dataset, faces []face, probes []agent.Probe, covered [2][]agent.Probe, o QualityOptions) *QualityReport {
	report := &Report{Images: len(d.Images), Pairs: len(d.Pairs), Workers: o.Workers}
	report.judge(d, faces, o.Options)
	t := report.trials
	r := &QualityReport{Images: len(d.Images), FMR: discardFMR, Cosine: t.impostor.threshold(discardFMR), Report: report}
	pairs := slices.DeleteFunc(slices.Clone(t.genuine), func(tr trial) bool { return !tr.faces })
	for _, m := range measures {
		value := func(i int) float64 { return m.of(&probes[i].Quality, probes[i].Face.Confidence) }
		r.Spread = append(r.Spread, SpreadRow{m.name, percentiles(probes, value)})
		for k := range pairs {
			pairs[k].quality = min(value(pairs[k].image), value(pairs[k].other))
		}
		row := DiscardRow{Measure: m.name}
		for _, p := range discardPoints(pairs, r.Cosine) {
			row.FNMR = append(row.FNMR, p.FNMR)
		}
		r.Discard = append(r.Discard, row)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Limits)) {
		r.Gates = append(r.Gates, gate(name, o.Limits[name], probes, t, r.Cosine))
	}
	enrol := o.Limits["enrol"]
	r.Covered = []CoverRow{
		coverRow("mouth covered", enrol.MaxMouthHidden, probes, covered[0], covered[1], func(q *agent.Quality) float32 { return q.MouthCovered }),
		coverRow("eyes covered", enrol.MaxEyesHidden, probes, covered[1], covered[0], func(q *agent.Quality) float32 { return q.EyesCovered }),
	}
	for i := range probes {
		if probes[i].ModelID != "" {
			r.ModelID, report.ModelID = probes[i].ModelID, probes[i].ModelID
		}
	}
	return r
}

// percentiles of a measure over the pictures with a face.
func percentiles(probes []agent.Probe, value func(i int) float64) (out [5]float64) {
	var vs []float64
	for i := range probes {
		if probes[i].Face != nil {
			vs = append(vs, value(i))
		}
	}
	if len(vs) == 0 {
		return out
	}
	slices.Sort(vs)
	for k, p := range []float64{0.01, 0.05, 0.5, 0.95, 0.99} {
		out[k] = vs[int(p*float64(len(vs)-1)+0.5)]
	}
	return out
}

// gate leaves out each pair of which a picture does not meet the limits.
func gate(name string, l agent.QualityLimits, probes []agent.Probe, t *trials, cosine float64) GateRow {
	refused := make([]bool, len(probes))
	n := 0
	for i := range probes {
		if refused[i] = len(l.Findings(&probes[i])) > 0; refused[i] {
			n++
		}
	}
	left := slices.DeleteFunc(slices.Clone(t.genuine), func(tr trial) bool { return refused[tr.image] || refused[tr.other] })
	return GateRow{Gate: name, Refused: rate(n, len(probes), true),
		All:    FalseNonMatchRate(missesIn(t.genuine, cosine), len(t.genuine)),
		Passed: FalseNonMatchRate(missesIn(left, cosine), len(left))}
}

func coverRow(name string, limit float32, plain, covered, other []agent.Probe, of func(*agent.Quality) float32) CoverRow {
	count := func(ps []agent.Probe) Rate {
		k, n := 0, 0
		for i := range ps {
			if ps[i].Face != nil {
				n++
				if of(&ps[i].Quality) > limit {
					k++
				}
			}
		}
		return rate(k, n, true)
	}
	return CoverRow{Measure: name, Limit: limit, Plain: count(plain), Covered: count(covered), Other: count(other)}
}
