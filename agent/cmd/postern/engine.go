package main

import (
	"fmt"

	"postern/inference"
	"postern/inference/litert"
)

// engine lends the LiteRT runtime to the pipeline.
type engine struct{ rt *litert.Runtime }

func (e engine) Load(model []byte, threads int) (inference.Network, error) {
	m, err := e.rt.Load(model, litert.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	n := &network{Model: m}
	if n.inputs, err = tensors(m.Inputs()); err == nil {
		n.outputs, err = tensors(m.Outputs())
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	n.in, n.out = make([]litert.Buffer, len(n.inputs)), make([]litert.Buffer, len(n.outputs))
	return n, nil
}

// network is one model behind the pipeline's interface. The buffers are reused,
// so Run does not allocate.
type network struct {
	*litert.Model
	inputs, outputs []inference.Tensor
	in, out         []litert.Buffer
}

func (n *network) Inputs() []inference.Tensor  { return n.inputs }
func (n *network) Outputs() []inference.Tensor { return n.outputs }

func (n *network) Run(in, out []inference.Data) error {
	if len(in) != len(n.in) || len(out) != len(n.out) {
		return fmt.Errorf("network takes %d inputs and %d outputs, got %d and %d", len(n.in), len(n.out), len(in), len(out))
	}
	buffers(n.in, in)
	buffers(n.out, out)
	return n.Model.Run(n.in, n.out)
}

func buffers(dst []litert.Buffer, src []inference.Data) {
	for i, d := range src {
		if d.Int8 != nil {
			dst[i] = litert.Data(d.Int8)
			continue
		}
		dst[i] = litert.Data(d.Float32)
	}
}

func tensors(ts []litert.Tensor) ([]inference.Tensor, error) {
	out := make([]inference.Tensor, len(ts))
	for i, t := range ts {
		out[i] = inference.Tensor{Name: t.Name, Shape: t.Shape}
		switch t.Type {
		case litert.Float32:
			out[i].Type = inference.Float32
		case litert.Int8:
			out[i].Type = inference.Int8
		default:
			return nil, fmt.Errorf("tensor %v has a type that the pipeline does not use", t)
		}
	}
	return out, nil
}
