package decide

import (
	"fmt"
	"slices"
	"strings"

	"postern/agent"
)

// Action is what a finding does to a liveness decision.
type Action string

// The actions.
const (
	NoAction      Action = "no_action" // tell, without effect
	ReviewAction  Action = "review"    // at best In Review
	DeclineAction Action = "decline"
)

// Valid reports whether a is one of the actions.
func (a Action) Valid() bool { return a == NoAction || a == ReviewAction || a == DeclineAction }

// logType is the weight of a warning raised by the action. What is not an action
// declines: it cannot have been meant.
func (a Action) logType() agent.LogType {
	switch a {
	case NoAction:
		return agent.LogInformation
	case ReviewAction:
		return agent.LogWarning
	}
	return agent.LogError
}

// LivenessPolicy is what a deployer sets about liveness.
type LivenessPolicy struct {
	Thresholds agent.Thresholds
	MinFrames  int // good frames that a live capture needs, beside any other minimum
	// Active: a challenge must be met. Who does not meet it is In Review, so that an
	// attendant decides about whom the tasks do not suit; nobody is declined for it.
	Active       bool
	SeveralFaces Action // MULTIPLE_FACES_DETECTED
	Quality      Action // LOW_FACE_QUALITY
	Dark         Action // LOW_FACE_LUMINANCE
	Bright       Action // HIGH_FACE_LUMINANCE
}

// ChallengeMet is the Challenge of a liveness whose challenge was met.
const ChallengeMet = "met"

// Capture is what is known of a capture whose liveness is to be decided.
type Capture struct {
	Policy   LivenessPolicy
	Liveness agent.Liveness
	Findings []agent.Finding // of the picture that stands for the capture
}

// Live decides about the liveness of a capture: Declined at or below the decline
// threshold, on any sign of an attack, without a face, and when nothing could be
// measured; In Review at or below the review threshold.
func Live(c Capture) (agent.LivenessCheck, []agent.Warning) {
	t := c.Policy.Thresholds
	var ws []agent.Warning
	add := func(r agent.Risk, l agent.LogType, detail string) {
		w := agent.Warning{Feature: agent.FeatureLiveness, Risk: r, LogType: l, Short: texts[r][0], Long: texts[r][1]}
		if detail != "" {
			w.Long += " " + detail
		}
		ws = append(ws, w)
	}
	for _, f := range c.Findings {
		r, a := c.Policy.judge(f.Code)
		add(r, a.logType(), sentence(Describe(f)))
	}
	l := c.Liveness
	switch {
	case len(ws) > 0 && ws[0].Risk == agent.RiskNoFace: // nothing more can be said
	case !l.Measured || !(l.Score >= 0 && l.Score <= 100) || ValidateThresholds(t) != nil:
		l.Measured, l.Score = false, 0
		add(agent.RiskLivenessNotComputed, agent.LogError, "")
	case l.Score <= t.Decline:
		add(agent.RiskLowLiveness, agent.LogError, "")
	case l.Score <= t.Review:
		add(agent.RiskLowLiveness, agent.LogWarning, "")
	}
	if c.Policy.Active && l.Challenge != ChallengeMet {
		add(agent.RiskChallengeNotMet, agent.LogWarning, "")
	}
	for _, s := range l.Signals {
		if s.Grade == agent.GradeAttack {
			add(agent.RiskFaceAttack, agent.LogError, sentence(DescribeSignal(s)))
		}
	}
	return agent.LivenessCheck{Status: status(ws), Thresholds: t, Liveness: l}, ws
}

// Require lowers a decision by the liveness of the capture it rests on.
func Require(d agent.Decision, c Capture) agent.Decision {
	check, ws := Live(c)
	d.Liveness, d.Warnings = &check, append(slices.Clone(d.Warnings), ws...)
	if d.Status == agent.Approved || d.Status == agent.InReview && check.Status == agent.Declined {
		d.Status = check.Status
	}
	return d
}

// judge names the risk of a finding and what the policy does about it.
func (p LivenessPolicy) judge(c agent.FindingCode) (agent.Risk, Action) {
	switch c {
	case agent.FindingNoFace:
		return agent.RiskNoFace, DeclineAction
	case agent.FindingSeveralFaces:
		return agent.RiskSeveralFaces, p.SeveralFaces
	case agent.FindingTooDark:
		return agent.RiskDarkFace, p.Dark
	case agent.FindingTooBright:
		return agent.RiskBrightFace, p.Bright
	}
	return agent.RiskLowQuality, p.Quality
}

// DescribeSignal says a signal in words with its value and limit.
func DescribeSignal(s agent.Signal) string {
	return fmt.Sprintf("%s is %.4g %s (limit %.4g)", strings.ReplaceAll(string(s.Name), "_", " "), s.Value, s.Unit, s.Limit)
}

func sentence(s string) string {
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
