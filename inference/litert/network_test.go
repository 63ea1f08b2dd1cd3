//go:build cgo

package litert

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// This file writes small TFLite models, right and wrong ones, so that the tests
// need no model files. A fields value is a FlatBuffer table: field number to
// int8, int32, uint32, uint64, float32, string, a slice of them, fields or
// []fields.

type fields map[int]any

type fbWriter struct{ b []byte }

func (w *fbWriter) align(n, ahead int) {
	for (len(w.b)+ahead)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func scalarSize(v any) int {
	switch v.(type) {
	case int8:
		return 1
	case uint64:
		return 8
	}
	return 4 // int32, uint32, float32, and offsets
}

func (w *fbWriter) put(pos int, v any) {
	switch v := v.(type) {
	case int8:
		w.b[pos] = byte(v)
	case int32:
		binary.LittleEndian.PutUint32(w.b[pos:], uint32(v))
	case uint32:
		binary.LittleEndian.PutUint32(w.b[pos:], v)
	case float32:
		binary.LittleEndian.PutUint32(w.b[pos:], math.Float32bits(v))
	case uint64:
		binary.LittleEndian.PutUint64(w.b[pos:], v)
	default:
		at := w.child(v) // before w.b is taken: it grows
		binary.LittleEndian.PutUint32(w.b[pos:], uint32(at-pos))
	}
}

func (w *fbWriter) child(v any) int {
	switch v := v.(type) {
	case fields:
		return w.table(v)
	case []fields:
		return w.tables(v)
	case string:
		at := w.vector([]byte(v), len(v), 4)
		w.b = append(w.b, 0)
		return at
	case []byte:
		return w.vector(v, len(v), 16)
	case []int32, []float32:
		raw, _ := binary.Append(nil, binary.LittleEndian, v)
		return w.vector(raw, len(raw)/4, 4)
	case []int64:
		raw, _ := binary.Append(nil, binary.LittleEndian, v)
		return w.vector(raw, len(v), 8)
	}
	panic(fmt.Sprintf("no FlatBuffer form of %T", v))
}

func (w *fbWriter) vector(raw []byte, n, align int) int {
	w.align(align, 4)
	at := len(w.b)
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(n))
	w.b = append(w.b, raw...)
	return at
}

func (w *fbWriter) tables(ts []fields) int {
	at := w.vector(make([]byte, 4*len(ts)), len(ts), 4)
	for i, t := range ts {
		w.put(at+4+4*i, t)
	}
	return at
}

func (w *fbWriter) table(t fields) int {
	ids := slices.SortedFunc(maps.Keys(t), func(a, b int) int {
		return cmp.Or(scalarSize(t[b])-scalarSize(t[a]), a-b)
	})
	count, size, at := 0, 4, map[int]int{}
	for _, id := range ids {
		n := scalarSize(t[id])
		size = (size + n - 1) / n * n
		at[id] = size
		size += n
		count = max(count, id+1)
	}
	w.align(2, 0)
	vt := len(w.b)
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+2*count))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(size))
	for id := range count {
		w.b = binary.LittleEndian.AppendUint16(w.b, uint16(at[id]))
	}
	w.align(8, 0)
	pos := len(w.b)
	w.b = append(w.b, make([]byte, size)...)
	binary.LittleEndian.PutUint32(w.b[pos:], uint32(pos-vt))
	for _, id := range ids {
		w.put(pos+at[id], t[id])
	}
	return pos
}

// encode writes a model.
func encode(model fields) []byte {
	w := &fbWriter{make([]byte, 8)}
	copy(w.b[4:], fileIdentifier)
	binary.LittleEndian.PutUint32(w.b, uint32(w.table(model)))
	return w.b
}

// network collects the parts of a model.
type network struct {
	tensors, buffers, ops, codes []fields
	inputs, outputs              []int32
	metadata                     []fields
	signature                    fields
}

func newNetwork() *network { return &network{buffers: []fields{{}}} }

// affine is the quantisation of a tensor.
func affine(dim int32, zero int64, scales ...float32) fields {
	return fields{quantScale: scales, quantZero: slices.Repeat([]int64{zero}, len(scales)), quantDim: dim}
}

// tensor adds a computed tensor.
func (n *network) tensor(typ int8, shape []int32, quant fields) int32 {
	id := len(n.tensors)
	t := fields{tensorShape: shape, tensorType: typ, tensorBuffer: uint32(0), tensorName: fmt.Sprintf("t%d", id)}
	if quant != nil {
		t[tensorQuant] = quant
	}
	n.tensors = append(n.tensors, t)
	return int32(id)
}

