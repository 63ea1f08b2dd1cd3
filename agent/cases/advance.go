package cases

import (
	"slices"
	"time"

	"postern/agent"
)

// Judge computes one step of a session. It may read the session's faces but must
// not change the session. An error means that nothing can be said: the session
// stays as it is.
type Judge func(s *Session, step *Step) (Outcome, error)

// New makes a session that has not been started from a workflow's variant.
func New(w *Workflow, v Variant, now time.Time, idle time.Duration) Session {
	s := Session{
		Environment: Live, Status: NotStarted, WorkflowID: w.GroupID, VersionID: w.UUID, Version: w.Version,
		Expiration: w.Expiration, CreatedAt: now, UpdatedAt: now, ActiveAt: now,
		ExpiresAt: now.Add(time.Duration(w.Expiration) * time.Second),
	}
	if len(w.Variants) > 1 {
		s.Variant = v.Name
	}
	for _, st := range v.Steps {
		s.Steps = append(s.Steps, StepState{Step: st, Outcome: Outcome{Status: NodeUnfinished}})
	}
	s.note("status:"+string(NotStarted), "", now)
	s.schedule(idle)
	return s
}

// Open refuses an act of the person when the session takes none.
func (s *Session) Open(now time.Time) error {
	if !s.Unfinished() || s.API != "" || !s.DueAt.IsZero() && !now.Before(s.DueAt) {
		return &agent.Error{Code: agent.CodeConflict, Message: "the session is " + string(s.Status) + " and takes no more pictures",
			Fix: "start another session, or ask for this one to be resubmitted"}
	}
	return nil
}

// Awaits is the input that the first open step needs; InputNone when none is open.
func (s *Session) Awaits() (Input, string) {
	for i := range s.Steps {
		st := &s.Steps[i]
		if st.Final || st.Skipped {
			continue
		}
		if !s.holds(st.RunIf) {
			continue
		}
		return st.Feature.Needs(), st.Node
	}
	return InputNone, ""
}

// holds tells whether a step's condition is fulfilled by what is final.
func (s *Session) holds(c *Condition) bool {
	if c == nil {
		return true
	}
	f := s.step(c.Node)
	if f == nil || f.Skipped || !f.Final {
		return false
	}
	if len(c.Status) > 0 && !slices.Contains(c.Status, f.Outcome.Status) {
		return false
	}
	if c.ScoreAbove == nil && c.ScoreBelow == nil {
		return true
	}
	return f.Score != nil && (c.ScoreAbove == nil || *f.Score > *c.ScoreAbove) && (c.ScoreBelow == nil || *f.Score < *c.ScoreBelow)
}

// Advance takes a new picture into account: it computes every step that can be
// computed now and, when nothing more is awaited, decides. A new face is a new
// presentation, so all steps that look at the face are computed anew: the liveness
// of one presentation says nothing about the face of another. A new document is a
// new reference, so what was compared with the old one is too.
func (s *Session) Advance(in Input, judge Judge, now time.Time, idle time.Duration) error {
	if err := s.Open(now); err != nil {
		return err
	}
	if want, _ := s.Awaits(); want != in {
		return &agent.Error{Code: agent.CodeConflict, Message: "the session awaits " + inputName(want) + ", not " + inputName(in)}
	}
	s.ActiveAt, s.UpdatedAt = now, now
	if s.Status == NotStarted {
		if err := s.become(InProgress, now); err != nil {
			return err
		}
	}
	s.reopen(in)
	if err := s.compute(in, judge, now); err != nil {
		return err
	}
	if err := s.conclude(now); err != nil {
		return err
	}
	s.schedule(idle)
	return nil
}

func inputName(in Input) string {
	switch in {
	case InputDocument:
		return "a picture of a document"
	case InputFace:
		return "a picture of the face"
	}
	return "nothing"
}

// reopen marks what the new input makes obsolete.
func (s *Session) reopen(in Input) {
	for i := range s.Steps {
		st := &s.Steps[i]
		dependent := in == InputDocument && st.Feature == FaceMatch && st.Outcome.Reference == FromDocument
		if st.Feature.Needs() == in || dependent {
			st.Final = false
		}
		st.Skipped = false // conditions are judged anew
	}
}

// compute runs the steps in order. An open step that needs another input than what
// is there stops it: that input is awaited next.
func (s *Session) compute(in Input, judge Judge, now time.Time) error {
	for i := range s.Steps {
		st := &s.Steps[i]
		if st.Final {
			continue
		}
		if !s.holds(st.RunIf) {
			st.Skipped, st.Outcome, st.Resubmit = true, Outcome{Status: NodeUnfinished}, false
			continue
		}
		if !s.has(st.Feature.Needs(), in, st) {
			if s.lost() {
				continue // nothing more is asked for: the case is declined
			}
			return nil
		}
		o, err := judge(s, &st.Step)
		if err != nil {
			return err
		}
		if s.settle(st, o, now); !st.Final {
			return nil // another attempt at this input is awaited
		}
	}
	return nil
}

// has tells whether the input of a step is at hand: just given, or given before and
// not to be given again.
func (s *Session) has(need, given Input, st *StepState) bool {
	if need == given {
		return true
	}
	if st.Resubmit || st.Attempts > 0 && st.Retry {
		return false
	}
	if need == InputDocument {
		return s.Document.Media != ""
	}
	return s.Capture.Media != ""
}

