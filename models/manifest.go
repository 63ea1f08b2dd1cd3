package models

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path"
)

// Role is the job of a network in the pipeline.
type Role string

// The roles.
const (
	RoleDetector  Role = "detector"
	RoleLandmarks Role = "landmarks"
	RoleEmbedder  Role = "embedder"
	RoleLiveness  Role = "liveness"
)

// Manifest says what a network is, where it comes from and how to feed it. Its
// keys are documented in models/README.md.
type Manifest struct {
	ID      string `json:"id"`
	Role    Role   `json:"role"`
	Version int    `json:"version"`
	File    string `json:"file"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	License string `json:"license"`
	Source  Source `json:"source"`

	Input   Input    `json:"input"`
	Outputs []Output `json:"outputs"`
	// KnownAnswers is what a runtime that computes rightly gives; without, a network is
	// refused.
	KnownAnswers []KnownAnswer `json:"known_answers"`

	Detector    *Detector    `json:"detector,omitempty"`
	Embedder    *Embedder    `json:"embedder,omitempty"`
	Liveness    *Liveness    `json:"liveness,omitempty"`
	Calibration *Calibration `json:"calibration,omitempty"`
}

// Source is the package a network was taken from.
type Source struct {
	Package  string `json:"package"`
	Version  string `json:"version"`
	Registry string `json:"registry"`
	Path     string `json:"path"`
	SHA256   string `json:"sha256"`
}

// Input is the only input: one square RGB or BGR picture. A grey level v becomes
// (v-Mean)/Std, and for int8 round(that/Scale)+ZeroPoint.
type Input struct {
	Name      string  `json:"name"`
	Shape     []int   `json:"shape"` // [1, side, side, 3]
	DType     string  `json:"dtype"`
	Color     string  `json:"color"`
	Mean      float64 `json:"mean"`
	Std       float64 `json:"std"`
	Scale     float64 `json:"scale,omitempty"`
	ZeroPoint int     `json:"zero_point,omitempty"`
}

// Output is one output tensor and what it means.
type Output struct {
	Name      string  `json:"name"`
	Role      string  `json:"role"` // regressors, scores, landmarks, presence, embedding
	Shape     []int   `json:"shape"`
	DType     string  `json:"dtype"`
	Scale     float64 `json:"scale,omitempty"`
	ZeroPoint int     `json:"zero_point,omitempty"`
}

// Detector holds the constants of a BlazeFace detector.
type Detector struct {
	InputSize      int           `json:"input_size"`
	Anchors        []AnchorLayer `json:"anchors"`
	ScoreThreshold float64       `json:"score_threshold"`
	NMSIoU         float64       `json:"nms_iou"`
}

// AnchorLayer is one grid of anchors: PerCell in each Stride x Stride cell.
type AnchorLayer struct {
	Stride  int `json:"stride"`
	PerCell int `json:"per_cell"`
}

// Embedder holds the constants of an embedding network. Embeddings compare only
// within one Space.
type Embedder struct {
	Dim      int          `json:"dim"`
	Space    string       `json:"space"`
	Template [][2]float64 `json:"template"` // the five points, in input pixels
}

// Liveness holds the constants of a presentation-attack network. Its input is the
// box around the face mesh, grown about its centre and kept inside the picture.
type Liveness struct {
	Scale float64 `json:"scale"` // how far the box is grown, 1 to 8
	Live  int     `json:"live"`  // index of the class of living faces; the outputs are logits
	// Calibration maps the log-odds of that class to the 0..100 score.
	Calibration LivenessCalibration `json:"calibration"`
}

// LivenessCalibration is a map from log-odds to score: knots, both rising, with
// straight lines between and flat ends.
type LivenessCalibration struct {
	ID     string          `json:"id"`
	Points []LivenessPoint `json:"points"`
}

// LivenessPoint is one knot of the map.
type LivenessPoint struct {
	LogOdds float64 `json:"log_odds"`
	Score   float64 `json:"score"`
}

// Output finds an output by its tensor name.
func (m *Manifest) Output(name string) (Output, bool) {
	for _, o := range m.Outputs {
		if o.Name == name {
			return o, true
		}
	}
	return Output{}, false
}

// roles that each kind of network must provide.
var wantOutputs = map[Role][]string{
	RoleDetector:  {"regressors", "scores"},
	RoleLandmarks: {"landmarks", "presence"},
	RoleEmbedder:  {"embedding"},
	RoleLiveness:  {"classes"},
}

func (m *Manifest) validate() error {
	want, ok := wantOutputs[m.Role]
	sum, err := hex.DecodeString(m.SHA256)
	switch {
	case m.ID == "" || m.ID == "." || m.ID == ".." || path.Base(m.ID) != m.ID:
		return fmt.Errorf("id %q is not a plain name", m.ID)
	case !ok:
		return fmt.Errorf("role %q is not detector, landmarks, embedder or liveness", m.Role)
	case m.Version < 1:
		return fmt.Errorf("version %d is not positive", m.Version)
	case m.File == "" || m.File == "." || m.File == ".." || path.Base(m.File) != m.File:
		return fmt.Errorf("file %q is not a plain name", m.File)
	case err != nil || len(sum) != 32 || hex.EncodeToString(sum) != m.SHA256:
		return fmt.Errorf("sha256 %q is not 64 hexadecimal digits in lower case", m.SHA256)
	case m.Size <= 0:
		return fmt.Errorf("size %d is not positive", m.Size)
	}
	if err := m.Input.validate(); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if err := m.validateOutputs(want); err != nil {
		return fmt.Errorf("outputs: %w", err)
	}
	if err := m.validateKnown(); err != nil {
		return fmt.Errorf("known_answers: %w", err)
	}
	return m.validateRole()
}

// maxSide bounds what a manifest may make the pipeline allocate.
const maxSide = 1024

func (in *Input) validate() error {
	s := in.Shape
	switch {
	case len(s) != 4 || s[0] != 1 || s[1] != s[2] || s[3] != 3 || s[1] < 16 || s[1] > maxSide:
		return fmt.Errorf("shape %v is not [1, side, side, 3] with a side of 16 to %d", s, maxSide)
	case in.Color != "RGB" && in.Color != "BGR":
		return fmt.Errorf("color %q is not RGB or BGR", in.Color)
	case !(in.Std > 0) || math.IsInf(in.Std, 0) || math.IsNaN(in.Mean):
		return fmt.Errorf("mean %v and std %v are not numbers with std above 0", in.Mean, in.Std)
	}
	return validateType(in.DType, in.Scale, in.ZeroPoint)
}

func validateType(dtype string, scale float64, zero int) error {
	switch {
	case dtype == "float32" && scale == 0 && zero == 0:
		return nil
	case dtype == "int8" && scale > 0 && !math.IsInf(scale, 0) && zero >= -128 && zero <= 127:
		return nil
	}
	return fmt.Errorf("dtype %q with scale %v and zero point %d is neither float32 without nor int8 with them", dtype, scale, zero)
}

// size is how many values the output has; not ok where its shape is out of range.
func (o Output) size() (n int, ok bool) {
	n = 1
	for _, d := range o.Shape {
		if d < 1 || d > 1<<20 || n > 1<<22/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

func (m *Manifest) validateOutputs(want []string) error {
	seen, names := map[string]bool{}, map[string]bool{}
	for _, o := range m.Outputs {
		if _, ok := o.size(); !ok {
			return fmt.Errorf("%s: shape %v is out of range", o.Name, o.Shape)
		}
		if err := validateType(o.DType, o.Scale, o.ZeroPoint); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		if seen[o.Role] || names[o.Name] {
			return fmt.Errorf("two outputs have the role %q or the name %q", o.Role, o.Name)
		}
		seen[o.Role], names[o.Name] = true, true
	}
	for _, r := range want {
		if !seen[r] {
			return fmt.Errorf("no output has the role %q", r)
		}
	}
	return nil
}

func (m *Manifest) validateRole() error {
	switch m.Role {
	case RoleDetector:
		return m.Detector.validate(m.Input.Shape[1])
	case RoleEmbedder:
		return errors.Join(m.Embedder.validate(), m.Calibration.validate())
	case RoleLiveness:
		return m.Liveness.validate()
	}
	return nil
}

func (d *Detector) validate(side int) error {
	switch {
	case d == nil:
		return errors.New("detector is missing")
	case d.InputSize != side:
		return fmt.Errorf("detector.input_size %d is not the input's side %d", d.InputSize, side)
	case !(d.ScoreThreshold > 0 && d.ScoreThreshold < 1) || !(d.NMSIoU > 0 && d.NMSIoU < 1):
		return errors.New("detector thresholds are not between 0 and 1")
	case len(d.Anchors) == 0 || len(d.Anchors) > 8:
		return fmt.Errorf("detector.anchors has %d layers, want 1 to 8", len(d.Anchors))
	}
	for _, a := range d.Anchors {
		if a.Stride < 1 || a.Stride > side || a.PerCell < 1 || a.PerCell > 16 {
			return fmt.Errorf("anchor layer %+v is out of range", a)
		}
	}
	return nil
}

func (e *Embedder) validate() error {
	switch {
	case e == nil:
		return errors.New("embedder is missing")
	case e.Dim < 16 || e.Dim > 4096:
		return fmt.Errorf("embedder.dim %d is not 16 to 4096", e.Dim)
	case e.Space == "":
		return errors.New("embedder.space is empty")
	case len(e.Template) != 5:
		return fmt.Errorf("embedder.template has %d points, want 5", len(e.Template))
	}
	return nil
}

func (l *Liveness) validate() error {
	switch {
	case l == nil:
		return errors.New("liveness is missing")
	case !(l.Scale >= 1 && l.Scale <= 8):
		return fmt.Errorf("liveness.scale %v is not 1 to 8", l.Scale)
	case l.Live < 0 || l.Live > 63:
		return fmt.Errorf("liveness.live %d is not 0 to 63", l.Live)
	case l.Calibration.ID == "" || len(l.Calibration.Points) < 2:
		return errors.New("liveness.calibration is missing or has fewer than two points")
	}
	for i, p := range l.Calibration.Points {
		if !(p.Score >= 0 && p.Score <= 100) || math.IsNaN(p.LogOdds) || math.IsInf(p.LogOdds, 0) {
			return fmt.Errorf("liveness.calibration point %d is out of range", i)
		}
		if q := l.Calibration.Points[max(0, i-1)]; i > 0 && !(p.LogOdds > q.LogOdds && p.Score > q.Score) {
			return fmt.Errorf("liveness.calibration point %d does not rise", i)
		}
	}
	return nil
}