// constant adds a tensor with content, a slice of numbers.
func (n *network) constant(typ int8, shape []int32, quant fields, content any) int32 {
	raw, err := binary.Append(nil, binary.LittleEndian, content)
	if err != nil {
		panic(err)
	}
	id := n.tensor(typ, shape, quant)
	n.tensors[id][tensorBuffer] = uint32(len(n.buffers))
	n.buffers = append(n.buffers, fields{bufferData: raw})
	return id
}

// floats adds a constant of repeating small values.
func (n *network) floats(shape ...int32) int32 {
	size := int32(1)
	for _, d := range shape {
		size *= d
	}
	values := make([]float32, size)
	for i := range values {
		values[i] = float32(i%7-3) / 8
	}
	return n.constant(tFloat32, shape, nil, values)
}

func (n *network) ints(shape []int32, values ...int32) int32 {
	return n.constant(tInt32, shape, nil, values)
}

// op adds an operator and its output tensor.
func (n *network) op(code int8, opts fields, out int32, in ...int32) int32 {
	index := slices.IndexFunc(n.codes, func(c fields) bool { return c[codeOld] == code })
	if index < 0 {
		index = len(n.codes)
		n.codes = append(n.codes, fields{codeOld: code, codeVersion: int32(1), codeNew: int32(code)})
	}
	o := fields{opCode: uint32(index), opInputs: in, opOutputs: []int32{out}}
	if opts != nil {
		o[opOptionsType] = int8(rules[int(code)].options)
		o[opOptions] = opts
	}
	n.ops = append(n.ops, o)
	return out
}

// f adds an operator with a float output.
func (n *network) f(code int8, opts fields, shape []int32, in ...int32) int32 {
	return n.op(code, opts, n.tensor(tFloat32, shape, nil), in...)
}

// sign adds a signature that calls the tensors in_0, out_0 and so on.
func (n *network) sign() *network {
	names := func(prefix string, ids []int32) []fields {
		var out []fields
		for i, id := range ids {
			out = append(out, fields{mapName: fmt.Sprintf("%s_%d", prefix, i), mapTensor: uint32(id)})
		}
		return out
	}
	n.signature = fields{sigInputs: names("in", n.inputs), sigOutputs: names("out", n.outputs),
		sigKey: "serving_default", sigSubgraph: uint32(0)}
	return n
}

func (n *network) subgraph() fields {
	return fields{graphTensors: n.tensors, graphInputs: n.inputs, graphOutputs: n.outputs,
		graphOperators: n.ops, 4: "main"}
}

func (n *network) model() fields {
	m := fields{modelVersion: uint32(schemaVersion), modelCodes: n.codes, 3: "made by a test",
		modelSubgraphs: []fields{n.subgraph()}, modelBuffers: n.buffers}
	if n.signature != nil {
		m[modelSignatures] = []fields{n.signature}
	}
	if n.metadata != nil {
		m[modelMetadata] = n.metadata
	}
	return m
}

func (n *network) encode() []byte { return encode(n.model()) }

var (
	convSame = fields{0: int8(0), 1: int32(2), 2: int32(2), 3: int8(1), 4: int32(1), 5: int32(1)}
	dwSame   = fields{0: int8(0), 1: int32(1), 2: int32(1), 3: int32(1), 4: int8(0), 5: int32(1), 6: int32(1)}
	pool2    = fields{0: int8(1), 1: int32(2), 2: int32(2), 3: int32(2), 4: int32(2), 5: int8(0)}
	noAct    = fields{0: int8(0)}
)

// convNetwork is input [1 8 8 3] -> CONV_2D -> [1 4 4 4], float.
func convNetwork() *network {
	n := newNetwork()
	in := n.tensor(tFloat32, []int32{1, 8, 8, 3}, nil)
	out := n.f(3, maps.Clone(convSame), []int32{1, 4, 4, 4}, in, n.floats(4, 3, 3, 3), n.floats(4))
	n.inputs, n.outputs = []int32{in}, []int32{out}
	return n
}

