//go:build cgo

package litert

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// good are the networks made here, all of which must pass.
var good = map[string]func() *network{
	"Conv":      convNetwork,
	"Float":     floatNetwork,
	"Signature": func() *network { return floatNetwork().sign() },
	"Int8":      int8Network,
	"Half":      halfNetwork,
	"Metadata": func() *network {
		n := convNetwork()
		n.metadata = []fields{{metaName: "note", metaBuffer: uint32(1)}}
		return n
	},
}

func TestVerifyAccepts(t *testing.T) {
	r := openRuntime(t, nil)
	for name, build := range good {
		t.Run(name, func(t *testing.T) {
			m := loadModel(t, r, build().encode(), Options{})
			if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
				t.Error(err)
			}
		})
	}
	for _, id := range shippedIDs {
		if err := Verify(shippedModel(t, id)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestRulesAreTested: every operator with a rule is in a network made here, so
// that LiteRT has agreed with the shape that the rule computes.
func TestRulesAreTested(t *testing.T) {
	used := map[int]bool{114: true} // QUANTIZE is in TestQuantize
	for _, build := range good {
		for _, c := range build().codes {
			used[int(c[codeOld].(int8))] = true
		}
	}
	for code, r := range rules {
		if !used[code] {
			t.Errorf("no test network uses %s (%d)", r.name, code)
		}
	}
}

// TestQuantize goes from float to int8 and back.
func TestQuantize(t *testing.T) {
	n := newNetwork()
	in := n.tensor(tFloat32, []int32{1, 4}, nil)
	q := n.op(114, nil, n.tensor(tInt8, []int32{1, 4}, affine(0, 3, 0.5)), in)
	out := n.f(6, nil, []int32{1, 4}, q)
	n.inputs, n.outputs = []int32{in}, []int32{out}
	m := loadModel(t, openRuntime(t, nil), n.encode(), Options{})
	x, y := []float32{-1, 0.2, 0.3, 1000}, make([]float32, 4)
	if err := m.Run([]Buffer{Data(x)}, []Buffer{Data(y)}); err != nil {
		t.Fatal(err)
	}
	if want := []float32{-1, 0, 0.5, 62}; !slices.Equal(y, want) {
		t.Errorf("got %v, want %v", y, want)
	}
}

// bad are networks with one thing wrong each.
var bad = []struct {
	name  string
	base  func() *network
	spoil func(*network)
	want  string
}{
	{"NoOperators", convNetwork, func(n *network) { n.ops = nil }, "no operators"},
	{"NoInputs", convNetwork, func(n *network) { n.inputs = nil }, "no inputs"},
	{"NoOutputs", convNetwork, func(n *network) { n.outputs = nil }, "no outputs"},
	{"InputIndex", convNetwork, func(n *network) { n.inputs[0] = 99 }, "input is tensor 99 of 4"},
	{"InputTwice", convNetwork, func(n *network) { n.inputs = []int32{0, 0} }, "given twice"},
	{"InputConstant", convNetwork, func(n *network) { n.inputs[0] = 1 }, "or constant"},
	{"OutputIndex", convNetwork, func(n *network) { n.outputs[0] = -1 }, "output is tensor -1 of 4"},
	{"OutputIsInput", convNetwork, func(n *network) { n.outputs[0] = 0 }, "is not computed"},
	{"OutputTwice", convNetwork, func(n *network) { n.outputs = []int32{3, 3} }, "given twice"},

	{"DynamicShape", convNetwork, func(n *network) { n.tensors[0][tensorSignature] = []int32{-1, 8, 8, 3} }, "is not fixed"},
	{"NegativeDim", convNetwork, func(n *network) { n.tensors[0][tensorShape] = []int32{1, -8, 8, 3} }, "its shape is [1 -8 8 3]"},
	{"ZeroDim", convNetwork, func(n *network) { n.tensors[0][tensorShape] = []int32{1, 0, 8, 3} }, "its shape is"},
	{"HugeTensor", convNetwork, func(n *network) { n.tensors[0][tensorShape] = []int32{1, 1 << 20, 1 << 20, 3} }, "more than"},
	{"Rank", convNetwork, func(n *network) { n.tensors[0][tensorShape] = []int32{1, 1, 1, 1, 8, 8, 3} }, "at most 6"},
	{"NoName", convNetwork, func(n *network) { delete(n.tensors[0], tensorName) }, "has no name"},
	{"StringTensor", convNetwork, func(n *network) { n.tensors[0][tensorType] = int8(5) }, "element type 5"},
	{"Variable", convNetwork, func(n *network) { n.tensors[0][tensorVariable] = int8(1) }, "not supported"},
	{"Sparse", convNetwork, func(n *network) { n.tensors[1][tensorSparsity] = fields{} }, "not supported"},
	{"ExternalTensor", convNetwork, func(n *network) { n.tensors[1][tensorExternal] = uint32(1) }, "another file"},
	{"BufferIndex", convNetwork, func(n *network) { n.tensors[1][tensorBuffer] = uint32(9) }, "buffer 9 of 3"},
	{"ShortConstant", convNetwork, func(n *network) { n.buffers[1][bufferData] = make([]byte, 428) }, "428 bytes of content, want 432"},
	{"BufferZero", convNetwork, func(n *network) { n.buffers[0][bufferData] = make([]byte, 4) }, "buffer 0"},
	{"BufferBehindFile", convNetwork, func(n *network) {
		n.buffers[1] = fields{bufferOffset: uint64(1 << 40), bufferSize: uint64(432)}
	}, "are not in the file"},
	{"BufferSizeOverflow", convNetwork, func(n *network) {
		n.buffers[1] = fields{bufferOffset: uint64(64), bufferSize: ^uint64(0)}
	}, "are not in the file"},

	{"UnknownOperator", convNetwork, func(n *network) { n.codes[0] = fields{codeOld: int8(32), codeNew: int32(32)} }, "operator 32 is not supported"},
	{"OperatorCode", convNetwork, func(n *network) { n.ops[0][opCode] = uint32(7) }, "code 7 of 1"},
	{"OperandIndex", convNetwork, func(n *network) { n.ops[0][opInputs] = []int32{0, 77, 2} }, "input is tensor 77 of 4"},
	{"MissingOperand", convNetwork, func(n *network) { n.ops[0][opInputs] = []int32{-1, 1, 2} }, "input is tensor -1"},
	{"TooFewOperands", convNetwork, func(n *network) { n.ops[0][opInputs] = []int32{0} }, "1 inputs, want 2 to 3"},
	{"Cycle", convNetwork, func(n *network) { n.ops[0][opInputs] = []int32{3, 1, 2} }, "not computed yet"},
	{"TwoResults", convNetwork, func(n *network) { n.ops[0][opOutputs] = []int32{3, 3} }, "2 outputs, want 1"},
	{"ResultConstant", convNetwork, func(n *network) { n.ops[0][opOutputs] = []int32{1} }, "constant or computed twice"},
	{"ResultIndex", convNetwork, func(n *network) { n.ops[0][opOutputs] = []int32{-1} }, "output is tensor -1"},
	{"NoOptions", convNetwork, func(n *network) { delete(n.ops[0], opOptions) }, "options are of type"},
	{"OtherOptions", convNetwork, func(n *network) { n.ops[0][opOptionsType] = int8(5) }, "options are of type 5, want 1"},
	{"NewOptions", convNetwork, func(n *network) { n.ops[0][opOptions2Type] = int8(1) }, "of a kind that is not supported"},
	{"ZeroStride", convNetwork, func(n *network) { n.ops[0][opOptions].(fields)[1] = int32(0) }, "stride 0"},
	{"ZeroDilation", convNetwork, func(n *network) { n.ops[0][opOptions].(fields)[5] = int32(0) }, "dilation 0"},
	{"Padding", convNetwork, func(n *network) { n.ops[0][opOptions].(fields)[0] = int8(9) }, "padding 9"},
	{"Activation", convNetwork, func(n *network) { n.ops[0][opOptions].(fields)[3] = int8(77) }, "activation 77"},
	{"WrongOutputShape", convNetwork, func(n *network) { n.tensors[3][tensorShape] = []int32{1, 4, 4, 5} }, "is computed as [1 4 4 4]"},
	{"BiasLength", convNetwork, func(n *network) {
		n.tensors[2][tensorShape], n.buffers[2] = []int32{3}, fields{bufferData: make([]byte, 12)}
	}, "bias"},
	{"WeightType", convNetwork, func(n *network) {
		n.tensors[1][tensorType], n.tensors[1][tensorShape] = int8(tInt32), []int32{4, 3, 3, 3}
	}, "weights of element type"},
	{"Channels", convNetwork, func(n *network) { n.tensors[0][tensorShape] = []int32{1, 8, 8, 4} }, "for input [1 8 8 4]"},

	{"NoScale", int8Network, func(n *network) { delete(n.tensors[0], tensorQuant) }, "has 0 scales"},
	{"ZeroScale", int8Network, func(n *network) { n.tensors[0][tensorQuant] = affine(0, 0, 0) }, "scale is 0"},
	{"ScaleCount", int8Network, func(n *network) { n.tensors[1][tensorQuant] = affine(0, 0, 1, 1, 1) }, "3 scales along dimension 0"},
	{"ScaleDim", int8Network, func(n *network) { n.tensors[1][tensorQuant] = affine(9, 0, 1, 1, 1, 1) }, "along dimension 9"},
	{"ScaleOtherDim", int8Network, func(n *network) { n.tensors[1][tensorQuant] = affine(3, 0, 1, 1, 1) }, "along dimension 3, want 0"},
	{"ZeroPoint", int8Network, func(n *network) { n.tensors[0][tensorQuant] = affine(0, 300, 1) }, "zero point is 300"},
	{"ZeroPointCount", int8Network, func(n *network) {
		n.tensors[0][tensorQuant] = fields{quantScale: []float32{1}, quantZero: []int64{}}
	}, "1 scales and 0 zero points"},
	{"PerChannelInput", int8Network, func(n *network) { n.tensors[0][tensorQuant] = affine(3, 0, 1, 1, 1) }, "has 3 scales"},

	{"MetadataName", convNetwork, func(n *network) { n.metadata = []fields{{metaBuffer: uint32(0)}} }, "metadata 0 has no name"},
	{"MetadataBuffer", convNetwork, func(n *network) { n.metadata = []fields{{metaName: "x", metaBuffer: uint32(9)}} }, "buffer 9"},
	{"SignatureTensor", convNetwork, func(n *network) {
		n.sign().signature[sigInputs] = []fields{{mapName: "x", mapTensor: uint32(2)}}
	}, "they are tensors [2], the graph has [0]"},
	{"SignatureName", convNetwork, func(n *network) {
		n.sign().signature[sigInputs] = []fields{{mapTensor: uint32(0)}}
	}, `name "" is empty`},
	{"SignatureKey", convNetwork, func(n *network) { delete(n.sign().signature, sigKey) }, "has no key"},
	{"SignatureGraph", convNetwork, func(n *network) { n.sign().signature[sigSubgraph] = uint32(3) }, "subgraph 3"},
}

func TestVerifyRefuses(t *testing.T) {
	r := openRuntime(t, nil)
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			n := c.base()
			c.spoil(n)
			m, err := r.Load(n.encode(), Options{})
			if m != nil || !errors.Is(err, ErrBadModel) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Load gave %v, %v, want %q", m, err, c.want)
			}
		})
	}
}

