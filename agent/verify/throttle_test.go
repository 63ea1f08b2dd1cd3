package verify_test

import (
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/throttle"
)

// strict is a rig under the standard's limits, ada and bob enrolled.
func strict(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.throttle = throttle.Policy{}
	r.open(t)
	r.mustEnrol(t, "ada", person(0))
	r.mustEnrol(t, "bob", person(1))
	return r
}

// impostor makes n attempts as somebody else and returns the error of the last.
func (r *rig) impostor(t *testing.T, id string, n int) (err error) {
	t.Helper()
	for range n {
		_, err = r.Verify(t.Context(), id, r.evidence(person(5)))
	}
	return err
}

// Every way to a comparison is closed: the verbs that decide and those that look.
func TestThrottled(t *testing.T) {
	r := strict(t)
	if err := r.impostor(t, "ada", 5); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"verify":         func() error { _, err := r.Verify(t.Context(), "ada", r.evidence(person(0))); return err },
		"look at claim":  func() error { _, err := r.LookupClaim("ada", r.evidence(person(0))); return err },
		"identify":       func() error { _, err := r.Identify(t.Context(), r.evidence(person(0))); return err },
		"look":           func() error { _, err := r.Lookup(r.evidence(person(0))); return err },
		"another person": func() error { _, err := r.Verify(t.Context(), "bob", r.evidence(person(1))); return err },
	} {
		err := try()
		checkCode(t, err, agent.CodeThrottled)
		if agent.RetryAfter(err) != 30*time.Second {
			t.Errorf("%s: retry after %v", name, agent.RetryAfter(err))
		}
	}
	if n := len(r.m.stored()); n != 5 {
		t.Errorf("%d results stored", n)
	}
	r.open(t) // a restart changes nothing
	checkCode(t, r.impostor(t, "ada", 1), agent.CodeThrottled)
	r.m.up += 30 * time.Second
	res, err := r.Verify(t.Context(), "ada", r.evidence(person(0)))
	if err != nil || res.Decision.Status != agent.Approved {
		t.Errorf("after the wait: %+v %v", res.Decision, err)
	}
	if err := r.impostor(t, "ada", 5); err != nil {
		t.Errorf("the success did not end the counting: %v", err)
	}
}

// What showed nothing to compare is not counted; a failed look at another space is not
// either, since nothing was compared.
func TestNotCounted(t *testing.T) {
	r := strict(t)
	for range 20 {
		ev := r.NewEvidence("cam", 1)
		p := blurred(probeOf(person(0)))
		ev.Add(&p)
		none := nobody
		ev.Add(&none)
		if _, err := r.Verify(t.Context(), "ada", ev); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := r.m.Throttle("ada"); st.Failures != 0 {
		t.Errorf("counted %d", st.Failures)
	}
}

// A crowd of impostors at once gets five comparisons.
func TestThrottledCrowd(t *testing.T) {
	r := strict(t)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() { r.Verify(t.Context(), "ada", r.evidence(person(5))) })
	}
	wg.Wait()
	if n := len(r.m.stored()); n != 5 {
		t.Errorf("%d comparisons", n)
	}
}

// A counting that cannot be read fails closed.
func TestThrottleUnreadable(t *testing.T) {
	r := strict(t)
	r.m.fail = failOn("Throttle", errDisk)
	_, err := r.Verify(t.Context(), "ada", r.evidence(person(0)))
	checkCode(t, err, agent.CodeStorage)
	_, err = r.Identify(t.Context(), r.evidence(person(0)))
	checkCode(t, err, agent.CodeStorage)
}
