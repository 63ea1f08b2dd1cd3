package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

var levels = []Level{LevelRoot, LevelStore, LevelOwners}

// withCases puts records of every kind with an owner into cases.db.
func withCases(t *testing.T, s *Store) cases.Session {
	t.Helper()
	c, err := s.CreateSession(cases.Session{Status: cases.NotStarted, CreatedAt: time.Now()}, cases.Attachments{
		Media: []agent.Media{{ID: "m1", Kind: "k", ContentType: "image/png", ExpiresAt: time.Now().Add(time.Hour), Data: []byte("picture")}},
		Faces: []agent.Template{func() agent.Template { f := testTemplate(1); f.ID = "f1"; return f }()},
	}, nil)
	must(t, err)
	_, err = s.MediaKey()
	must(t, err)
	return c
}

func wantCases(t *testing.T, s *Store, c cases.Session) {
	t.Helper()
	if got, err := s.Session(c.ID); err != nil || got.Number != c.Number {
		t.Errorf("session %+v: %v", got, err)
	}
	if m, err := s.Media("m1"); err != nil || string(m.Data) != "picture" {
		t.Errorf("picture %q: %v", m.Data, err)
	}
	if _, err := s.Face(SessionOwner(c.ID), "f1"); err != nil {
		t.Error(err)
	}
}

// keyRows are all rows of the buckets of keys, to see what a rotation changed.
func keyRows(t *testing.T, s *Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, d := range s.files() {
		must(t, s.view(d, func(tx *bolt.Tx) error {
			for _, name := range []string{bucketKeys, bucketOwners} {
				must(t, bucket(tx, name).ForEach(func(k, v []byte) error {
					out[d.schema.kind+"/"+name+"/"+string(k)] = string(v)
					return nil
				}))
			}
			return nil
		}))
	}
	return out
}

func TestRotate(t *testing.T) {
	for _, l := range levels {
		t.Run(string(l), func(t *testing.T) {
			s := mustOpen(t, testOptions(t))
			const n = 300
			enrolMany(t, s, n)
			c := withCases(t, s)
			before := keyRows(t, s)
			r, err := s.Rotate(l, "officer")
			must(t, err)
			wantMany(t, s, n)
			wantCases(t, s, c)
			after := keyRows(t, s)
			for k, v := range before {
				part := map[Level]string{LevelRoot: "/keys/", LevelStore: "/owners/", LevelOwners: "/owners/"}[l]
				if strings.Contains(k, part) && after[k] == v {
					t.Errorf("%q is as it was", k)
				}
			}
			if len(after) != len(before) {
				t.Errorf("%d rows of keys, were %d", len(after), len(before))
			}
			if r.Wrapped == 0 || (l == LevelOwners) != (r.Sealed > 0) {
				t.Errorf("%+v", r)
			}
			es, err := s.AuditLog(AuditQuery{Action: agent.AuditRotate})
			if err != nil || len(es) != 1 || es[0].Detail["level"] != string(l) {
				t.Errorf("audit %+v %v", es, err)
			}
			s = mustReopen(t, s)
			wantMany(t, s, n)
			wantCases(t, s, c)
			if rep, err := s.VerifyAudit(); err != nil || len(rep.Problems) > 1 {
				t.Errorf("audit after rotation: %+v %v", rep, err)
			}
		})
	}
	s := mustOpen(t, testOptions(t))
	_, err := s.Rotate("paper", "")
	wantCode(t, err, agent.CodeInvalid)
}

// TestRotateResumes stops each rotation at every one of its transactions in turn:
// all records read well then, and the next opening finishes.
func TestRotateResumes(t *testing.T) {
	base := testOptions(t)
	base.Root = fileRoot(base.Dir)
	const n = 20
	s := mustOpen(t, base)
	enrolMany(t, s, n)
	c := withCases(t, s)
	mustClose(t, s)
	for _, l := range levels {
		for stop := 0; ; stop++ {
			o := testOptions(t)
			copyFolder(t, o.Dir, base.Dir)
			o.Root = fileRoot(o.Dir)
			s := mustOpen(t, o)
			var left atomic.Int64
			left.Store(int64(stop))
			failpoint = func(string) error {
				if left.Add(-1) < 0 {
					return fmt.Errorf("stopped at transaction %d", stop)
				}
				return nil
			}
			_, err := s.Rotate(l, "")
			failpoint = nil
			wantMany(t, s, n)
			mustClose(t, s)
			s = mustOpen(t, o)
			wantMany(t, s, n)
			wantCases(t, s, c)
			for _, i := range must1(s.Keys())(t) {
				if i.Owners == 0 && i.File != "results" {
					t.Errorf("%s %d: %+v", l, stop, i)
				}
			}
			for _, d := range s.files() {
				if old := s.oldStoreKeys(d); len(old) > 0 {
					t.Errorf("%s %d: old store keys are left in %s", l, stop, d.path)
				}
			}
			mustClose(t, s)
			if err == nil {
				t.Logf("%s: %d transactions", l, stop)
				break
			}
		}
	}
}

