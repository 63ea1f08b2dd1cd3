package cases

import (
	"slices"
	"strings"
	"time"
)

// changeable are the statuses that a person may change, in the order in which the
// refusal names them.
var changeable = []Status{Approved, Declined, InReview, "Kyc Expired", Abandoned, Resubmitted}

// Change is a person's decision on a session.
type Change struct {
	NewStatus Status
	Comment   string
	Nodes     []string // to resubmit; nil: those that are not approved
	User      string
}

// MayChange refuses a change from the present status. The contract wants it told
// before anything about the change itself.
func (s *Session) MayChange() error {
	if s.API != "" && s.Status != InReview && s.Status != Approved && s.Status != Declined || !slices.Contains(changeable, s.Status) {
		names := make([]string, len(changeable))
		for i, c := range changeable {
			names[i] = string(c)
		}
		return detail("Only sessions with status %s can be updated. Current status: %s", strings.Join(names, ", "), s.Status)
	}
	return nil
}

// Apply changes the status by a person's decision and records the review.
func (s *Session) Apply(c Change, now time.Time, idle time.Duration) error {
	if err := s.MayChange(); err != nil {
		return err
	}
	if c.NewStatus != Approved && c.NewStatus != Declined && c.NewStatus != Resubmitted {
		return Wrong("new_status", "%.40q is not a valid choice: Approved, Declined or Resubmitted.", c.NewStatus)
	}
	if c.NewStatus == s.Status {
		return &Refusal{Form: Bare, Message: "The new status is the same as the current status."}
	}
	if c.NewStatus == Resubmitted {
		if err := s.resubmit(c.Nodes, now); err != nil {
			return err
		}
	} else if err := s.become(c.NewStatus, now); err != nil {
		return err
	}
	s.UpdatedAt = now
	s.schedule(idle)
	return s.AddReview(Review{User: c.User, NewStatus: c.NewStatus, Comment: c.Comment, CreatedAt: now})
}

// AddReview appends a review.
func (s *Session) AddReview(r Review) error {
	if len([]rune(r.Comment)) > MaxComment {
		return Wrong("comment", "Ensure this field has no more than %d characters.", MaxComment)
	}
	if len(s.Reviews) >= MaxReviews {
		return detail("A session keeps at most %d reviews.", MaxReviews)
	}
	s.Reviews = append(s.Reviews, r)
	return nil
}

// resubmit opens steps again, with fresh attempts, and lets the time run anew.
func (s *Session) resubmit(nodes []string, now time.Time) error {
	if s.API != "" {
		return detail("A standalone request cannot be resubmitted.")
	}
	chosen, err := s.choose(nodes)
	if err != nil {
		return err
	}
	if err := s.become(Resubmitted, now); err != nil {
		return err
	}
	for _, st := range chosen {
		st.Final, st.Skipped, st.Resubmit, st.Attempts = false, false, true, 0
		st.Outcome.Status = NodeResubmit
		s.note("step:"+string(NodeResubmit), st.Node, now)
	}
	s.ActiveAt = now
	s.ExpiresAt = now.Add(time.Duration(s.Expiration) * time.Second)
	return nil
}

// choose finds the steps that a resubmission names: by node id, by the node id
// without its number, or by what they do. No names stand for what is not approved.
func (s *Session) choose(nodes []string) ([]*StepState, error) {
	var out []*StepState
	if len(nodes) == 0 {
		for i := range s.Steps {
			if st := &s.Steps[i]; !st.Skipped && st.Outcome.Status != NodeApproved {
				out = append(out, st)
			}
		}
		if len(out) == 0 {
			return nil, Wrong("nodes_to_resubmit", "No step is Declined, In Review, Not Finished or Expired; name the steps to resubmit.")
		}
		return out, nil
	}
	for _, n := range nodes {
		found := false
		for i := range s.Steps {
			st := &s.Steps[i]
			if st.Node == n || strings.HasPrefix(st.Node, n+"_") && strings.Count(st.Node, "_") == strings.Count(n, "_")+1 {
				out, found = append(out, st), true
			}
		}
		if !found {
			return nil, Wrong("nodes_to_resubmit", "The session has no step %.60q.", n)
		}
	}
	return out, nil
}

// ResubmitInfo names what a resubmitted session awaits; nil in any other status.
func (s *Session) ResubmitInfo() []string {
	if s.Status != Resubmitted {
		return nil
	}
	out := []string{}
	for _, st := range s.Steps {
		if st.Resubmit {
			out = append(out, st.Node)
		}
	}
	return out
}
