package store

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
)

func TestSubjects(t *testing.T) {
	now := time.Date(2026, 11, 2, 14, 3, 0, 123456789, time.FixedZone("x", 3600))
	o := testOptions(t)
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)

	a, err := s.PutSubject(agent.Subject{ID: "a", Name: "Ann"})
	must(t, err)
	if !a.CreatedAt.Equal(now.Truncate(time.Microsecond)) || a.CreatedAt.Location() != time.UTC {
		t.Errorf("created at %v", a.CreatedAt)
	}
	created := a.CreatedAt
	now = now.Add(time.Hour)
	a, err = s.PutSubject(agent.Subject{ID: "a", Name: "Anne", CreatedAt: now})
	must(t, err)
	got, err := s.Subject("a")
	must(t, err)
	if got != a || got.Name != "Anne" || !got.CreatedAt.Equal(created) || !got.UpdatedAt.After(created) {
		t.Errorf("subject %+v, put returned %+v", got, a)
	}

	for _, id := range []string{"", "nobody", "a\x00", strings.Repeat("x", 40000)} {
		_, err = s.Subject(id)
		wantCode(t, err, agent.CodeNotFound)
		_, err = s.DeleteSubject(id)
		wantCode(t, err, agent.CodeNotFound)
		_, err = s.Templates(id)
		wantCode(t, err, agent.CodeNotFound)
	}
	_, err = s.PutSubject(agent.Subject{ID: "a b"})
	wantCode(t, err, agent.CodeInvalid)
}

func TestSubjectsPaging(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	for i := range 25 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprintf("s%02d", i)}, Templates: testTemplates(i % 3)})
		must(t, err)
	}
	var all []SubjectInfo
	for after := ""; ; {
		page, err := s.Subjects(after, 10)
		must(t, err)
		all = append(all, page...)
		if len(page) < 10 {
			break
		}
		after = page[9].ID
	}
	if len(all) != 25 {
		t.Fatalf("%d subjects", len(all))
	}
	for i, si := range all {
		if si.ID != fmt.Sprintf("s%02d", i) || si.Templates != i%3 {
			t.Errorf("%d: %s with %d templates", i, si.ID, si.Templates)
		}
	}
}

func TestEnrolAndTemplates(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	_, stored, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a", Name: "Ann"}, Templates: testTemplates(2)})
	must(t, err)
	// A subject whose id starts with another's must not share its templates.
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "ab"}, Templates: testTemplates(3)})
	must(t, err)
	more, err := s.AddTemplates("a", testTemplate(9))
	must(t, err)

	got, err := s.Templates("a")
	must(t, err)
	want := append(stored, more...)
	slices.SortFunc(want, func(a, b agent.Template) int { return strings.Compare(a.ID, b.ID) })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("templates\n%+v\nwant\n%+v", got, want)
	}
	// Repeating with the same ids changes nothing.
	_, err = s.AddTemplates("a", want...)
	must(t, err)
	must(t, s.DeleteTemplate("a", want[0].ID))
	wantCode(t, s.DeleteTemplate("a", want[0].ID), agent.CodeNotFound)
	wantCode(t, s.DeleteTemplate("a", ""), agent.CodeNotFound)
	st, err := s.Stats()
	must(t, err)
	if st.Subjects != 2 || st.Templates != 5 {
		t.Errorf("stats %+v", st)
	}
	n, err := s.DeleteSubject("a")
	must(t, err)
	if n != 2 {
		t.Errorf("%d templates deleted, want 2", n)
	}
	_, err = s.AddTemplates("a", testTemplate(1))
	wantCode(t, err, agent.CodeNotFound)
}

func TestEnrolReplace(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	sub := agent.Subject{ID: "a"}
	_, _, err := s.Enrol(Enrolment{Subject: sub, Templates: testTemplates(10)})
	must(t, err)
	_, stored, err := s.Enrol(Enrolment{Subject: sub, Templates: testTemplates(4), Replace: true})
	must(t, err)
	got, err := s.Templates("a")
	must(t, err)
	if len(got) != 4 || len(stored) != 4 {
		t.Errorf("%d templates after replacing with %d", len(got), len(stored))
	}
}

func TestTemplateRefused(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, change := range map[string]func(*agent.Template){
		"empty":      func(t *agent.Template) { t.Embedding = nil },
		"nan":        func(t *agent.Template) { t.Embedding[1] = nan },
		"inf":        func(t *agent.Template) { t.Embedding[0] = inf },
		"zero":       func(t *agent.Template) { t.Embedding = make(agent.Embedding, 8) },
		"long":       func(t *agent.Template) { t.Embedding = unit(1, maxDim+1) },
		"dimension":  func(t *agent.Template) { t.Embedding = unit(1, 9) },
		"space":      func(t *agent.Template) { t.Space = "" },
		"model":      func(t *agent.Template) { t.ModelID = "" },
		"id":         func(t *agent.Template) { t.ID = "a b" },
		"subject":    func(t *agent.Template) { t.SubjectID = "b" },
		"quality":    func(t *agent.Template) { t.Quality.Yaw = nan },
		"year 20000": func(t *agent.Template) { t.CreatedAt = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		t.Run(name, func(t *testing.T) {
			s := mustOpen(t, testOptions(t))
			_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(1)})
			must(t, err)
			good, bad := testTemplate(5), testTemplate(6)
			change(&bad)
			_, err = s.AddTemplates("a", good, bad)
			wantCode(t, err, agent.CodeInvalid)
			if got, err := s.Templates("a"); err != nil || len(got) != 1 {
				t.Errorf("%d templates after a refused call: %v", len(got), err)
			}
		})
	}
}

