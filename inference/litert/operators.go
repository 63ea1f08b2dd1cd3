package litert

import (
	"fmt"
	"slices"
)

// operator is one operator of the graph with its operands looked up. An optional
// operand that is left out is nil.
type operator struct {
	in, out []*graphTensor
	opts    table
	window  int // multiplications for one element of the output
}

// rule says what an operator must look like.
type rule struct {
	name     string
	options  int    // its entry in the union of options, 0 if it needs none
	in       [2]int // least and most inputs
	optional int    // index of the input that may be left out, 0 for none
	multi    uint   // bit i: input i may have one scale per channel
	// shape checks types and parameters and computes the shape of the output.
	shape func(*operator) ([]int, error)
}

// Values of rule.multi.
const (
	first   = 1 << 0
	weights = 1 << 1
)

// rules are the operators that a network may use, by TFLite's number: those of
// the face networks and their near relatives. An operator comes in with a rule
// for its shape and a test.
var rules = map[int]rule{
	0:   {"ADD", 11, [2]int{2, 2}, 0, 0, broadcast},
	1:   {"AVERAGE_POOL_2D", 5, [2]int{1, 1}, 0, 0, pool},
	2:   {"CONCATENATION", 10, [2]int{1, maxOperands}, 0, 0, concatenation},
	3:   {"CONV_2D", 1, [2]int{2, 3}, 2, weights, conv},
	4:   {"DEPTHWISE_CONV_2D", 2, [2]int{2, 3}, 2, weights, depthwise},
	5:   {"DEPTH_TO_SPACE", 94, [2]int{1, 1}, 0, 0, depthToSpace},
	6:   {"DEQUANTIZE", 0, [2]int{1, 1}, 0, first, dequantize},
	9:   {"FULLY_CONNECTED", 8, [2]int{2, 3}, 2, weights, fullyConnected},
	11:  {"L2_NORMALIZATION", 12, [2]int{1, 1}, 0, 0, same},
	14:  {"LOGISTIC", 0, [2]int{1, 1}, 0, 0, same},
	17:  {"MAX_POOL_2D", 5, [2]int{1, 1}, 0, 0, pool},
	18:  {"MUL", 21, [2]int{2, 2}, 0, 0, broadcast},
	19:  {"RELU", 0, [2]int{1, 1}, 0, 0, same},
	21:  {"RELU6", 0, [2]int{1, 1}, 0, 0, same},
	22:  {"RESHAPE", 17, [2]int{1, 2}, 0, 0, reshape},
	23:  {"RESIZE_BILINEAR", 15, [2]int{2, 2}, 0, 0, resize},
	25:  {"SOFTMAX", 9, [2]int{1, 1}, 0, 0, same},
	28:  {"TANH", 0, [2]int{1, 1}, 0, 0, same},
	34:  {"PAD", 0, [2]int{2, 2}, 0, 0, pad},
	39:  {"TRANSPOSE", 0, [2]int{2, 2}, 0, 0, transpose},
	40:  {"MEAN", 27, [2]int{2, 2}, 0, 0, reduce},
	41:  {"SUB", 28, [2]int{2, 2}, 0, 0, broadcast},
	54:  {"PRELU", 0, [2]int{2, 2}, 0, 0, prelu},
	97:  {"RESIZE_NEAREST_NEIGHBOR", 74, [2]int{2, 2}, 0, 0, resize},
	98:  {"LEAKY_RELU", 75, [2]int{1, 1}, 0, 0, same},
	101: {"ABS", 0, [2]int{1, 1}, 0, 0, same},
	105: {"REVERSE_V2", 0, [2]int{2, 2}, 0, 0, reverse},
	114: {"QUANTIZE", 0, [2]int{1, 1}, 0, 0, quantize},
	117: {"HARD_SWISH", 0, [2]int{1, 1}, 0, 0, same},
}

