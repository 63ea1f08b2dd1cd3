package agent

import "math"

// QualityLimits turn measurements into findings. A zero limit is not checked.
type QualityLimits struct {
	MinEyeDistance float32 `yaml:"min_eye_distance"` // pixels
	MinLuminance   float32 `yaml:"min_luminance"`    // 0..100
	MaxLuminance   float32 `yaml:"max_luminance"`    // 0..100
	MinSharpness   float32 `yaml:"min_sharpness"`    // grey levels squared
	MaxYaw         float32 `yaml:"max_yaw"`          // degrees either way
	MaxPitch       float32 `yaml:"max_pitch"`        // degrees either way
	MinInside      float32 `yaml:"min_inside"`       // share of the face box, 0..1
	// OtherFaceShare is the area of a second face, as a share of the chosen one,
	// from which it counts; smaller ones are people in the background.
	OtherFaceShare float32 `yaml:"other_face_share"`
}

// Findings lists what is wrong with the probe under these limits, the gravest
// first; nil when nothing is.
func (l QualityLimits) Findings(p *Probe) []Finding {
	if p.Face == nil {
		return []Finding{{Code: FindingNoFace, Value: 0, Limit: 1, Unit: "faces"}}
	}
	q := p.Quality
	var out []Finding
	below := func(code FindingCode, v, limit float32, unit string) {
		if limit > 0 && !(v >= limit) { // NaN counts as below
			out = append(out, Finding{code, v, limit, unit})
		}
	}
	above := func(code FindingCode, v, limit float32, unit string) {
		if limit > 0 && !(v <= limit) {
			out = append(out, Finding{code, v, limit, unit})
		}
	}
	if n := l.rivals(p); l.OtherFaceShare > 0 && n > 1 {
		out = append(out, Finding{FindingSeveralFaces, float32(n), 1, "faces"})
	}
	below(FindingFaceCut, q.Inside, l.MinInside, "share of the face in the picture")
	below(FindingTooSmall, q.EyeDistance, l.MinEyeDistance, "pixels between the eyes")
	below(FindingTooDark, q.Luminance, l.MinLuminance, "luminance 0..100")
	above(FindingTooBright, q.Luminance, l.MaxLuminance, "luminance 0..100")
	below(FindingBlurred, q.Sharpness, l.MinSharpness, "sharpness")
	if a := abs(q.Yaw); l.MaxYaw > 0 && !(a <= l.MaxYaw) {
		above(FindingTurnedAway, a, l.MaxYaw, "degrees of yaw")
	} else {
		above(FindingTurnedAway, abs(q.Pitch), l.MaxPitch, "degrees of pitch")
	}
	return out
}

// rivals counts the chosen face and those at least OtherFaceShare of its size.
func (l QualityLimits) rivals(p *Probe) int {
	n := 1
	for _, o := range p.Others {
		if o.Box.Area() >= l.OtherFaceShare*p.Face.Box.Area() {
			n++
		}
	}
	return n
}

func abs(v float32) float32 { return float32(math.Abs(float64(v))) }
