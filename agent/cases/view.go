package cases

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"postern/agent"
)

// Links makes the addresses that answers contain. A nil Media, or a media id that
// is "", gives null.
type Links struct {
	Host  string // scheme and host, without a slash at the end
	Media func(id string) string
}

func (l Links) media(id string) *string {
	if id == "" || l.Media == nil {
		return nil
	}
	if u := l.Media(id); u != "" {
		return &u
	}
	return nil
}

// Session is the address at which the person acts.
func (l Links) Session(s *Session) *string {
	if s.Token == "" {
		return nil
	}
	u := l.Host + "/session/" + s.Token
	if s.Language != "" {
		u = l.Host + "/" + s.Language + "/session/" + s.Token
	}
	return &u
}

// Time is how times are written: RFC 3339 in UTC with microseconds.
func Time(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000000Z")
	return &s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// SessionView is a session as it is created and read.
type SessionView struct {
	SessionID  string          `json:"session_id"`
	Number     uint64          `json:"session_number"`
	Kind       string          `json:"session_kind"`
	Token      string          `json:"session_token"`
	URL        *string         `json:"url"`
	SessionURL *string         `json:"session_url"`
	VendorData *string         `json:"vendor_data"`
	Metadata   json.RawMessage `json:"metadata"`
	Status     Status          `json:"status"`
	WorkflowID *string         `json:"workflow_id"`
	Version    int             `json:"workflow_version"`
	Variant    *string         `json:"workflow_variant"`
	Callback   *string         `json:"callback"`
	CreatedAt  *string         `json:"created_at"`
	ExpiresAt  *string         `json:"expires_at"`
}

// View is the session as POST and GET of a session answer it.
func (s *Session) View(l Links) SessionView {
	return SessionView{
		SessionID: s.ID, Number: s.Number, Kind: "user", Token: s.Token, URL: l.Session(s), SessionURL: l.Session(s),
		VendorData: orNull(s.VendorData), Metadata: rawOrNull(s.Metadata), Status: s.Status, WorkflowID: orNull(s.WorkflowID),
		Version: s.Version, Variant: orNull(s.Variant), Callback: orNull(s.Callback), CreatedAt: Time(s.CreatedAt), ExpiresAt: Time(s.ExpiresAt),
	}
}

func rawOrNull(r json.RawMessage) json.RawMessage {
	if len(r) == 0 {
		return json.RawMessage("null")
	}
	return r
}

// WarningView is a warning in a decision.
type WarningView struct {
	Feature        string         `json:"feature"`
	Risk           agent.Risk     `json:"risk"`
	AdditionalData map[string]any `json:"additional_data"`
	LogType        agent.LogType  `json:"log_type"`
	Short          string         `json:"short_description"`
	Long           string         `json:"long_description"`
	Node           string         `json:"node_id,omitempty"`
}

func viewWarnings(ws []Warning, node string) []WarningView {
	out := []WarningView{}
	for _, w := range ws {
		out = append(out, WarningView{w.Feature, w.Risk, w.AdditionalData, w.LogType, w.Short, w.Long, node})
	}
	return out
}

// MatchView is a found face in a decision.
type MatchView struct {
	SessionID   *string        `json:"session_id"`
	Number      *uint64        `json:"session_number"`
	Similarity  float64        `json:"similarity_percentage"`
	Source      string         `json:"source"`
	VendorData  *string        `json:"vendor_data"`
	VendorUser  *string        `json:"vendor_user_id"`
	Template    *string        `json:"biometric_template_id"`
	Date        *string        `json:"verification_date"`
	Details     map[string]any `json:"user_details"`
	Image       *string        `json:"match_image_url"`
	Status      *Status        `json:"status"`
	Blocklisted bool           `json:"is_blocklisted"`
	Allowlisted bool           `json:"is_allowlisted"`
	API         *string        `json:"api_service"`
}

// ViewMatches shows found faces.
func ViewMatches(ms []Match, l Links) []MatchView {
	out := []MatchView{}
	for _, m := range ms {
		v := MatchView{SessionID: orNull(m.SessionID), Similarity: m.Similarity, Source: m.Source, VendorData: orNull(m.VendorData),
			Image: l.media(m.Media), Blocklisted: m.Blocklisted, Allowlisted: m.Allowlisted, API: orNull(m.API)}
		if m.Number > 0 {
			v.Number = &m.Number
		}
		if m.Status != "" {
			v.Status = &m.Status
		}
		if !m.At.IsZero() {
			at := m.At.UTC().Format(time.RFC3339)
			v.Date = &at
		}
		out = append(out, v)
	}
	return out
}

// ReviewView is a review in answers. The Python client reads the last two names.
type ReviewView struct {
	User       string  `json:"user"`
	NewStatus  *Status `json:"new_status"`
	Comment    string  `json:"comment"`
	CreatedAt  *string `json:"created_at"`
	ReviewedBy string  `json:"reviewed_by"`
	Reason     string  `json:"decision_reason"`
}

// ViewReviews shows the reviews of a session.
func ViewReviews(rs []Review) []ReviewView {
	out := []ReviewView{}
	for _, r := range rs {
		v := ReviewView{User: r.User, Comment: r.Comment, CreatedAt: Time(r.CreatedAt), ReviewedBy: r.User, Reason: r.Comment}
		if r.NewStatus != "" {
			v.NewStatus = &r.NewStatus
		}
		out = append(out, v)
	}
	return out
}

// Decision is everything that is known about a session, in the contract's words.
// Arrays are never null: published clients refuse that.
func (s *Session) Decision(l Links, events bool) map[string]any {
	d := map[string]any{
		"session_id": s.ID, "session_kind": "user", "session_number": s.Number, "session_url": l.Session(s), "status": s.Status,
		"environment": s.Environment, "workflow_id": orNull(s.WorkflowID), "workflow_version": s.Version, "workflow_variant": orNull(s.Variant),
		"vendor_data": orNull(s.VendorData), "metadata": rawOrNull(s.Metadata), "expected_details": rawOrNull(s.ExpectedDetails),
		"contact_details": rawOrNull(s.ContactDetails), "callback": orNull(s.Callback), "api_service": orNull(s.API),
		"reviews": ViewReviews(s.Reviews), "created_at": Time(s.CreatedAt), "expires_at": Time(s.ExpiresAt), "warnings": []any{},
	}
	for _, name := range []string{"id_verifications", "nfc_verifications", "liveness_checks", "face_matches", "face_searches", "poa_verifications",
		"document_ai_documents", "phone_verifications", "email_verifications", "aml_screenings", "ip_analyses", "database_validations",
		"questionnaire_responses"} {
		d[name] = []any{}
	}
	s.fillSteps(d, l, events)
	if nodes := s.ResubmitInfo(); nodes != nil {
		d["resubmit_info"] = map[string]any{"nodes": nodes}
	}
	if s.SharedFrom != "" {
		d["shared_from_session"] = s.SharedFrom
	}
	if events {
		d["events"] = append([]Happening{}, s.Happenings...)
	}
	return d
}

// arrays says where the report of a feature stands.
var arrays = map[Feature]string{FaceMatch: "face_matches", Liveness: "liveness_checks", IDVerification: "id_verifications", FaceSearch: "face_searches"}

func (s *Session) fillSteps(d map[string]any, l Links, events bool) {
	names, nodes := []string{}, []map[string]any{}
	seen := map[Feature]bool{}
	for i := range s.Steps {
		st := &s.Steps[i]
		if !seen[st.Feature] {
			names = append(names, string(st.Feature))
		}
		seen[st.Feature] = true
		nodes = append(nodes, map[string]any{"feature": st.Feature, "node_id": st.Node})
		if st.Skipped || st.Attempts == 0 && st.Outcome.Status != NodeResubmit {
			continue // nothing is known of it yet
		}
		list := d[arrays[st.Feature]].([]any)
		d[arrays[st.Feature]] = append(list, st.view(l))
	}
	d["features"] = any(names)
	if events {
		d["features"] = nodes
	}
}

// view is a step's report.
func (st *StepState) view(l Links) map[string]any {
	v := map[string]any{"node_id": st.Node, "status": st.Outcome.Status, "warnings": viewWarnings(st.Outcome.Warnings, st.Node)}
	switch st.Feature {
	case FaceMatch:
		v["score"], v["source_image_session_id"] = st.Score, nil
		v["source_image"], v["target_image"] = l.media(st.Source), l.media(st.Target)
	case Liveness:
		v["method"], v["score"] = "PASSIVE", st.Score
		v["reference_image"], v["video_url"], v["age_estimation"] = l.media(st.Target), nil, nil
		v["face_quality"], v["face_luminance"] = st.Quality, st.Luminance
		v["matches"] = ViewMatches(st.Matches, l)
	case FaceSearch:
		v["score"], v["total_matches"], v["user_image"] = st.Score, len(st.Matches), l.media(st.Target)
		v["matches"] = ViewMatches(st.Matches, l)
	case IDVerification:
		v["portrait_image"], v["front_image"] = l.media(st.Source), l.media(st.Target)
		for _, name := range []string{"document_type", "document_number", "first_name", "last_name", "full_name", "country", "date_of_birth", "expiration_date"} {
			v[name] = nil // no text is read
		}
	}
	return v
}

// Row is a session in a list.
func (s *Session) Row(l Links) map[string]any {
	features, extra := []map[string]any{}, map[string]any{}
	for i := range s.Steps {
		st := &s.Steps[i]
		features = append(features, map[string]any{"feature": st.Feature, "status": st.Outcome.Status})
		switch {
		case st.Score == nil:
		case st.Feature == Liveness:
			extra["liveness"] = map[string]any{"method": "PASSIVE", "score": st.Score}
		case st.Feature == FaceMatch:
			extra["face_match"] = map[string]any{"score": st.Score, "source_image": l.media(st.Source), "target_image": l.media(st.Target)}
		}
	}
	row := map[string]any{
		"session_id": s.ID, "session_number": s.Number, "session_kind": "user", "status": s.Status, "vendor_data": orNull(s.VendorData),
		"workflow_id": orNull(s.WorkflowID), "workflow_version": s.Version, "document_type": nil, "full_name": orNull(s.FullName()), "country": nil,
		"didit_internal_id": nil, "created_at": Time(s.CreatedAt), "features": features, "phone_number": nil, "email_address": nil,
		"additional_details": nil, "environment": s.Environment, "api_service": orNull(s.API),
	}
	if len(extra) > 0 {
		row["additional_details"] = extra
	}
	return row
}

// FullName is the name that the deployer expects; no text is read from documents.
func (s *Session) FullName() string {
	var e struct {
		First string `json:"first_name"`
		Last  string `json:"last_name"`
	}
	if json.Unmarshal(rawOrNull(s.ExpectedDetails), &e) != nil {
		return ""
	}
	return strings.TrimSpace(e.First + " " + e.Last)
}

// row are the parts of a workflow that list and detail share.
func (w *Workflow) row(l Links) map[string]any {
	steps := w.Variants[0].Steps
	return map[string]any{
		"uuid": w.UUID, "workflow_id": w.GroupID, "workflow_label": w.Label, "workflow_type": "kyc", "is_default": w.Default, "is_archived": false,
		"is_white_label_enabled": w.WhiteLabel, "is_desktop_allowed": w.Desktop, "total_price": "0", "min_price": "0", "max_price": "0",
		"features": strings.Join(FeatureNames(steps), " + "), "is_simple_workflow": len(w.Variants) == 1, "is_editable": true,
		"workflow_url":       l.Host + "/u/" + base64.RawURLEncoding.EncodeToString([]byte(w.UUID)),
		"max_retry_attempts": w.Retries, "retry_window_days": nil, "session_expiration_time": w.Expiration, "language": orNull(w.Language),
		"status": w.Status, "version": w.Version, "created_at": Time(w.CreatedAt), "updated_at": Time(w.UpdatedAt), "published_at": Time(w.PublishedAt),
	}
}

// Row is a workflow in a list.
func (w *Workflow) Row(l Links) map[string]any { return w.row(l) }

// View is a workflow with all its settings. What it shows under variants can be sent
// back as it is.
func (w *Workflow) View(l Links) map[string]any {
	v := w.row(l)
	var variants []map[string]any
	for _, a := range w.Variants {
		variants = append(variants, map[string]any{"name": a.Name, "weight": a.Weight, "features": viewSteps(a.Steps)})
	}
	v["variants"] = variants
	v["feature_list"] = viewSteps(w.Variants[0].Steps)
	for _, s := range w.Variants[0].Steps {
		for key, value := range s.settings() {
			if _, taken := v[key]; !taken {
				v[key] = value
			}
		}
	}
	return v
}

func viewSteps(steps []Step) []map[string]any {
	out := []map[string]any{}
	for i := range steps {
		s := &steps[i]
		v := map[string]any{"feature": s.Feature, "config": s.settings()}
		if s.Label != "" {
			v["label"] = s.Label
		}
		if s.RunIf != nil {
			v["run_if"] = s.RunIf
		}
		out = append(out, v)
	}
	return out
}
