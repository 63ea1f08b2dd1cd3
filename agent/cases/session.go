package cases

import (
	"encoding/json"
	"slices"
	"time"

	"postern/agent"
)

// Status is a session's, spelt as on the wire.
type Status string

// The statuses of sessions.
const (
	NotStarted  Status = "Not Started"
	InProgress  Status = "In Progress"
	InReview    Status = "In Review"
	Approved    Status = "Approved"
	Declined    Status = "Declined"
	Resubmitted Status = "Resubmitted"
	Abandoned   Status = "Abandoned"
	Expired     Status = "Expired"
)

// Statuses lists all of them.
var Statuses = []Status{NotStarted, InProgress, InReview, Approved, Declined, Resubmitted, Abandoned, Expired}

// NodeStatus is a step's, spelt as on the wire.
type NodeStatus string

// The statuses of steps.
const (
	NodeUnfinished NodeStatus = "Not Finished"
	NodeApproved   NodeStatus = "Approved"
	NodeInReview   NodeStatus = "In Review"
	NodeDeclined   NodeStatus = "Declined"
	NodeResubmit   NodeStatus = "Resub Requested"
	NodeExpired    NodeStatus = "Expired"
)

// Environments of a session.
const (
	Live    = "live"
	Sandbox = "sandbox"
)

// Warning is one reason in a step's report.
type Warning struct {
	agent.Warning
	AdditionalData map[string]any `json:"additional_data"`
}

// Match is one face found by a search.
type Match struct {
	Source      string    `json:"source"` // session, list_entry, retained_template or imported
	SessionID   string    `json:"session_id,omitempty"`
	Number      uint64    `json:"session_number,omitempty"`
	VendorData  string    `json:"vendor_data,omitempty"`
	EntryID     string    `json:"entry_id,omitempty"`
	Similarity  float64   `json:"similarity"` // score 0..100
	At          time.Time `json:"at,omitzero"`
	Media       string    `json:"media,omitempty"`
	Status      Status    `json:"status,omitempty"`
	Blocklisted bool      `json:"blocklisted,omitempty"`
	Allowlisted bool      `json:"allowlisted,omitempty"`
	API         string    `json:"api_service,omitempty"`
}

// Outcome is what a step came to, with what is needed to explain it later.
type Outcome struct {
	Status      NodeStatus `json:"status"`
	Score       *float64   `json:"score,omitempty"` // nil: there was nothing to score
	Warnings    []Warning  `json:"warnings,omitempty"`
	Source      string     `json:"source,omitempty"` // media id of the reference
	Target      string     `json:"target,omitempty"` // media id of the capture
	Reference   Origin     `json:"reference,omitempty"`
	Matches     []Match    `json:"matches,omitempty"`
	Quality     *float64   `json:"quality,omitempty"`
	Luminance   *float64   `json:"luminance,omitempty"`
	Retry       bool       `json:"retry,omitempty"` // another attempt may help
	ModelID     string     `json:"model_id,omitempty"`
	Calibration string     `json:"calibration_id,omitempty"`
	At          time.Time  `json:"at,omitzero"`
}

// Origin says where a face that was compared came from.
type Origin string

// The origins of a reference.
const (
	FromDocument Origin = "document"
	FromPortrait Origin = "portrait_image"
	FromSubject  Origin = "enrolled_subject"
)

// StepState is a step of one session.
type StepState struct {
	Step
	Outcome
	Attempts int  `json:"attempts"`
	Final    bool `json:"final"`   // nothing more is awaited from the person
	Skipped  bool `json:"skipped"` // its condition did not hold
	Resubmit bool `json:"resubmit,omitempty"`
}

// Review is a note or a decision of a person on a session.
type Review struct {
	User      string    `json:"user"`
	NewStatus Status    `json:"new_status,omitempty"`
	Comment   string    `json:"comment"`
	CreatedAt time.Time `json:"created_at"`
}

// Happening is one entry of a session's time line.
type Happening struct {
	What string    `json:"event"`
	Node string    `json:"node_id,omitempty"`
	At   time.Time `json:"at"`
}

// Face is the latest picture that a session has of one kind, with what was seen in
// it. The template, where there is one, is stored beside the session under the kind.
type Face struct {
	Media    string         `json:"media"`          // id of the picture; "" for none
	Crop     string         `json:"crop,omitempty"` // id of the part with the face
	Found    bool           `json:"found"`          // there is a face, and a template of it
	Box      agent.Box      `json:"box,omitzero"`
	Others   []agent.Face   `json:"others,omitempty"`
	Quality  agent.Quality  `json:"quality,omitzero"`
	Liveness agent.Liveness `json:"liveness,omitzero"`
	ModelID  string         `json:"model_id,omitempty"`
	Space    string         `json:"space,omitempty"`
}

// The kinds of faces, which are the ids of their templates.
const (
	FaceCapture  = "capture"
	FaceDocument = "document"
	FacePortrait = "portrait"
)

// Probe is what the pipeline saw, with the stored embedding put back.
func (f *Face) Probe(e agent.Embedding) agent.Probe {
	p := agent.Probe{Quality: f.Quality, Liveness: f.Liveness, ModelID: f.ModelID, Space: f.Space}
	if f.Found {
		p.Face, p.Faces, p.Others, p.Embedding = &agent.Face{Box: f.Box}, 1+len(f.Others), f.Others, e
	}
	return p
}

