package agent

import "time"

// Trace is what liveness over several frames needs of one frame; see
// agent/liveness. It holds no picture that a person could be recognised in.
type Trace struct {
	At     time.Time // when the source delivered the frame
	Seq    uint64    // its position in the source
	Digest uint64    // of all pixels: two frames of a sensor never have the same
	Width  int       // of the frame, pixels
	Height int

	Mesh []Point3 // the face mesh, in pixels of the frame
	Grid []byte   // mean luma of GridWidth x GridHeight cells that cover the frame
	Dots []byte   // luma of single pixels on a grid, to see whether anything changed
	Face float64  // mean luma of the face, 0..255
	Rest float64  // mean luma of the frame without the face, 0..255
	Comb float64  // strongest regular pattern on the face, dB above its surroundings; 0: face too small
}

// The size of Trace.Grid.
const (
	GridWidth  = 160
	GridHeight = 90
)
