package cases

import (
	"slices"
	"strings"

	"postern/agent"
)

// Feature is what a step of a workflow does, spelt as on the wire.
type Feature string

// The features that this product has.
const (
	FaceMatch      Feature = "FACE_MATCH"
	Liveness       Feature = "LIVENESS"
	IDVerification Feature = "ID_VERIFICATION" // finds the portrait on a document; reads no text
	FaceSearch     Feature = "FACE_SEARCH"
)

// Features lists them in the order in which an error names them.
var Features = []Feature{IDVerification, Liveness, FaceMatch, FaceSearch}

// elsewhere are features of the v3 API that need what this product does not do.
var elsewhere = []string{"OCR", "NFC", "PROOF_OF_ADDRESS", "POA", "QUESTIONNAIRE", "PHONE_VERIFICATION", "PHONE", "EMAIL_VERIFICATION", "EMAIL",
	"DATABASE_VALIDATION", "AML", "IP_ANALYSIS", "AGE_ESTIMATION", "KYB_REGISTRY", "KYB_DOCUMENTS", "KYB_KEY_PEOPLE", "KYB", "DOCUMENT_AI"}

// ParseFeature refuses what is not a feature, and what is one elsewhere, each with
// a sentence of its own.
func ParseFeature(s string) (Feature, error) {
	if f := Feature(s); slices.Contains(Features, f) {
		return f, nil
	}
	names := make([]string, len(Features))
	for i, f := range Features {
		names[i] = string(f)
	}
	can := strings.Join(names, ", ")
	switch {
	case s == "OCR":
		return "", Wrong("features", "Feature \"OCR\" is not available here: no text is read from documents. ID_VERIFICATION finds the portrait on a document and uses it as the reference. Available: %s.", can)
	case slices.Contains(elsewhere, s):
		return "", Wrong("features", "Feature %q is not available here. Available: %s.", s, can)
	}
	return "", Wrong("features", "%.60q is not a valid feature. Available: %s.", s, can)
}

// Input is what a step needs from the person.
type Input string

// The inputs. A face serves every step that looks at the person.
const (
	InputDocument Input = "document"
	InputFace     Input = "face"
	InputNone     Input = "" // nothing is awaited
)

// Needs is the input of a feature.
func (f Feature) Needs() Input {
	if f == IDVerification {
		return InputDocument
	}
	return InputFace
}

// Risks of sessions beside those of package agent.
const (
	RiskNoFace          agent.Risk = "NO_FACE_DETECTED"
	RiskLowLiveness     agent.Risk = "LOW_LIVENESS_SCORE"
	RiskLivenessAttack  agent.Risk = "LIVENESS_FACE_ATTACK"
	RiskNotMeasured     agent.Risk = "LIVENESS_NOT_COMPUTED" // no liveness measurement was to be had
	RiskBlocklisted     agent.Risk = "FACE_IN_BLOCKLIST"
	RiskMaybeBlocked    agent.Risk = "POSSIBLE_FACE_IN_BLOCKLIST"
	RiskDuplicate       agent.Risk = "DUPLICATED_FACE"
	RiskMaybeDuplicate  agent.Risk = "POSSIBLE_DUPLICATED_FACE"
	RiskNoPortrait      agent.Risk = "PORTRAIT_IMAGE_NOT_DETECTED"
	RiskAttemptsSpent   agent.Risk = "FACE_MATCH_MAX_ATTEMPTS_EXCEEDED"
	RiskTooManyTries    agent.Risk = "FACE_MATCH_THROTTLED" // the subject is locked for a while
	RiskSearchNotUsable agent.Risk = "FACE_SEARCH_NOT_COMPUTED"
)

// Action is what a configurable risk does to its step.
type Action string

// The actions.
const (
	DoNothing Action = "NO_ACTION"
	DoReview  Action = "REVIEW"
	DoDecline Action = "DECLINE"
)

func (a Action) valid() bool { return a == DoNothing || a == DoReview || a == DoDecline }

// logType is the warning that an action makes.
func (a Action) logType() agent.LogType {
	switch a {
	case DoNothing:
		return agent.LogInformation
	case DoReview:
		return agent.LogWarning
	}
	return agent.LogError
}

// fatal are risks that decline whatever a workflow says.
var fatal = []agent.Risk{agent.RiskNoReference, RiskNoFace, RiskLivenessAttack, RiskNotMeasured, RiskBlocklisted, RiskNoPortrait, RiskTooManyTries, RiskSearchNotUsable}

// usual is what a configurable risk does when a workflow does not say.
var usual = map[agent.Risk]Action{
	agent.RiskNotComputed:  DoDecline,
	agent.RiskSeveralFaces: DoReview,
	agent.RiskLowQuality:   DoNothing,
	agent.RiskDarkFace:     DoNothing,
	agent.RiskBrightFace:   DoNothing,
	RiskMaybeBlocked:       DoReview,
	RiskDuplicate:          DoNothing,
	RiskMaybeDuplicate:     DoNothing,
	RiskAttemptsSpent:      DoNothing,
}

// actionOn is what a risk does in a step: what is fatal declines, what nobody has
// named reviews.
func (s *Step) actionOn(r agent.Risk) Action {
	if slices.Contains(fatal, r) {
		return DoDecline
	}
	if a, ok := s.Actions[r]; ok {
		return a
	}
	if a, ok := usual[r]; ok {
		return a
	}
	return DoReview
}
