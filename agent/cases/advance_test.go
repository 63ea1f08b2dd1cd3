package cases

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"postern/agent"
)

var start = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

const idle = time.Hour

// flow makes a session from a workflow body.
func flowOf(t *testing.T, body string) Session {
	t.Helper()
	w, err := ParseWorkflow([]byte(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := New(&w, w.Variants[0], start, idle)
	s.ID = "s"
	return s
}

// says is a judge that answers by node: "ok", "review", "no" (another attempt may
// help), "never" (it cannot), with a score behind a colon.
func says(answers map[string]string) Judge {
	return func(_ *Session, st *Step) (Outcome, error) {
		var o Outcome
		var word string
		var score float64
		if n, _ := fmt.Sscanf(answers[st.Node], "%s %g", &word, &score); n == 2 {
			o.Score = &score
		}
		switch word {
		case "ok":
			o.Status = NodeApproved
		case "review":
			o.Status = NodeInReview
		case "no":
			o.Status, o.Retry = NodeDeclined, true
		case "never":
			o.Status = NodeDeclined
		default:
			return o, errors.New("broken part")
		}
		return o, nil
	}
}

// give submits an input, with the picture noted as a service would.
func give(s *Session, in Input, answers map[string]string) error {
	c := *s
	c.Steps = slices.Clone(s.Steps)
	if in == InputDocument {
		c.Document.Media = "d"
	} else {
		c.Capture.Media = "c"
	}
	if err := c.Advance(in, says(answers), start.Add(time.Minute), idle); err != nil {
		return err
	}
	*s = c
	return nil
}

const both = `{"features":["LIVENESS","FACE_MATCH"],"max_retry_attempts":2}`

func TestAdvance(t *testing.T) {
	type turn struct {
		in      Input
		answers map[string]string
	}
	face := func(l, m string) turn {
		return turn{InputFace, map[string]string{"feature_liveness_1": l, "feature_face_match_1": m}}
	}
	for _, c := range []struct {
		name, body string
		turns      []turn
		want       Status
		awaits     Input
	}{
		{"approved", both, []turn{face("ok", "ok")}, Approved, InputNone},
		{"the worst step decides", both, []turn{face("ok", "review")}, InReview, InputNone},
		{"declined liveness leaves attempts", both, []turn{face("no", "ok")}, InProgress, InputFace},
		{"a second attempt may succeed", both, []turn{face("no", "ok"), face("ok", "ok")}, Approved, InputNone},
		{"attempts end", both, []turn{face("ok", "no"), face("ok", "no"), face("ok", "no")}, Declined, InputNone},
		{"what cannot get better is final", both, []turn{face("never", "ok")}, Declined, InputNone},
		{"liveness of one presentation does not count for the next", both, []turn{face("ok", "no"), face("never", "ok")}, Declined, InputNone},
		{"a document first", `{"features":["ID_VERIFICATION","FACE_MATCH"]}`,
			[]turn{{InputDocument, map[string]string{"feature_id_verification_1": "ok"}}}, InProgress, InputFace},
		{"a document, then the face", `{"features":["ID_VERIFICATION","FACE_MATCH"]}`,
			[]turn{{InputDocument, map[string]string{"feature_id_verification_1": "ok"}}, face("", "ok")}, Approved, InputNone},
		{"no portrait, another picture", `{"features":["ID_VERIFICATION","FACE_MATCH"]}`,
			[]turn{{InputDocument, map[string]string{"feature_id_verification_1": "no"}}}, InProgress, InputDocument},
		{"a step that is not needed", `{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","score_below":80}}]}`,
			[]turn{face("ok 90", "never")}, Approved, InputNone},
		{"a step that is needed", `{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","score_below":80}}]}`,
			[]turn{face("ok 70", "never")}, Declined, InputNone},
		{"a branch on a status", `{"features":["FACE_MATCH",{"feature":"ID_VERIFICATION","run_if":{"feature":"FACE_MATCH","status":"In Review"}}]}`,
			[]turn{face("", "review")}, InProgress, InputDocument},
		{"a branch does not lift the step before it", `{"features":["FACE_MATCH",{"feature":"ID_VERIFICATION","run_if":{"feature":"FACE_MATCH","status":"In Review"}}]}`,
			[]turn{face("", "review"), {InputDocument, map[string]string{"feature_id_verification_1": "ok"}}}, InReview, InputNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := flowOf(t, c.body)
			for i, turn := range c.turns {
				if err := give(&s, turn.in, turn.answers); err != nil {
					t.Fatalf("turn %d: %v", i, err)
				}
			}
			in, _ := s.Awaits()
			if s.Status != c.want || s.Unfinished() && in != c.awaits {
				t.Errorf("session is %s and awaits %q, want %s and %q", s.Status, in, c.want, c.awaits)
			}
		})
	}
}

func TestAdvanceRefuses(t *testing.T) {
	s := flowOf(t, `{"features":["ID_VERIFICATION","FACE_MATCH"]}`)
	before := fmt.Sprintf("%+v", s)
	if err := give(&s, InputFace, nil); agent.ErrorCode(err) != agent.CodeConflict {
		t.Errorf("a face before the document: %v", err)
	}
	if err := give(&s, InputDocument, nil); err == nil {
		t.Error("a broken part was not an error")
	}
	if got := fmt.Sprintf("%+v", s); got != before {
		t.Errorf("the session changed\n%s\n%s", before, got)
	}
	late := s
	if err := late.Advance(InputDocument, says(map[string]string{"feature_id_verification_1": "ok"}), s.ExpiresAt, idle); agent.ErrorCode(err) != agent.CodeConflict {
		t.Errorf("an expired session took a picture: %v", err)
	}
}

func TestLapse(t *testing.T) {
	s := flowOf(t, both)
	if changed, _ := s.Lapse(s.ExpiresAt.Add(-1)); changed || s.Status != NotStarted {
		t.Error("it lapsed too early")
	}
	if changed, err := s.Lapse(s.ExpiresAt); !changed || err != nil || s.Status != Expired || !s.DueAt.IsZero() {
		t.Errorf("not started at its end: %s %v", s.Status, err)
	}
	s = flowOf(t, both)
	if err := give(&s, InputFace, map[string]string{"feature_liveness_1": "no"}); err != nil {
		t.Fatal(err)
	}
	if want := start.Add(time.Minute + idle); !s.DueAt.Equal(want) {
		t.Errorf("due at %v, want %v", s.DueAt, want)
	}
	if changed, err := s.Lapse(s.DueAt); !changed || err != nil || s.Status != Abandoned {
		t.Errorf("left alone: %s %v", s.Status, err)
	}
	if err := s.Apply(Change{NewStatus: Resubmitted}, start.Add(5*time.Hour), idle); err != nil || !s.Unfinished() {
		t.Errorf("resubmitted after it was abandoned: %v", err)
	}
	if want := start.Add(5 * time.Hour).Add(DefaultExpiration * time.Second); !s.ExpiresAt.Equal(want) {
		t.Errorf("expiry was not restarted: %v", s.ExpiresAt)
	}
	if changed, _ := s.Lapse(s.ExpiresAt); !changed || s.Status != Expired {
		t.Errorf("resubmitted and left: %s", s.Status)
	}
}

// The whole table: what is not in it cannot happen.
func TestTransitions(t *testing.T) {
	allowed := map[[2]Status]bool{}
	for _, line := range []struct {
		from Status
		to   []Status
	}{
		{NotStarted, []Status{InProgress, Expired}},
		{InProgress, []Status{Approved, Declined, InReview, Abandoned}},
		{InReview, []Status{Approved, Declined, Resubmitted}},
		{Approved, []Status{Declined, Resubmitted}},
		{Declined, []Status{Approved, Resubmitted}},
		{Resubmitted, []Status{Approved, Declined, InReview, Expired}},
		{Abandoned, []Status{Approved, Declined, Resubmitted}},
	} {
		for _, to := range line.to {
			allowed[[2]Status{line.from, to}] = true
		}
	}
	for _, from := range Statuses {
		for _, to := range Statuses {
			s := Session{Status: from}
			err := s.become(to, start)
			if (err == nil) != allowed[[2]Status{from, to}] || from.MayBecome(to) != (err == nil) {
				t.Errorf("%s to %s: %v", from, to, err)
			}
			if err != nil && (s.Status != from || len(s.Trail) > 0) {
				t.Errorf("%s to %s was refused and left %+v", from, to, s)
			}
		}
	}
}

func TestApply(t *testing.T) {
	done := func(status Status) Session {
		s := flowOf(t, both)
		s.Status, s.DueAt = status, time.Time{}
		for i := range s.Steps {
			s.Steps[i].Final, s.Steps[i].Outcome.Status, s.Steps[i].Attempts = true, NodeApproved, 1
		}
		s.Steps[1].Outcome.Status = NodeDeclined
		return s
	}
	for _, from := range []Status{NotStarted, InProgress, Expired} {
		s := done(from)
		err := s.Apply(Change{NewStatus: "Nonsense"}, start, idle)
		want := fmt.Sprintf("Only sessions with status Approved, Declined, In Review, Kyc Expired, Abandoned, Resubmitted can be updated. Current status: %s", from)
		var r *Refusal
		if !errors.As(err, &r) || r.Form != Detail || r.Message != want {
			t.Errorf("from %s: %v", from, err)
		}
	}
	s := done(Declined)
	var r *Refusal
	if err := s.Apply(Change{NewStatus: Declined}, start, idle); !errors.As(err, &r) || fmt.Sprint(r.Body()) != "[The new status is the same as the current status.]" {
		t.Errorf("the same status: %v", err)
	}
	if err := s.Apply(Change{NewStatus: InReview}, start, idle); !errors.As(err, &r) || r.Field != "new_status" {
		t.Errorf("a status that nobody may set: %v", err)
	}
	if err := s.Apply(Change{NewStatus: Approved, Comment: "seen", User: "ann"}, start, idle); err != nil || s.Status != Approved ||
		len(s.Reviews) != 1 || s.Reviews[0] != (Review{"ann", Approved, "seen", start}) || len(s.Trail) != 1 {
		t.Errorf("approved: %v %+v", err, s.Reviews)
	}
	for _, c := range []struct {
		name  string
		nodes []string
		want  []string // nil: refused
	}{
		{"what was not approved", nil, []string{"feature_face_match_1"}},
		{"a node", []string{"feature_liveness_1"}, []string{"feature_liveness_1"}},
		{"a node without its number", []string{"feature_liveness"}, []string{"feature_liveness_1"}},
		{"an unknown node", []string{"feature_nfc"}, nil},
		{"half a name", []string{"feature"}, nil},
	} {
		s := done(InReview)
		err := s.Apply(Change{NewStatus: Resubmitted, Nodes: c.nodes}, start, idle)
		if (err == nil) != (c.want != nil) || err == nil && !slices.Equal(s.ResubmitInfo(), c.want) {
			t.Errorf("%s: %v %v", c.name, err, s.ResubmitInfo())
		}
		if err != nil && (s.Status != InReview || len(s.Reviews) > 0) {
			t.Errorf("%s was refused and changed the session", c.name)
		}
	}
}

// A resubmitted match needs a new face, and with it the liveness is measured anew.
func TestResubmitOneStep(t *testing.T) {
	s := flowOf(t, both)
	if err := give(&s, InputFace, map[string]string{"feature_liveness_1": "ok", "feature_face_match_1": "review"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(Change{NewStatus: Resubmitted, Nodes: []string{"feature_face_match_1"}}, start.Add(time.Hour), idle); err != nil {
		t.Fatal(err)
	}
	if in, node := s.Awaits(); in != InputFace || node != "feature_face_match_1" || s.Steps[0].Outcome.Status != NodeApproved {
		t.Errorf("it awaits %q for %s", in, node)
	}
	if err := s.Advance(InputFace, says(map[string]string{"feature_liveness_1": "never", "feature_face_match_1": "ok"}), start.Add(2*time.Hour), idle); err != nil || s.Status != Declined {
		t.Errorf("a photograph passed on the liveness of another presentation: %s %v", s.Status, err)
	}
}

// No answers lead to an approval that a step did not earn.
func TestOnlyApprovedStepsApprove(t *testing.T) {
	words := []string{"ok 90", "review 60", "no 10", "never 1"}
	bodies := []string{both, `{"features":["ID_VERIFICATION","LIVENESS","FACE_MATCH"]}`,
		`{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","score_below":50}},"FACE_SEARCH"]}`}
	for _, body := range bodies {
		for n := range 256 {
			s := flowOf(t, body)
			answers, i := map[string]string{}, n
			for _, st := range s.Steps {
				answers[st.Node], i = words[i%4], i/4
			}
			for range 20 {
				in, _ := s.Awaits()
				if !s.Unfinished() {
					break
				}
				if err := give(&s, in, answers); err != nil {
					t.Fatal(err)
				}
			}
			if s.Unfinished() {
				t.Fatalf("%s with %v never ends: %s", body, answers, s.Status)
			}
			for _, st := range s.Steps {
				if s.Status == Approved && !st.Skipped && answers[st.Node] != words[0] {
					t.Fatalf("%s approved with %v", body, answers)
				}
			}
		}
	}
}
