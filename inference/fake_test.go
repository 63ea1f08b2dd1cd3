package inference

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"postern/agent"
	"postern/models"
)

var (
	errBroken = errors.New("broken on purpose")
	nan       = float32(math.NaN())
	inf       = float32(math.Inf(1))
)

// fakeEngine loads networks that run Go functions, by model id.
type fakeEngine struct {
	set    *models.Set
	load   func(id string) error                 // nil: all load
	tensor func(id string, in, out []Tensor)     // may spoil what the network says of itself
	run    map[string]func(in, out []Data) error // by model id; nil: outputs stay
	live   atomic.Int32                          // networks that are not closed
	bytes  map[string]string                     // by model id; known after forget
	busy   func(id string) (done func())         // called around each Run
}

func newEngine(tb testing.TB) *fakeEngine {
	tb.Helper()
	set, err := models.Default()
	if err != nil {
		tb.Fatal(err)
	}
	for _, m := range set.All() {
		m.Manifest.KnownAnswers = nil // fakes answer what a test wants
	}
	e := &fakeEngine{set: set, run: map[string]func(in, out []Data) error{}}
	e.run[models.DefaultNear] = e.detects(box{})
	e.run[models.DefaultFar] = e.detects()
	e.run[models.DefaultMesh] = meshes(5, nil)
	e.run[models.DefaultEmbedder] = embeds(1, 2, 3)
	tb.Cleanup(func() {
		if n := e.live.Load(); n != 0 {
			tb.Errorf("%d networks were not closed", n)
		}
	})
	return e
}

// forget releases the set's bytes, as an agent does once the first pipeline is loaded.
func (e *fakeEngine) forget() {
	e.bytes = map[string]string{}
	for _, m := range e.set.All() {
		e.bytes[m.Manifest.ID] = string(m.Bytes)
	}
	e.set.Release()
}

func (e *fakeEngine) is(m *models.Model, data []byte) bool {
	if m.Bytes == nil {
		return e.bytes[m.Manifest.ID] == string(data)
	}
	return &m.Bytes[0] == &data[0]
}

func (e *fakeEngine) Load(data []byte, threads int) (Network, error) {
	if threads < 1 {
		return nil, fmt.Errorf("%d threads", threads)
	}
	for _, m := range e.set.All() {
		if !e.is(m, data) {
			continue
		}
		man := m.Manifest
		if e.load != nil {
			if err := e.load(man.ID); err != nil {
				return nil, err
			}
		}
		n := &fakeNetwork{engine: e, id: man.ID, in: []Tensor{{man.Input.Name, DType(man.Input.DType), man.Input.Shape}}}
		for _, o := range man.Outputs {
			n.out = append(n.out, Tensor{o.Name, DType(o.DType), o.Shape})
		}
		if e.tensor != nil {
			e.tensor(man.ID, n.in, n.out)
		}
		e.live.Add(1)
		return n, nil
	}
	return nil, errors.New("unknown model")
}

type fakeNetwork struct {
	engine  *fakeEngine
	id      string
	in, out []Tensor
	running atomic.Bool
	closed  atomic.Bool
}

func (n *fakeNetwork) Inputs() []Tensor  { return n.in }
func (n *fakeNetwork) Outputs() []Tensor { return n.out }

func (n *fakeNetwork) Run(in, out []Data) error {
	if n.closed.Load() || !n.running.CompareAndSwap(false, true) {
		return errors.New("run after close, or two at once")
	}
	defer n.running.Store(false)
	if n.engine.busy != nil {
		defer n.engine.busy(n.id)()
	}
	if f := n.engine.run[n.id]; f != nil {
		return f(in, out)
	}
	return nil
}

func (n *fakeNetwork) Close() error {
	if n.closed.CompareAndSwap(false, true) {
		n.engine.live.Add(-1)
	}
	return nil
}

// box is what a detector is to see at an anchor: the centre's offset from it and
// the size, in input pixels. The zero value is a box of 40 pixels at the anchor.
type box struct {
	anchor int
	dx, dy float32
	w, h   float32
	logit  float32 // of the score; 0 means 3
}

// detects makes a detector see these boxes, eyes level, whatever the picture.
func (e *fakeEngine) detects(bs ...box) func(in, out []Data) error {
	return func(_, out []Data) error {
		reg, scores := out[0].Float32, out[1].Float32
		clear(reg)
		for i := range scores {
			scores[i] = -100
		}
		for _, b := range bs {
			if b.w == 0 {
				b.w, b.h = 40, 40
			}
			if b.logit == 0 {
				b.logit = 3
			}
			scores[b.anchor] = b.logit
			r := reg[b.anchor*regressorLen:][:regressorLen]
			copy(r, []float32{b.dx, b.dy, b.w, b.h, b.dx - 10, b.dy, b.dx + 10, b.dy})
		}
		return nil
	}
}

// meshes makes the mesh give a level face in the middle of its input, with this
// presence logit; spoil may change the points (x, y, z each).
func meshes(presence float32, spoil func(p []float32)) func(in, out []Data) error {
	return func(_, out []Data) error {
		p := out[0].Float32
		for i, at := range map[int][3]float32{
			eyeLeftOuter: {60, 80, 0}, eyeLeftInner: {80, 80, 0}, eyeRightInner: {112, 80, 0}, eyeRightOuter: {132, 80, 0},
			noseTip: {96, 104, 0}, mouthLeft: {76, 130, 0}, mouthRight: {116, 130, 0}, foreheadCentre: {96, 40, 0}, chin: {96, 160, 0},
		} {
			copy(p[i*3:], at[:])
		}
		out[1].Float32[0] = presence
		if spoil != nil {
			spoil(p)
		}
		return nil
	}
}

// embeds makes the embedder give these values first and zeros after.
func embeds(values ...int8) func(in, out []Data) error {
	return func(_, out []Data) error {
		clear(out[0].Int8)
		copy(out[0].Int8, values)
		return nil
	}
}

func fails([]Data, []Data) error { return errBroken }

func mustPipeline(tb testing.TB, e *fakeEngine) *Pipeline {
	tb.Helper()
	p, err := New(e, e.set, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// picture is a w x h frame whose pixel at x, y is fn.
func picture(w, h int, fn func(x, y int) [3]byte) *agent.Frame {
	f := &agent.Frame{Width: w, Height: h, Pix: make([]byte, 0, w*h*3)}
	for y := range h {
		for x := range w {
			c := fn(x, y)
			f.Pix = append(f.Pix, c[:]...)
		}
	}
	return f
}

func flat(w, h int, v byte) *agent.Frame {
	return picture(w, h, func(int, int) [3]byte { return [3]byte{v, v, v} })
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }
