package decide

import (
	"fmt"

	"postern/agent"
)

// Evidence is what one comparison yielded.
type Evidence struct {
	Cosine float32
	Scored bool // there was a pair to compare; without it the answer is Declined

	// Missing says why there was no pair (default RiskNoReference).
	Missing agent.Risk
	// Findings of the picture that was compared; they explain, they do not decide.
	Findings []agent.Finding
	// Ambiguous: in a 1:N search a second subject scored about as high.
	Ambiguous bool
	// Stale: what is known of people may be out of date, for the hub has not been heard
	// for too long.
	Stale bool
	// Live is set where a living person is required; see LivenessPolicy.
	Live *Capture

	ModelID string
	Frames  int
	Timings agent.Timings
}

// Decide applies the curve and the thresholds: Declined at or below decline, In
// Review at or below review, Approved above. Warnings can only lower the status.
// Thresholds that make no sense decline, since they cannot have been meant.
func Decide(c *Curve, t agent.Thresholds, e Evidence) agent.Decision {
	d := agent.Decision{
		Status: agent.Declined, Thresholds: t, Warnings: []agent.Warning{}, ModelID: e.ModelID,
		Calibration: c.ID(), Frames: e.Frames, Timings: e.Timings,
	}
	for _, f := range e.Findings {
		d.Warnings = append(d.Warnings, explain(f))
	}
	if e.Live != nil {
		check, ws := Live(*e.Live)
		d.Liveness, d.Warnings = &check, append(d.Warnings, ws...)
	}
	if e.Scored && !(e.Cosine >= -1 && e.Cosine <= 1) {
		e.Scored, e.Missing = false, agent.RiskNotComputed
	}
	if !e.Scored {
		d.Warnings = append(d.Warnings, warning(orDefault(e.Missing), agent.LogError))
		return d
	}
	d.Scored, d.Cosine, d.Score = true, e.Cosine, c.Score(e.Cosine)
	if ValidateThresholds(t) != nil {
		d.Warnings = append(d.Warnings, warning(agent.RiskNotComputed, agent.LogError))
		return d
	}
	switch {
	case d.Score <= t.Decline:
		d.Warnings = append(d.Warnings, warning(agent.RiskLowSimilarity, agent.LogError))
	case d.Score <= t.Review:
		d.Warnings = append(d.Warnings, warning(agent.RiskLowSimilarity, agent.LogWarning))
	}
	if e.Stale {
		d.Warnings = append(d.Warnings, warning(agent.RiskOffline, agent.LogWarning))
	}
	if e.Ambiguous {
		d.Warnings = append(d.Warnings, warning(agent.RiskAmbiguous, agent.LogWarning))
	}
	d.Status = status(d.Warnings)
	return d
}

// status is the worst that any warning demands.
func status(ws []agent.Warning) agent.Status {
	s := agent.Approved
	for _, w := range ws {
		switch w.LogType {
		case agent.LogInformation:
		case agent.LogWarning:
			if s == agent.Approved {
				s = agent.InReview
			}
		default:
			return agent.Declined
		}
	}
	return s
}

func orDefault(r agent.Risk) agent.Risk {
	if r == "" {
		return agent.RiskNoReference
	}
	return r
}

// texts are the short and long descriptions of each risk.
var texts = map[agent.Risk][2]string{
	agent.RiskNoReference: {"No reference image",
		"A reference image or face image for facial comparison is missing, preventing the system from completing the face matching process."},
	agent.RiskLowSimilarity: {"Low face match similarity",
		"The facial features of the provided image don't closely match the reference image, suggesting a potential identity mismatch."},
	agent.RiskNotComputed: {"Face match not computed",
		"A part that the comparison needs failed, so no score could be trusted."},
	agent.RiskSeveralFaces: {"Multiple faces detected",
		"More than one face was found; the largest was used."},
	agent.RiskLowQuality: {"Low face quality",
		"The face in the picture does not meet the quality limits."},
	agent.RiskDarkFace: {"Low face luminance",
		"The face in the picture is too dark."},
	agent.RiskBrightFace: {"High face luminance",
		"The face in the picture is too bright."},
	agent.RiskOffline: {"Device offline too long",
		"The device has not heard its hub for longer than it may, so somebody who may no longer enter could be known here still; somebody must look."},
	agent.RiskAmbiguous: {"Possible duplicated face",
		"Two enrolled subjects resemble the face about equally."},
	agent.RiskNoFace: {"No face detected",
		"No face was found in the picture."},
	agent.RiskLowLiveness: {"Low liveness score",
		"The liveness score is low, so the face may not be that of a living person before the camera."},
	agent.RiskFaceAttack: {"Liveness face attack",
		"The capture shows signs of a presentation attack, such as a printed photo, a screen or injected frames."},
	agent.RiskChallengeNotMet: {"Liveness challenge not met",
		"The person did not do what was asked in time; somebody must look."},
	agent.RiskLivenessNotComputed: {"Liveness not computed",
		"Liveness is required here but could not be measured, so nobody is approved."},
}

func warning(r agent.Risk, t agent.LogType) agent.Warning {
	return agent.Warning{Feature: agent.FeatureFaceMatch, Risk: r, LogType: t, Short: texts[r][0], Long: texts[r][1]}
}

// risks maps a finding to the risk that names it on the wire.
var risks = map[agent.FindingCode]agent.Risk{
	agent.FindingSeveralFaces: agent.RiskSeveralFaces,
	agent.FindingTooDark:      agent.RiskDarkFace,
	agent.FindingTooBright:    agent.RiskBrightFace,
}

// explain turns a finding into a warning without effect on the status, with the
// measured value in its text.
func explain(f agent.Finding) agent.Warning {
	r, ok := risks[f.Code]
	if !ok {
		r = agent.RiskLowQuality
	}
	w := warning(r, agent.LogInformation)
	w.Long += " " + Describe(f)
	return w
}

// Describe says a finding in words with its value and limit.
func Describe(f agent.Finding) string {
	what := map[agent.FindingCode]string{
		agent.FindingNoFace:       "no face was found",
		agent.FindingSeveralFaces: "several faces are in the picture",
		agent.FindingFaceCut:      "the face is cut by the border of the picture",
		agent.FindingTooSmall:     "the face is too small",
		agent.FindingTooDark:      "the face is too dark",
		agent.FindingTooBright:    "the face is too bright",
		agent.FindingBlurred:      "the face is blurred",
		agent.FindingTurnedAway:   "the face is turned away",
		agent.FindingFlat:         "the face has too little contrast",
		agent.FindingEyesClosed:   "the eyes are closed",
		agent.FindingMouthCovered: "the mouth is covered",
		agent.FindingEyesCovered:  "the eyes are covered",
		agent.FindingLowScore:     "the face is not seen well enough",
	}[f.Code]
	if f.Code == agent.FindingNoFace {
		return what
	}
	return fmt.Sprintf("%s (%.4g %s, limit %.4g)", what, f.Value, f.Unit, f.Limit)
}