// operators checks the operators in order of execution.
func (v *verifier) operators(g table) error {
	list, err := v.tables(g, graphOperators, maxGraph, "operators")
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("it has no operators")
	}
	for i, t := range list {
		code := t.u32(opCode)
		if code >= len(v.codes) {
			return fmt.Errorf("operator %d has code %d of %d", i, code, len(v.codes))
		}
		rule := rules[v.codes[code]]
		if err := v.operator(t, rule); err != nil {
			return fmt.Errorf("operator %d (%s): %w", i, rule.name, err)
		}
	}
	return nil
}

func (v *verifier) operator(t table, rule rule) error {
	if err := checkExtras(t, rule); err != nil {
		return err
	}
	o := &operator{opts: t.table(opOptions)}
	var err error
	if o.in, err = v.operands(t.ints(opInputs, maxOperands), rule); err != nil {
		return err
	}
	if o.out, err = v.results(t.ints(opOutputs, maxOperands)); err != nil {
		return err
	}
	shape, err := rule.shape(o)
	if v.r.err != nil {
		return v.r.err
	}
	if err != nil {
		return err
	}
	if !equal(shape, o.out[0].shape) {
		return &mismatch{o.out[0], shape}
	}
	if v.work += o.out[0].len() * max(1, o.window); v.work > maxWork {
		return fmt.Errorf("the network needs more than %d multiplications", maxWork)
	}
	o.out[0].ready = true
	return nil
}

// mismatch says that a file declares one shape for an operator's output and the
// rule computes another.
type mismatch struct {
	declared *graphTensor
	computed []int
}

// Error names both shapes.
func (m *mismatch) Error() string {
	return fmt.Sprintf("its output is %s, but is computed as %v", m.declared, m.computed)
}

// checkExtras refuses what no operator we know of uses, and options of another
// operator: LiteRT takes those for none, with a stride of zero.
func checkExtras(t table, rule rule) error {
	if t.vector(opMutating, 1).n > 0 || t.vector(opIntermediates, 4).n > 0 ||
		t.u64(opLargeOffset) != 0 || t.u64(opLargeSize) != 0 || t.i8(opOptions2Type, 0) != 0 {
		return fmt.Errorf("it has state, intermediates or options of a kind that is not supported")
	}
	got := int(uint8(t.i8(opOptionsType, 0)))
	if rule.options != 0 && (got != rule.options || !t.has(opOptions)) {
		return fmt.Errorf("its options are of type %d, want %d", got, rule.options)
	}
	return nil
}

func (v *verifier) operands(ids []int, rule rule) ([]*graphTensor, error) {
	if len(ids) < rule.in[0] || len(ids) > rule.in[1] {
		return nil, fmt.Errorf("%d inputs, want %d to %d", len(ids), rule.in[0], rule.in[1])
	}
	out := make([]*graphTensor, len(ids))
	for k, id := range ids {
		if id == -1 && rule.optional != 0 && k == rule.optional {
			continue
		}
		if id < 0 || id >= len(v.tensors) {
			return nil, fmt.Errorf("input is tensor %d of %d", id, len(v.tensors))
		}
		t := v.tensors[id]
		if !t.ready {
			return nil, fmt.Errorf("input %s is not computed yet", t)
		}
		if err := t.scaled(rule.multi>>k&1 != 0); err != nil {
			return nil, err
		}
		out[k] = t
	}
	return out, nil
}

func (v *verifier) results(ids []int) ([]*graphTensor, error) {
	if len(ids) != 1 {
		return nil, fmt.Errorf("%d outputs, want 1", len(ids))
	}
	if ids[0] < 0 || ids[0] >= len(v.tensors) {
		return nil, fmt.Errorf("output is tensor %d of %d", ids[0], len(v.tensors))
	}
	t := v.tensors[ids[0]]
	if t.ready {
		return nil, fmt.Errorf("output %s is constant or computed twice", t)
	}
	if err := t.scaled(false); err != nil {
		return nil, err
	}
	return []*graphTensor{t}, nil
}

