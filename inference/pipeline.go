package inference

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/liveness"
	"postern/models"
)

// Options tune a pipeline. The zero value is the default.
type Options struct {
	Threads int // threads of one network invoke; 0 means 1
	// MinPresence is the mesh's confidence, 0..1, below which a detection is not
	// taken for a face; 0 means 0.1.
	MinPresence float32
	// Liveness loads the network that ProbeLive needs at once, not with its first use.
	Liveness bool
}

func (o Options) withDefaults() Options {
	if o.Threads <= 0 {
		o.Threads = 1
	}
	if o.MinPresence <= 0 {
		o.MinPresence = 0.1
	}
	return o
}

// Pipeline runs the steps from frame to probe. One Pipeline serves one goroutine
// at a time and says so by locking; Pool holds several.
type Pipeline struct {
	mu    sync.Mutex // guards the networks and their buffers
	near  *detector
	far   *detector
	mesh  *mesh
	embed *embedder
	live  *spoofing // nil: not loaded yet
	opts  Options

	loadLive func() (*spoofing, error)
}

// New loads the networks of set. On an error nothing stays loaded.
func New(e Engine, set *models.Set, o Options) (*Pipeline, error) {
	p := &Pipeline{opts: o.withDefaults()}
	if err := p.load(e, set); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pipeline) load(e Engine, set *models.Set) (err error) {
	t := p.opts.Threads
	if p.near, err = newDetector(e, set.Near, t); err != nil {
		return err
	}
	if p.far, err = newDetector(e, set.Far, t); err != nil {
		return err
	}
	if p.mesh, err = newMesh(e, set.Mesh, t); err != nil {
		return err
	}
	p.loadLive = func() (*spoofing, error) { return newSpoofing(e, set.Liveness, t) }
	if p.opts.Liveness {
		if p.live, err = p.loadLive(); err != nil {
			return err
		}
	}
	p.embed, err = newEmbedder(e, set.Embedder, t)
	return err
}

// Probe analyses one frame. A frame without a face is not an error: the probe's
// Face is nil then. Findings are left to the caller, who knows the purpose.
func (p *Pipeline) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	return p.analyse(ctx, f, false)
}

// ProbeLive is Probe with the liveness of the face measured too. It fails where the set
// has no network for that.
func (p *Pipeline) ProbeLive(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	return p.analyse(ctx, f, true)
}

func (p *Pipeline) analyse(ctx context.Context, f *agent.Frame, live bool) (agent.Probe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.Check()); err != nil {
		return agent.Probe{}, err
	}
	if p.embed == nil {
		return agent.Probe{}, errClosed
	}
	if live && p.live == nil {
		if err := p.lateLiveness(); err != nil {
			return agent.Probe{}, err
		}
	}
	start := time.Now()
	pr := agent.Probe{ModelID: p.embed.man.ID, Space: p.embed.spec.Space}
	err := p.probe(f, &pr, live)
	pr.Timings.Total = time.Since(start)
	return pr, err
}

// lateLiveness loads the network for liveness with its first use.
func (p *Pipeline) lateLiveness() (err error) {
	p.live, err = p.loadLive()
	return err
}

func (p *Pipeline) probe(f *agent.Frame, pr *agent.Probe, live bool) error {
	found, marks, err := p.locate(f, &pr.Timings)
	if err != nil {
		return err
	}
	pr.Faces = len(found)
	if len(found) == 0 {
		return nil
	}
	best := found[0]
	pr.Face = &agent.Face{Box: best.box, Confidence: best.score, Points: marks.points, Mesh: marks.mesh}
	for _, d := range found[1:] {
		pr.Others = append(pr.Others, agent.Face{Box: d.box, Confidence: d.score})
	}
	lap := stopwatch()
	if err := p.embed.align(f, marks.points); err != nil {
		return fmt.Errorf("align: %w", err)
	}
	pr.Timings.Align = lap()
	pr.Quality = p.embed.quality(marks, best, f)
	pr.Timings.Quality = lap()
	pr.Embedding, err = p.embed.embed()
	pr.Timings.Embed = lap()
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	if live {
		pr.Liveness, err = p.live.judge(f, marks.mesh)
		pr.Trace = liveness.Observe(f, marks.mesh)
		pr.Timings.Liveness = lap()
		if err != nil {
			return fmt.Errorf("liveness: %w", err)
		}
	}
	return nil
}

// locate tries the short-range detector and, when it sees nobody whom the mesh
// confirms, the full-range one, which finds faces that are small in the picture.
// The first detection is the face that the picture is about.
func (p *Pipeline) locate(f *agent.Frame, t *agent.Timings) ([]detection, landmarks, error) {
	lap := stopwatch()
	for _, d := range []*detector{p.near, p.far} {
		found, err := d.detect(f)
		t.Detect += lap()
		if err != nil {
			return nil, landmarks{}, fmt.Errorf("detect: %w", err)
		}
		found, marks, err := p.confirm(f, found)
		t.Landmarks += lap()
		if err != nil {
			return nil, landmarks{}, fmt.Errorf("landmarks: %w", err)
		}
		if len(found) > 0 {
			return found, marks, nil
		}
	}
	return nil, landmarks{}, nil
}

// confirm drops detections from the front until the mesh sees a face in one, and
// returns that one's landmarks.
func (p *Pipeline) confirm(f *agent.Frame, found []detection) ([]detection, landmarks, error) {
	for ; len(found) > 0; found = found[1:] {
		l, err := p.mesh.find(f, found[0])
		if err != nil || l.presence >= p.opts.MinPresence {
			return found, l, err
		}
	}
	return nil, landmarks{}, nil
}

// Aligned returns the face that f is about, on the template, RGB, size x size. It
// serves calibration and evaluation; nil when there is no face.
func (p *Pipeline) Aligned(ctx context.Context, f *agent.Frame) (*agent.Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.Check()); err != nil {
		return nil, err
	}
	if p.embed == nil {
		return nil, errClosed
	}
	var t agent.Timings
	found, marks, err := p.locate(f, &t)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if err := p.embed.align(f, marks.points); err != nil {
		return nil, err
	}
	return &agent.Frame{Pix: append([]byte(nil), p.embed.pix...), Width: p.embed.size, Height: p.embed.size, Source: f.Source}, nil
}

// Close unloads the networks. It may be called twice.
func (p *Pipeline) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	if p.near != nil {
		errs = append(errs, p.near.close())
	}
	if p.far != nil {
		errs = append(errs, p.far.close())
	}
	if p.mesh != nil {
		errs = append(errs, p.mesh.close())
	}
	if p.embed != nil {
		errs = append(errs, p.embed.close())
	}
	if p.live != nil {
		errs = append(errs, p.live.close())
	}
	p.near, p.far, p.mesh, p.embed, p.live = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// stopwatch returns a function that gives the time since its last call.
func stopwatch() func() time.Duration {
	last := time.Now()
	return func() time.Duration {
		now := time.Now()
		d := now.Sub(last)
		last = now
		return d
	}
}
