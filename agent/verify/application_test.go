package verify_test

import (
	"context"
	"testing"

	"postern/agent"
	"postern/agent/verify"
)

// A decision about a person belongs to the application that enrolled them, so that its
// retention counts for both.
func TestDecisionsBelongToTheApplication(t *testing.T) {
	r := newRig(t)
	_, err := r.Enrol(context.Background(), verify.Enrolment{SubjectID: "ann", Application: "visitors", Pictures: []*agent.Frame{r.p.picture("ann", probeOf(person(1)))}})
	if err != nil {
		t.Fatal(err)
	}
	r.mustEnrol(t, "bob", person(2))
	for id, want := range map[string]string{"ann": "visitors", "bob": ""} {
		who := map[string]int{"ann": 1, "bob": 2}[id]
		got, err := r.Verify(context.Background(), id, r.evidence(person(who)))
		if err != nil || got.Application != want {
			t.Errorf("%s: application %q, want %q: %v", id, got.Application, want, err)
		}
	}
}
