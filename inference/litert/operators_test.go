//go:build cgo

package litert

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// random makes networks of one operator with arbitrary parameters.
type random struct{ *rand.Rand }

func (r random) dim(most int) int32 { return int32(1 + r.IntN(most)) }

func (r random) padding() int8 { return int8(r.IntN(2)) }

// input starts a network with a float input [n h w c].
func (r random) input(n *network) (x int32, c int32) {
	c = r.dim(9)
	x = n.tensor(tFloat32, []int32{r.dim(2), r.dim(20), r.dim(20), c}, nil)
	n.inputs = []int32{x}
	return x, c
}

// operators that have parameters, by name. Each returns the output's tensor.
var randomOperators = map[string]func(random, *network) int32{
	"Conv": func(r random, n *network) int32 {
		x, c := r.input(n)
		out := r.dim(9)
		o := fields{0: r.padding(), 1: r.dim(4), 2: r.dim(4), 3: int8(r.IntN(4)), 4: r.dim(3), 5: r.dim(3)}
		return n.f(3, o, nil, x, n.floats(out, r.dim(5), r.dim(5), c), n.floats(out))
	},
	"Depthwise": func(r random, n *network) int32 {
		x, c := r.input(n)
		m := r.dim(3)
		o := fields{0: r.padding(), 1: r.dim(4), 2: r.dim(4), 3: m, 4: int8(r.IntN(4)), 5: r.dim(3), 6: r.dim(3)}
		return n.f(4, o, nil, x, n.floats(1, r.dim(5), r.dim(5), c*m), n.floats(c*m))
	},
	"MaxPool": func(r random, n *network) int32 {
		x, _ := r.input(n)
		return n.f(17, fields{0: r.padding(), 1: r.dim(4), 2: r.dim(4), 3: r.dim(5), 4: r.dim(5), 5: int8(0)}, nil, x)
	},
	"AveragePool": func(r random, n *network) int32 {
		x, _ := r.input(n)
		return n.f(1, fields{0: r.padding(), 1: r.dim(4), 2: r.dim(4), 3: r.dim(5), 4: r.dim(5), 5: int8(0)}, nil, x)
	},
	"Pad": func(r random, n *network) int32 {
		x, _ := r.input(n)
		p := make([]int32, 8)
		for i := range p {
			p[i] = r.dim(4) - 1
		}
		return n.f(34, nil, nil, x, n.ints([]int32{4, 2}, p...))
	},
	"Resize": func(r random, n *network) int32 {
		x, _ := r.input(n)
		o := fields{2: int8(r.IntN(2)), 3: int8(r.IntN(2))}
		return n.f(23, o, nil, x, n.ints([]int32{2}, r.dim(40), r.dim(40)))
	},
	"ResizeNearest": func(r random, n *network) int32 {
		x, _ := r.input(n)
		o := fields{0: int8(r.IntN(2)), 1: int8(r.IntN(2))}
		return n.f(97, o, nil, x, n.ints([]int32{2}, r.dim(40), r.dim(40)))
	},
	"Transpose": func(r random, n *network) int32 {
		x, _ := r.input(n)
		var perm []int32
		for _, p := range r.Perm(4) {
			perm = append(perm, int32(p))
		}
		return n.f(39, nil, nil, x, n.ints([]int32{4}, perm...))
	},
	"Mean": func(r random, n *network) int32 {
		x, _ := r.input(n)
		var axes []int32
		for range 1 + r.IntN(4) {
			axes = append(axes, int32(r.IntN(8)-4))
		}
		return n.f(40, fields{0: int8(r.IntN(2))}, nil, x, n.ints([]int32{int32(len(axes))}, axes...))
	},
	"Reverse": func(r random, n *network) int32 {
		x, _ := r.input(n)
		return n.f(105, nil, nil, x, n.ints([]int32{1}, int32(r.IntN(8)-4)))
	},
	"Concat": func(r random, n *network) int32 {
		x, _ := r.input(n)
		return n.f(2, fields{0: int32(r.IntN(8) - 4), 1: int8(0)}, nil, x, x, x)
	},
	"Add": func(r random, n *network) int32 {
		x, c := r.input(n)
		shapes := [][]int32{{c}, {1}, {1, c}, {1, 1, c}, {1, 1, 1, 1}, {}, {3, 1, 1, 1}, {1, 1, 1, 1, c}}
		return n.f(0, fields{0: int8(r.IntN(4))}, nil, x, n.floats(shapes[r.IntN(len(shapes))]...))
	},
	"Prelu": func(r random, n *network) int32 {
		x, c := r.input(n)
		shapes := [][]int32{{c}, {1}, {1, 1, c}, {1, 1, 1, c}, {}}
		return n.f(54, nil, nil, x, n.floats(shapes[r.IntN(len(shapes))]...))
	},
	"FullyConnected": func(r random, n *network) int32 {
		x, c := r.input(n)
		units := r.dim(9)
		return n.f(9, fields{0: int8(r.IntN(4)), 1: int8(0), 2: int8(r.IntN(2))}, nil, x, n.floats(units, c), n.floats(units))
	},
	"DepthToSpace": func(r random, n *network) int32 {
		b := r.dim(3)
		x := n.tensor(tFloat32, []int32{r.dim(2), r.dim(9), r.dim(9), b * b * r.dim(3)}, nil)
		n.inputs = []int32{x}
		return n.f(5, fields{0: b}, nil, x)
	},
	"Reshape": func(r random, n *network) int32 {
		x, c := r.input(n)
		shapes := [][]int32{{-1}, {-1, c}, {1, -1}, {1, 1, -1, c, 1}}
		s := shapes[r.IntN(len(shapes))]
		return n.f(22, fields{0: s}, nil, x, n.ints([]int32{int32(len(s))}, s...))
	},
}

