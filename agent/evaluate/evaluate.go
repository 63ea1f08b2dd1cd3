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

// Report is what a run measured. Rates are shares, 0..1.
type Report struct {
	Images       int              `json:"images"`
	Undetected   []string         `json:"undetected"` // pictures in which no face was found
	Pairs        int              `json:"pairs"`
	Accuracy     float64          `json:"accuracy"` // on the pairs, threshold chosen on the other folds
	Genuine      int              `json:"genuine"`  // cross pairs of one person
	Impostor     int              `json:"impostor"` // cross pairs of two people
	Points       []OperatingPoint `json:"points"`
	MillisPerOne float64          `json:"ms_per_picture"` // wall time a picture with the given workers
	Workers      int              `json:"workers"`
	ModelID      string           `json:"model_id"`
}

// OperatingPoint is the miss rate at the threshold that gives one false match rate.
type OperatingPoint struct {
	FMR    float64  `json:"fmr"`
	FNMR   float64  `json:"fnmr"`
	Cosine float64  `json:"cosine"`
	CI     Interval `json:"fnmr_ci95"`
	Misses int      `json:"misses"`
}

// Run embeds every picture with the given number of workers and compares. A
// picture without a face counts as never matching: a miss in every genuine pair.
// Progress is called after each picture, by one worker at a time.
func Run(ctx context.Context, d *Dataset, p prober, workers int, progress func(done int)) (*Report, error) {
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	start := time.Now()
	embs, model, err := embedAll(ctx, d, p, workers, progress)
	if err != nil {
		return nil, err
	}
	r := &Report{Images: len(d.Images), Pairs: len(d.Pairs), Workers: workers, ModelID: model,
		MillisPerOne: float64(time.Since(start).Microseconds()) / 1000 / float64(len(d.Images))}
	for i, e := range embs {
		if e == nil {
			r.Undetected = append(r.Undetected, d.Images[i].Path)
		}
	}
	r.Accuracy = pairAccuracy(d, embs)
	g, imp := crossPairs(d, embs)
	r.Genuine, r.Impostor = len(g), imp.total
	for _, fmr := range []float64{1e-2, 1e-3, 1e-4, 1e-5} {
		r.Points = append(r.Points, operatingPoint(g, imp, fmr))
	}
	return r, nil
}

// embedAll returns one embedding a picture, nil where no face was found.
func embedAll(ctx context.Context, d *Dataset, p prober, workers int, progress func(int)) ([]agent.Embedding, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	embs := make([]agent.Embedding, len(d.Images))
	var model atomic.Value
	var next atomic.Int64
	var mu sync.Mutex // guards done
	done := 0
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(d.Images) {
					return
				}
				pr, err := probeFile(ctx, p, d.Images[i].Path)
				if err != nil {
					cancel(err)
					return
				}
				embs[i] = pr.Embedding
				model.Store(pr.ModelID)
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
	if err := context.Cause(ctx); err != nil {
		return nil, "", err
	}
	id, _ := model.Load().(string)
	return embs, id, nil
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
func pairAccuracy(d *Dataset, embs []agent.Embedding) float64 {
	if len(d.Pairs) == 0 || d.Folds < 2 {
		return 0
	}
	sims := make([]float64, len(d.Pairs))
	for i, p := range d.Pairs {
		sims[i] = cosine(embs[p.A], embs[p.B])
	}
	var sum float64
	for fold := range d.Folds {
		t := bestThreshold(d.Pairs, sims, fold)
		right, n := 0, 0
		for i, p := range d.Pairs {
			if p.Fold == fold {
				n++
				if (sims[i] > t) == p.Genuine {
					right++
				}
			}
		}
		sum += float64(right) / float64(max(1, n)) / float64(d.Folds)
	}
	return sum
}

// bestThreshold sweeps the sorted similarities of all folds but one and stays in the
// middle between two. It never goes below "never": a pair that cannot be compared does not match at any.
func bestThreshold(pairs []Pair, sims []float64, except int) float64 {
	type trial struct {
		sim     float64
		genuine bool
	}
	var ts []trial
	right := 0
	for i, p := range pairs {
		if p.Fold != except {
			ts = append(ts, trial{sims[i], p.Genuine})
			if p.Genuine {
				right++ // threshold below everything: all genuine accepted
			}
		}
	}
	slices.SortFunc(ts, func(a, b trial) int {
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