func TestTemplateCap(t *testing.T) {
	o := testOptions(t)
	o.MaxTemplates = 3
	s := mustOpen(t, o)
	_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(4)})
	wantCode(t, err, agent.CodeInvalid, "4 templates")
	_, err = s.Subject("a")
	wantCode(t, err, agent.CodeNotFound) // nothing of a refused enrolment stays
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(3)})
	must(t, err)
	_, err = s.AddTemplates("a", testTemplate(1))
	wantCode(t, err, agent.CodeInvalid)
}

func TestEachTemplate(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	const subjects = 300 // more templates than one batch
	for i := range subjects {
		ts := testTemplates(4)
		ts[3].Space, ts[3].Embedding = "s2", unit(i, 16)
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint(i)}, Templates: ts})
		must(t, err)
	}
	for space, want := range map[string]int{"s1": 3 * subjects, "s2": subjects, "": 4 * subjects, "none": 0} {
		seen := map[string]bool{}
		must(t, s.EachTemplate(space, func(tp agent.Template) error {
			if space != "" && tp.Space != space {
				t.Errorf("space %q in %q", tp.Space, space)
			}
			seen[tp.ID] = true
			return nil
		}))
		if len(seen) != want {
			t.Errorf("space %q: %d templates, want %d", space, len(seen), want)
		}
	}
	// The callback may write: it runs between transactions.
	stop := errors.New("stop")
	err := s.EachTemplate("s1", func(tp agent.Template) error {
		if _, err := s.DeleteSubject(tp.SubjectID); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
}

func TestResults(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	statuses := []agent.Status{agent.Approved, agent.InReview, agent.Declined}
	var want []agent.Result
	for i := range 1200 { // more than two batches
		r, err := s.AppendResult(testResult(fmt.Sprint("s", i%5), statuses[i%3]))
		must(t, err)
		if r.Seq != uint64(i+1) || r.Device != testDevice || r.Epoch != s.Epoch() || r.ID == "" || r.At.IsZero() {
			t.Fatalf("appended %+v", r)
		}
		want = append(want, r)
	}
	slices.Reverse(want)
	for _, q := range []ResultQuery{
		{}, {Limit: 7}, {Limit: 1000}, {Before: 100, Limit: 1000}, {Before: 1}, {Before: 1 << 60, Limit: 3},
		{SubjectID: "s3"}, {SubjectID: "s3", Before: 50, Limit: 4}, {SubjectID: "s"}, {SubjectID: "zz"},
		{Status: agent.InReview, Limit: 399}, {Status: agent.Declined, Before: 1150, Limit: 300},
		{SubjectID: "s1", Status: agent.Approved, Limit: 1000},
	} {
		got, err := s.Results(q)
		must(t, err)
		if exp := filterResults(want, q); !reflect.DeepEqual(got, exp) {
			t.Errorf("%+v: %d results, want %d", q, len(got), len(exp))
		}
	}
	got, err := s.Result(want[17].ID)
	must(t, err)
	if !reflect.DeepEqual(got, want[17]) {
		t.Errorf("result %+v, want %+v", got, want[17])
	}
	_, err = s.Result("nothing")
	wantCode(t, err, agent.CodeNotFound)
	_, err = s.Result("")
	wantCode(t, err, agent.CodeNotFound)
}

// filterResults is Results on a slice, newest first.
func filterResults(all []agent.Result, q ResultQuery) []agent.Result {
	out := []agent.Result{}
	for _, r := range all {
		if (q.Before == 0 || r.Seq < q.Before) && (q.SubjectID == "" || r.SubjectID == q.SubjectID) &&
			(q.Status == "" || r.Decision.Status == q.Status) && len(out) < clampLimit(q.Limit) {
			out = append(out, r)
		}
	}
	return out
}

func TestAppendRefused(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	for name, change := range map[string]func(*agent.Result){
		"zero decision": func(r *agent.Result) { r.Decision = agent.Decision{} },
		"status":        func(r *agent.Result) { r.Decision.Status = "approved" },
		"kind":          func(r *agent.Result) { r.Kind = "" },
		"nan score":     func(r *agent.Result) { r.Decision.Score = math.NaN() },
		"nan cosine":    func(r *agent.Result) { r.Decision.Cosine = float32(math.NaN()) },
		"score":         func(r *agent.Result) { r.Decision.Score = 100.5 },
		"subject":       func(r *agent.Result) { r.SubjectID = "a\x00b" },
		"id":            func(r *agent.Result) { r.ID = strings.Repeat("x", 65) },
		"huge":          func(r *agent.Result) { r.Source = strings.Repeat("x", maxHeader) },
	} {
		r := testResult("a", agent.Approved)
		change(&r)
		_, err := s.AppendResult(r)
		if agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := s.AppendResult(testResult("a", agent.Approved))
	must(t, err)
	if r.Seq != 1 {
		t.Errorf("refused results took sequence numbers: %d", r.Seq)
	}
}

func TestAppendTwice(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	first, err := s.AppendResult(testResult("a", agent.Approved))
	must(t, err)
	again, err := s.AppendResult(first)
	must(t, err)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("repeated append gave %+v, want %+v", again, first)
	}
	other := first
	other.Decision.Status = agent.Declined
	_, err = s.AppendResult(other)
	wantCode(t, err, agent.CodeConflict)
	if st, err := s.Stats(); err != nil || st.LastSeq != 1 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestAppendConcurrently(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	const workers, each = 40, 25
	seqs := make(chan uint64, workers*each)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r := testResult("a", agent.Declined)
				if r.ID = fmt.Sprintf("r-%d-%d", w, i); i == 3 {
					r.ID = "shared" // one of them wins, the same for all
					r.At = time.Unix(1, 0)
				}
				got, err := s.AppendResult(r)
				if err != nil {
					t.Error(err)
				}
				if i != 3 {
					seqs <- got.Seq
				}
			}
		})
	}
	wg.Wait()
	close(seqs)
	seen := map[uint64]bool{}
	for q := range seqs {
		seen[q] = true
	}
	if len(seen) != workers*(each-1) {
		t.Errorf("%d different numbers", len(seen))
	}
	st, err := s.Stats()
	must(t, err)
	if st.LastSeq != workers*(each-1)+1 {
		t.Errorf("last %d", st.LastSeq)
	}
}

