package verify_test

import (
	"context"
	"slices"
	"testing"

	"postern/agent"
	"postern/agent/verify"
)

// lent remembers the embeddings that went through it.
type lent struct {
	*memory
	seen []agent.Embedding
}

func (l *lent) Templates(id string) ([]agent.Template, error) {
	ts, err := l.memory.Templates(id)
	for _, t := range ts {
		l.seen = append(l.seen, t.Embedding)
	}
	return ts, err
}

func (l *lent) Enrol(s agent.Subject, ts []agent.Template) (agent.Subject, []agent.Template, error) {
	sub, stored, err := l.memory.Enrol(s, ts)
	for _, t := range slices.Concat(ts, stored) {
		l.seen = append(l.seen, t.Embedding)
	}
	return sub, stored, err
}

// What the service was given of templates is zeroed once the gallery has it: after an
// enrolment, a refused one too, after reading a subject, and after taking one back.
func TestEmbeddingsAreWipedOnceTakenOver(t *testing.T) {
	r := newRig(t)
	store := &lent{memory: r.m}
	svc, err := verify.New(verify.Config{Matcher: r.Matcher, Store: store, Space: space, Source: "test", Mark: r.m.mark, Throttle: r.throttle})
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	enrol := func(id string, e agent.Embedding) (verify.Enrolled, error) {
		return svc.Enrol(context.Background(), verify.Enrolment{SubjectID: id, Pictures: []*agent.Frame{r.p.picture(id, probeOf(e))}})
	}
	out, err := enrol("ann", person(1))
	if err != nil || len(out.Templates) != 1 || out.Templates[0].Embedding != nil {
		t.Fatalf("%+v, %v", out, err)
	}
	if out, err := enrol("bob", person(1)); err == nil || slices.ContainsFunc(out.Templates, func(t agent.Template) bool { return t.Embedding != nil }) {
		t.Errorf("refused enrolment: %+v, %v", out, err)
	}
	if _, ts, err := svc.Subject("ann"); err != nil || len(ts) != 1 || ts[0].Embedding != nil {
		t.Errorf("subject: %+v, %v", ts, err)
	}
	if err := svc.Change("ann", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if len(store.seen) != 4 {
		t.Fatalf("%d embeddings went through the store", len(store.seen))
	}
	for i, e := range store.seen {
		if slices.ContainsFunc(e, func(v float32) bool { return v != 0 }) {
			t.Errorf("embedding %d is left in memory", i)
		}
	}
	if d, err := svc.LookupClaim("ann", r.evidence(person(1))); err != nil || d.Status != agent.Approved {
		t.Errorf("the gallery lost her: %+v, %v", d, err)
	}
}

// Evidence that is wiped knows no face, and approves nobody.
func TestWipedEvidence(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ann", person(1))
	ev := r.evidence(person(1))
	if d, err := r.LookupClaim("ann", ev); err != nil || d.Status != agent.Approved {
		t.Fatalf("%+v, %v", d, err)
	}
	ev.Wipe()
	ev.Wipe()
	if ev.Embedding() != nil {
		t.Error("an embedding is left")
	}
	if d, err := r.LookupClaim("ann", ev); err != nil || d.Status == agent.Approved {
		t.Errorf("approved by nothing: %+v, %v", d, err)
	}
	var none *verify.Evidence
	none.Wipe()
}