// TestRandomOperators declares for each operator the output that its rule
// computes, and asks LiteRT: it must agree, or refuse, and never crash.
func TestRandomOperators(t *testing.T) {
	r := openRuntime(t, nil)
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for name, build := range randomOperators {
		t.Run(name, func(t *testing.T) {
			rng := random{rand.New(rand.NewPCG(7, 7))}
			agreed := 0
			for range rounds {
				n := newNetwork()
				n.outputs = []int32{build(rng, n)}
				if declareOutput(t, n) && runOnce(t, r, n.encode()) {
					agreed++
				}
			}
			if t.Logf("LiteRT agreed with %d of %d", agreed, rounds); agreed < rounds/5 {
				t.Errorf("LiteRT agreed with only %d of %d networks", agreed, rounds)
			}
		})
	}
}

// declareOutput gives the output the shape that Verify computes, and tells
// whether Verify accepts the rest.
func declareOutput(t *testing.T, n *network) bool {
	out := n.tensors[n.outputs[0]]
	out[tensorShape] = []int32{1, 1, 1, 1, 1, 7} // no operator's result
	var m *mismatch
	if err := Verify(n.encode()); !errors.As(err, &m) {
		return false
	}
	shape := []int32{}
	for _, d := range m.computed {
		shape = append(shape, int32(d))
	}
	out[tensorShape] = shape
	if err := Verify(n.encode()); err != nil {
		t.Fatalf("Verify refuses the shape it asks for: %v", err)
	}
	return true
}

func runOnce(t *testing.T, r *Runtime, data []byte) bool {
	m, err := r.Load(data, Options{})
	if errors.Is(err, ErrShape) {
		t.Fatalf("LiteRT computes another shape: %v", err)
	}
	if err != nil {
		t.Logf("refused: %v", err)
		return false
	}
	defer m.Close()
	if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
		t.Fatalf("accepted, but cannot run: %v", err)
	}
	return true
}