// ---- types ----

// arithmetic checks that the first n inputs and the output have one type that
// kernels compute with.
func (o *operator) arithmetic(n int) error {
	typ := o.out[0].typ
	if typ != tFloat32 && typ != tInt8 && typ != tUint8 {
		return fmt.Errorf("it computes element type %d", typ)
	}
	for _, t := range o.in[:n] {
		if t.typ != typ {
			return fmt.Errorf("input %s has element type %d, the output %d", t, t.typ, typ)
		}
	}
	return nil
}

// weighted checks the types of input, weights and bias, and the bias's length.
func (o *operator) weighted(channels int) error {
	if err := o.arithmetic(1); err != nil {
		return err
	}
	typ, w := o.in[0].typ, o.in[1]
	if w.typ != typ && !(typ == tFloat32 && w.typ == tInt8) {
		return fmt.Errorf("weights of element type %d for an input of %d", w.typ, typ)
	}
	if len(o.in) < 3 || o.in[2] == nil {
		return nil
	}
	bias, want := o.in[2], tInt32
	if typ == tFloat32 {
		want = tFloat32
	}
	if bias.typ != want || len(bias.shape) != 1 || bias.len() != channels {
		return fmt.Errorf("bias %s of element type %d, want [%d] of %d", bias, bias.typ, channels, want)
	}
	return nil
}

// perChannel checks that weights with several scales have them along the
// dimension of the output channels, and that everything else has one.
func (o *operator) perChannel(dim int) error {
	if w := o.in[1]; w.scales > 1 && w.scaleDim != dim {
		return fmt.Errorf("weights are quantised along dimension %d, want %d", w.scaleDim, dim)
	}
	return nil
}

// activation checks a fused activation.
func (o *operator) activation(field int) error {
	if a := o.opts.i8(field, 0); a < 0 || a > 3 {
		return fmt.Errorf("fused activation %d is not supported", a)
	}
	return nil
}

func rank(t *graphTensor, n int) error {
	if len(t.shape) != n {
		return fmt.Errorf("%s has rank %d, want %d", t, len(t.shape), n)
	}
	return nil
}

// ---- element by element ----

func same(o *operator) ([]int, error) { return o.in[0].shape, o.arithmetic(1) }

func dequantize(o *operator) ([]int, error) {
	switch o.in[0].typ {
	case tFloat16, tInt8, tUint8:
	default:
		return nil, fmt.Errorf("input has element type %d", o.in[0].typ)
	}
	if o.out[0].typ != tFloat32 {
		return nil, fmt.Errorf("output has element type %d", o.out[0].typ)
	}
	return o.in[0].shape, nil
}

func quantize(o *operator) ([]int, error) {
	in, out := o.in[0].typ, o.out[0].typ
	if in != tFloat32 && in != tInt8 && in != tUint8 || out != tInt8 && out != tUint8 {
		return nil, fmt.Errorf("from element type %d to %d", in, out)
	}
	return o.in[0].shape, nil
}

func broadcast(o *operator) ([]int, error) {
	if err := o.arithmetic(2); err != nil {
		return nil, err
	}
	if err := o.activation(0); err != nil {
		return nil, err
	}
	return broadcastShapes(o.in[0], o.in[1])
}

func broadcastShapes(ta, tb *graphTensor) ([]int, error) {
	a, b := ta.shape, tb.shape
	if len(a) < len(b) {
		a, b = b, a
	}
	out := slices.Clone(a)
	skip := len(a) - len(b)
	for i, d := range b {
		switch k := skip + i; {
		case out[k] == 1:
			out[k] = d
		case d != 1 && d != out[k]:
			return nil, fmt.Errorf("%s and %s do not fit together", ta, tb)
		}
	}
	return out, nil
}

