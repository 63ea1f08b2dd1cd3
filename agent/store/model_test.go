package store

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/retention"
)

// model is what a Store should contain.
type model struct {
	s        *Store
	subjects map[string]agent.Subject
	byID     map[string]map[string]agent.Template // subject -> template id
	results  []agent.Result                       // oldest first
	last     uint64
	dir      string // holds the folders
	kills    int
	holds    map[string]Hold

	telemetry []uint64
	sent      uint64 // the newest number of telemetry
	acked     uint64
	failed    map[string]int // attempts in a row; "" is the device

	voided   map[string]uint64           // subject -> versions up to which enrolments are void
	policies map[string]retention.Policy // of applications
	saved    *savedModel                 // the newest backup
	exported []byte
	leaving  []leaver // who is in it
}

// TestModel runs random verbs on a Store and on the model: every verb on people,
// decisions and keys, with kills in the middle of them, closing and opening. What
// cases.db keeps is in TestCasesModel.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := testOptions(t)
		dir := t.TempDir()
		defer os.RemoveAll(dir)
		o.Dir, o.MaxTemplates, o.Witness = filepath.Join(dir, "data"), 4, filepath.Join(dir, "witness")
		s, err := Open(o)
		must(t, err)
		m := &model{s: s, dir: dir, subjects: map[string]agent.Subject{}, byID: map[string]map[string]agent.Template{}, failed: map[string]int{},
			holds: map[string]Hold{}, voided: map[string]uint64{}, policies: map[string]retention.Policy{}}
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"":        m.compare,
			"put":     m.put,
			"enrol":   m.enrol,
			"add":     m.add,
			"delete":  m.deleteSubject,
			"delete1": m.deleteTemplate,
			"append":  m.append,
			"repeat":  m.repeat,
			"ack":     m.ack,
			"unlock":  m.unlock,
			"hold":    m.hold,
			"release": m.release,
			"sweep":   m.sweep,
			"tell":    m.tell,
			"heard":   m.heard,
			"query":   m.query,
			"reopen":  m.reopen,
			"kill":    m.kill,

			"enrolOld":  m.enrolOld,
			"eraseUpTo": m.eraseUpTo,
			"consent":   m.consent,
			"withdraw":  m.withdraw,
			"policy":    m.policy,
			"rotate":    m.rotate,
			"compact":   m.compact,
			"copy":      m.copy,
			"backup":    m.backup,
			"restore":   m.restore,
			"export":    m.export,
			"import":    m.importBack,
			"audit":     m.audit,
			"die":       m.die,
		})
	})
}

var subjectIDs = []string{"a", "ab", "b", "ß", "a-1"}

func drawSubject(t *rapid.T) string { return rapid.SampledFrom(subjectIDs).Draw(t, "subject") }

func drawTemplates(t *rapid.T) []agent.Template {
	ts := make([]agent.Template, rapid.IntRange(0, 3).Draw(t, "templates"))
	for i := range ts {
		ts[i] = testTemplate(rapid.IntRange(0, 99).Draw(t, "seed"))
		ts[i].ID = rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "id")
	}
	return ts
}

func wantErr(t *rapid.T, err error, want agent.Code) {
	t.Helper()
	if got := agent.ErrorCode(err); got != want {
		t.Fatalf("code %q, want %q: %v", got, want, err)
	}
}

func (m *model) put(t *rapid.T) {
	id := drawSubject(t)
	sub, err := m.s.PutSubject(agent.Subject{ID: id, Name: rapid.SampledFrom([]string{"", "x", "Ann"}).Draw(t, "name")})
	wantErr(t, err, "")
	m.keep(t, sub)
}

func (m *model) keep(t *rapid.T, sub agent.Subject) {
	if old, ok := m.subjects[sub.ID]; ok && !old.CreatedAt.Equal(sub.CreatedAt) {
		t.Fatalf("subject %q was made %v, now %v", sub.ID, old.CreatedAt, sub.CreatedAt)
	}
	m.subjects[sub.ID] = sub
	if m.byID[sub.ID] == nil {
		m.byID[sub.ID] = map[string]agent.Template{}
	}
}