// lost tells whether a step has been declined for good.
func (s *Session) lost() bool {
	return slices.ContainsFunc(s.Steps, func(st StepState) bool { return st.Final && st.Outcome.Status == NodeDeclined })
}

// settle records the outcome of one attempt. A declined attempt leaves the step open
// while attempts are left and another could help; the last one is final.
func (s *Session) settle(st *StepState, o Outcome, now time.Time) {
	o.At = now
	st.Outcome, st.Resubmit = o, false
	st.Attempts++
	st.Final = o.Status == NodeApproved || o.Status == NodeInReview || !o.Retry || st.Attempts >= st.MaxAttempts || s.lost()
	if !st.Final {
		st.Outcome.Status = NodeUnfinished
	} else if st.Feature == FaceMatch && o.Status == NodeDeclined && o.Retry && st.MaxAttempts > 1 {
		st.Outcome.Warnings = append(st.Outcome.Warnings, st.Warn(RiskAttemptsSpent, nil))
	}
	s.note("step:"+string(st.Outcome.Status), st.Node, now)
}

// conclude decides when no input is awaited any more. Approved needs every step
// that was to run to be approved, and at least one that ran.
func (s *Session) conclude(now time.Time) error {
	if in, _ := s.Awaits(); in != InputNone && !s.lost() {
		return nil
	}
	ran, to := 0, Approved
	for i := range s.Steps {
		st := &s.Steps[i]
		if st.Skipped {
			continue
		}
		ran++
		switch {
		case st.Final && st.Outcome.Status == NodeApproved:
		case st.Final && st.Outcome.Status == NodeInReview:
			if to == Approved {
				to = InReview
			}
		default:
			to = Declined
		}
	}
	if ran == 0 {
		to = Declined
	}
	return s.become(to, now)
}

// Warn makes a warning of this step for a risk, with the effect that the workflow
// gives it.
func (s *Step) Warn(r agent.Risk, data map[string]any) Warning {
	return s.warning(r, s.actionOn(r).logType(), data)
}

// WarnAs is Warn with a given effect: a score chooses between review and decline.
func (s *Step) WarnAs(r agent.Risk, t agent.LogType, data map[string]any) Warning {
	return s.warning(r, t, data)
}

func (s *Step) warning(r agent.Risk, t agent.LogType, data map[string]any) Warning {
	feature := string(s.Feature)
	if s.Feature == FaceMatch {
		feature = "FACEMATCH" // so it is on the wire
	}
	text := texts[r]
	return Warning{Warning: agent.Warning{Feature: feature, Risk: r, LogType: t, Short: text[0], Long: text[1]}, AdditionalData: data}
}

// Verdict is the status that warnings demand.
func Verdict(ws []Warning) NodeStatus {
	out := NodeApproved
	for _, w := range ws {
		switch w.LogType {
		case agent.LogInformation:
		case agent.LogWarning:
			if out == NodeApproved {
				out = NodeInReview
			}
		default:
			return NodeDeclined
		}
	}
	return out
}

// texts are the short and long descriptions of the risks.
var texts = map[agent.Risk][2]string{
	agent.RiskNoReference: {"No reference image",
		"A reference image or face image for facial comparison is missing, preventing the system from completing the face matching process."},
	agent.RiskLowSimilarity: {"Low face match similarity",
		"The facial features of the provided image don't closely match the reference image, suggesting a potential identity mismatch."},
	agent.RiskNotComputed:  {"Face match not computed", "No face match score could be produced from the pictures."},
	agent.RiskSeveralFaces: {"Multiple faces detected", "More than one face was found; the largest was used."},
	agent.RiskLowQuality:   {"Low face quality", "The face in the picture does not meet the quality limits."},
	agent.RiskDarkFace:     {"Low face luminance", "The face in the picture is too dark."},
	agent.RiskBrightFace:   {"High face luminance", "The face in the picture is too bright."},
	RiskNoFace:             {"No face detected", "No face was found in the picture."},
	RiskLowLiveness:        {"Low liveness score", "The liveness score is at or below the threshold, so the picture may not show a person who is present."},
	RiskLivenessAttack:     {"Liveness attack", "The picture looks like a presentation attack: a print, a screen or a mask."},
	RiskNotMeasured:        {"Liveness not computed", "Liveness could not be measured, so the step cannot be approved."},
	RiskBlocklisted:        {"Face in blocklist", "The face matches one in the blocklist."},
	RiskMaybeBlocked:       {"Possible face in blocklist", "The face resembles one in the blocklist."},
	RiskDuplicate:          {"Duplicated face", "The face matches one of another person's session."},
	RiskMaybeDuplicate:     {"Possible duplicated face", "The face resembles one of another person's session."},
	RiskNoPortrait:         {"Portrait not detected", "No portrait was found on the document."},
	RiskAttemptsSpent:      {"Maximum face match attempts exceeded", "All attempts at the face match have been used."},
	RiskTooManyTries:       {"Too many failed attempts", "The subject is locked for a while after too many failed comparisons."},
	RiskSearchNotUsable:    {"Face search not computed", "The face could not be searched, so the step cannot be approved."},
}
