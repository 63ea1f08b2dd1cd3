package cases

import (
	"encoding/json"
	"strings"

	"postern/agent"
)

// actionKeys are the settings that say what a risk does, by feature.
var actionKeys = map[Feature]map[string]agent.Risk{
	FaceMatch: {
		"face_match_not_computed_action": agent.RiskNotComputed,
		"multiple_faces_action":          agent.RiskSeveralFaces,
		"low_face_quality_action":        agent.RiskLowQuality,
		"low_face_luminance_action":      agent.RiskDarkFace,
		"high_face_luminance_action":     agent.RiskBrightFace,
	},
	Liveness: {
		"face_liveness_multiple_faces_action":           agent.RiskSeveralFaces,
		"face_liveness_possible_duplicated_face_action": RiskMaybeDuplicate,
		"face_liveness_duplicated_face_action":          RiskDuplicate,
		"possible_face_in_blocklist_action":             RiskMaybeBlocked,
		"face_luminance_min_action":                     agent.RiskDarkFace,
		"face_luminance_max_action":                     agent.RiskBrightFace,
		"low_face_quality_action":                       agent.RiskLowQuality,
	},
	FaceSearch: {
		"multiple_faces_action":             agent.RiskSeveralFaces,
		"duplicated_face_action":            RiskDuplicate,
		"possible_duplicated_face_action":   RiskMaybeDuplicate,
		"possible_face_in_blocklist_action": RiskMaybeBlocked,
	},
	IDVerification: {
		"multiple_faces_action": agent.RiskSeveralFaces,
	},
}

// scoreKeys are the settings of the thresholds and attempts, by feature.
var scoreKeys = map[Feature]struct{ review, decline, attempts string }{
	FaceMatch:      {"face_match_score_review_threshold", "face_match_score_decline_threshold", "face_match_max_attempts"},
	Liveness:       {"face_liveness_score_review_threshold", "face_liveness_score_decline_threshold", "face_liveness_max_attempts"},
	FaceSearch:     {"face_search_score_review_threshold", "face_search_score_decline_threshold", "face_search_max_attempts"},
	IDVerification: {"", "", "id_verification_max_attempts"},
}

// unmeasured are settings of checks that are not done here: they may say that
// nothing is to be done, and nothing else.
var unmeasured = map[Feature][]string{
	FaceMatch: {"face_match_eyes_covered_action", "face_match_mouth_covered_action", "face_match_face_covered_action"},
	Liveness: {"screen_capture_action", "virtual_camera_action", "frame_injection_action", "external_capture_device_action",
		"face_liveness_video_anomaly_action"},
}

// configure reads a step's config.
func (s *Step) configure(raw json.RawMessage) error {
	fields, err := object("features", raw)
	if err != nil {
		return Wrong("features", "%s: config is not an object.", s.Feature)
	}
	r := &reader{fields: fields}
	keys := scoreKeys[s.Feature]
	own := defaults{}
	own.review, own.hasReview = r.threshold(present(keys.review, "review_threshold")...)
	own.decline, own.hasDecline = r.threshold(present(keys.decline, "decline_threshold")...)
	if s.Feature != IDVerification {
		own.apply(&s.Thresholds)
	}
	attempts := int64(s.MaxAttempts)
	if r.whole(keys.attempts, &attempts); attempts < 1 || attempts > MaxAttempts {
		r.fail(Wrong("features", "%s: %s must be 1 to %d.", s.Feature, keys.attempts, MaxAttempts))
	}
	s.MaxAttempts = int(attempts)
	s.readActions(r)
	if s.Feature == Liveness {
		s.readLiveness(r)
	}
	return r.rest(string(s.Feature))
}

func present(names ...string) (out []string) {
	for _, n := range names {
		if n != "" {
			out = append(out, n)
		}
	}
	return out
}

func (s *Step) readActions(r *reader) {
	for key, risk := range actionKeys[s.Feature] {
		var a string
		if !r.text(key, &a) {
			continue
		}
		if s.Actions == nil {
			s.Actions = map[agent.Risk]Action{}
		}
		s.Actions[risk] = Action(strings.ToUpper(a))
		if risk == agent.RiskNotComputed && s.Actions[risk] == DoNothing {
			r.fail(Wrong("features", "%s: %s is REVIEW or DECLINE; without a score nothing can be approved.", s.Feature, key))
		}
	}
	for _, key := range unmeasured[s.Feature] {
		var a string
		if r.text(key, &a) && Action(strings.ToUpper(a)) != DoNothing {
			r.fail(Wrong("features", "%s: %s can only be NO_ACTION: this check is not done here.", s.Feature, key))
		}
	}
}

func (s *Step) readLiveness(r *reader) {
	var method string
	if r.text("face_liveness_method", &method) && !strings.EqualFold(method, "passive") {
		r.fail(Wrong("features", "LIVENESS: face_liveness_method %.40q is not available here: passive.", method))
	}
	r.flag("face_search_enabled", &s.Search)
	for name, v := range map[string]*float64{
		"face_quality_review_threshold": &s.QualityReview, "face_quality_decline_threshold": &s.QualityDecline,
		"face_luminance_min_threshold": &s.MinLuminance, "face_luminance_max_threshold": &s.MaxLuminance,
	} {
		r.number(name, v)
	}
}

// settings are a step's config as the API shows it; reading them back gives the
// same step.
func (s *Step) settings() map[string]any {
	keys := scoreKeys[s.Feature]
	out := map[string]any{keys.attempts: s.MaxAttempts}
	if s.Feature != IDVerification {
		out[keys.review], out[keys.decline] = s.Thresholds.Review, s.Thresholds.Decline
	}
	for key, risk := range actionKeys[s.Feature] {
		out[key] = s.actionOn(risk)
	}
	if s.Feature == Liveness {
		out["face_liveness_method"] = "passive"
		out["face_search_enabled"] = s.Search
		out["face_quality_review_threshold"], out["face_quality_decline_threshold"] = s.QualityReview, s.QualityDecline
		out["face_luminance_min_threshold"], out["face_luminance_max_threshold"] = s.MinLuminance, s.MaxLuminance
	}
	return out
}
