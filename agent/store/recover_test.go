package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/throttle"
)

// wreck is a closed data folder in which one more commit of either file was made after
// everything else, with its files before and after that commit.
type wreck struct {
	o      Options
	file   string
	before []byte
	after  []byte
	log    bytes.Buffer
}

const (
	wreckSubjects = 30
	wreckResults  = 60
)

// newWreck fills a folder. In templates.db the last commit adds subject "last", in
// results.db the last result.
func newWreck(t *testing.T, file string) *wreck {
	t.Helper()
	w := &wreck{o: testOptions(t), file: file}
	w.o.Recover, w.o.Log = true, slog.New(slog.NewTextHandler(&w.log, nil))
	s := mustOpen(t, w.o)
	for i := range wreckSubjects {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: testTemplates(4)})
		must(t, err)
	}
	for range wreckResults {
		_, err := s.AppendResult(testResult("s1", agent.Approved))
		must(t, err)
	}
	_, err := s.Copy()
	must(t, err)
	mustClose(t, s)
	w.before = w.read(t, w.path())
	s = mustOpen(t, w.o)
	_, err = s.AppendResult(testResult("s1", agent.Declined))
	must(t, err)
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "last"}, Templates: testTemplates(4)})
	must(t, err)
	mustClose(t, s)
	w.after = w.read(t, w.path())
	return w
}

func (w *wreck) path() string { return filepath.Join(w.o.Dir, w.file) }

func (w *wreck) read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// newestMeta is the number of the page that the last commit wrote last.
func (w *wreck) newestMeta(t *testing.T) int {
	t.Helper()
	ms, err := readMetas(bytes.NewReader(w.after))
	must(t, err)
	if ms[1].txid > ms[0].txid {
		return 1
	}
	return 0
}

// lastPages garbles the pages that only the last commit has, but for the meta page.
func (w *wreck) lastPages(t *testing.T) []byte {
	t.Helper()
	b, n := bytes.Clone(w.after), 0
	for at := 2 * 4096; at < len(b); at += 4096 {
		if at >= len(w.before) || !bytes.Equal(b[at:at+4096], w.before[at:at+4096]) {
			copy(b[at:], bytes.Repeat([]byte{0xa5}, 4096))
			n++
		}
	}
	if n == 0 {
		t.Fatal("the last commit has no pages")
	}
	return b
}

// freelists writes bytes at an offset into the list of free pages of either commit, and
// tears the newest meta page.
func (w *wreck) freelists(t *testing.T, at int, with ...byte) []byte {
	t.Helper()
	b := bytes.Clone(w.after)
	ms, err := readMetas(bytes.NewReader(b))
	must(t, err)
	for _, m := range ms {
		copy(b[int(m.free)*4096+at:], with)
	}
	copy(b[w.newestMeta(t)*4096+metaChecksum:], make([]byte, 8))
	return b
}

func TestRecoveryLadder(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	tear := func(t *testing.T, w *wreck) []byte {
		b, page := bytes.Clone(w.after), w.newestMeta(t)
		copy(b[page*4096+512:], make([]byte, 3584))
		copy(b[page*4096+20:], bytes.Repeat([]byte{7}, 40))
		return b
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *wreck) []byte
		noCopy bool
		want   Rung
	}{
		{name: "torn meta page", damage: tear, want: RungPrevious},
		{name: "torn pages of the last commit", damage: func(t *testing.T, w *wreck) []byte { return w.lastPages(t) }, want: RungPrevious},
		{name: "lists of free pages too long", damage: func(t *testing.T, w *wreck) []byte { return w.freelists(t, 12, 0, 0, 0, 0x10) }, want: RungCopy},
		{name: "lists of free pages without end", damage: func(t *testing.T, w *wreck) []byte {
			return w.freelists(t, 10, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0)
		}, want: RungCopy},
		{name: "used pages listed as free", damage: func(t *testing.T, w *wreck) []byte { return w.freelists(t, 10, 1, 0, 0, 0, 0, 0, 2) }, want: RungCopy},
		{name: "cut short", damage: func(_ *testing.T, w *wreck) []byte { return w.after[:3*4096] }, want: RungCopy},
		{name: "cut to the meta pages", damage: func(_ *testing.T, w *wreck) []byte { return w.after[:2*4096] }, want: RungCopy},
		{name: "empty", damage: func(*testing.T, *wreck) []byte { return nil }, want: RungCopy},
		{name: "zeros", damage: func(_ *testing.T, w *wreck) []byte { return make([]byte, len(w.after)) }, want: RungCopy},
		{name: "text", damage: func(*testing.T, *wreck) []byte { return bytes.Repeat([]byte("hello "), 9000) }, want: RungCopy},
		{name: "cut short, no copy", damage: func(_ *testing.T, w *wreck) []byte { return w.after[:3*4096] }, noCopy: true, want: RungNew},
		{name: "empty, no copy", damage: func(*testing.T, *wreck) []byte { return nil }, noCopy: true, want: RungNew},
	} {
		for _, file := range []string{TemplatesFile, ResultsFile} {
			t.Run(c.name+" "+file, func(t *testing.T) {
				w := newWreck(t, file)
				bad := c.damage(t, w)
				must(t, os.WriteFile(w.path(), bad, 0o600))
				if c.noCopy {
					must(t, os.Remove(w.path()+copySuffix))
				}
				w.recover(t, c.want, bad)
			})
		}
	}
}

