package litert

import (
	"fmt"
	"math"
	"slices"
)

// Limits of a model. They are far above any network for faces and keep a hostile
// file from asking for memory or time without end.
const (
	maxModelBytes  = 256 << 20
	maxTensors     = 64   // inputs, or outputs
	maxGraph       = 8192 // tensors, operators or buffers
	maxOperands    = 64   // of one operator
	maxRank        = 6
	maxDim         = 1 << 20
	maxElements    = 1 << 26 // of one tensor
	maxMemory      = 1 << 29 // bytes of all computed tensors
	maxWork        = 1 << 35 // multiplications of one Run, a few seconds of one core
	maxSignatures  = 16
	minModelBytes  = 16
	bufferAlign    = 16
	schemaVersion  = 3
	fileIdentifier = "TFL3"
)

// TFLite's element types, as numbered in the file.
const (
	tFloat32 = 0
	tFloat16 = 1
	tInt32   = 2
	tUint8   = 3
	tInt64   = 4
	tInt8    = 9
)

var typeBytes = map[int]int{tFloat32: 4, tFloat16: 2, tInt32: 4, tUint8: 1, tInt64: 8, tInt8: 1}

// graphTensor is one tensor of the file.
type graphTensor struct {
	name  string
	typ   int
	shape []int
	data  []byte // content of a constant, nil for a computed tensor
	ready bool   // constant, graph input, or computed by an operator so far

	scales   int // number of quantisation scales, 0 if not quantised
	scaleDim int // the dimension they run along when there are several
}

func (t *graphTensor) constant() bool { return t.data != nil }

func (t *graphTensor) len() int { return product(t.shape) }

// String names the tensor in errors.
func (t *graphTensor) String() string { return fmt.Sprintf("tensor %q %v", t.name, t.shape) }

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func equal(a, b []int) bool { return slices.Equal(a, b) }

// verifier walks one model.
type verifier struct {
	r       *reader
	model   table
	buffers [][]byte // contents, nil for none
	codes   []int    // builtin operator of each operator code
	tensors []*graphTensor
	inputs  []int
	outputs []int
	memory  int
	work    int
}

// Verify checks that model is a TFLite file that LiteRT can be given. LiteRT
// checks the file's structure itself, but trusts what the structure says: an
// index, a stride of zero or a shape that does not fit reaches its kernels. So
// the graph is walked here: one subgraph of known operators with fixed shapes,
// each operator's output shape computed and compared, constants as long as their
// shape says, nothing outside the file. The error wraps ErrBadModel.
func Verify(model []byte) error {
	v := &verifier{r: &reader{b: model}}
	if err := v.verify(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadModel, err)
	}
	return nil
}

