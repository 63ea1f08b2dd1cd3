package inference

import (
	"fmt"
	"math"

	"postern/agent"
	"postern/models"
)

// net is one loaded network with its manifest and reused buffers. It is the only
// place that knows how pixels become a tensor.
type net struct {
	man  *models.Manifest
	nw   Network
	in   []Data
	out  []Data
	pix  []byte // RGB at input size, filled by warp
	size int    // input is size x size
	warper

	lutF [256]float32
	lutQ [256]int8
}

// load checks the network's real tensors and its answers against its manifest, so that
// a file and a manifest that do not belong together, and a runtime that computes
// wrongly, are found at start.
func load(e Engine, m *models.Model, threads int) (*net, error) {
	data, err := m.Data()
	if err != nil {
		return nil, err
	}
	nw, err := e.Load(data, threads)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Manifest.ID, err)
	}
	n := &net{man: &m.Manifest, nw: nw, size: m.Manifest.Input.Shape[1]}
	n.fillTables()
	if err = n.bind(); err == nil {
		err = n.verify()
	}
	if err != nil {
		nw.Close()
		return nil, fmt.Errorf("load model %s: %w", m.Manifest.ID, err)
	}
	return n, nil
}

// bind allocates the buffers; outputs are put in the manifest's order by name.
func (n *net) bind() error {
	ins, outs := n.nw.Inputs(), n.nw.Outputs()
	in := n.man.Input
	if len(ins) != 1 || !same(ins[0], in.DType, in.Shape) {
		return fmt.Errorf("network takes %v, the manifest says %s %v", ins, in.DType, in.Shape)
	}
	if len(outs) != len(n.man.Outputs) {
		return fmt.Errorf("network has %d outputs, the manifest %d", len(outs), len(n.man.Outputs))
	}
	n.in = []Data{alloc(ins[0])}
	n.out = make([]Data, len(outs))
	n.pix = make([]byte, n.size*n.size*3)
	for i, o := range outs {
		want, ok := n.man.Output(o.Name)
		if !ok || !same(o, want.DType, want.Shape) {
			return fmt.Errorf("network output %s %s %v is not in the manifest", o.Name, o.Type, o.Shape)
		}
		n.out[i] = alloc(o)
	}
	return nil
}

func same(t Tensor, dtype string, shape []int) bool {
	if string(t.Type) != dtype || len(t.Shape) != len(shape) {
		return false
	}
	for i := range shape {
		if t.Shape[i] != shape[i] {
			return false
		}
	}
	return true
}

func alloc(t Tensor) Data {
	if t.Type == Int8 {
		return Data{Int8: make([]int8, t.Len())}
	}
	return Data{Float32: make([]float32, t.Len())}
}

// fillTables precomputes normalisation and quantisation of the 256 grey levels.
func (n *net) fillTables() {
	in := n.man.Input
	for v := range 256 {
		f := (float64(v) - in.Mean) / in.Std
		n.lutF[v] = float32(f)
		if in.DType == string(Int8) {
			q := math.Round(f/in.Scale) + float64(in.ZeroPoint)
			n.lutQ[v] = int8(max(-128, min(127, q)))
		}
	}
}

// run warps src through m into the input, invokes the network and leaves the
// outputs in n.out.
func (n *net) run(src *agent.Frame, m affine) error {
	n.warp(n.pix, n.size, n.size, src, m)
	n.fill()
	return n.nw.Run(n.in, n.out)
}

// fill turns n.pix into the input tensor: colour order, normalisation, type.
func (n *net) fill() {
	bgr := n.man.Input.Color == "BGR"
	if q := n.in[0].Int8; q != nil {
		fillTable(q, n.pix, &n.lutQ, bgr)
		return
	}
	fillTable(n.in[0].Float32, n.pix, &n.lutF, bgr)
}

func fillTable[T int8 | float32](dst []T, pix []byte, lut *[256]T, bgr bool) {
	first, last := 0, 2
	if bgr {
		first, last = 2, 0
	}
	for i := 0; i+2 < len(pix) && i+2 < len(dst); i += 3 {
		dst[i] = lut[pix[i+first]]
		dst[i+1] = lut[pix[i+1]]
		dst[i+2] = lut[pix[i+last]]
	}
}

// output returns the content of the output with this role as float32, written
// to buf when the network gives int8 and buf is long enough.
func (n *net) output(role string, buf []float32) []float32 {
	for i, o := range n.nw.Outputs() {
		spec, _ := n.man.Output(o.Name)
		if spec.Role != role {
			continue
		}
		if n.out[i].Float32 != nil {
			return n.out[i].Float32
		}
		if len(buf) < len(n.out[i].Int8) {
			buf = make([]float32, len(n.out[i].Int8))
		}
		for k, q := range n.out[i].Int8 {
			buf[k] = float32(spec.Scale * (float64(q) - float64(spec.ZeroPoint)))
		}
		return buf[:len(n.out[i].Int8)]
	}
	return nil
}

func (n *net) close() error { return n.nw.Close() }
