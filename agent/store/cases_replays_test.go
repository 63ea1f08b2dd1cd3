package store

import (
	"testing"
	"time"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/retention"
)

// TestReplays: requests under an Idempotency-Key are remembered by caller and key, over a
// restart, until they are too old, too many, or what they are about is erased.
func TestReplays(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	put := func(caller, key string, r agent.Replay) agent.Replay {
		t.Helper()
		must(t, s.PutReplay(caller, key, r))
		got, err := s.Replay(caller, key)
		must(t, err)
		return got
	}
	r := agent.Replay{Print: []byte{1}, Record: "r1", At: modelTime, Status: 201, Body: []byte("{}")}
	for _, at := range [][2]string{{"a", "k"}, {"b", "k"}, {"a", "l"}} {
		r.Record = at[0] + at[1]
		put(at[0], at[1], r)
	}
	s = mustReopen(t, s)
	got, err := s.Replay("a", "k")
	must(t, err)
	if got.Record != "ak" || string(got.Body) != "{}" || got.Status != 201 || !got.At.Equal(modelTime) {
		t.Errorf("remembered %+v", got)
	}
	must(t, s.DropReplay("a", "k"))
	must(t, s.DropReplay("a", "k"))
	_, err = s.Replay("a", "k")
	wantCode(t, err, agent.CodeNotFound)

	c, err := s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.Approved, CreatedAt: modelTime}, cases.Attachments{}, nil)
	must(t, err)
	put("a", "m", agent.Replay{At: modelTime, About: c.ID, Body: []byte("about a person")})
	put("a", "m", agent.Replay{At: modelTime.Add(time.Hour), About: c.ID, Body: []byte("about a person")})
	must(t, s.Check())
	_, err = s.DeleteSession(c.ID)
	must(t, err)
	_, err = s.Replay("a", "m")
	wantCode(t, err, agent.CodeNotFound)
	must(t, s.Check())

	put("a", "n", agent.Replay{At: modelTime.Add(2 * time.Hour)})
	if n, err := s.PruneReplays(modelTime.Add(time.Hour), 10); n != 2 || err != nil {
		t.Errorf("%d pruned: %v", n, err)
	}
	if _, err := s.Replay("a", "n"); err != nil {
		t.Error(err)
	}
	must(t, s.Check())
}

// TestSweepImages: pictures go by the policy of their application, never under a hold.
func TestSweepImages(t *testing.T) {
	k := newKeeper(t)
	must(t, k.SetRetention(Retention{"visitors", retention.Policy{Images: 30 * days}}))
	must(t, k.SetRetention(Retention{"archive", retention.Policy{}}))
	far := k.now.AddDate(100, 0, 0)
	add := func(application, vendor string, status cases.Status) string {
		t.Helper()
		v, err := k.CreateSession(cases.Session{Application: application, Environment: cases.Live, Status: status, VendorData: vendor, CreatedAt: k.now, UpdatedAt: k.now},
			cases.Attachments{Media: []agent.Media{{ID: application + "-" + vendor, ContentType: "image/jpeg", Data: []byte("x"), ExpiresAt: far}}}, nil)
		must(t, err)
		return v.ID
	}
	held := add("visitors", "v1", cases.Approved)
	add("visitors", "v2", cases.Approved)
	add("visitors", "v3", cases.Approved)
	add("archive", "a1", cases.Approved)
	add("default", "d1", cases.Approved)
	add("default", "d2", cases.InReview)
	_, err := k.Hold(Hold{Kind: HoldSession, ID: held, Reason: "case 7", By: "counsel"})
	must(t, err)
	_, err = k.Hold(Hold{Kind: HoldSubject, ID: "v2", Reason: "case 8", By: "counsel"})
	must(t, err)

	off := Sweeping{Default: retention.Policy{Images: retention.Off}}
	k.pass(1)
	k.sweep(t, off, Swept{Images: 1}) // the decided one of the application that keeps none
	k.pass(28)
	k.sweep(t, off, Swept{})
	k.pass(1)
	k.sweep(t, off, Swept{Images: 1, Held: 2})
	_, err = k.Release(HoldSession, held, "counsel")
	must(t, err)
	k.sweep(t, off, Swept{Images: 1, Held: 1})
	// A policy that is made shorter later counts for what is there.
	must(t, k.SetRetention(Retention{"archive", retention.Policy{Images: retention.Off}}))
	k.sweep(t, off, Swept{Images: 1, Held: 1})
	if !k.HasMedia("default-d2") {
		t.Error("the picture that waits for a review is gone")
	}
}

// TestSweepSessionsByApplication: sessions go by the policy of their application.
func TestSweepSessionsByApplication(t *testing.T) {
	k := newKeeper(t)
	must(t, k.SetRetention(Retention{"visitors", retention.Policy{Results: 30 * days}}))
	for _, application := range []string{"", "visitors", "visitors"} {
		_, err := k.CreateSession(cases.Session{Application: application, VendorData: "v", Environment: cases.Live, Status: cases.Approved, CreatedAt: k.now}, cases.Attachments{}, nil)
		must(t, err)
	}
	k.pass(30)
	year := Sweeping{Default: retention.Policy{Results: 365 * days}}
	_, err := k.Hold(Hold{Kind: HoldSubject, ID: "v", Reason: "case 7", By: "counsel"})
	must(t, err)
	k.sweep(t, year, Swept{Held: 2})
	_, err = k.Release(HoldSubject, "v", "counsel")
	must(t, err)
	k.sweep(t, year, Swept{Sessions: 2})
	for application, want := range map[string]int{"": 1, "default": 1, "visitors": 0} {
		if _, n, err := k.Sessions(cases.SessionQuery{Application: application, Environment: cases.Live}); n != want || err != nil {
			t.Errorf("%q has %d sessions, want %d: %v", application, n, want, err)
		}
	}
}