func prelu(o *operator) ([]int, error) {
	if err := o.arithmetic(2); err != nil {
		return nil, err
	}
	return broadcastShapes(o.in[0], o.in[1])
}

// ---- windows ----

// window computes the output of a window along one dimension.
func window(in, filter, stride, dilation, padding int) (int, error) {
	if stride < 1 || stride > maxDim || dilation < 1 || dilation > maxDim || filter < 1 || filter > maxDim {
		return 0, fmt.Errorf("window %d, stride %d, dilation %d", filter, stride, dilation)
	}
	const sameSize, valid = 0, 1
	reach := (filter-1)*dilation + 1
	switch {
	case padding == sameSize:
		return (in + stride - 1) / stride, nil
	case padding == valid && reach <= in:
		return (in-reach)/stride + 1, nil
	}
	return 0, fmt.Errorf("padding %d of a window of %d over %d", padding, reach, in)
}

// slide computes the output of a two-dimensional window over an NHWC tensor.
// Each pair is height, width.
func slide(in *graphTensor, filter, stride, dilation [2]int, padding, channels int) ([]int, error) {
	h, err := window(in.shape[1], filter[0], stride[0], dilation[0], padding)
	if err != nil {
		return nil, err
	}
	w, err := window(in.shape[2], filter[1], stride[1], dilation[1], padding)
	if err != nil {
		return nil, err
	}
	return []int{in.shape[0], h, w, channels}, nil
}

func pool(o *operator) ([]int, error) {
	const padding, strideW, strideH, filterW, filterH, activation = 0, 1, 2, 3, 4, 5
	if err := rank(o.in[0], 4); err != nil {
		return nil, err
	}
	if err := o.arithmetic(1); err != nil {
		return nil, err
	}
	if err := o.activation(activation); err != nil {
		return nil, err
	}
	filter := [2]int{o.opts.i32(filterH, 0), o.opts.i32(filterW, 0)}
	// A window far beyond the picture would only be padding.
	if filter[0] > 2*o.in[0].shape[1] || filter[1] > 2*o.in[0].shape[2] {
		return nil, fmt.Errorf("window %v over %s", filter, o.in[0])
	}
	o.window = filter[0] * filter[1]
	stride := [2]int{o.opts.i32(strideH, 0), o.opts.i32(strideW, 0)}
	return slide(o.in[0], filter, stride, [2]int{1, 1}, o.opts.i8(padding, 0), o.in[0].shape[3])
}

func conv(o *operator) ([]int, error) {
	const padding, strideW, strideH, activation, dilationW, dilationH = 0, 1, 2, 3, 4, 5
	in, w := o.in[0], o.in[1]
	if err := firstError(rank(in, 4), rank(w, 4)); err != nil {
		return nil, err
	}
	groups := in.shape[3] / w.shape[3]
	if in.shape[3]%w.shape[3] != 0 || w.shape[0]%groups != 0 {
		return nil, fmt.Errorf("weights %v for input %v", w.shape, in.shape)
	}
	if err := firstError(o.weighted(w.shape[0]), o.activation(activation), o.perChannel(0)); err != nil {
		return nil, err
	}
	o.window = product(w.shape[1:])
	return slide(in, [2]int{w.shape[1], w.shape[2]},
		[2]int{o.opts.i32(strideH, 0), o.opts.i32(strideW, 0)},
		[2]int{o.opts.i32(dilationH, 1), o.opts.i32(dilationW, 1)}, o.opts.i8(padding, 0), w.shape[0])
}