// fits tells whether a subject may have these templates in addition.
func (m *model) fits(had map[string]agent.Template, ts []agent.Template) bool {
	ids := map[string]bool{}
	for id := range had {
		ids[id] = true
	}
	for i, tp := range ts {
		if tp.ID == "" {
			tp.ID = fmt.Sprint("new", i)
		}
		ids[tp.ID] = true
	}
	return len(ids) <= m.s.opts.MaxTemplates || len(ids) == len(had)
}

func (m *model) enrol(t *rapid.T) {
	id, ts, replace := drawSubject(t), drawTemplates(t), rapid.Bool().Draw(t, "replace")
	had := m.byID[id]
	if replace {
		had = nil
	}
	want := agent.Code("")
	if !m.fits(had, ts) || !m.usable(id) {
		want = agent.CodeInvalid
	}
	sub, stored, err := m.s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: ts, Replace: replace})
	wantErr(t, err, want)
	if err != nil {
		return
	}
	if replace {
		m.byID[id] = nil
	}
	m.keep(t, sub)
	for _, tp := range stored {
		m.byID[id][tp.ID] = tp
	}
}

func (m *model) add(t *rapid.T) {
	id, ts := drawSubject(t), drawTemplates(t)
	want := agent.Code("")
	if _, ok := m.subjects[id]; !ok {
		want = agent.CodeNotFound
	} else if !m.fits(m.byID[id], ts) || !m.usable(id) {
		want = agent.CodeInvalid
	}
	stored, err := m.s.AddTemplates(id, ts...)
	wantErr(t, err, want)
	for _, tp := range stored {
		m.byID[id][tp.ID] = tp
	}
}

