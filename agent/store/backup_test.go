package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
)

func witnessedOptions(t *testing.T) Options {
	t.Helper()
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	return o
}

func backupOf(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := s.Backup(&b, "officer")
	must(t, err)
	if left, _ := filepath.Glob(filepath.Join(s.opts.Dir, "backup-*")); left != nil {
		t.Errorf("left over: %v", left)
	}
	return b.Bytes()
}

// TestRestoreKeepsErasures: who was erased after the backup stays erased, and nobody else.
func TestRestoreKeepsErasures(t *testing.T) {
	o := witnessedOptions(t)
	s := mustOpen(t, o)
	enrolMany(t, s, 5)
	c := withCases(t, s)
	b := backupOf(t, s)
	last, err := s.Stats()
	must(t, err)
	_, _, err = s.Erase("s2", "")
	must(t, err)
	_, err = s.Rotate(LevelRoot, "") // the restored keys are wrapped under the present root key
	must(t, err)
	mustClose(t, s)

	r, err := Restore(bytes.NewReader(b), o, false)
	must(t, err)
	if r.ErasedAgain != 1 || !r.Confirmed || r.Subjects != 5 {
		t.Errorf("%+v", r)
	}
	s = mustOpen(t, o)
	_, err = s.Subject("s2")
	wantCode(t, err, agent.CodeNotFound)
	for _, id := range []string{"s0", "s1", "s3", "s4"} {
		if ts, err := s.Templates(id); err != nil || len(ts) != 3 {
			t.Errorf("%s: %d templates: %v", id, len(ts), err)
		}
	}
	wantCases(t, s, c)
	res, err := s.AppendResult(testResult("s1", agent.Approved))
	if err != nil || res.Seq <= last.LastSeq+1000 {
		t.Errorf("result %d may have been given before: %v", res.Seq, err)
	}
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "s2"}, Templates: testTemplates(1)})
	must(t, err)
}

