package inference

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern/agent"
	"postern/models"
)

// Pool holds several pipelines, so that as many frames are analysed at once.
type Pool struct {
	free chan *Pipeline
	all  []*Pipeline
	done chan struct{}
	once sync.Once
}

var errClosed = errors.New("the inference pipeline is closed")

// NewPool loads n pipelines, at least one.
func NewPool(e Engine, set *models.Set, o Options, n int) (*Pool, error) {
	n = max(1, n)
	p := &Pool{free: make(chan *Pipeline, n), done: make(chan struct{})}
	for range n {
		pl, err := New(e, set, o)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.all = append(p.all, pl)
		p.free <- pl
	}
	return p, nil
}

// Size returns the number of pipelines.
func (p *Pool) Size() int { return len(p.all) }

// Probe waits for a free pipeline and runs it.
func (p *Pool) Probe(ctx context.Context, f *agent.Frame) (pr agent.Probe, err error) {
	err = p.borrow(ctx, func(pl *Pipeline) error {
		pr, err = pl.Probe(ctx, f)
		return err
	})
	return pr, err
}

// ProbeLive waits for a free pipeline and runs its ProbeLive.
func (p *Pool) ProbeLive(ctx context.Context, f *agent.Frame) (pr agent.Probe, err error) {
	err = p.borrow(ctx, func(pl *Pipeline) error {
		pr, err = pl.ProbeLive(ctx, f)
		return err
	})
	return pr, err
}

// Aligned waits for a free pipeline and runs its Aligned.
func (p *Pool) Aligned(ctx context.Context, f *agent.Frame) (face *agent.Frame, err error) {
	err = p.borrow(ctx, func(pl *Pipeline) error {
		face, err = pl.Aligned(ctx, f)
		return err
	})
	return face, err
}

// borrow runs fn with a pipeline that nobody else uses meanwhile.
func (p *Pool) borrow(ctx context.Context, fn func(*Pipeline) error) error {
	select {
	case <-p.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	case pl := <-p.free:
		defer func() { p.free <- pl }()
		select {
		case <-p.done: // closed while waiting
			return errClosed
		default:
			return fn(pl)
		}
	}
}

// Close unloads every pipeline, waiting for those at work. It may be called twice.
func (p *Pool) Close() error {
	var errs []error
	p.once.Do(func() {
		close(p.done)
		for _, pl := range p.all {
			errs = append(errs, pl.Close())
		}
	})
	return errors.Join(errs...)
}

// BareTimes is how long the bare invokes of one network took.
type BareTimes struct {
	Model   string
	PerFace bool // runs for every near face in a match; the far detector and liveness do not
	Times   []time.Duration
}

// Bare times the networks of one pipeline alone, on whatever is in their inputs:
// what everything else in a match is to be measured against.
func (p *Pool) Bare(ctx context.Context, rounds int) (out []BareTimes, err error) {
	err = p.borrow(ctx, func(pl *Pipeline) error {
		out, err = pl.bare(ctx, rounds)
		return err
	})
	return out, err
}

func (p *Pipeline) bare(ctx context.Context, rounds int) ([]BareTimes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.embed == nil {
		return nil, errClosed
	}
	var out []BareTimes
	nets := []*net{p.near.net, p.mesh.net, p.embed.net, p.far.net}
	if p.live != nil {
		nets = append(nets, p.live.net)
	}
	for i, n := range nets {
		b := BareTimes{Model: n.man.ID, PerFace: i < 3}
		for range rounds {
			start := time.Now()
			if err := errors.Join(ctx.Err(), n.nw.Run(n.in, n.out)); err != nil {
				return nil, err
			}
			b.Times = append(b.Times, time.Since(start))
		}
		out = append(out, b)
	}
	return out, nil
}
