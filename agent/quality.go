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
	MinContrast    float32 `yaml:"min_contrast"`     // 0..100
	MaxRoll        float32 `yaml:"max_roll"`         // degrees either way
	MinEyesOpen    float32 `yaml:"min_eyes_open"`    // opening over width of an eye
	MaxMouthHidden float32 `yaml:"max_mouth_hidden"` // 0..1
	MaxEyesHidden  float32 `yaml:"max_eyes_hidden"`  // 0..1
	MinScore       float32 `yaml:"min_score"`        // face_quality, 0..100
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
	below(FindingFlat, q.Contrast, l.MinContrast, "contrast 0..100")
	below(FindingBlurred, q.Sharpness, l.MinSharpness, "sharpness")
	out = append(out, l.turn(q)...)
	above(FindingMouthCovered, q.MouthCovered, l.MaxMouthHidden, "0..1")
	above(FindingEyesCovered, q.EyesCovered, l.MaxEyesHidden, "0..1")
	below(FindingEyesClosed, q.EyesOpen, l.MinEyesOpen, "opening over width of an eye")
	below(FindingLowScore, q.Score, l.MinScore, "face quality 0..100")
	return out
}

// turn is the first turn of the head that is too far; one finding, not three.
func (l QualityLimits) turn(q Quality) []Finding {
	for _, t := range []struct {
		v, limit float32
		unit     string
	}{{abs(q.Yaw), l.MaxYaw, "degrees of yaw"}, {abs(q.Pitch), l.MaxPitch, "degrees of pitch"}, {abs(q.Roll), l.MaxRoll, "degrees of roll"}} {
		if t.limit > 0 && !(t.v <= t.limit) {
			return []Finding{{FindingTurnedAway, t.v, t.limit, t.unit}}
		}
	}
	return nil
}

// Rate is face_quality, 0 to 100: how far a genuine comparison can rely on the face. It
// is 100 times the product of six measures, each first scaled to 0..1 between the ends
// below and raised to its weight, and of the share of the face inside the picture.
// Confidence is the detector's.
//
//	measure                        0 at   1 at   weight
//	detector's confidence          0.50   0.95   2
//	pitch, degrees                 45     0      0.3
//	yaw, degrees                   60     0      0.15
//	square root of sharpness       0      12     0.15
//	eye distance, pixels           15     45     0.15
//	eyes open                      0.08   0.25   0.15
//
// The ends lie at or beyond the worst and the best of the development faces, so that a
// good portrait of another framing is not worth nothing. The weights were chosen there, so that leaving out the worst pairs lowers the FNMR fastest; "postern
// eval quality" shows the curves of the score and of each measure. By themselves yaw,
// sharpness and eye distance hardly lower it on those faces, few of which are turned,
// blurred or small: their weights are small, and meant for pictures that are. Luminance
// lowers it a little, contrast does not; both have limits only.
func (q Quality) Rate(confidence float32) float32 {
	score := 100 * ramp(q.Inside, 0.5, 1)
	for _, m := range []struct{ v, none, full, weight float32 }{
		{confidence, 0.50, 0.95, 2},
		{abs(q.Pitch), 45, 0, 0.3},
		{abs(q.Yaw), 60, 0, 0.15},
		{float32(math.Sqrt(math.Max(0, float64(q.Sharpness)))), 0, 12, 0.15},
		{q.EyeDistance, 15, 45, 0.15},
		{q.EyesOpen, 0.08, 0.25, 0.15},
	} {
		score *= math.Pow(ramp(m.v, m.none, m.full), float64(m.weight))
	}
	return float32(score)
}

// ramp goes from 0 at none to 1 at full; what is not a number is 0.
func ramp(v, none, full float32) float64 {
	x := float64(v-none) / float64(full-none)
	if math.IsNaN(x) {
		return 0
	}
	return min(1, max(0, x))
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