// TestVerifyRefusesOperands spoils the constants that shape an operator's output.
func TestVerifyRefusesOperands(t *testing.T) {
	s := []int32{1, 4, 4, 4}
	for _, c := range []struct {
		name  string
		build func(n *network, x int32) int32
		want  string
	}{
		{"NegativePadding", func(n *network, x int32) int32 {
			return n.f(34, nil, s, x, n.ints([]int32{4, 2}, 0, 0, -1, 1, 0, 0, 0, 0))
		}, "paddings [0 0 -1 1"},
		{"PaddingRank", func(n *network, x int32) int32 {
			return n.f(34, nil, s, x, n.ints([]int32{3, 2}, 0, 0, 0, 0, 0, 0))
		}, "paddings"},
		{"Permutation", func(n *network, x int32) int32 {
			return n.f(39, nil, s, x, n.ints([]int32{4}, 0, 1, 2, 9))
		}, "permutation [0 1 2 9]"},
		{"PermutationTwice", func(n *network, x int32) int32 {
			return n.f(39, nil, s, x, n.ints([]int32{4}, 0, 1, 2, 2))
		}, "permutation [0 1 2 2]"},
		{"MeanAxis", func(n *network, x int32) int32 {
			return n.f(40, fields{0: int8(1)}, s, x, n.ints([]int32{1}, 4))
		}, "axis 4 of rank 4"},
		{"ReverseAxis", func(n *network, x int32) int32 {
			return n.f(105, nil, s, x, n.ints([]int32{1}, 4))
		}, "axis 4 of rank 4"},
		{"ReverseAxes", func(n *network, x int32) int32 {
			return n.f(105, nil, s, x, n.ints([]int32{2}, 1, 2))
		}, "want one"},
		{"ConcatAxis", func(n *network, x int32) int32 {
			return n.f(2, fields{0: int32(-5), 1: int8(0)}, s, x, x)
		}, "axis -5 of rank 4"},
		{"ResizeToNothing", func(n *network, x int32) int32 {
			return n.f(23, fields{2: int8(0), 3: int8(0)}, s, x, n.ints([]int32{2}, 0, 4))
		}, "new size [0 4]"},
		{"ReshapeCount", func(n *network, x int32) int32 {
			return n.f(22, fields{0: []int32{65}}, []int32{65}, x, n.ints([]int32{1}, 65))
		}, "new shape [65] for 64 elements"},
		{"ReshapeTwoFree", func(n *network, x int32) int32 {
			return n.f(22, fields{0: []int32{1}}, []int32{1, 64}, x, n.ints([]int32{2}, -1, -1))
		}, "new shape [-1 -1]"},
		{"ReshapeComputed", func(n *network, x int32) int32 {
			return n.f(22, fields{0: []int32{1}}, []int32{1, 64}, x, x)
		}, "must be a constant of integers"},
		{"PoolFilter", func(n *network, x int32) int32 {
			o := maps.Clone(pool2)
			o[3] = int32(0)
			return n.f(17, o, []int32{1, 2, 2, 4}, x)
		}, "window 0"},
		{"PoolFilterHuge", func(n *network, x int32) int32 {
			o := maps.Clone(pool2)
			o[3] = int32(1 << 30)
			return n.f(17, o, []int32{1, 2, 2, 4}, x)
		}, "window [2 1073741824]"},
		{"Broadcast", func(n *network, x int32) int32 {
			return n.f(0, maps.Clone(noAct), s, x, n.floats(3))
		}, "do not fit together"},
		{"PreluGrows", func(n *network, x int32) int32 {
			return n.f(54, nil, s, x, n.floats(2, 1, 1, 4))
		}, "is computed as [2 4 4 4]"},
		{"Multiplier", func(n *network, x int32) int32 {
			o := maps.Clone(dwSame)
			o[3] = int32(2)
			return n.f(4, o, s, x, n.floats(1, 3, 3, 4))
		}, "multiplier 2"},
		{"DepthToSpace", func(n *network, x int32) int32 {
			return n.f(5, fields{0: int32(3)}, s, x)
		}, "block 3"},
		{"FullyConnected", func(n *network, x int32) int32 {
			return n.f(9, fields{0: int8(0), 1: int8(0)}, s, x, n.floats(2, 7))
		}, "weights [2 7]"},
		{"MixedTypes", func(n *network, x int32) int32 {
			return n.f(0, maps.Clone(noAct), s, x, n.ints([]int32{4}, 1, 2, 3, 4))
		}, "has element type 2, the output 0"},
		{"TooMuchMemory", func(n *network, x int32) int32 {
			for range 5 {
				x = n.f(23, fields{2: int8(0)}, []int32{1, 2048, 4096, 4}, x, n.ints([]int32{2}, 2048, 4096))
			}
			return x
		}, "needs more than"},
		{"TooMuchWork", func(n *network, x int32) int32 {
			x = n.f(23, fields{2: int8(0)}, []int32{1, 2048, 2048, 4}, x, n.ints([]int32{2}, 2048, 2048))
			o := maps.Clone(convSame)
			o[1], o[2] = int32(1), int32(1)
			return n.f(3, o, []int32{1, 2048, 2048, 4}, x, n.floats(4, 64, 64, 4))
		}, "multiplications"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := convNetwork()
			n.outputs[0] = c.build(n, n.outputs[0])
			if err := Verify(n.encode()); !errors.Is(err, ErrBadModel) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Verify gave %v, want %q", err, c.want)
			}
		})
	}
}

