package evaluate

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/agent"
	"postern/agent/photo"
)

type prober interface {
	Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error)
}

// Options say how to run, and what to report beyond the plain rates.
type Options struct {
	Workers  int            // pictures analysed at once; 0 for one a processor
	Progress func(done int) // called after each picture, by one worker at a time; may be nil

	// Cosine gives the cosine of a 0..100 score. Without it there is neither a
	// score table nor a group table, and no threshold in the pictures.
	Cosine func(score float64) float64
	Groups Groups // may be nil
}

// Report is what a run measured. Rates are shares, 0..1, in the terms of ISO/IEC
// 19795-1: false match rate (FMR) over impostor pairs, false non-match rate (FNMR)
// over genuine pairs. A picture without a face is a miss in each of its genuine
// pairs and a non-match in each impostor pair: failures to acquire are in them.
type Report struct {
	Images       int              `json:"images"`
	Undetected   []string         `json:"undetected"` // pictures in which no face was found
	Pairs        int              `json:"pairs"`
	Accuracy     float64          `json:"accuracy"` // on the pairs, threshold chosen on the other folds
	Genuine      int              `json:"genuine"`  // cross pairs of one person
	Impostor     int              `json:"impostor"` // cross pairs of two people
	Points       []OperatingPoint `json:"points"`
	Scores       []ScoreRow       `json:"scores,omitempty"`
	Discard      *DiscardCurve    `json:"discard,omitempty"`
	Groups       *GroupReport     `json:"groups,omitempty"`
	MillisPerOne float64          `json:"ms_per_picture"` // wall time a picture with the given workers
	Workers      int              `json:"workers"`
	ModelID      string           `json:"model_id"`

	// for pictures and calibration
	trials  *trials
	dataset *Dataset
	faces   []face
	right   []bool // of each pair: decided rightly at its fold's threshold
}

// OperatingPoint is the miss rate at the threshold that gives one false match rate.
type OperatingPoint struct {
	FMR    float64  `json:"fmr"`
	FNMR   float64  `json:"fnmr"`
	Cosine float64  `json:"cosine"`
	CI     Interval `json:"fnmr_ci95"`
	Misses int      `json:"misses"`
}

// Run embeds every picture and compares each with each.
func Run(ctx context.Context, d *Dataset, p prober, o Options) (*Report, error) {
	if o.Workers < 1 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	start := time.Now()
	faces, model, err := embedAll(ctx, d, p, o.Workers, o.Progress)
	if err != nil {
		return nil, err
	}
	r := &Report{Images: len(d.Images), Pairs: len(d.Pairs), Workers: o.Workers, ModelID: model,
		MillisPerOne: float64(time.Since(start).Microseconds()) / 1000 / float64(max(1, len(d.Images)))}
	r.judge(d, faces, o)
	return r, nil
}

// judge fills the report from the faces.
func (r *Report) judge(d *Dataset, faces []face, o Options) {
	for i, f := range faces {
		if f.embedding == nil {
			r.Undetected = append(r.Undetected, d.Images[i].Path)
		}
	}
	r.Accuracy, r.right = pairAccuracy(d, faces)
	r.compare(d, faces, o)
}

// compare fills in all that rests on the cross pairs.
func (r *Report) compare(d *Dataset, faces []face, o Options) {
	g := newGrouping(d, o)
	t := crossPairs(d, faces)
	r.trials, r.dataset, r.faces = t, d, faces
	r.Genuine, r.Impostor = len(t.genuine), t.impostor.total
	for _, fmr := range []float64{1e-2, 1e-3, 1e-4, 1e-5} {
		r.Points = append(r.Points, operatingPoint(t, fmr))
	}
	r.Discard = discard(t, discardFMR)
	if o.Cosine != nil {
		r.Scores = scoreTable(t, o.Cosine)
	}
	r.spread()
	if g != nil {
		r.Groups = g.report(d, faces)
	}
}