func (v *verifier) verify() error {
	if n := len(v.r.b); n < minModelBytes || n > maxModelBytes {
		return fmt.Errorf("%d bytes, want %d to %d", n, minModelBytes, maxModelBytes)
	}
	if id := string(v.r.b[4:8]); id != fileIdentifier {
		return fmt.Errorf("identifier is %q, want %q", id, fileIdentifier)
	}
	v.model = v.r.table(v.r.follow(0))
	for _, step := range []func() error{
		v.header, v.readBuffers, v.readCodes, v.metadata, v.graph, v.signatures,
	} {
		err := step()
		if v.r.err != nil {
			return v.r.err // the cause of whatever a step found
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Fields of the tables in the file, in the order of TFLite's schema.
const (
	modelVersion, modelCodes, modelSubgraphs, modelBuffers  = 0, 1, 2, 4
	modelMetadata, modelSignatures                          = 6, 7
	modelExternalGroups, modelExternals                     = 8, 9
	codeOld, codeVersion, codeNew                           = 0, 2, 3
	bufferData, bufferOffset, bufferSize                    = 0, 1, 2
	graphTensors, graphInputs, graphOutputs, graphOperators = 0, 1, 2, 3
	tensorShape, tensorType, tensorBuffer, tensorName       = 0, 1, 2, 3
	tensorQuant, tensorVariable, tensorSparsity             = 4, 5, 6
	tensorSignature, tensorVariants, tensorExternal         = 7, 9, 10
	quantScale, quantZero, quantDetails, quantDim           = 2, 3, 4, 6
	opCode, opInputs, opOutputs, opOptionsType, opOptions   = 0, 1, 2, 3, 4
	opMutating, opIntermediates, opLargeOffset, opLargeSize = 7, 8, 9, 10
	opOptions2Type                                          = 11
	metaName, metaBuffer                                    = 0, 1
	sigInputs, sigOutputs, sigKey, sigSubgraph              = 0, 1, 2, 4
	mapName, mapTensor                                      = 0, 1
)

func (v *verifier) header() error {
	if got := v.model.u32(modelVersion); got != schemaVersion {
		return fmt.Errorf("schema version is %d, want %d", got, schemaVersion)
	}
	if v.model.vector(modelExternals, 4).n > 0 || v.model.vector(modelExternalGroups, 4).n > 0 {
		return fmt.Errorf("it keeps weights in other files")
	}
	return nil
}

// tables reads a vector of tables.
func (v *verifier) tables(t table, field, limit int, what string) ([]table, error) {
	vec := t.vector(field, 4)
	if vec.n > limit {
		return nil, fmt.Errorf("%d %s, want at most %d", vec.n, what, limit)
	}
	out := make([]table, vec.n)
	for i := range out {
		out[i] = vec.table(i)
	}
	return out, nil
}

func (v *verifier) readBuffers() error {
	list, err := v.tables(v.model, modelBuffers, maxGraph, "buffers")
	if err != nil {
		return err
	}
	for i, t := range list {
		b, err := v.buffer(t)
		if err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
		v.buffers = append(v.buffers, b)
	}
	if len(v.buffers) == 0 || len(v.buffers[0]) > 0 {
		return fmt.Errorf("buffer 0 must be there and empty")
	}
	return nil
}

// buffer finds a buffer's content: within the FlatBuffer, or behind it in the same
// file at an offset, as newer converters write it.
func (v *verifier) buffer(t table) ([]byte, error) {
	data := t.vector(bufferData, 1).bytes()
	offset, size := t.u64(bufferOffset), t.u64(bufferSize)
	if offset == 0 && size == 0 {
		return data, nil
	}
	file := uint64(len(v.r.b))
	if len(data) > 0 || offset < minModelBytes || offset%bufferAlign != 0 ||
		size == 0 || size > file || offset > file-size {
		return nil, fmt.Errorf("its %d bytes at %d are not in the file of %d bytes", size, offset, file)
	}
	return v.r.b[offset:][:size:size], nil
}

func (v *verifier) readCodes() error {
	codes, err := v.tables(v.model, modelCodes, maxGraph, "operator codes")
	if err != nil {
		return err
	}
	for _, c := range codes {
		code := max(c.i8(codeOld, 0), c.i32(codeNew, 0))
		if _, ok := rules[code]; !ok {
			return fmt.Errorf("operator %d is not supported", code)
		}
		v.codes = append(v.codes, code)
	}
	return nil
}

// metadata must have names: LiteRT reads them without a look.
func (v *verifier) metadata() error {
	list, err := v.tables(v.model, modelMetadata, maxGraph, "metadata")
	if err != nil {
		return err
	}
	for i, m := range list {
		if _, ok := m.str(metaName); !ok {
			return fmt.Errorf("metadata %d has no name", i)
		}
		if b := m.u32(metaBuffer); b >= len(v.buffers) {
			return fmt.Errorf("metadata %d is in buffer %d of %d", i, b, len(v.buffers))
		}
	}
	return nil
}

func (v *verifier) graph() error {
	graphs, err := v.tables(v.model, modelSubgraphs, 1, "subgraphs")
	if err != nil {
		return err
	}
	if len(graphs) == 0 {
		return fmt.Errorf("no subgraph")
	}
	g := graphs[0]
	if err := v.readTensors(g); err != nil {
		return err
	}
	if err := v.readInputs(g); err != nil {
		return err
	}
	if err := v.operators(g); err != nil {
		return err
	}
	return v.readOutputs(g)
}

func (v *verifier) readTensors(g table) error {
	list, err := v.tables(g, graphTensors, maxGraph, "tensors")
	if err != nil {
		return err
	}
	for i, t := range list {
		gt, err := v.tensor(t)
		if err != nil {
			return fmt.Errorf("tensor %d: %w", i, err)
		}
		v.tensors = append(v.tensors, gt)
	}
	return nil
}

func (v *verifier) tensor(t table) (*graphTensor, error) {
	name, named := t.str(tensorName)
	gt := &graphTensor{name: name, typ: t.i8(tensorType, 0), shape: t.ints(tensorShape, maxRank)}
	switch {
	case !named:
		return nil, fmt.Errorf("it has no name")
	case typeBytes[gt.typ] == 0:
		return nil, fmt.Errorf("element type %d is not supported", gt.typ)
	case t.i8(tensorVariable, 0) != 0 || t.has(tensorSparsity) || t.vector(tensorVariants, 4).n > 0:
		return nil, fmt.Errorf("variable, sparse and variant tensors are not supported")
	case t.u32(tensorExternal) != 0:
		return nil, fmt.Errorf("its content is in another file")
	}
	if sig := t.ints(tensorSignature, maxRank); len(sig) > 0 && !equal(sig, gt.shape) {
		return nil, fmt.Errorf("its shape %v is not fixed", sig)
	}
	if err := checkShape(gt.shape); err != nil {
		return nil, err
	}
	if err := v.content(gt, t.u32(tensorBuffer)); err != nil {
		return nil, err
	}
	return gt, gt.quantisation(t.table(tensorQuant))
}

func checkShape(shape []int) error {
	n := 1
	for _, d := range shape {
		if d < 1 || d > maxDim {
			return fmt.Errorf("its shape is %v", shape)
		}
		if n *= d; n > maxElements {
			return fmt.Errorf("its shape %v has more than %d elements", shape, maxElements)
		}
	}
	return nil
}

// content finds a constant's bytes; for a computed tensor it adds up memory.
func (v *verifier) content(gt *graphTensor, buffer int) error {
	if buffer >= len(v.buffers) {
		return fmt.Errorf("it is in buffer %d of %d", buffer, len(v.buffers))
	}
	want := gt.len() * typeBytes[gt.typ]
	data := v.buffers[buffer]
	if len(data) == 0 {
		if v.memory += want; v.memory > maxMemory {
			return fmt.Errorf("the network needs more than %d bytes", maxMemory)
		}
		return nil
	}
	if len(data) != want {
		return fmt.Errorf("%v has %d bytes of content, want %d", gt.shape, len(data), want)
	}
	gt.data, gt.ready = data, true
	return nil
}

// quantisation checks scales and zero points; kernels divide by the former and
// index by the dimension.
func (t *graphTensor) quantisation(q table) error {
	scales, zeros := q.vector(quantScale, 4), q.vector(quantZero, 8)
	if q.i8(quantDetails, 0) != 0 {
		return fmt.Errorf("its quantisation is not affine")
	}
	if scales.n == 0 && zeros.n == 0 {
		return nil
	}
	dim := q.i32(quantDim, 0)
	if scales.n != zeros.n {
		return fmt.Errorf("%d scales and %d zero points", scales.n, zeros.n)
	}
	if scales.n > 1 && (dim < 0 || dim >= len(t.shape) || t.shape[dim] != scales.n) {
		return fmt.Errorf("%d scales along dimension %d of %v", scales.n, dim, t.shape)
	}
	if scales.n == 1 && dim != 0 && (dim < 0 || dim >= len(t.shape)) {
		return fmt.Errorf("quantised along dimension %d of %v", dim, t.shape)
	}
	for i := range scales.n {
		if err := t.checkScale(scales.f32(i), zeros.i64(i)); err != nil {
			return err
		}
	}
	t.scales, t.scaleDim = scales.n, dim
	return nil
}

// scaled checks that a quantised tensor has scales, and several only where the
// operator expects that.
func (t *graphTensor) scaled(several bool) error {
	if t.typ != tInt8 && t.typ != tUint8 {
		return nil
	}
	if t.scales == 0 || t.scales > 1 && !several {
		return fmt.Errorf("%s has %d scales", t, t.scales)
	}
	return nil
}

func (t *graphTensor) checkScale(scale float32, zero int64) error {
	lo, hi := int64(0), int64(0)
	switch t.typ {
	case tInt8:
		lo, hi = -128, 127
	case tUint8:
		hi = 255
	}
	if s := float64(scale); !(s >= 1e-30 && s <= 1e30) {
		return fmt.Errorf("scale is %v", scale)
	}
	if zero < lo || zero > hi {
		return fmt.Errorf("zero point is %d, want %d to %d", zero, lo, hi)
	}
	return nil
}

func (v *verifier) readInputs(g table) error {
	v.inputs = g.ints(graphInputs, maxTensors)
	if len(v.inputs) == 0 {
		return fmt.Errorf("it has no inputs")
	}
	for _, i := range v.inputs {
		if i < 0 || i >= len(v.tensors) || v.tensors[i].ready {
			return fmt.Errorf("input is tensor %d of %d, or given twice, or constant", i, len(v.tensors))
		}
		v.tensors[i].ready = true
	}
	return nil
}

func (v *verifier) readOutputs(g table) error {
	v.outputs = g.ints(graphOutputs, maxTensors)
	if len(v.outputs) == 0 {
		return fmt.Errorf("it has no outputs")
	}
	for k, i := range v.outputs {
		if i < 0 || i >= len(v.tensors) || slices.Contains(v.outputs[:k], i) {
			return fmt.Errorf("output is tensor %d of %d, or given twice", i, len(v.tensors))
		}
		if t := v.tensors[i]; !t.ready || t.constant() || slices.Contains(v.inputs, i) {
			return fmt.Errorf("output %s is not computed", t)
		}
	}
	return nil
}

func (v *verifier) signatures() error {
	list, err := v.tables(v.model, modelSignatures, maxSignatures, "signatures")
	if err != nil {
		return err
	}
	for i, s := range list {
		if _, ok := s.str(sigKey); !ok {
			return fmt.Errorf("signature %d has no key", i)
		}
		if g := s.u32(sigSubgraph); g != 0 {
			return fmt.Errorf("signature %d is of subgraph %d", i, g)
		}
		if err := v.signature(s, sigInputs, v.inputs); err != nil {
			return fmt.Errorf("inputs of signature %d: %w", i, err)
		}
		if err := v.signature(s, sigOutputs, v.outputs); err != nil {
			return fmt.Errorf("outputs of signature %d: %w", i, err)
		}
	}
	return nil
}

// signature checks that a signature names each tensor of a list exactly once.
func (v *verifier) signature(s table, field int, want []int) error {
	list, err := v.tables(s, field, maxTensors, "names")
	if err != nil {
		return err
	}
	var got []int
	names := map[string]bool{}
	for _, m := range list {
		name, _ := m.str(mapName)
		if name == "" || names[name] {
			return fmt.Errorf("name %q is empty or given twice", name)
		}
		names[name] = true
		got = append(got, m.u32(mapTensor))
	}
	want = slices.Sorted(slices.Values(want))
	if slices.Sort(got); !equal(got, want) {
		return fmt.Errorf("they are tensors %v, the graph has %v", got, want)
	}
	return nil
}

// integers reads a constant of integers, such as a shape or an axis list.
func (t *graphTensor) integers() ([]int, error) {
	if !t.constant() || (t.typ != tInt32 && t.typ != tInt64) {
		return nil, fmt.Errorf("%s must be a constant of integers", t)
	}
	r := &reader{b: t.data}
	size := typeBytes[t.typ]
	out := make([]int, len(t.data)/size)
	for i := range out {
		n := int64(int32(r.u32(i * size)))
		if t.typ == tInt64 {
			n = int64(r.u64(i * size))
		}
		if n < math.MinInt32 || n > math.MaxInt32 {
			return nil, fmt.Errorf("%s holds %d", t, n)
		}
		out[i] = int(n)
	}
	return out, nil
}