func TestOutbox(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	const n = 600 // more than two batches of an ack
	for range n {
		_, err := s.AppendResult(testResult("", agent.Declined))
		must(t, err)
	}
	wantPending := func(from uint64, limit int, first uint64, count int) {
		t.Helper()
		rs, err := s.Outbox(from, limit)
		must(t, err)
		if len(rs) != count || (count > 0 && rs[0].Seq != first) {
			t.Fatalf("outbox from %d: %d rows", from, len(rs))
		}
		for i, r := range rs {
			if r.Seq != first+uint64(i) {
				t.Fatalf("row %d is %d", i, r.Seq)
			}
		}
	}
	wantAck := func(seq uint64, want int) {
		t.Helper()
		got, err := s.Ack(s.Epoch(), seq)
		must(t, err)
		if got != want {
			t.Fatalf("ack %d removed %d, want %d", seq, got, want)
		}
	}
	wantPending(0, 0, 1, 100)
	wantPending(590, 1000, 590, 11)
	wantAck(0, 0)
	wantAck(10, 10)
	wantAck(10, 0)
	wantAck(3, 0)
	wantPending(1, 5, 11, 5)
	_, err := s.Ack("another epoch", 20)
	wantCode(t, err, agent.CodeConflict)
	_, err = s.Ack(s.Epoch(), n+1)
	wantCode(t, err, agent.CodeInvalid)
	s = mustReopen(t, s)
	wantAck(n, n-10)
	wantPending(0, 10, 0, 0)
	if d, err := s.OutboxDepth(); err != nil || d != 0 {
		t.Errorf("depth %d, %v", d, err)
	}
	if rs, err := s.Results(ResultQuery{}); err != nil || len(rs) != 100 {
		t.Errorf("results went with their outbox rows: %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	must(t, s.Close())
	must(t, s.Close())
	_, err := s.AppendResult(testResult("a", agent.Declined))
	wantCode(t, err, agent.CodeUnavailable)
	_, err = s.Results(ResultQuery{})
	wantCode(t, err, agent.CodeUnavailable)
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}})
	wantCode(t, err, agent.CodeUnavailable)
	wantCode(t, s.Check(), agent.CodeUnavailable)
}

func TestNewID(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	var id string
	must(t, s.fillID(&id))
	if len(id) != 36 || id[14] != '7' || !strings.ContainsAny(id[19:20], "89ab") {
		t.Errorf("id %q is not a UUIDv7", id)
	}
}

// Embeddings are lent for the call only, whether the walk ends well or not.
func TestEachTemplateWipes(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	for i := range 5 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint(i)}, Templates: testTemplates(2)})
		must(t, err)
	}
	for _, stopAt := range []int{-1, 3} {
		var lent []agent.Embedding
		err := s.EachTemplate("", func(tp agent.Template) error {
			if checkNorm(tp.Embedding) != nil {
				t.Error("the embedding is not there")
			}
			if lent = append(lent, tp.Embedding); len(lent) == stopAt {
				return errors.New("stop")
			}
			return nil
		})
		if (err != nil) != (stopAt > 0) {
			t.Error(err)
		}
		for i, e := range lent {
			if slices.ContainsFunc(e, func(v float32) bool { return v != 0 }) {
				t.Errorf("stop at %d: embedding %d is left in memory", stopAt, i)
			}
		}
	}
}