// TestRestoreElsewhere: on a machine without memory nobody is compared until an
// operator has confirmed.
func TestRestoreElsewhere(t *testing.T) {
	s := mustOpen(t, witnessedOptions(t))
	enrolMany(t, s, 3)
	b := backupOf(t, s)
	usable := func(s *Store) (n int) {
		must(t, s.EachTemplate("", func(agent.Template) error { n++; return nil }))
		return n
	}
	o := witnessedOptions(t)
	r, err := Restore(bytes.NewReader(b), o, false)
	must(t, err)
	if r.Confirmed {
		t.Error("confirmed by nobody")
	}
	n := mustOpen(t, o)
	if !n.Unconfirmed() || usable(n) != 0 {
		t.Errorf("%d templates may be used", usable(n))
	}
	n = mustReopen(t, n)
	if usable(n) != 0 {
		t.Error("reopening confirms")
	}
	must(t, n.Confirm("officer"))
	if usable(n) != 9 {
		t.Errorf("%d templates may be used", usable(n))
	}
	wantCode(t, n.Confirm(""), agent.CodeNotFound)

	o = witnessedOptions(t)
	r, err = Restore(bytes.NewReader(b), o, true)
	if err != nil || !r.Confirmed || usable(mustOpen(t, o)) != 9 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestRestoreRefuses: whatever is wrong with a backup, the data folder stays as it is.
func TestRestoreRefuses(t *testing.T) {
	o := witnessedOptions(t)
	s := mustOpen(t, o)
	enrolMany(t, s, 2)
	b := backupOf(t, s)
	_, err := Restore(bytes.NewReader(b), Options{Dir: o.Dir, Device: o.Device, Root: o.Root, Timeout: 50 * time.Millisecond}, true)
	wantCode(t, err, agent.CodeLocked)
	mustClose(t, s)
	other := o
	other.Device = "kiosk-2"
	other.Dir = filepath.Join(t.TempDir(), "other")
	_, err = Restore(bytes.NewReader(b), other, true)
	wantCode(t, err, agent.CodeConflict, "kiosk-1", "export")
	flip := bytes.Clone(b)
	flip[len(flip)/2] ^= 1
	for name, bad := range map[string][]byte{
		"nothing": nil, "text": []byte(strings.Repeat("no backup ", 100)), "cut": b[:len(b)/2], "cut at the end": b[:len(b)-1500],
		"changed": flip, "more": append(bytes.Clone(b[:len(b)-1024]), tarOf(t, "more", "x")...),
	} {
		_, err := Restore(bytes.NewReader(bad), o, true)
		if c := agent.ErrorCode(err); c != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = Restore(io.MultiReader(bytes.NewReader(b), errReader{}), o, true) // as a broken encryption says at its end
	wantCode(t, err, agent.CodeInvalid, "cut off")
	wantMany(t, mustOpen(t, o), 2)
	if left, _ := filepath.Glob(o.Dir + ".restoring*"); left != nil {
		t.Errorf("left over: %v", left)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cut off") }

func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// TestBackupOnLine backs up while others write: every backup restores and is whole.
func TestBackupOnLine(t *testing.T) {
	s := mustOpen(t, witnessedOptions(t))
	enrolMany(t, s, 10)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			id := fmt.Sprint("new", i)
			if _, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: testTemplates(2)}); err != nil {
				t.Error(err)
				return
			}
			if _, err := s.AppendResult(testResult(id, agent.Approved)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		b := backupOf(t, s)
		o := witnessedOptions(t)
		_, err := Restore(bytes.NewReader(b), o, true) // verifies
		must(t, err)
	}
	close(stop)
	wg.Wait()
}

func TestExportImport(t *testing.T) {
	now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
	from := testOptions(t)
	from.Now = func() time.Time { return now }
	s := mustOpen(t, from)
	consent := agent.Consent{GivenBy: "Ann", Purpose: "door", Basis: "explicit_consent", At: now}
	over := consent
	over.Expires = now.Add(time.Hour)
	enrol := func(id string, c agent.Consent) {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id, Name: "N" + id, Consent: c}, Templates: testTemplates(2)})
		must(t, err)
	}
	enrol("a", consent)
	enrol("b", consent)
	enrol("none", agent.Consent{})
	enrol("over", over)
	now = now.Add(2 * time.Hour)
	var b bytes.Buffer
	tr, err := s.Export(&b, nil, "officer")
	must(t, err)
	if strings.Join(tr.Taken, ",") != "a,b" || len(tr.Refused) != 2 {
		t.Fatalf("%+v", tr)
	}
	_, err = s.Export(io.Discard, []string{"none"}, "")
	wantCode(t, err, agent.CodeNotFound, "consent")

	to := witnessedOptions(t)
	to.Device, to.RequireConsent, to.Now = "kiosk-2", true, from.Now
	d := mustOpen(t, to)
	tr, err = d.Import(bytes.NewReader(b.Bytes()), "s1", "officer")
	must(t, err)
	if len(tr.Taken) != 2 || len(tr.Refused) != 0 {
		t.Fatalf("%+v", tr)
	}
	sub, err := d.Subject("a")
	if err != nil || sub.Consent != consent || sub.Name != "Na" {
		t.Errorf("%+v %v", sub, err)
	}
	want, err := s.Templates("a")
	must(t, err)
	got, err := d.Templates("a")
	must(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("templates %v, want %v", got, want)
	}
	tr, err = d.Import(bytes.NewReader(b.Bytes()), "s1", "")
	if err != nil || len(tr.Skipped) != 2 {
		t.Errorf("repeated: %+v %v", tr, err)
	}
	_, _, err = d.Erase("a", "")
	must(t, err)
	tr, err = d.Import(bytes.NewReader(b.Bytes()), "s1", "")
	if err != nil || len(tr.Refused) != 1 || !strings.Contains(tr.Refused[0].Reason, "was erased") {
		t.Errorf("after an erasure: %+v %v", tr, err)
	}
	_, _, err = d.Erase("b", "")
	must(t, err)
	other := mustOpen(t, testOptions(t))
	tr, err = other.Import(bytes.NewReader(b.Bytes()), "s9", "")
	if err != nil || len(tr.Refused) != 2 || !strings.Contains(tr.Refused[0].Reason, "embedding space") {
		t.Errorf("another space: %+v %v", tr, err)
	}
	for _, bad := range []string{"", "x", "{}\n", "{\"postern_enrolments\":1}\nx\n", "{\"postern_enrolments\":1}\n{\"id\":\"a\"}\n"} {
		_, err := other.Import(strings.NewReader(bad), "s1", "")
		wantCode(t, err, agent.CodeInvalid)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"device":"d","files":[{"name":"templates.db","size":1},{"name":"results.db","size":1},{"name":"cases.db","size":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err == nil && len(m.Files) != 3 {
			t.Fatalf("%+v", m)
		}
	})
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte("text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readBackup(bytes.NewReader(b), t.TempDir(), Options{}); err == nil {
			t.Fatal("taken as a backup")
		}
	})
}

func FuzzDecodeExported(f *testing.F) {
	f.Add([]byte(`{"id":"a","name":"A","version":1,"consent":{"given_by":"A"},"templates":[{"id":"t","model_id":"m","space":"s","embedding":[1,0]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeExported(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(e); err != nil {
			return // a year that JSON does not have
		}
		must(t, agent.ValidateSubject(e.ID, e.Name))
	})
}