func (m *model) deleteSubject(t *rapid.T) {
	id := drawSubject(t)
	n, err := m.s.DeleteSubject(id)
	if m.isHeld(HoldSubject, id) {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	if _, ok := m.subjects[id]; !ok {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	if n != len(m.byID[id]) {
		t.Fatalf("%d templates deleted, want %d", n, len(m.byID[id]))
	}
	m.gone(t, id)
}

func (m *model) deleteTemplate(t *rapid.T) {
	id, tid := drawSubject(t), rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(t, "id")
	err := m.s.DeleteTemplate(id, tid)
	if m.isHeld(HoldSubject, id) {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	if _, ok := m.byID[id][tid]; !ok {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	delete(m.byID[id], tid)
}

func (m *model) append(t *rapid.T) {
	st := rapid.SampledFrom([]agent.Status{agent.Approved, agent.InReview, agent.Declined, ""}).Draw(t, "status")
	r := testResult(rapid.SampledFrom(append(subjectIDs[:3:3], "")).Draw(t, "subject"), st)
	r.Kind = rapid.SampledFrom([]agent.Kind{agent.KindVerify, agent.KindIdentify}).Draw(t, "kind")
	r.Application = drawApplication(t)
	got, err := m.s.AppendResult(r)
	if st == "" {
		wantErr(t, err, agent.CodeInvalid)
		return
	}
	wantErr(t, err, "")
	m.results, m.last = append(m.results, got), got.Seq
	keys := []string{""}
	if r.SubjectID != "" && (r.Kind == agent.KindVerify || st == agent.Approved) {
		keys = append(keys, r.SubjectID)
	}
	for _, k := range keys {
		if m.failed[k]++; st == agent.Approved {
			m.failed[k] = 0
		}
	}
}

func (m *model) unlock(t *rapid.T) {
	id := rapid.SampledFrom(append(subjectIDs[:3:3], "")).Draw(t, "subject")
	was, err := m.s.Unlock(id)
	if m.failed[id] == 0 {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	if was.Failures != m.failed[id] {
		t.Fatalf("%q had %d failures, want %d", id, was.Failures, m.failed[id])
	}
	m.failed[id] = 0
}

func (m *model) compareThrottles(t *rapid.T) {
	all, err := m.s.Throttles()
	wantErr(t, err, "")
	got := map[string]int{}
	for _, th := range all {
		got[th.Subject] = th.Failures
	}
	for id, n := range m.failed {
		st, err := m.s.Throttle(id)
		if wantErr(t, err, ""); st.Failures != n || got[id] != n {
			t.Fatalf("%q has failed %d times, listed %d, want %d", id, st.Failures, got[id], n)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Fatalf("unexpected counts %v", got)
	}
}

func (m *model) repeat(t *rapid.T) {
	if len(m.results) == 0 {
		t.Skip()
	}
	r := rapid.SampledFrom(m.results).Draw(t, "result")
	got, err := m.s.AppendResult(r)
	wantErr(t, err, "")
	if !reflect.DeepEqual(got, r) {
		t.Fatalf("repeated %+v, got %+v", r, got)
	}
	r.Source = "elsewhere"
	_, err = m.s.AppendResult(r)
	wantErr(t, err, agent.CodeConflict)
}

func (m *model) ack(t *rapid.T) {
	seq := rapid.Uint64Range(0, m.last+1).Draw(t, "seq")
	n, err := m.s.Ack(m.s.Epoch(), seq)
	switch {
	case seq > m.last:
		wantErr(t, err, agent.CodeInvalid)
		return
	case seq <= m.acked:
		seq = m.acked
	}
	wantErr(t, err, "")
	if want := len(m.pending()) - len(m.after(seq)); n != want {
		t.Fatalf("ack removed %d, want %d", n, want)
	}
	m.acked = seq
}

// after are the results with a greater number.
func (m *model) after(seq uint64) []agent.Result {
	i, _ := slices.BinarySearchFunc(m.results, seq+1, func(r agent.Result, n uint64) int { return cmp.Compare(r.Seq, n) })
	return m.results[i:]
}

func (m *model) pending() []agent.Result { return m.after(m.acked) }

func (m *model) isHeld(k HoldKind, id string) bool { return m.holds[string(holdKey(k, id))].ID != "" }

func (m *model) drawHold(t *rapid.T) (HoldKind, string) {
	if len(m.results) > 0 && rapid.Bool().Draw(t, "of a result") {
		return HoldResult, rapid.SampledFrom(m.results).Draw(t, "result").ID
	}
	return HoldSubject, drawSubject(t)
}

func (m *model) hold(t *rapid.T) {
	k, id := m.drawHold(t)
	h, err := m.s.Hold(Hold{Kind: k, ID: id, Reason: "case", By: "counsel"})
	if m.isHeld(k, id) {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	m.holds[string(holdKey(k, id))] = h
}

func (m *model) release(t *rapid.T) {
	k, id := m.drawHold(t)
	_, err := m.s.Release(k, id, "counsel")
	if !m.isHeld(k, id) {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	delete(m.holds, string(holdKey(k, id)))
}

// sweep looks at everything from two months on.
func (m *model) sweep(t *rapid.T) {
	unsent := rapid.Bool().Draw(t, "unsent")
	now := m.s.opts.Now
	m.s.opts.Now = func() time.Time { return now().AddDate(0, 2, 0) }
	defer func() { m.s.opts.Now = now }()
	got, err := m.s.Sweep(context.Background(), m.sweeping(unsent))
	wantErr(t, err, "")
	before, overdue := len(m.results), 0
	m.results = slices.DeleteFunc(m.results, func(r agent.Result) bool {
		if m.keeps(r) {
			return false
		}
		if !unsent && r.Seq > m.acked {
			overdue++
		}
		return (unsent || r.Seq <= m.acked) && !m.isHeld(HoldResult, r.ID) && !m.isHeld(HoldSubject, r.SubjectID)
	})
	if got.Results != before-len(m.results) || got.Overdue != overdue {
		t.Fatalf("swept %+v, want %d results and %d overdue", got, before-len(m.results), overdue)
	}
	var expired []string
	for _, id := range subjectIDs {
		if _, ok := m.subjects[id]; ok && !m.isHeld(HoldSubject, id) {
			expired = append(expired, id)
		}
	}
	slices.Sort(expired)
	if !slices.Equal(got.Expired, expired) {
		t.Fatalf("expired %q, want %q", got.Expired, expired)
	}
}

func (m *model) tell(t *rapid.T) {
	n, err := m.s.PutTelemetry([]byte("reading"))
	wantErr(t, err, "")
	if m.sent++; n != m.sent {
		t.Fatalf("telemetry %d, want %d", n, m.sent)
	}
	m.telemetry = append(m.telemetry, n)
}

func (m *model) heard(t *rapid.T) {
	seq := rapid.Uint64Range(0, m.sent+1).Draw(t, "seq")
	n, err := m.s.AckTelemetry(seq)
	wantErr(t, err, "")
	left := slices.DeleteFunc(slices.Clone(m.telemetry), func(x uint64) bool { return x <= seq })
	if n != len(m.telemetry)-len(left) {
		t.Fatalf("%d rows went, want %d", n, len(m.telemetry)-len(left))
	}
	m.telemetry = left
}

func (m *model) query(t *rapid.T) {
	q := ResultQuery{
		Before: rapid.Uint64Range(0, m.last+2).Draw(t, "before"), Limit: rapid.IntRange(0, 5).Draw(t, "limit"),
		SubjectID: rapid.SampledFrom([]string{"", "a", "ab", "zz"}).Draw(t, "of"),
		Status:    rapid.SampledFrom([]agent.Status{"", agent.Approved}).Draw(t, "status"),
	}
	got, err := m.s.Results(q)
	wantErr(t, err, "")
	newest := slices.Clone(m.results)
	slices.Reverse(newest)
	if want := filterResults(newest, q); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v: %d results, want %d", q, len(got), len(want))
	}
}

func (m *model) reopen(t *rapid.T) {
	wantErr(t, m.s.Check(), "")
	wantErr(t, m.s.Close(), "")
	s, err := Open(m.s.opts)
	wantErr(t, err, "")
	m.s = s
}

func (m *model) kill(t *rapid.T) {
	m.kills++
	m.s = killed(t, m.s, filepath.Join(m.dir, fmt.Sprint("kill-", m.kills)))
}

// killed opens in dir what a process that is killed now leaves: the files as they are,
// never closed.
func killed(t *rapid.T, old *Store, dir string) *Store {
	o := old.opts
	o.Dir, o.Recover = dir, true
	wantErr(t, os.CopyFS(o.Dir, os.DirFS(old.opts.Dir)), "")
	wantErr(t, old.Close(), "")
	s, err := Open(o)
	wantErr(t, err, "")
	if rs := s.Recovered(); len(rs) > 0 {
		t.Fatalf("a kill damaged a file: %+v", rs)
	}
	return s
}

func (m *model) compare(t *rapid.T) {
	st, err := m.s.Stats()
	wantErr(t, err, "")
	want := Stats{Subjects: len(m.subjects), Results: len(m.results), LastSeq: m.last, AckedSeq: m.acked,
		Outbox: len(m.pending()), Telemetry: len(m.telemetry), TemplatesBytes: st.TemplatesBytes, ResultsBytes: st.ResultsBytes}
	subs, err := m.s.Subjects("", 0)
	wantErr(t, err, "")
	for _, si := range subs {
		want.Templates += si.Templates
		if si.Subject != m.subjects[si.ID] {
			t.Fatalf("subject %+v, want %+v", si.Subject, m.subjects[si.ID])
		}
		m.compareTemplates(t, si)
	}
	if st != want || len(subs) != len(m.subjects) {
		t.Fatalf("stats %+v, want %+v", st, want)
	}
	m.compareThrottles(t)
	holds, err := m.s.Holds()
	wantErr(t, err, "")
	if len(holds) != len(m.holds) {
		t.Fatalf("%d holds, want %d", len(holds), len(m.holds))
	}
	pending, err := m.s.Outbox(0, 1000)
	wantErr(t, err, "")
	if !slices.EqualFunc(pending, m.pending(), func(a, b agent.Result) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("outbox of %d, want %d", len(pending), len(m.pending()))
	}
}

func (m *model) compareTemplates(t *rapid.T, si SubjectInfo) {
	ts, err := m.s.Templates(si.ID)
	wantErr(t, err, "")
	if si.Templates != len(ts) || len(ts) != len(m.byID[si.ID]) || !slices.IsSortedFunc(ts, func(a, b agent.Template) int { return strings.Compare(a.ID, b.ID) }) {
		t.Fatalf("subject %q: %d templates, listed %d, want %d", si.ID, len(ts), si.Templates, len(m.byID[si.ID]))
	}
	for _, tp := range ts {
		if !reflect.DeepEqual(tp, m.byID[si.ID][tp.ID]) {
			t.Fatalf("template %+v, want %+v", tp, m.byID[si.ID][tp.ID])
		}
	}
}
