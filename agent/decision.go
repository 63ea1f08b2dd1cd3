package agent

import "time"

// Status is the outcome of a decision, spelt as on the wire.
type Status string

// The statuses. The zero value is not one of them, so a forgotten decision can
// never read as an approval.
const (
	Approved Status = "Approved"
	InReview Status = "In Review"
	Declined Status = "Declined"
)

// Risk names the reason behind a warning, spelt as on the wire.
type Risk string

// The risks raised by face match.
const (
	RiskNoReference   Risk = "NO_REFERENCE_IMAGE"        // no scorable pair: a face is missing on one side
	RiskLowSimilarity Risk = "LOW_FACE_MATCH_SIMILARITY" // score at or below a threshold
	RiskNotComputed   Risk = "FACE_MATCH_NOT_COMPUTED"   // a component failed; nothing was compared
	RiskSeveralFaces  Risk = "MULTIPLE_FACES_DETECTED"   // more than one face; the largest was used
	RiskLowQuality    Risk = "LOW_FACE_QUALITY"          // a quality finding on a face
	RiskDarkFace      Risk = "LOW_FACE_LUMINANCE"        // the face is too dark
	RiskBrightFace    Risk = "HIGH_FACE_LUMINANCE"       // the face is too bright
	RiskAmbiguous     Risk = "POSSIBLE_DUPLICATED_FACE"  // 1:N: two subjects score alike
	RiskOffline       Risk = "DEVICE_OFFLINE_TOO_LONG"   // somebody may have been dismissed since the hub was heard
)

// The risks raised by liveness, beside those on several faces, quality and light.
const (
	RiskNoFace              Risk = "NO_FACE_DETECTED"
	RiskLowLiveness         Risk = "LOW_LIVENESS_SCORE"    // score at or below a threshold
	RiskFaceAttack          Risk = "LIVENESS_FACE_ATTACK"  // a measurement that only an attack gives
	RiskLivenessNotComputed Risk = "LIVENESS_NOT_COMPUTED" // required, but it could not be measured
	RiskChallengeNotMet     Risk = "LIVENESS_CHALLENGE_NOT_MET"
)

// The features that warnings speak of, spelt as on the wire.
const (
	FeatureFaceMatch = "FACEMATCH"
	FeatureLiveness  = "LIVENESS"
)

// LogType says what a warning does to the status.
type LogType string

// The log types, from harmless to fatal.
const (
	LogInformation LogType = "information" // no effect
	LogWarning     LogType = "warning"     // at best In Review
	LogError       LogType = "error"       // Declined
)

// Warning is one reason attached to a decision.
type Warning struct {
	Feature string  `json:"feature"`
	Risk    Risk    `json:"risk"`
	LogType LogType `json:"log_type"`
	Short   string  `json:"short_description"`
	Long    string  `json:"long_description"`
}

// Thresholds are on the 0..100 score scale; a score at or below one fires it.
type Thresholds struct {
	Review  float64 `json:"review"`  // at or below: In Review
	Decline float64 `json:"decline"` // at or below: Declined
}

// Timings are the wall-clock times of the stages of one decision. Zero means
// the stage did not run. JSON carries whole nanoseconds.
type Timings struct {
	Decode    time.Duration `json:"decode_ns,omitempty"`
	Detect    time.Duration `json:"detect_ns,omitempty"`
	Landmarks time.Duration `json:"landmarks_ns,omitempty"`
	Quality   time.Duration `json:"quality_ns,omitempty"`
	Align     time.Duration `json:"align_ns,omitempty"`
	Embed     time.Duration `json:"embed_ns,omitempty"`
	Liveness  time.Duration `json:"liveness_ns,omitempty"`
	Match     time.Duration `json:"match_ns,omitempty"`
	Total     time.Duration `json:"total_ns,omitempty"`
}

// Add returns the stage-wise sum.
func (t Timings) Add(o Timings) Timings {
	return Timings{
		Decode: t.Decode + o.Decode, Detect: t.Detect + o.Detect, Landmarks: t.Landmarks + o.Landmarks,
		Quality: t.Quality + o.Quality, Align: t.Align + o.Align, Embed: t.Embed + o.Embed,
		Liveness: t.Liveness + o.Liveness, Match: t.Match + o.Match, Total: t.Total + o.Total,
	}
}

// Decision is the verdict on one comparison and everything needed to explain it
// later: the numbers, the limits and the versions that produced them.
type Decision struct {
	Status      Status     `json:"status"`
	Score       float64    `json:"score"`  // 0..100, two decimals
	Scored      bool       `json:"scored"` // false: there was nothing to compare; Score is 0
	Cosine      float32    `json:"cosine"` // raw similarity behind the score, -1..1
	Thresholds  Thresholds `json:"thresholds"`
	Warnings    []Warning  `json:"warnings"` // never nil
	ModelID     string     `json:"model_id"`
	Calibration string     `json:"calibration_id"`
	Frames      int        `json:"frames"` // pictures of the probe that contributed
	Timings     Timings    `json:"timings"`

	// Liveness is nil where it was not asked for: two stored pictures, or switched off.
	Liveness *LivenessCheck `json:"liveness,omitempty"`
}
