package watch_test

import (
	"testing"

	"postern/agent"
)

// While the door is closed nobody is decided about, no badge is taken, and who stands
// there when it opens is looked at anew.
func TestClosed(t *testing.T) {
	s := newStage(t, true, "ada x 2, -, ada x 8, -")
	s.Closed = func() bool { return s.seq < 7 }
	if err := s.Claim("ada"); agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Errorf("a badge at a closed door: %v", err)
	}
	s.play(t)
	for _, u := range s.updates {
		if u.Seq < 7 && (u.State != "closed" || u.Result != nil || u.Face != nil) {
			t.Errorf("while closed: %+v", u)
		}
	}
	approved := 0
	for _, u := range s.updates {
		if u.Result != nil && u.Result.SubjectID == "ada" && u.Result.Decision.Status == agent.Approved {
			approved++
		}
	}
	if approved != 1 {
		t.Errorf("%d decisions after it has opened: %s", approved, s.states())
	}
}
