package litert

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unsafe"
)

// Errors of this package. What is returned wraps one of them and says what was
// expected and what was found.
var (
	// ErrClosed: the Runtime or Model was used after Close.
	ErrClosed = errors.New("litert: closed")
	// ErrNoLibrary: the LiteRT library is missing, damaged, of another
	// architecture, or lacks a function, or this binary was built without cgo.
	ErrNoLibrary = errors.New("litert: library not usable")
	// ErrBadModel: the bytes are not a model this package accepts.
	ErrBadModel = errors.New("litert: bad model")
	// ErrShape: the number of buffers or of elements in one is not the model's.
	ErrShape = errors.New("litert: wrong shape")
	// ErrType: the element type of a buffer is not the model's.
	ErrType = errors.New("litert: wrong element type")
	// ErrNative: LiteRT refused an operation.
	ErrNative = errors.New("litert: native error")
)

// DType is the element type of a tensor.
type DType uint8

// The element types that Run can carry.
const (
	Float32 DType = iota + 1
	Int8
	Uint8
	Int32
)

var dtypeNames = [...]string{Float32: "float32", Int8: "int8", Uint8: "uint8", Int32: "int32"}

// String gives the type's Go name.
func (t DType) String() string {
	if int(t) < len(dtypeNames) && t != 0 {
		return dtypeNames[t]
	}
	return fmt.Sprintf("dtype(%d)", uint8(t))
}

// size is the number of bytes of one element.
func (t DType) size() int {
	if t == Float32 || t == Int32 {
		return 4
	}
	return 1
}

// Tensor describes one input or output of a model. For a tensor quantised with
// one scale, real = Scale * (stored - ZeroPoint); Scale is 0 otherwise.
type Tensor struct {
	Name      string // its name in the signature
	Shape     []int
	Type      DType
	Scale     float32
	ZeroPoint int
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// String is short, for errors: input float32[1 112 112 3].
func (t Tensor) String() string { return fmt.Sprintf("%s %s%v", t.Name, t.Type, t.Shape) }

func (t Tensor) clone() Tensor {
	t.Shape = append([]int(nil), t.Shape...)
	return t
}

func cloneTensors(ts []Tensor) []Tensor {
	out := make([]Tensor, len(ts))
	for i, t := range ts {
		out[i] = t.clone()
	}
	return out
}

// Buffer is a view of a Go slice with its element type, for Run. It does not copy;
// Run does, at the border to C. Making one does not allocate.
type Buffer struct {
	data unsafe.Pointer
	n    int
	typ  DType
}

// Elem is what the elements of a Buffer can be.
type Elem interface{ float32 | int8 | uint8 | int32 }

// Data makes a Buffer of a slice.
func Data[T Elem](s []T) Buffer {
	return Buffer{data: unsafe.Pointer(unsafe.SliceData(s)), n: len(s), typ: dtypeOf[T]()}
}

func dtypeOf[T Elem]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return Float32
	case int8:
		return Int8
	case uint8:
		return Uint8
	}
	return Int32
}

// check tells whether b can carry t.
func (b Buffer) check(t Tensor) error {
	if b.typ != t.Type {
		return fmt.Errorf("%w: %s given for %s", ErrType, b.typ, t)
	}
	if b.n != t.Len() {
		return fmt.Errorf("%w: %d elements given for %s, which has %d", ErrShape, b.n, t, t.Len())
	}
	return nil
}

func checkAll(what string, bs []Buffer, ts []Tensor) error {
	if len(bs) != len(ts) {
		return fmt.Errorf("%w: %d %s given, the model has %d", ErrShape, len(bs), what, len(ts))
	}
	for i := range bs {
		if err := bs[i].check(ts[i]); err != nil {
			return err
		}
	}
	return nil
}

// Options are the settings of one Model.
type Options struct {
	// Threads is how many threads one Run may use; 0 means 1. More than 1 starts
	// Threads-1 native threads that live as long as the Model.
	Threads int
}

const maxThreads = 64

func (o Options) threads() (int, error) {
	if o.Threads < 0 || o.Threads > maxThreads {
		return 0, fmt.Errorf("litert: %d threads, want 0 to %d", o.Threads, maxThreads)
	}
	return max(1, o.Threads), nil
}

// live counts native objects; see Live.
var live atomic.Int64

// Live is the number of native objects this package holds: environments, models
// and their bytes, options, compiled models, tensor buffers and log sinks. It is
// zero when every Runtime and Model is closed; tests assert that.
func Live() int64 { return live.Load() }

// statusNames are LiteRT's status codes as words.
var statusNames = map[int]string{
	1: "invalid argument", 2: "out of memory", 3: "runtime failure",
	4: "missing input tensor", 5: "unsupported", 6: "not found", 7: "timeout",
	8: "wrong version", 9: "unknown error", 10: "already exists", 100: "cancelled",
	500: "file error", 501: "invalid flatbuffer", 502: "dynamic loading failed",
	503: "serialization failed", 504: "compilation failed", 1000: "index out of bounds",
	1001: "invalid IR type", 1002: "invalid graph", 1003: "graph modification failed",
}

// nativeError makes an error of a status and of what the library printed.
func nativeError(op string, status int, said []string) error {
	name, ok := statusNames[status]
	if !ok {
		name = "status"
	}
	err := fmt.Errorf("%w: %s: %s (%d)", ErrNative, op, name, status)
	if len(said) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
	}
	return err
}
