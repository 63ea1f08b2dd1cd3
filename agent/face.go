package agent

import "math"

// Embedding is an L2-normalised face descriptor. Embeddings compare only within
// one embedding space (Template.Space).
type Embedding []float32

// Cosine returns the cosine of two embeddings in [-1, 1]. Embeddings of different
// length, or not normalised, compare as -1: the answer that lets nobody in.
func (e Embedding) Cosine(o Embedding) float32 {
	if len(e) != len(o) || len(e) == 0 {
		return -1
	}
	var s, ee, oo float32
	for i, v := range e {
		w := o[i]
		s += v * w
		ee += v * v
		oo += w * w
	}
	if !isUnit(ee) || !isUnit(oo) || s != s {
		return -1
	}
	return min(1, max(-1, s))
}

// isUnit reports whether a sum of squares is that of a vector of length 1, up to
// rounding. NaN is not.
func isUnit(sum float32) bool { return sum > 0.98 && sum < 1.02 }

// Normalised reports whether e has length 1 and so can be compared.
func (e Embedding) Normalised() bool { return e.Cosine(e) > 0 }

// Normalise scales e to length 1 in place and reports whether it could: a zero
// or non-finite vector has no direction.
func (e Embedding) Normalise() bool {
	var s float64
	for _, v := range e {
		s += float64(v) * float64(v)
	}
	n := math.Sqrt(s)
	if n < 1e-6 || math.IsInf(n, 0) || math.IsNaN(n) {
		return false
	}
	for i := range e {
		e[i] = float32(float64(e[i]) / n)
	}
	return true
}

// Face is one detected face.
type Face struct {
	Box        Box     `json:"box"`
	Confidence float32 `json:"confidence"` // detector's, 0..1
	// Five points in the order of the 112x112 alignment template: eye on the
	// left of the picture, eye on the right, nose tip, mouth corners left, right.
	Points [5]Point `json:"points"`
	// Mesh are the 468 points of the face mesh; nil where it was not run.
	Mesh []Point3 `json:"-"`
}

// Quality is what was measured on the chosen face. Units are in the comments;
// the limits that turn a measurement into a Finding are configuration. In records
// older than a field it is 0.
type Quality struct {
	EyeDistance float32 `json:"eye_distance"` // pixels between the eye centres
	Luminance   float32 `json:"luminance"`    // mean luma of the aligned face, 0..100
	Contrast    float32 `json:"contrast"`     // standard deviation of that luma, 0..100
	Sharpness   float32 `json:"sharpness"`    // variance of the Laplacian at 112x112, grey levels squared
	Yaw         float32 `json:"yaw"`          // degrees, positive: nose towards the right of the picture
	Pitch       float32 `json:"pitch"`        // degrees, positive: looking up
	Roll        float32 `json:"roll"`         // degrees, positive: clockwise in the picture
	Inside      float32 `json:"inside"`       // share of the face box inside the frame, 0..1

	EyesOpen     float32 `json:"eyes_open"`     // opening of the lids over the width of the eye, mean of both; 0.28 is usual, below 0.2 they are closing
	MouthCovered float32 `json:"mouth_covered"` // 0 (seen) to 1 (hidden, as by a mask)
	EyesCovered  float32 `json:"eyes_covered"`  // 0 (seen) to 1 (hidden, as by sunglasses)
	Score        float32 `json:"score"`         // face_quality, 0..100; see Rate
}

// FindingCode names a property of a picture that matters to a decision.
type FindingCode string

// The findings. They are facts about a picture with measured values, not errors.
const (
	FindingNoFace       FindingCode = "NO_FACE"
	FindingSeveralFaces FindingCode = "SEVERAL_FACES"
	FindingFaceCut      FindingCode = "FACE_CUT"
	FindingTooSmall     FindingCode = "FACE_TOO_SMALL"
	FindingTooDark      FindingCode = "FACE_TOO_DARK"
	FindingTooBright    FindingCode = "FACE_TOO_BRIGHT"
	FindingBlurred      FindingCode = "FACE_BLURRED"
	FindingTurnedAway   FindingCode = "FACE_TURNED_AWAY"
	FindingFlat         FindingCode = "FACE_LOW_CONTRAST"
	FindingEyesClosed   FindingCode = "EYES_CLOSED"
	FindingMouthCovered FindingCode = "MOUTH_COVERED"
	FindingEyesCovered  FindingCode = "EYES_COVERED"
	FindingLowScore     FindingCode = "FACE_QUALITY_LOW" // all taken together
)

// Finding is one FindingCode with the value that raised it and its limit.
type Finding struct {
	Code  FindingCode `json:"code"`
	Value float32     `json:"value"`
	Limit float32     `json:"limit"`
	Unit  string      `json:"unit"`
}

// Probe is what the pipeline makes of one frame: the most prominent face, its quality
// and, when there is a face, its embedding.
type Probe struct {
	Face      *Face     // nil when there is no face
	Faces     int       // how many were detected
	Others    []Face    // the other faces, most prominent first; Points may be unset
	Quality   Quality   // of Face; zero without one
	Findings  []Finding // in a fixed order; empty for a good picture
	Embedding Embedding // nil without a face
	ModelID   string    // of the embedder
	Space     string    // embedding space of Embedding
	Liveness  Liveness  // not measured unless it was asked for
	Trace     *Trace    // with Liveness: what liveness over several frames needs; else nil
	Timings   Timings
}

// Has reports whether the probe carries a finding with this code.
func (p *Probe) Has(code FindingCode) bool {
	for _, f := range p.Findings {
		if f.Code == code {
			return true
		}
	}
	return false
}