// recover opens the damaged folder and verifies what is there, what was kept and what
// was said.
func (w *wreck) recover(t *testing.T, want Rung, bad []byte) {
	t.Helper()
	careful := w.o
	careful.Recover = false
	if s, err := Open(careful); err == nil { // what is damaged is met when it is read
		must(t, s.Close())
	} else {
		wantCode(t, err, agent.CodeStorage, "nothing was changed")
	}
	s := mustOpen(t, w.o)
	rs := s.Recovered()
	if len(rs) != 1 || rs[0].Rung != want || rs[0].File != w.file || rs[0].Cause == "" || rs[0].Lost == "" {
		t.Fatalf("recovered %+v, want rung %q\n%s", rs, want, w.log.String())
	}
	if kept := w.read(t, rs[0].Quarantined); !bytes.Equal(kept, bad) {
		t.Error("the damaged file was not kept as it was")
	}
	if all, err := Recoveries(w.o.Dir); err != nil || len(all) != 1 || all[0] != rs[0] {
		t.Errorf("the log has %+v %v", all, err)
	}
	if !strings.Contains(w.log.String(), rs[0].Lost) {
		t.Errorf("the loss is not in the log:\n%s", w.log.String())
	}
	if w.file == TemplatesFile {
		w.checkTemplates(t, s, want)
	} else {
		w.checkResults(t, s, want)
	}
	for range 3 {
		s = mustReopen(t, s)
		if len(s.Recovered()) != 0 {
			t.Fatalf("recovered again: %+v", s.Recovered())
		}
	}
}

func (w *wreck) checkTemplates(t *testing.T, s *Store, r Rung) {
	t.Helper()
	want := wreckSubjects
	if r == RungNew {
		want = 0
	}
	st, err := s.Stats()
	must(t, err)
	if st.Subjects != want || st.Templates != 4*want || st.Results != wreckResults+1 {
		t.Errorf("stats %+v, want %d subjects", st, want)
	}
	if need, err := s.NeedsResync(); err != nil || !need {
		t.Errorf("resync is not asked for: %v", err)
	}
	must(t, s.Resynced())
	if need, err := s.NeedsResync(); err != nil || need {
		t.Errorf("resync is still asked for: %v", err)
	}
}

func (w *wreck) checkResults(t *testing.T, s *Store, r Rung) {
	t.Helper()
	st, err := s.Stats()
	must(t, err)
	want, last := wreckResults, uint64(wreckResults)+skipSeq[r]
	if r == RungNew {
		want, last = 0, 0
	}
	if st.Results != want || st.Outbox != want || st.LastSeq != last {
		t.Errorf("stats %+v, want %d results up to %d", st, want, last)
	}
	th, err := s.Throttle("")
	must(t, err)
	if v := throttle.Strict.Judge(th, 0, s.opts.Mark()); v.Answer != throttle.Later {
		t.Errorf("after a loss the next attempt is %+v", v)
	}
	res, err := s.AppendResult(testResult("s1", agent.Approved))
	if err != nil || res.Seq != last+1 {
		t.Errorf("the next result is %d, want %d: %v", res.Seq, last+1, err)
	}
	if n, err := s.Ack(s.Epoch(), res.Seq); err != nil || n != want+1 {
		t.Errorf("acknowledged %d of %d: %v", n, want+1, err)
	}
}

