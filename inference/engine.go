package inference

// DType is the element type of a tensor.
type DType string

// The element types that shipped models use.
const (
	Float32 DType = "float32"
	Int8    DType = "int8"
)

// Data is the content of one tensor in row-major order. Exactly one field is set.
type Data struct {
	Float32 []float32
	Int8    []int8
}

// Tensor describes one input or output of a network.
type Tensor struct {
	Name  string
	Type  DType
	Shape []int
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Network is one loaded model, ready to run. Run may be called by one goroutine
// at a time; Close may be called twice, and Run after Close is an error.
type Network interface {
	Inputs() []Tensor
	Outputs() []Tensor
	// Run copies in to the inputs, invokes the network and copies the outputs to
	// out. Lengths and types must equal those of Inputs and Outputs.
	Run(in, out []Data) error
	Close() error
}

// Engine loads networks. Threads is the number of threads one Run may use.
type Engine interface {
	Load(model []byte, threads int) (Network, error)
}