// spread replaces the intervals of the tables, which take pairs as independent, by
// those over people.
func (r *Report) spread() {
	var cosines []float64
	for _, p := range r.Points {
		cosines = append(cosines, p.Cosine)
	}
	for _, s := range r.Scores {
		cosines = append(cosines, s.Cosine)
	}
	slices.Sort(cosines)
	cosines = slices.Compact(cosines)
	fmr, fnmr := resample(r.dataset, r.faces, r.trials, cosines)
	for i := range r.Points {
		k, _ := slices.BinarySearch(cosines, r.Points[i].Cosine)
		r.Points[i].CI = fnmr[k]
	}
	for i := range r.Scores {
		k, _ := slices.BinarySearch(cosines, r.Scores[i].Cosine)
		r.Scores[i].FMR.CI, r.Scores[i].FNMR.CI = fmr[k], fnmr[k]
	}
}

// face is what a picture gave.
type face struct {
	embedding agent.Embedding // nil where no face was found
	quality   float64         // face_quality, 0..100
}

// embedAll returns one face a picture.
func embedAll(ctx context.Context, d *Dataset, p prober, workers int, progress func(int)) ([]face, string, error) {
	faces := make([]face, len(d.Images))
	var model atomic.Value
	err := each(ctx, len(d.Images), workers, progress, func(ctx context.Context, i int) error {
		pr, err := probeFile(ctx, p, d.Images[i].Path)
		if err != nil {
			return err
		}
		faces[i] = face{pr.Embedding, float64(pr.Quality.Score)}
		model.Store(pr.ModelID)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	id, _ := model.Load().(string)
	return faces, id, nil
}

// each calls do for 0 to n-1 from several workers and stops at the first error.
func each(ctx context.Context, n, workers int, progress func(int), do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var mu sync.Mutex // guards done
	done := 0
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
				if progress != nil {
					mu.Lock()
					done++
					progress(done)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func probeFile(ctx context.Context, p prober, path string) (agent.Probe, error) {
	f, err := photo.Load(path)
	if err != nil {
		return agent.Probe{}, err
	}
	return p.Probe(ctx, f)
}

// never is the similarity of a pair that cannot be compared.
const never = -1

func cosine(a, b agent.Embedding) float64 {
	if a == nil || b == nil {
		return never
	}
	return float64(a.Cosine(b))
}

// pairAccuracy follows the protocol: for each fold the threshold that is best on
// the others, and the mean of the folds' accuracies.
func pairAccuracy(d *Dataset, faces []face) (accuracy float64, each []bool) {
	if len(d.Pairs) == 0 || d.Folds < 2 {
		return 0, nil
	}
	each = make([]bool, len(d.Pairs))
	sims := make([]float64, len(d.Pairs))
	for i, p := range d.Pairs {
		sims[i] = cosine(faces[p.A].embedding, faces[p.B].embedding)
	}
	var sum float64
	for fold := range d.Folds {
		t := bestThreshold(d.Pairs, sims, fold)
		right, n := 0, 0
		for i, p := range d.Pairs {
			if p.Fold == fold {
				n++
				if each[i] = (sims[i] > t) == p.Genuine; each[i] {
					right++
				}
			}
		}
		sum += float64(right) / float64(max(1, n)) / float64(d.Folds)
	}
	return sum, each
}

// bestThreshold sweeps the sorted similarities of all folds but one and stays in the
// middle between two. It never goes below "never": a pair that cannot be compared does not match at any.
func bestThreshold(pairs []Pair, sims []float64, except int) float64 {
	type answer struct {
		sim     float64
		genuine bool
	}
	var ts []answer
	right := 0
	for i, p := range pairs {
		if p.Fold != except {
			ts = append(ts, answer{sims[i], p.Genuine})
			if p.Genuine {
				right++ // threshold below everything: all genuine accepted
			}
		}
	}
	slices.SortFunc(ts, func(a, b answer) int {
		switch {
		case a.sim < b.sim:
			return -1
		case a.sim > b.sim:
			return 1
		}
		return 0
	})
	best, at := -1, float64(never)
	if len(ts) > 0 && ts[0].sim > never {
		best = right
	}
	for i, t := range ts {
		if t.genuine {
			right--
		} else {
			right++
		}
		switch {
		case right <= best:
		case i+1 == len(ts):
			best, at = right, t.sim
		case ts[i+1].sim > t.sim:
			best, at = right, (t.sim+ts[i+1].sim)/2
		}
	}
	return at
}