// TestRecoverFlips flips bits at random. Whatever happens, the folder opens, its
// structure is sound and the agent can work.
func TestRecoverFlips(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	w := newWreck(t, ResultsFile)
	rungs := map[Rung]int{}
	for seed := range 60 {
		rnd := rand.New(rand.NewPCG(uint64(seed), 7))
		bad := bytes.Clone(w.after)
		for range 1 + rnd.IntN(30) {
			bad[rnd.IntN(len(bad)/4096)*4096+rnd.IntN(128)] ^= 1 << rnd.IntN(8)
		}
		must(t, os.WriteFile(w.path(), bad, 0o600))
		s, err := Open(w.o)
		must(t, err)
		for _, r := range s.Recovered() {
			rungs[r.Rung]++
		}
		if err := s.results.sound(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if _, err := s.AppendResult(testResult("s1", agent.Declined)); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		must(t, s.Close())
	}
	t.Logf("60 rounds: %v", rungs)
	must(t, os.WriteFile(w.path(), w.after, 0o600)) // for the check at the end
}

// TestDeletedStaysDeleted damages templates.db in every way after a deletion: no rung
// brings the person back.
func TestDeletedStaysDeleted(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	for name, damage := range map[string]func(w *wreck, newest int, deleted []byte) []byte{
		"torn meta":  func(_ *wreck, newest int, b []byte) []byte { copy(b[newest*4096+16:], make([]byte, 64)); return b },
		"cut short":  func(_ *wreck, _ int, b []byte) []byte { return b[:len(b)/2] },
		"both metas": func(_ *wreck, _ int, b []byte) []byte { copy(b, make([]byte, 8192)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWreck(t, TemplatesFile)
			s := mustOpen(t, w.o)
			_, err := s.DeleteSubject("s3")
			must(t, err)
			mustClose(t, s)
			w.after = w.read(t, w.path())
			must(t, os.WriteFile(w.path(), damage(w, w.newestMeta(t), bytes.Clone(w.after)), 0o600))
			s = mustOpen(t, w.o)
			if len(s.Recovered()) != 1 {
				t.Fatalf("recovered %+v", s.Recovered())
			}
			_, err = s.Subject("s3")
			wantCode(t, err, agent.CodeNotFound)
		})
	}
}

// TestNotRecovered: what is not damage is never replaced.
func TestNotRecovered(t *testing.T) {
	w := newWreck(t, TemplatesFile)
	w.o.Device = "another"
	_, err := Open(w.o)
	wantCode(t, err, agent.CodeConflict)
	w.o.Device = testDevice
	newer := templatesSchema()
	newer.steps = append(newer.steps, step{"from the future", createBuckets("future")})
	s, err := open(w.o, newer, resultsSchema())
	must(t, err)
	must(t, s.Close())
	_, err = Open(w.o)
	wantCode(t, err, agent.CodeStorage, "newer version", "nothing was changed")
	if all, err := Recoveries(w.o.Dir); err != nil || len(all) != 0 {
		t.Errorf("recovered %+v %v", all, err)
	}
	s, err = open(w.o, newer, resultsSchema())
	must(t, err)
	must(t, s.Close())
}

// TestKilledRecovery: what a kill in the middle leaves behind is no obstacle, and what
// has to follow the recovery is done by the next Open.
func TestKilledRecovery(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	w := newWreck(t, ResultsFile)
	bad := w.lastPages(t)
	must(t, os.WriteFile(w.path(), bad, 0o600))
	must(t, os.WriteFile(w.path()+trySuffix, []byte("half of a candidate"), 0o600))
	_, err := quarantine(w.path(), w.o.withDefaults())
	must(t, err)
	o := w.o.withDefaults()
	_, err = climb(ResultsFile, resultsSchema(), o, fmt.Errorf("test"))
	must(t, err) // and here the process ends
	s := mustOpen(t, w.o)
	w.checkResults(t, s, RungPrevious)
	if left, _ := filepath.Glob(filepath.Join(w.o.Dir, "*"+trySuffix)); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// TestCompact: a file that is mostly free shrinks at the next start, loses nothing, and
// its old bytes are gone.
func TestCompact(t *testing.T) {
	o := testOptions(t)
	o.compactOver, o.Recover = 256<<10, true
	s := mustOpen(t, o)
	for i := range 300 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: testTemplates(8)})
		must(t, err)
	}
	for i := range 290 {
		_, err := s.DeleteSubject(fmt.Sprint("s", i))
		must(t, err)
	}
	before := s.templates.fileSize()
	old, err := os.Open(s.templates.path)
	must(t, err)
	defer old.Close()
	s = mustReopen(t, s)
	if after := s.templates.fileSize(); after*3 > before {
		t.Errorf("%d bytes, were %d", after, before)
	}
	raw := make([]byte, before)
	if _, err := old.ReadAt(raw, 0); err != nil || bytes.Trim(raw, "\x00") != nil && len(bytes.Trim(raw, "\x00")) > 0 {
		t.Errorf("the old file was not overwritten: %v", err)
	}
	st, err := s.Stats()
	must(t, err)
	if st.Subjects != 10 || st.Templates != 80 {
		t.Errorf("%+v", st)
	}
	_, err = s.AppendResult(testResult("s295", agent.Approved))
	must(t, err)
}

