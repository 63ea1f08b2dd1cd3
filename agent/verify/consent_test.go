package verify_test

import (
	"context"
	"testing"
	"time"

	"postern/agent"
)

// TestWithoutConsentNobodyIsCompared: a consent that ends while the agent runs, or
// is withdrawn, ends the use of the templates at once.
func TestWithoutConsentNobodyIsCompared(t *testing.T) {
	ctx := context.Background()
	consent := agent.Consent{GivenBy: "Ada", Purpose: "door", Basis: agent.Bases[0], At: time.Now()}
	set := func(r *rig, c agent.Consent) {
		s := r.m.subjects["ada"]
		s.Consent = c
		r.m.subjects["ada"] = s
	}
	gone := consent
	gone.Withdrawn = time.Now()
	over := consent
	over.Expires = time.Now().Add(-time.Minute)
	for name, c := range map[string]agent.Consent{"withdrawn": gone, "expired": over} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.mustEnrol(t, "ada", person(0))
			r.mustEnrol(t, "bob", person(1))
			set(r, consent)
			res, err := r.Verify(ctx, "ada", r.evidence(person(0)))
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, res.Decision, agent.Approved, "")
			set(r, c)
			res, err = r.Verify(ctx, "ada", r.evidence(person(0)))
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, res.Decision, agent.Declined, agent.RiskNoReference)
			res, err = r.Identify(ctx, r.evidence(person(0)))
			if err != nil || res.SubjectID != "" {
				t.Fatalf("identified as %q: %v", res.SubjectID, err)
			}
			checkDecision(t, res.Decision, agent.Declined, "")
			if r.Enrolled() != 1 {
				t.Errorf("%d in the gallery", r.Enrolled())
			}
		})
	}
	t.Run("given again", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		if err := r.Change("ada", func() error { set(r, gone); return nil }); err != nil || r.Enrolled() != 0 {
			t.Fatalf("%d in the gallery: %v", r.Enrolled(), err)
		}
		if err := r.Change("ada", func() error { set(r, consent); return nil }); err != nil || r.Enrolled() != 1 {
			t.Fatalf("%d in the gallery: %v", r.Enrolled(), err)
		}
		res, err := r.Verify(ctx, "ada", r.evidence(person(0)))
		if err != nil {
			t.Fatal(err)
		}
		checkDecision(t, res.Decision, agent.Approved, "")
	})
}