// TestVerifyModelTables spoils the outermost table.
func TestVerifyModelTables(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(fields)
		want  string
	}{
		{"Version", func(m fields) { m[modelVersion] = uint32(2) }, "schema version is 2"},
		{"NoSubgraph", func(m fields) { delete(m, modelSubgraphs) }, "no subgraph"},
		{"TwoSubgraphs", func(m fields) { m[modelSubgraphs] = []fields{{}, {}} }, "2 subgraphs, want at most 1"},
		{"NoBuffers", func(m fields) { delete(m, modelBuffers) }, "buffer 0"},
		{"OtherFiles", func(m fields) { m[modelExternals] = []fields{{}} }, "other files"},
		{"ManyBuffers", func(m fields) { m[modelBuffers] = make([]fields, maxGraph+1) }, "buffers, want at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := convNetwork().model()
			c.spoil(m)
			if err := Verify(encode(m)); !errors.Is(err, ErrBadModel) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Verify gave %v, want %q", err, c.want)
			}
		})
	}
}

func TestVerifyBytes(t *testing.T) {
	ok := convNetwork().encode()
	other := slices.Clone(ok)
	copy(other[4:], "TFL2")
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"Nil", nil, "0 bytes, want"},
		{"Short", []byte("TFL3"), "4 bytes, want"},
		{"Text", []byte("this is not a model at all"), `identifier is " is "`},
		{"OldIdentifier", other, `identifier is "TFL2"`},
		{"ZeroRoot", slices.Concat(make([]byte, 4), ok[4:]), "outside the file"},
		{"FarRoot", slices.Concat([]byte{0, 0, 0, 0x7f}, ok[4:]), "outside the file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Verify(c.data); !errors.Is(err, ErrBadModel) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Verify gave %v, want %q", err, c.want)
			}
		})
	}
}

// TestTruncated cuts models at every length, or at many.
func TestTruncated(t *testing.T) {
	r := openRuntime(t, nil)
	for i, data := range fuzzBases(t) {
		step := max(1, len(data)/100)
		for n := 0; n < len(data); n += step {
			m, err := r.Load(data[:n:n], Options{})
			if m != nil {
				m.Close() // what is cut off may be padding, or nothing that is used
				continue
			}
			if !errors.Is(err, ErrBadModel) {
				t.Fatalf("model %d cut to %d bytes: %v", i, n, err)
			}
		}
	}
}