func TestCopy(t *testing.T) {
	o := testOptions(t)
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	for _, c := range []struct {
		later time.Duration
		want  int
	}{{0, 3}, {time.Hour, 0}, {24 * time.Hour, 3}, {-48 * time.Hour, 3}} { // a copy from the future is none
		now = now.Add(c.later)
		if copied, err := s.Copy(); err != nil || len(copied) != c.want {
			t.Errorf("%v later: %v %v", c.later, copied, err)
		}
	}
	_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}})
	must(t, err)
	_, err = s.DeleteSubject("a")
	must(t, err)
	if copied, err := s.Copy(); err != nil || len(copied) != 1 {
		t.Errorf("after a deletion: %v %v", copied, err)
	}
}

// tearNewest garbles the meta page of a file's newest commit.
func tearNewest(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, dropNewest(f))
}

// TestPreviousCommitAfterRotation: the commit before the newest, which recovery falls
// back on, opens with the keys that a rotation has left, whichever level was rotated and
// wherever the rotation was killed and resumed.
func TestPreviousCommitAfterRotation(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	base := testOptions(t)
	base.Root = fileRoot(base.Dir)
	const n = 10
	s := mustOpen(t, base)
	enrolMany(t, s, n)
	c := withCases(t, s)
	// Each file's newest commit is one that may be given up.
	must(t, s.Audit(agent.AuditEvent{Action: agent.AuditSystem}))
	_, err := s.PutTelemetry([]byte("reading"))
	must(t, err)
	_, err = s.Copy()
	must(t, err)
	mustClose(t, s)
	defer func() { failpoint = nil }()
	for _, l := range levels {
		for stop := 0; ; stop++ {
			o := base
			o.Dir, o.Recover = filepath.Join(t.TempDir(), "data"), true
			o.Root = fileRoot(o.Dir)
			copyFolder(t, o.Dir, base.Dir)
			s, err := Open(o)
			must(t, err)
			left, killed := stop, false
			failpoint = func(string) error {
				if left--; left < 0 {
					killed = true
					return errors.New("killed")
				}
				return nil
			}
			_, err = s.Rotate(l, "")
			failpoint = nil
			if (err != nil) != killed {
				t.Fatalf("%s: %v", l, err)
			}
			must(t, s.Close())
			s = mustOpen(t, o) // finishes the rotation
			mustClose(t, s)
			for _, name := range []string{TemplatesFile, ResultsFile, CasesFile} {
				tearNewest(t, filepath.Join(o.Dir, name))
			}
			s = mustOpen(t, o)
			for _, r := range s.Recovered() {
				if r.Rung != RungPrevious {
					t.Errorf("%s, stopped at %d: %+v", l, stop, r)
				}
			}
			if len(s.Recovered()) != 3 {
				t.Errorf("%s, stopped at %d: %d recoveries", l, stop, len(s.Recovered()))
			}
			wantMany(t, s, n)
			wantCases(t, s, c)
			if rs, err := s.Results(ResultQuery{}); err != nil || len(rs) == 0 {
				t.Errorf("%s, stopped at %d: %d results: %v", l, stop, len(rs), err)
			}
			mustClose(t, s)
			must(t, os.RemoveAll(filepath.Dir(o.Dir)))
			if !killed || t.Failed() {
				break
			}
		}
	}
}