func depthwise(o *operator) ([]int, error) {
	const padding, strideW, strideH, multiplier, activation, dilationW, dilationH = 0, 1, 2, 3, 4, 5, 6
	in, w := o.in[0], o.in[1]
	if err := firstError(rank(in, 4), rank(w, 4)); err != nil {
		return nil, err
	}
	m := o.opts.i32(multiplier, 0)
	if w.shape[0] != 1 || m < 1 || w.shape[3] != m*in.shape[3] {
		return nil, fmt.Errorf("weights %v and multiplier %d for input %v", w.shape, m, in.shape)
	}
	if err := firstError(o.weighted(w.shape[3]), o.activation(activation), o.perChannel(3)); err != nil {
		return nil, err
	}
	o.window = w.shape[1] * w.shape[2]
	return slide(in, [2]int{w.shape[1], w.shape[2]},
		[2]int{o.opts.i32(strideH, 0), o.opts.i32(strideW, 0)},
		[2]int{o.opts.i32(dilationH, 1), o.opts.i32(dilationW, 1)}, o.opts.i8(padding, 0), w.shape[3])
}

func fullyConnected(o *operator) ([]int, error) {
	const activation, format, keepDims = 0, 1, 2
	in, w := o.in[0], o.in[1]
	if err := rank(w, 2); err != nil {
		return nil, err
	}
	units, depth := w.shape[0], w.shape[1]
	o.window = depth
	if len(in.shape) == 0 || in.len()%depth != 0 || o.opts.i8(format, 0) != 0 {
		return nil, fmt.Errorf("weights %v for input %v", w.shape, in.shape)
	}
	if err := firstError(o.weighted(units), o.activation(activation), o.perChannel(0)); err != nil {
		return nil, err
	}
	if o.opts.i8(keepDims, 0) == 0 {
		return []int{in.len() / depth, units}, nil
	}
	out := slices.Clone(in.shape)
	if out[len(out)-1] != depth {
		return nil, fmt.Errorf("weights %v for input %v", w.shape, in.shape)
	}
	out[len(out)-1] = units
	return out, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ---- layout ----

func reshape(o *operator) ([]int, error) {
	const newShape = 0
	in := o.in[0]
	if o.out[0].typ != in.typ {
		return nil, fmt.Errorf("element type %d becomes %d", in.typ, o.out[0].typ)
	}
	want := o.opts.ints(newShape, maxRank)
	if len(o.in) == 2 {
		var err error
		if want, err = o.in[1].integers(); err != nil {
			return nil, err
		}
		if err := firstError(rank(o.in[1], 1), shorter(want)); err != nil {
			return nil, err
		}
	}
	return resolve(want, in.len())
}

func shorter(shape []int) error {
	if len(shape) > maxRank {
		return fmt.Errorf("rank %d, want at most %d", len(shape), maxRank)
	}
	return nil
}

// resolve replaces the one -1 of a shape so that it has n elements.
func resolve(shape []int, n int) ([]int, error) {
	out := slices.Clone(shape)
	free, rest := -1, 1
	for i, d := range out {
		switch {
		case d == -1 && free < 0:
			free = i
		case d < 1 || d > n:
			return nil, fmt.Errorf("new shape %v for %d elements", shape, n)
		default:
			if rest *= d; rest > n {
				return nil, fmt.Errorf("new shape %v for %d elements", shape, n)
			}
		}
	}
	if free >= 0 {
		out[free] = n / rest
	}
	if product(out) != n {
		return nil, fmt.Errorf("new shape %v for %d elements", shape, n)
	}
	return out, nil
}

func concatenation(o *operator) ([]int, error) {
	const axisField, activation = 0, 1
	if err := firstError(o.arithmetic(len(o.in)), o.activation(activation)); err != nil {
		return nil, err
	}
	out := slices.Clone(o.in[0].shape)
	axis, err := index(o.opts.i32(axisField, 0), len(out))
	if err != nil {
		return nil, err
	}
	out[axis] = 0
	for _, t := range o.in {
		if len(t.shape) != len(out) {
			return nil, fmt.Errorf("%s and %s do not fit together", o.in[0], t)
		}
		for i, d := range t.shape {
			if i == axis {
				out[i] += d
			} else if d != out[i] {
				return nil, fmt.Errorf("%s and %s do not fit together", o.in[0], t)
			}
		}
	}
	return out, nil
}

// index turns an axis, possibly counted from the end, into an index.
func index(axis, rank int) (int, error) {
	if axis < -rank || axis >= rank {
		return 0, fmt.Errorf("axis %d of rank %d", axis, rank)
	}
	return (axis + rank) % rank, nil
}

func pad(o *operator) ([]int, error) {
	if err := o.arithmetic(1); err != nil {
		return nil, err
	}
	amounts, err := o.in[1].integers()
	if err != nil {
		return nil, err
	}
	out := slices.Clone(o.in[0].shape)
	if !equal(o.in[1].shape, []int{len(out), 2}) {
		return nil, fmt.Errorf("paddings %s for %s", o.in[1], o.in[0])
	}
	for i := range out {
		before, after := amounts[2*i], amounts[2*i+1]
		if before < 0 || before > maxDim || after < 0 || after > maxDim {
			return nil, fmt.Errorf("paddings %v", amounts)
		}
		out[i] += before + after
	}
	return out, nil
}

func resize(o *operator) ([]int, error) {
	if err := firstError(rank(o.in[0], 4), o.arithmetic(1)); err != nil {
		return nil, err
	}
	size, err := o.in[1].integers()
	if err != nil {
		return nil, err
	}
	if !equal(o.in[1].shape, []int{2}) || size[0] < 1 || size[1] < 1 {
		return nil, fmt.Errorf("new size %v", size)
	}
	s := o.in[0].shape
	return []int{s[0], size[0], size[1], s[3]}, nil
}

func transpose(o *operator) ([]int, error) {
	if err := o.arithmetic(1); err != nil {
		return nil, err
	}
	perm, err := o.in[1].integers()
	if err != nil {
		return nil, err
	}
	in := o.in[0].shape
	out, seen := make([]int, len(in)), make([]bool, len(in))
	if !equal(o.in[1].shape, []int{len(in)}) {
		return nil, fmt.Errorf("permutation %v of rank %d", perm, len(in))
	}
	for i, p := range perm {
		if p < 0 || p >= len(in) || seen[p] {
			return nil, fmt.Errorf("permutation %v of rank %d", perm, len(in))
		}
		out[i], seen[p] = in[p], true
	}
	return out, nil
}

func reverse(o *operator) ([]int, error) {
	if err := o.arithmetic(1); err != nil {
		return nil, err
	}
	axes, err := o.in[1].integers()
	if err != nil {
		return nil, err
	}
	if !equal(o.in[1].shape, []int{1}) {
		return nil, fmt.Errorf("axes %s, want one", o.in[1])
	}
	_, err = index(axes[0], len(o.in[0].shape))
	return o.in[0].shape, err
}

func reduce(o *operator) ([]int, error) {
	const keepDims = 0
	if err := o.arithmetic(1); err != nil {
		return nil, err
	}
	axes, err := o.in[1].integers()
	if err != nil {
		return nil, err
	}
	shape, keep := o.in[0].shape, o.opts.i8(keepDims, 0) != 0
	gone := make([]bool, len(shape))
	for _, a := range axes {
		i, err := index(a, len(shape))
		if err != nil {
			return nil, err
		}
		gone[i] = true
	}
	out := []int{}
	for i, d := range shape {
		if !gone[i] {
			out = append(out, d)
		} else if keep {
			out = append(out, 1)
		}
	}
	return out, nil
}

func depthToSpace(o *operator) ([]int, error) {
	const blockSize = 0
	if err := firstError(rank(o.in[0], 4), o.arithmetic(1)); err != nil {
		return nil, err
	}
	s, b := o.in[0].shape, o.opts.i32(blockSize, 0)
	if b < 1 || b > maxDim || s[3]%(b*b) != 0 {
		return nil, fmt.Errorf("block %d for %v", b, s)
	}
	return []int{s[0], s[1] * b, s[2] * b, s[3] / (b * b)}, nil
}