// floatNetwork uses most operators once. Its outputs are [1 2] and [1 4 4 4].
func floatNetwork() *network {
	n := convNetwork()
	x := n.outputs[0]
	s := []int32{1, 4, 4, 4}
	x = n.f(54, nil, s, x, n.floats(1, 1, 4))
	x = n.f(4, maps.Clone(dwSame), s, x, n.floats(1, 3, 3, 4), n.floats(4))
	x = n.f(0, maps.Clone(noAct), s, x, n.floats(4))
	x = n.f(18, maps.Clone(noAct), s, x, n.floats(1))
	x = n.f(41, maps.Clone(noAct), s, x, x)
	x = n.f(101, nil, s, x)
	x = n.f(19, nil, s, x)
	x = n.f(21, nil, s, x)
	x = n.f(117, nil, s, x)
	x = n.f(28, nil, s, x)
	x = n.f(98, fields{0: float32(0.1)}, s, x)
	x = n.f(105, nil, s, x, n.ints([]int32{1}, 2))
	second := n.f(39, nil, s, x, n.ints([]int32{4}, 0, 2, 1, 3))
	x = n.f(34, nil, []int32{1, 6, 6, 4}, x, n.ints([]int32{4, 2}, 0, 0, 1, 1, 1, 1, 0, 0))
	x = n.f(17, maps.Clone(pool2), []int32{1, 3, 3, 4}, x)
	x = n.f(23, fields{2: int8(0), 3: int8(1)}, []int32{1, 4, 4, 4}, x, n.ints([]int32{2}, 4, 4))
	x = n.f(1, maps.Clone(pool2), []int32{1, 2, 2, 4}, x)
	x = n.f(5, fields{0: int32(2)}, []int32{1, 4, 4, 1}, x)
	x = n.f(97, fields{0: int8(0), 1: int8(1)}, []int32{1, 2, 2, 1}, x, n.ints([]int32{2}, 2, 2))
	x = n.f(2, fields{0: int32(-1), 1: int8(0)}, []int32{1, 2, 2, 2}, x, x)
	x = n.f(40, fields{0: int8(1)}, []int32{1, 1, 1, 2}, x, n.ints([]int32{2}, 1, 2))
	x = n.f(22, fields{0: []int32{1, 2}}, []int32{1, 2}, x, n.ints([]int32{2}, 1, -1))
	x = n.f(9, fields{0: int8(0), 1: int8(0)}, []int32{1, 2}, x, n.floats(2, 2), n.floats(2))
	x = n.f(11, fields{0: int8(0)}, []int32{1, 2}, x)
	x = n.f(14, nil, []int32{1, 2}, x)
	x = n.f(25, fields{0: float32(1)}, []int32{1, 2}, x)
	n.outputs = []int32{x, second}
	return n
}

// int8Network is input int8 [1 8 8 3] -> CONV_2D (per channel) -> PRELU -> int8.
func int8Network() *network {
	n := newNetwork()
	q := affine(0, -1, 0.05)
	in := n.tensor(tInt8, []int32{1, 8, 8, 3}, q)
	w := make([]int8, 4*3*3*3)
	for i := range w {
		w[i] = int8(i%11 - 5)
	}
	weights := n.constant(tInt8, []int32{4, 3, 3, 3}, affine(0, 0, 0.01, 0.02, 0.03, 0.04), w)
	bias := n.constant(tInt32, []int32{4}, affine(0, 0, 0.0005, 0.001, 0.0015, 0.002), []int32{1, -2, 3, 4})
	x := n.op(3, maps.Clone(convSame), n.tensor(tInt8, []int32{1, 4, 4, 4}, q), in, weights, bias)
	alpha := n.constant(tInt8, []int32{1, 1, 4}, affine(0, 0, 0.01), []int8{1, 2, -3, 4})
	x = n.op(54, nil, n.tensor(tInt8, []int32{1, 4, 4, 4}, q), x, alpha)
	n.inputs, n.outputs = []int32{in}, []int32{x}
	return n
}

// halfNetwork keeps its weights as float16, the way the detectors do.
func halfNetwork() *network {
	n := newNetwork()
	in := n.tensor(tFloat32, []int32{1, 8, 8, 3}, nil)
	half := n.constant(tFloat16, []int32{4, 1, 1, 3}, nil, slices.Repeat([]uint16{0x3800}, 12))
	w := n.f(6, nil, []int32{4, 1, 1, 3}, half)
	x := n.f(3, maps.Clone(convSame), []int32{1, 4, 4, 4}, in, w, n.floats(4))
	n.inputs, n.outputs = []int32{in}, []int32{x}
	return n
}
