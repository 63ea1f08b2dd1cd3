package evaluate

import (
	"context"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"runtime"
	"slices"

	"postern/agent"
	"postern/agent/photo"
)

// RobustnessOptions say how to run Robustness.
type RobustnessOptions struct {
	People   int                         // at most so many; 0 for all
	Workers  int                         // pairs analysed at once; 0 for one a processor
	Progress func(done int)              // called after each person, by one worker at a time; may be nil
	Started  func(people int)            // called once, before the first; may be nil
	Cosine   func(score float64) float64 // the cosine of a 0..100 score
}

// RobustnessReport is how the FNMR at fixed thresholds grows as the probe gets
// worse: one genuine pair a person, whose reference stays as it is.
type RobustnessReport struct {
	People      int             `json:"people"`
	Skipped     int             `json:"skipped"`      // people in one of whose pictures no face was found
	EyeDistance float64         `json:"eye_distance"` // median of the probes, pixels: what a blur in pixels means
	ModelID     string          `json:"model_id"`
	Rows        []RobustnessRow `json:"rows"`
}

// RobustnessRow is one degradation. A probe in which no face is found any more is a
// miss; NoFace tells how many are.
type RobustnessRow struct {
	Name   string  `json:"name"`
	NoFace int     `json:"no_face"`
	Median float64 `json:"median_cosine"` // of all pairs
	At     []Miss  `json:"at"`
}

// Miss is the FNMR at the threshold of one score.
type Miss struct {
	Score  float64 `json:"score"`
	Cosine float64 `json:"cosine"`
	FNMR   Rate    `json:"fnmr"`
	// FMR is over the worsened probes of each against the references of all others: a
	// degradation must not let strangers in either.
	FMR Rate `json:"fmr"`
}

// outcome is what one person's pictures gave.
type outcome struct {
	reference agent.Embedding
	probes    []agent.Embedding // one a degradation; nil where no face was found
	eyes      float64
	model     string
}

// Robustness compares the first picture of each person with worsened copies of the
// second. The people are spread evenly over the data set, and noise is seeded by the
// file's name: the same data give the same table.
func Robustness(ctx context.Context, d *Dataset, p prober, o RobustnessOptions) (*RobustnessReport, error) {
	pairs := spread(firstTwo(d), o.People)
	if len(pairs) == 0 {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "no person in the data has two pictures"}
	}
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Started != nil {
		o.Started(len(pairs))
	}
	ds := append([]degradation{{"as it is", func(f *agent.Frame, _ *agent.Face, _ uint64) (*agent.Frame, error) { return f, nil }}}, degradations()...)
	outcomes := make([]*outcome, len(pairs))
	err := each(ctx, len(pairs), o.Workers, o.Progress, func(ctx context.Context, i int) error {
		var err error
		outcomes[i], err = worsen(ctx, p, d.Images[pairs[i][0]].Path, d.Images[pairs[i][1]].Path, ds)
		return err
	})
	if err != nil {
		return nil, err
	}
	return robustnessReport(outcomes, ds, o.Cosine), nil
}

// firstTwo gives the positions of the first two pictures of each person who has two.
func firstTwo(d *Dataset) [][2]int {
	var pairs [][2]int
	first := map[string]int{}
	done := map[string]bool{}
	for i, im := range d.Images {
		a, ok := first[im.Person]
		switch {
		case !ok:
			first[im.Person] = i
		case !done[im.Person]:
			done[im.Person] = true
			pairs = append(pairs, [2]int{a, i})
		}
	}
	return pairs
}

// spread takes at most n of all, evenly.
func spread(pairs [][2]int, n int) [][2]int {
	if n < 1 || n >= len(pairs) {
		return pairs
	}
	out := make([][2]int, n)
	for i := range out {
		out[i] = pairs[i*len(pairs)/n]
	}
	return out
}

// worsen gives nil where one of the good pictures has no face.
func worsen(ctx context.Context, p prober, reference, probe string, ds []degradation) (*outcome, error) {
	ref, err := probeFile(ctx, p, reference)
	if err != nil {
		return nil, err
	}
	f, err := photo.Load(probe)
	if err != nil {
		return nil, err
	}
	good, err := p.Probe(ctx, f)
	if err != nil || good.Face == nil || ref.Embedding == nil {
		return nil, err
	}
	o := &outcome{reference: ref.Embedding, eyes: float64(good.Quality.EyeDistance), model: good.ModelID}
	seed := fnv.New64a()
	// A hash takes everything.
	_, _ = seed.Write([]byte(filepath.Base(probe)))
	for _, d := range ds {
		worse, err := d.apply(f, good.Face, seed.Sum64())
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", d.name, probe, err)
		}
		got, err := p.Probe(ctx, worse)
		if err != nil {
			return nil, err
		}
		o.probes = append(o.probes, got.Embedding)
	}
	return o, nil
}

func robustnessReport(all []*outcome, ds []degradation, cosineOf func(float64) float64) *RobustnessReport {
	r := &RobustnessReport{}
	var outcomes []*outcome
	var distances []float64
	for _, o := range all {
		if o == nil {
			r.Skipped++
			continue
		}
		outcomes = append(outcomes, o)
		r.ModelID = o.model
		distances = append(distances, o.eyes)
	}
	r.People, r.EyeDistance = len(outcomes), median(distances)
	for k, d := range ds {
		row := robustnessRow(outcomes, k, cosineOf)
		row.Name = d.name
		r.Rows = append(r.Rows, row)
	}
	return r
}

// robustnessRow compares the k-th degradation of everybody with the references of
// everybody.
func robustnessRow(outcomes []*outcome, k int, cosineOf func(float64) float64) RobustnessRow {
	var row RobustnessRow
	var own []float64
	misses, matches := make([]int, len(groupScores)), make([]int, len(groupScores))
	for i, o := range outcomes {
		if o.probes[k] == nil {
			row.NoFace++
		}
		for j, other := range outcomes {
			c := cosine(other.reference, o.probes[k])
			if i == j {
				own = append(own, c)
			}
			for s, score := range groupScores {
				switch above := c > cosineOf(score); {
				case i == j && !above:
					misses[s]++
				case i != j && above:
					matches[s]++
				}
			}
		}
	}
	n := len(outcomes)
	row.Median = median(own)
	for s, score := range groupScores {
		row.At = append(row.At, Miss{score, cosineOf(score), FalseNonMatchRate(misses[s], n), FalseMatchRate(matches[s], n*(n-1))})
	}
	return row
}

// median is the middle value, the upper of two.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