// Session is one verification case.
type Session struct {
	ID          string `json:"session_id"`
	Number      uint64 `json:"session_number"`
	Revision    uint64 `json:"revision"` // counts changes
	Token       string `json:"session_token"`
	Application string `json:"application,omitempty"` // whose it is; empty is the default one
	API         string `json:"api_service,omitempty"` // set: a saved standalone request, for example FACE_MATCH
	Environment string `json:"environment"`
	Scenario    string `json:"sandbox_scenario,omitempty"`
	Status      Status `json:"status"`

	WorkflowID string `json:"workflow_id,omitempty"` // the group
	VersionID  string `json:"workflow_uuid,omitempty"`
	Version    int    `json:"workflow_version,omitempty"`
	Variant    string `json:"workflow_variant,omitempty"`
	Expiration int64  `json:"session_expiration_time,omitempty"` // seconds

	VendorData      string          `json:"vendor_data,omitempty"`
	Metadata        json.RawMessage `json:"metadata,omitempty"`
	ContactDetails  json.RawMessage `json:"contact_details,omitempty"`
	ExpectedDetails json.RawMessage `json:"expected_details,omitempty"`
	Callback        string          `json:"callback,omitempty"`
	CallbackMethod  string          `json:"callback_method,omitempty"`
	Language        string          `json:"language,omitempty"`

	Portrait Face        `json:"portrait,omitzero"`
	Document Face        `json:"document,omitzero"`
	Capture  Face        `json:"capture,omitzero"`
	Steps    []StepState `json:"steps"`

	Reviews    []Review    `json:"reviews,omitempty"`
	Happenings []Happening `json:"happenings,omitempty"`
	SharedFrom string      `json:"shared_from_session,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	ActiveAt  time.Time `json:"active_at"` // last act of the person
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	DueAt     time.Time `json:"due_at,omitzero"` // when time changes the status; zero: never

	// Trail is the session at each change of its status since it was read, for the
	// store to announce. It is not stored with the session.
	Trail []Session `json:"-"`
}

// Bounds on what a session keeps.
const (
	MaxReviews    = 100
	MaxHappenings = 400
	MaxComment    = 1000
)

// Unfinished tells whether the person may still act.
func (s *Session) Unfinished() bool {
	return s.Status == NotStarted || s.Status == InProgress || s.Status == Resubmitted
}

// Decided tells whether there is a decision, by the workflow or by a person.
func (s *Session) Decided() bool {
	return s.Status == Approved || s.Status == Declined || s.Status == InReview
}

// transitions says which status may follow which.
var transitions = map[Status][]Status{
	NotStarted:  {InProgress, Expired},
	InProgress:  {Approved, Declined, InReview, Abandoned},
	InReview:    {Approved, Declined, Resubmitted},
	Approved:    {Declined, Resubmitted},
	Declined:    {Approved, Resubmitted},
	Resubmitted: {Approved, Declined, InReview, Expired},
	Abandoned:   {Approved, Declined, Resubmitted},
	Expired:     {},
}

// MayBecome tells whether to may follow the present status.
func (s Status) MayBecome(to Status) bool { return slices.Contains(transitions[s], to) }

// Event types of webhooks.
const (
	EventStatus = "status.updated"
	EventData   = "data.updated"
)

// become changes the status. What the table does not allow is a mistake in this
// product, not the caller's.
func (s *Session) become(to Status, now time.Time) error {
	if !s.Status.MayBecome(to) {
		return &agent.Error{Code: agent.CodeInternal, Message: "session " + s.ID + " cannot go from " + string(s.Status) + " to " + string(to)}
	}
	s.Status = to
	s.note("status:"+string(to), "", now)
	s.mark()
	return nil
}

// agreed is the happening of a person's consent.
const agreed = "consent"

// Consented tells whether the person has agreed, on the session's page, to the use of
// the pictures.
func (s *Session) Consented() bool {
	return slices.ContainsFunc(s.Happenings, func(h Happening) bool { return h.What == agreed })
}

// Consent notes that the person has agreed. Doing so again changes nothing.
func (s *Session) Consent(now time.Time) error {
	if err := s.Open(now); err != nil || s.Consented() {
		return err
	}
	s.UpdatedAt = now
	s.note(agreed, "", now)
	return nil
}

// mark remembers the session as it is now for its announcement.
func (s *Session) mark() {
	then := *s
	then.Steps, then.Trail = slices.Clone(s.Steps), nil
	s.Trail = append(s.Trail, then)
}

func (s *Session) note(what, node string, now time.Time) {
	if len(s.Happenings) < MaxHappenings {
		s.Happenings = append(s.Happenings, Happening{what, node, now})
	}
}

// schedule sets when time alone will change the status.
func (s *Session) schedule(idle time.Duration) {
	s.DueAt = time.Time{}
	switch s.Status {
	case NotStarted, Resubmitted:
		s.DueAt = s.ExpiresAt
	case InProgress:
		s.DueAt = s.ExpiresAt
		if at := s.ActiveAt.Add(idle); idle > 0 && at.Before(s.DueAt) {
			s.DueAt = at
		}
	}
}

// Lapse applies what the clock says: what was never started expires, what was
// started and left is abandoned. It reports whether the status changed.
func (s *Session) Lapse(now time.Time) (bool, error) {
	if s.DueAt.IsZero() || now.Before(s.DueAt) {
		return false, nil
	}
	to := Expired
	if s.Status == InProgress {
		to = Abandoned
	}
	if err := s.become(to, now); err != nil {
		return false, err
	}
	for i := range s.Steps {
		if st := &s.Steps[i]; !st.Final && !st.Skipped {
			st.Outcome.Status, st.Resubmit = NodeExpired, false
		}
	}
	s.DueAt, s.UpdatedAt = time.Time{}, now
	return true, nil
}

// step finds a step by its node.
func (s *Session) step(node string) *StepState {
	for i := range s.Steps {
		if s.Steps[i].Node == node {
			return &s.Steps[i]
		}
	}
	return nil
}
