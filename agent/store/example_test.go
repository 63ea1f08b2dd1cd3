package store_test

import (
	"testing"

	"postern/agent"
	"postern/agent/store"
	"postern/agent/store/storetest"
)

// TestFromOutside uses the store as other packages do.
func TestFromOutside(t *testing.T) {
	s := storetest.Open(t, func(o *store.Options) { o.Device = "door-7" })
	_, _, err := s.Enrol(store.Enrolment{
		Subject:   agent.Subject{ID: "4711", Name: "Ann"},
		Templates: []agent.Template{{ModelID: "m1", Space: "s1", Embedding: agent.Embedding{1, 0}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.AppendResult(agent.Result{Kind: agent.KindVerify, SubjectID: "4711",
		Decision: agent.Decision{Status: agent.Approved, Score: 91}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Device != "door-7" || r.Seq != 1 {
		t.Errorf("result %+v", r)
	}
}
