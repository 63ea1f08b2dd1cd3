package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

func TestEraseLeavesTombstone(t *testing.T) {
	o := testOptions(t)
	now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	first, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(2)})
	must(t, err)
	if first.Version != uint64(now.UnixMicro()) {
		t.Errorf("version %d", first.Version)
	}
	now = now.Add(time.Hour)
	n, tomb, err := s.Erase("a", "")
	must(t, err)
	must(t, tomb.Verify(s.PublicKey()))
	if n != 2 || tomb.Version < first.Version {
		t.Errorf("%d templates, %+v", n, tomb)
	}
	if got, err := s.Erased("a"); err != nil || got != tomb {
		t.Errorf("%+v %v", got, err)
	}
	_, err = s.Erased("b")
	wantCode(t, err, agent.CodeNotFound)

	// A replayed enrolment, an old one of another device, one of the same moment.
	for _, v := range []uint64{first.Version, 1, tomb.Version} {
		_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a", Version: v}, Templates: testTemplates(1)})
		wantCode(t, err, agent.CodeConflict, "was erased on 2026-11-02")
	}
	// A new one goes through, even by a clock that has been set back.
	now = now.Add(-48 * time.Hour)
	again, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(1)})
	must(t, err)
	if again.Version <= tomb.Version {
		t.Errorf("version %d after %d", again.Version, tomb.Version)
	}
	_, later, err := s.Erase("a", "")
	must(t, err)
	if later.Version < again.Version {
		t.Errorf("the second erasure voids %d, not %d", later.Version, again.Version)
	}
}

// TestEraseTakesSessions: what a person left in sessions goes with the person, but for
// what must be kept, which then keeps everything.
func TestEraseTakesSessions(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	enrolMany(t, s, 2)
	session := func(vendor, media string) cases.Session {
		c, err := s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.Approved, VendorData: vendor, CreatedAt: time.Now()},
			cases.Attachments{Media: []agent.Media{{ID: media, Kind: "selfie", ContentType: "image/jpeg", ExpiresAt: time.Now().Add(time.Hour), Data: []byte("face")}}}, nil)
		must(t, err)
		return c
	}
	of, kept := session("s0", "m0"), session("s1", "m1")
	hold, err := s.Hold(Hold{Kind: HoldSession, ID: of.ID, Reason: "a court asked", By: "legal"})
	must(t, err)
	_, _, err = s.Erase("s0", "")
	wantCode(t, err, agent.CodeConflict)
	if _, err := s.Subject("s0"); err != nil {
		t.Errorf("the person went although a session must stay: %v", err)
	}
	_, err = s.Release(hold.Kind, hold.ID, "legal")
	must(t, err)

	p, err := s.EraseProved("s0", "officer")
	must(t, err)
	if !p.Clean {
		t.Errorf("left: %+v", p.Traces)
	}
	if !slices.ContainsFunc(p.Traces, func(tr Trace) bool { return tr.What == "wrapped keys of session "+of.ID && tr.Before > 0 }) {
		t.Errorf("the session's keys were not looked for: %+v", p.Traces)
	}
	_, err = s.Session(of.ID)
	wantCode(t, err, agent.CodeNotFound)
	_, err = s.Media("m0")
	wantCode(t, err, agent.CodeNotFound)
	if got, err := s.Session(kept.ID); err != nil || got.VendorData != "s1" {
		t.Errorf("another person's session: %+v %v", got, err)
	}
	if _, err := s.Media("m1"); err != nil {
		t.Error(err)
	}
}

// TestOldCopyIsErasedAgain puts an old copy of the data folder back.
func TestOldCopyIsErasedAgain(t *testing.T) {
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	s := mustOpen(t, o)
	enrolMany(t, s, 3)
	mustClose(t, s)
	old := filepath.Join(t.TempDir(), "old")
	must(t, os.CopyFS(old, os.DirFS(o.Dir)))
	s = mustOpen(t, o)
	_, _, err := s.Erase("s1", "")
	must(t, err)
	mustClose(t, s)

	must(t, os.RemoveAll(o.Dir))
	must(t, os.CopyFS(o.Dir, os.DirFS(old)))
	s = mustOpen(t, o)
	_, err = s.Subject("s1")
	wantCode(t, err, agent.CodeNotFound)
	_, err = s.Subject("s2")
	must(t, err)
	if _, err := s.Erased("s1"); err != nil {
		t.Error(err)
	}
}

