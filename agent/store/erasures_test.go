package store

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// TestEraseUpTo: an erasure from outside is applied once, in any order, and brings
// nobody back.
func TestEraseUpTo(t *testing.T) {
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	s := mustOpen(t, o)
	enrol := func(version uint64) error {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a", Version: version}, Templates: testTemplates(2)})
		return err
	}
	must(t, enrol(100))
	// An older erasure than the enrolment leaves it and voids what came before.
	n, tomb, err := s.EraseUpTo("a", 50, "hub")
	must(t, err)
	if ts, err := s.Templates("a"); n != 0 || tomb.Version != 50 || err != nil || len(ts) != 2 {
		t.Errorf("%d removed by %+v, %d left: %v", n, tomb, len(ts), err)
	}
	n, tomb, err = s.EraseUpTo("a", 200, "hub")
	must(t, err)
	must(t, tomb.Verify(s.PublicKey()))
	if n != 2 || tomb.Version != 200 {
		t.Errorf("%d removed by %+v", n, tomb)
	}
	for _, v := range []uint64{200, 150, 50} { // a repetition, and older ones
		n, again, err := s.EraseUpTo("a", v, "hub")
		if must(t, err); n != 0 || again != tomb {
			t.Errorf("version %d: %d removed by %+v", v, n, again)
		}
		wantCode(t, enrol(v), agent.CodeConflict)
	}
	must(t, enrol(201))
	wantCode(t, enrol(150), agent.CodeConflict) // joins nobody who was enrolled after it
	if ts, err := s.Templates("a"); err != nil || len(ts) != 2 {
		t.Errorf("%d templates: %v", len(ts), err)
	}
	if _, _, err := s.EraseUpTo("a", 200, "hub"); err != nil {
		t.Error(err)
	}
	if sub, err := s.Subject("a"); err != nil || sub.Version != 201 {
		t.Errorf("a replayed erasure took who was enrolled after it: %+v %v", sub, err)
	}
	s = mustReopen(t, s)
	if got, err := s.Erased("a"); err != nil || got != tomb {
		t.Errorf("after opening again %+v %v", got, err)
	}
}

// TestEraseUpToUnknown: the erasure may be faster than the enrolment.
func TestEraseUpToUnknown(t *testing.T) {
	now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
	o := testOptions(t)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	session := func() cases.Session {
		c, err := s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.Approved, VendorData: "late", CreatedAt: now}, cases.Attachments{}, nil)
		must(t, err)
		return c
	}
	old := session()
	_, first, err := s.EraseUpTo("late", 7, "hub")
	must(t, err)
	if _, err := s.Session(old.ID); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("the session of somebody erased: %v", err)
	}
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "late", Version: 7}, Templates: testTemplates(1)})
	wantCode(t, err, agent.CodeConflict)
	kept := session()
	_, _, err = s.EraseUpTo("late", 7, "hub")
	must(t, err)
	if _, err := s.Session(kept.ID); err != nil {
		t.Errorf("a replayed erasure took a new session: %v", err)
	}
	now = now.Add(time.Hour)
	_, second, err := s.EraseUpTo("other", 9, "hub")
	must(t, err)
	all, err := s.Tombstones(time.Time{})
	must(t, err)
	newer, err := s.Tombstones(now)
	must(t, err)
	if len(all) != 2 || all[0] != first || all[1] != second || len(newer) != 1 || newer[0] != second {
		t.Errorf("all %+v, newer %+v", all, newer)
	}
}

func TestEraseUpToRefused(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	enrolMany(t, s, 1)
	for _, v := range []uint64{0, maxVersion + 1, 1<<64 - 1} {
		_, _, err := s.EraseUpTo("s0", v, "hub")
		wantCode(t, err, agent.CodeInvalid)
	}
	_, _, err := s.EraseUpTo("no id", 1, "hub")
	wantCode(t, err, agent.CodeInvalid)
	_, err = s.Hold(Hold{Kind: HoldSubject, ID: "s0", Reason: "a court asked", By: "legal"})
	must(t, err)
	_, _, err = s.EraseUpTo("s0", maxVersion, "hub")
	wantCode(t, err, agent.CodeConflict)
	if _, err := s.Erased("s0"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("a refused erasure left a tombstone: %v", err)
	}
	_, err = s.Release(HoldSubject, "s0", "legal")
	must(t, err)
	n, _, err := s.EraseUpTo("s0", maxVersion, "hub")
	if must(t, err); n == 0 {
		t.Error("nothing was removed")
	}
	// Even the greatest version leaves room for a new enrolment.
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "s0"}, Templates: testTemplates(1)})
	must(t, err)
}

// TestEraseUpToRace: erasures and enrolments of one person at once end with nobody
// whom an erasure voids.
func TestEraseUpToRace(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	var wg sync.WaitGroup
	for v := uint64(1); v <= 20; v++ {
		wg.Go(func() { s.Enrol(Enrolment{Subject: agent.Subject{ID: "a", Version: v}, Templates: testTemplates(1)}) })
		wg.Go(func() {
			if _, _, err := s.EraseUpTo("a", v, "hub"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Subject("a"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("somebody is left: %v", err)
	}
	if tomb, err := s.Erased("a"); err != nil || tomb.Version != 20 {
		t.Errorf("%+v %v", tomb, err)
	}
}

// TestErasuresOutliveTheirFile: when templates.db is lost for good, the witness still
// keeps from coming back who was erased, also after the root key was rotated.
func TestErasuresOutliveTheirFile(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"deleted": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.Witness, o.Recover = filepath.Join(t.TempDir(), "witness"), true
			s := mustOpen(t, o)
			enrolMany(t, s, 2)
			sub, err := s.Subject("s1")
			must(t, err)
			_, tomb, err := s.Erase("s1", "")
			must(t, err)
			must1(s.Rotate(LevelRoot, ""))(t)
			key := s.PublicKey()
			mustClose(t, s)
			must(t, lose(filepath.Join(o.Dir, TemplatesFile)))
			s = mustOpen(t, o)
			if s.PublicKey() != key {
				t.Error("the device has another identity")
			}
			if got, err := s.Erased("s1"); err != nil || got != tomb {
				t.Errorf("%+v %v", got, err)
			}
			_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "s1", Version: sub.Version}})
			wantCode(t, err, agent.CodeConflict)
			// What is there is not replaced by what is kept.
			must(t, os.WriteFile(filepath.Join(o.Witness, identityFile), []byte("{}"), 0o600))
			s = mustReopen(t, s)
			if s.PublicKey() != key {
				t.Error("the device has another identity")
			}
		})
	}
}
