package litert

import (
	"fmt"

	"postern/inference"
)

// Engine lends a Runtime to the pipeline of package inference.
type Engine struct{ Runtime *Runtime }

var _ inference.Engine = Engine{}

// Load implements inference.Engine.
func (e Engine) Load(model []byte, threads int) (inference.Network, error) {
	m, err := e.Runtime.Load(model, Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	n := &adapter{Model: m}
	if n.inputs, err = tensors(m.Inputs()); err == nil {
		n.outputs, err = tensors(m.Outputs())
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	n.in, n.out = make([]Buffer, len(n.inputs)), make([]Buffer, len(n.outputs))
	return n, nil
}

// adapter is one model behind the pipeline's interface. The buffers are reused,
// so Run does not allocate.
type adapter struct {
	*Model
	inputs, outputs []inference.Tensor
	in, out         []Buffer
}

func (n *adapter) Inputs() []inference.Tensor  { return n.inputs }
func (n *adapter) Outputs() []inference.Tensor { return n.outputs }

func (n *adapter) Run(in, out []inference.Data) error {
	if len(in) != len(n.in) || len(out) != len(n.out) {
		return fmt.Errorf("network takes %d inputs and %d outputs, got %d and %d", len(n.in), len(n.out), len(in), len(out))
	}
	views(n.in, in)
	views(n.out, out)
	return n.Model.Run(n.in, n.out)
}

func views(dst []Buffer, src []inference.Data) {
	for i, d := range src {
		if d.Int8 != nil {
			dst[i] = Data(d.Int8)
			continue
		}
		dst[i] = Data(d.Float32)
	}
}

func tensors(ts []Tensor) ([]inference.Tensor, error) {
	out := make([]inference.Tensor, len(ts))
	for i, t := range ts {
		out[i] = inference.Tensor{Name: t.Name, Shape: t.Shape}
		switch t.Type {
		case Float32:
			out[i].Type = inference.Float32
		case Int8:
			out[i].Type = inference.Int8
		default:
			return nil, fmt.Errorf("tensor %v has a type that the pipeline does not use", t)
		}
	}
	return out, nil
}
