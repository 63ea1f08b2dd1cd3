package inference

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern/agent"
	"postern/models"
)

// Pool holds several pipelines, so that as many frames are analysed at once. A pipeline
// holds tens of megabytes, so all but the first are loaded when they are needed.
type Pool struct {
	load func() (*Pipeline, error)
	free chan *Pipeline // as many as there may be
	done chan struct{}
	once sync.Once

	mu   sync.Mutex  // guards the rest
	open int         // loaded or being loaded
	all  []*Pipeline // loaded
}

var errClosed = errors.New("the inference pipeline is closed")

// NewPool loads one pipeline, and more, up to n, while that many are at work. Models
// that cannot be loaded are found here.
func NewPool(e Engine, set *models.Set, o Options, n int) (*Pool, error) {
	n = max(1, n)
	p := &Pool{free: make(chan *Pipeline, n), done: make(chan struct{}), load: func() (*Pipeline, error) { return New(e, set, o) }}
	pl, err := p.grow()
	if err != nil {
		return nil, err
	}
	o.Liveness = false // of the others, not each will need it
	p.free <- pl
	return p, nil
}

// Size returns how many pipelines there may be.
func (p *Pool) Size() int { return cap(p.free) }

// grow loads one more pipeline for its caller; nil when there are as many as there may be.
func (p *Pool) grow() (*Pipeline, error) {
	if !p.reserve() {
		return nil, nil
	}
	pl, err := p.load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.open--
		return nil, err
	}
	if p.closed() { // meanwhile, and without this one
		return nil, errors.Join(errClosed, pl.Close())
	}
	p.all = append(p.all, pl)
	return pl, nil
}

// reserve takes the place of one more pipeline, if there is one.
func (p *Pool) reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == cap(p.free) {
		return false
	}
	p.open++
	return true
}

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
	pl, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer func() { p.free <- pl }()
	if p.closed() { // while waiting
		return errClosed
	}
	return fn(pl)
}

func (p *Pool) closed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// take gives a free pipeline, loads another one, or waits.
func (p *Pool) take(ctx context.Context) (*Pipeline, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.closed() {
		return nil, errClosed
	}
	select {
	case pl := <-p.free:
		return pl, nil
	default:
	}
	if pl, err := p.grow(); pl != nil || err != nil {
		return pl, err
	}
	select {
	case <-p.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case pl := <-p.free:
		return pl, nil
	}
}

// Close unloads every pipeline, waiting for those at work. It may be called twice.
func (p *Pool) Close() error {
	var errs []error
	p.once.Do(func() {
		close(p.done)
		p.mu.Lock()
		defer p.mu.Unlock()
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
