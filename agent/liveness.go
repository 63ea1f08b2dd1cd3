package agent

// Liveness says how far a capture looks like a living face before the lens, and
// not like a picture of one (a print, a screen, an injected file). The zero value
// is "not measured" and approves nobody where liveness is required.
type Liveness struct {
	Score    float64 `json:"score"`    // 0..100, higher is more alive; 0 when not measured
	Measured bool    `json:"measured"` // false: no network ran, or too few frames were seen

	Method      LivenessMethod `json:"method,omitempty"`
	ModelID     string         `json:"model_id,omitempty"`       // of the network
	Calibration string         `json:"calibration_id,omitempty"` // of the map from network output to score
	Frames      int            `json:"frames,omitempty"`         // frames that contributed
	Challenge   string         `json:"challenge,omitempty"`      // pending, met or missed; "": none was asked
	Signals     []Signal       `json:"signals,omitempty"`        // in a fixed order; what was measured besides the score
}

// LivenessMethod names how liveness was measured, spelt as on the wire.
type LivenessMethod string

// The methods.
const (
	LivenessPassive  LivenessMethod = "PASSIVE"   // the person need not do anything
	LivenessActive3D LivenessMethod = "ACTIVE_3D" // the person answered a challenge
)

// SignalName names one measurement behind a liveness score.
type SignalName string

// Signal is one measurement with the limit that it was held against.
type Signal struct {
	Name  SignalName `json:"name"`
	Value float64    `json:"value"`
	Limit float64    `json:"limit"`
	Unit  string     `json:"unit"`
	Grade Grade      `json:"grade"`
}

// Grade is what a signal says about the capture.
type Grade string

// The grades. A live capture may be Suspicious now and then; an Attack is a value
// that a living face before a camera is not known to give.
const (
	GradeUnknown    Grade = "unknown" // too little was seen to tell
	GradeNormal     Grade = "normal"
	GradeSuspicious Grade = "suspicious" // lowers the score
	GradeAttack     Grade = "attack"     // declines
)

// LivenessCheck is the verdict on the liveness of one capture. Its warnings are
// those of the decision with feature LIVENESS.
type LivenessCheck struct {
	Status     Status     `json:"status"`
	Thresholds Thresholds `json:"thresholds"`
	Liveness
}
