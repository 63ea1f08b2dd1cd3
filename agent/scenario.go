package agent

import "slices"

// Scenario names what a sandbox answers.
type Scenario string

// The scenarios of sandbox keys.
const (
	ScenarioApprove              Scenario = "approve"
	ScenarioDeclineLowSimilarity Scenario = "decline_face_match_low_similarity"
	ScenarioDeclineNoReference   Scenario = "decline_face_match_no_reference_image"
	ScenarioReviewBorderline     Scenario = "review_face_match_borderline"
	ScenarioDeclineAttack        Scenario = "decline_liveness_attack"
	ScenarioDeclineLowLiveness   Scenario = "decline_liveness_low_score"
	ScenarioDeclineNoFace        Scenario = "decline_liveness_no_face"
	ScenarioDeclineBlocklist     Scenario = "decline_face_in_blocklist"
	ScenarioDuplicate            Scenario = "duplicated_face"
)

// Scenarios lists all of them.
var Scenarios = []Scenario{ScenarioApprove, ScenarioDeclineLowSimilarity, ScenarioDeclineNoReference, ScenarioReviewBorderline,
	ScenarioDeclineAttack, ScenarioDeclineLowLiveness, ScenarioDeclineNoFace, ScenarioDeclineBlocklist, ScenarioDuplicate}

// Known reports whether s is one of Scenarios.
func (s Scenario) Known() bool { return slices.Contains(Scenarios, s) }