// copyFolder copies a closed data folder with its root key.
func copyFolder(tb testing.TB, to, from string) {
	tb.Helper()
	must(tb, os.CopyFS(to, os.DirFS(from)))
	must(tb, os.MkdirAll(to+".keys", 0o700))
	key, err := os.ReadFile(from + ".keys/root.key")
	must(tb, err)
	must(tb, os.WriteFile(to+".keys/root.key", key, 0o400))
}

func must1[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T { tb.Helper(); must(tb, err); return v }
}

// TestRotateOnLine rotates every level and compacts while others read and write.
func TestRotateOnLine(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	enrolMany(t, s, 30)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	work := func(fn func(i int) error) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := fn(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work(func(i int) error { _, err := s.Templates(fmt.Sprint("s", i%30)); return err })
	work(func(int) error { return s.EachTemplate("", func(agent.Template) error { return nil }) })
	work(func(i int) error { _, err := s.Results(ResultQuery{Limit: 5}); return err })
	work(func(i int) error { _, err := s.AppendResult(testResult("s1", agent.Approved)); return err })
	work(func(i int) error {
		id := fmt.Sprint("new", i)
		if _, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: testTemplates(2)}); err != nil {
			return err
		}
		_, err := s.DeleteSubject(id)
		return err
	})
	for range 2 {
		for _, l := range levels {
			_, err := s.Rotate(l, "")
			must(t, err)
		}
		must(t, s.Compact())
	}
	close(stop)
	wg.Wait()
}

func TestRotationDue(t *testing.T) {
	o := testOptions(t)
	now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	enrolMany(t, s, 1)
	due := func(want bool) {
		t.Helper()
		if got, err := s.RotationDue(720*time.Hour, 24*time.Hour); err != nil || got != want {
			t.Errorf("due %v, want %v: %v", got, want, err)
		}
	}
	due(false)
	now = now.Add(time.Hour)
	_, _, err := s.Erase("s0", "")
	must(t, err)
	due(false)
	now = now.Add(25 * time.Hour)
	due(true)
	_, err = s.Rotate(LevelStore, "")
	must(t, err)
	due(false)
	now = now.Add(800 * time.Hour)
	due(true)
}

// TestEraseProved: nothing of an erased person is left in any file, and nothing is
// missing of the others.
func TestEraseProved(t *testing.T) {
	o := testOptions(t)
	o.Witness = filepath.Join(t.TempDir(), "witness")
	s := mustOpen(t, o)
	enrolMany(t, s, 40)
	_, err := s.Copy()
	must(t, err)
	p, err := s.EraseProved("s7", "officer")
	must(t, err)
	if !p.Clean || p.Templates != 3 || len(p.Traces) != 9 {
		t.Fatalf("%+v", p)
	}
	for _, tr := range p.Traces {
		clear := strings.Contains(tr.What, "in the clear")
		if clear && tr.Before > 0 || !clear && tr.Before == 0 || tr.Final > 0 || len(tr.Remains) > 0 {
			t.Errorf("%+v", tr)
		}
	}
	_, err = s.EraseProved("s7", "")
	wantCode(t, err, agent.CodeNotFound)
	st, err := s.Stats()
	if err != nil || st.Subjects != 39 {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := s.Templates("s8"); err != nil {
		t.Error(err)
	}
}

// TestProofFinds: bytes that are kept somewhere are found, also across blocks.
func TestProofFinds(t *testing.T) {
	dir := t.TempDir()
	want := bytes.Repeat([]byte("needle!"), 9)
	b := bytes.Repeat([]byte{'x'}, searchBlock+1000)
	copy(b[searchBlock-20:], want)
	copy(b[100:], want)
	copy(b[len(b)-len(want):], want)
	must(t, os.WriteFile(filepath.Join(dir, "f"), b, 0o600))
	s := &Store{opts: Options{Dir: dir}}
	hits, err := s.search([]needle{{"n", want}, {"absent", []byte("absent")}})
	must(t, err)
	if !reflect.DeepEqual(hits, []map[string]int{{filepath.Join(dir, "f"): 3}, {}}) {
		t.Errorf("%v", hits)
	}
}
