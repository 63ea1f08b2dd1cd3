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
func (p *Pool) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	select {
	case <-p.done:
		return agent.Probe{}, errClosed
	case <-ctx.Done():
		return agent.Probe{}, ctx.Err()
	case pl := <-p.free:
		defer func() { p.free <- pl }()
		return pl.Probe(ctx, f)
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
	PerFace bool // runs for every near face; the far detector does not
	Times   []time.Duration
}

// Bare times the networks of one pipeline alone, on whatever is in their inputs:
// what everything else in a match is to be measured against.
func (p *Pool) Bare(ctx context.Context, rounds int) ([]BareTimes, error) {
	var pl *Pipeline
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case pl = <-p.free:
		defer func() { p.free <- pl }()
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.embed == nil {
		return nil, errClosed
	}
	var out []BareTimes
	for _, n := range []*net{pl.near.net, pl.mesh.net, pl.embed.net, pl.far.net} {
		b := BareTimes{Model: n.man.ID, PerFace: n != pl.far.net}
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