// TestWitnessLearns: the folder's erasures reach a witness that has lost them, and
// half a line and a stranger's line do no harm.
func TestWitnessLearns(t *testing.T) {
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	s := mustOpen(t, o)
	enrolMany(t, s, 2)
	_, tomb, err := s.Erase("s0", "")
	must(t, err)
	mustClose(t, s)
	path := filepath.Join(o.Witness, tombstonesFile)
	forged := tomb
	forged.Version++
	line, err := json.Marshal(forged)
	must(t, err)
	must(t, os.WriteFile(path, append(line, "\n{\"tag\":\"00"...), 0o600))
	s = mustOpen(t, o)
	got, err := s.keptTombstones()
	must(t, err)
	if len(got) != 1 || got[0] != tomb {
		t.Errorf("kept %+v", got)
	}
}

// TestEraseSurvivesKill: a kill between the transaction and the witness.
func TestEraseSurvivesKill(t *testing.T) {
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	s := mustOpen(t, o)
	enrolMany(t, s, 1)
	must(t, os.RemoveAll(o.Witness))
	must(t, os.WriteFile(o.Witness, nil, 0o600)) // cannot be written to
	_, _, err := s.Erase("s0", "")
	must(t, err)
	must(t, os.Remove(o.Witness))
	s = mustReopen(t, s)
	if got, err := s.keptTombstones(); err != nil || len(got) != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestConsent(t *testing.T) {
	o := testOptions(t)
	now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
	o.Now, o.RequireConsent = func() time.Time { return now }, true
	s := mustOpen(t, o)
	consent := agent.Consent{GivenBy: "Ann", Purpose: "door", Basis: "explicit_consent", At: now, Expires: now.Add(time.Hour)}
	usable := func(want bool) {
		t.Helper()
		n := 0
		must(t, s.EachTemplate("s1", func(agent.Template) error { n++; return nil }))
		if (n > 0) != want {
			t.Errorf("%d templates may be used", n)
		}
	}
	_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(1)})
	wantCode(t, err, agent.CodeInvalid, "no consent", "--consent")
	_, err = s.Subject("a")
	wantCode(t, err, agent.CodeNotFound)
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a", Consent: consent}, Templates: testTemplates(1)})
	must(t, err)
	usable(true)
	// Renaming keeps the consent.
	sub, err := s.PutSubject(agent.Subject{ID: "a", Name: "Ann"})
	if err != nil || sub.Consent != consent {
		t.Errorf("%+v %v", sub, err)
	}
	now = now.Add(2 * time.Hour)
	usable(false)
	_, err = s.AddTemplates("a", testTemplate(3))
	wantCode(t, err, agent.CodeInvalid, "expired")
	consent.At, consent.Expires = now, time.Time{}
	_, err = s.RecordConsent("a", consent, "officer")
	must(t, err)
	usable(true)
	sub, err = s.WithdrawConsent("a", "officer")
	must(t, err)
	usable(false)
	now = now.Add(-time.Hour) // a clock that is set back gives nothing back
	usable(false)
	if again, err := s.WithdrawConsent("a", ""); err != nil || again.Consent != sub.Consent {
		t.Errorf("withdrawn twice: %+v %v", again, err)
	}
	_, err = s.RecordConsent("a", agent.Consent{GivenBy: "Ann"}, "")
	wantCode(t, err, agent.CodeInvalid, "purpose")
	_, err = s.WithdrawConsent("b", "")
	wantCode(t, err, agent.CodeNotFound)
	es, err := s.AuditLog(AuditQuery{Action: agent.AuditConsent})
	if err != nil || len(es) != 3 {
		t.Errorf("%d entries: %v", len(es), err)
	}
}

func FuzzDecodeTombstone(f *testing.F) {
	f.Add([]byte(`{"tag":"000102030405060708090a0b0c0d0e0f","version":1,"at":"2026-11-02T14:03:00Z","signature":"00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tomb, err := decodeTombstone(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(tomb)
		if err != nil {
			return // a year that JSON does not have
		}
		if t2, err := decodeTombstone(again); err != nil || t2.Tag != tomb.Tag || t2.Version != tomb.Version {
			t.Fatalf("%s became %s: %v", b, again, err)
		}
	})
}
