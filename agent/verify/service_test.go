package verify_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name  string
		shown []agent.Embedding
		want  agent.Status
		risk  agent.Risk
	}{
		{"the subject", []agent.Embedding{like(0, 0.9, 2)}, agent.Approved, ""},
		{"at review", []agent.Embedding{like(0, 0.7, 2)}, agent.InReview, agent.RiskLowSimilarity},
		{"at decline", []agent.Embedding{like(0, 0.5, 2)}, agent.Declined, agent.RiskLowSimilarity},
		{"another subject", []agent.Embedding{person(1)}, agent.Declined, agent.RiskLowSimilarity},
		{"nobody", nil, agent.Declined, agent.RiskNoReference},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.mustEnrol(t, "ada", person(0))
			r.mustEnrol(t, "bob", person(1))
			res, err := r.Verify(context.Background(), "ada", r.evidence(c.shown...))
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, res.Decision, c.want, c.risk)
			if res.SubjectID != "ada" || res.Kind != agent.KindVerify || res.Source != "cam" || res.ID == "" {
				t.Errorf("result %+v", res)
			}
			if got := r.m.stored(); len(got) != 1 || got[0].Decision.Status != c.want {
				t.Errorf("stored %+v", got)
			}
		})
	}
	t.Run("unknown subject", func(t *testing.T) {
		r := newRig(t)
		res, err := r.Verify(context.Background(), "nobody", r.evidence(person(0)))
		checkCode(t, err, agent.CodeNotFound)
		checkNothing(t, r, res)
	})
	t.Run("no templates", func(t *testing.T) {
		r := newRig(t)
		r.m.subjects["ada"] = agent.Subject{ID: "ada"}
		res, err := r.Verify(context.Background(), "ada", r.evidence(person(0)))
		if err != nil {
			t.Fatal(err)
		}
		checkDecision(t, res.Decision, agent.Declined, agent.RiskNoReference)
	})
	t.Run("default source", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		ev := r.evidence(person(0))
		ev.Source = ""
		if res, err := r.Verify(context.Background(), "ada", ev); err != nil || res.Source != "test" {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// checkNothing asserts that there is nothing to act on.
func checkNothing(tb testing.TB, r *rig, res agent.Result) {
	tb.Helper()
	if res.ID != "" || res.Decision.Status != "" || res.SubjectID != "" || len(r.m.stored()) != 0 {
		tb.Errorf("result %+v, stored %+v", res, r.m.stored())
	}
}

// A template or a picture of another model never matches, even with the very
// same numbers.
func TestOtherSpaceNeverMatches(t *testing.T) {
	t.Run("template", func(t *testing.T) {
		r := newRig(t)
		r.m.subjects["ada"] = agent.Subject{ID: "ada"}
		r.m.templates["ada"] = []agent.Template{{ID: "t", SubjectID: "ada", Space: "space-2", Embedding: person(0)}}
		r.open(t)
		if r.Enrolled() != 0 {
			t.Fatal("the template is in the gallery")
		}
		checkDeclined(t, r, person(0), agent.RiskNoReference)
	})
	t.Run("of another length", func(t *testing.T) {
		r := newRig(t)
		r.m.subjects["ada"] = agent.Subject{ID: "ada"}
		r.m.templates["ada"] = []agent.Template{{ID: "t", SubjectID: "ada", Space: space, Embedding: agent.Embedding{1, 0}}}
		r.open(t)
		checkDeclined(t, r, person(0), agent.RiskLowSimilarity)
	})
	t.Run("picture", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		ev := r.NewEvidence("cam", 1)
		p := probeOf(person(0))
		p.Space = "space-2"
		ev.Add(&p)
		checkEvidenceDeclined(t, r, ev, agent.RiskNotComputed)
	})
	t.Run("a service without a space", func(t *testing.T) {
		r := newRig(t)
		if _, err := verify.New(verify.Config{Matcher: r.Matcher, Store: r.m}); err == nil {
			t.Error("it would load templates of every space")
		}
	})
	t.Run("after deleting one by reload", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		r.m.templates["ada"] = append(r.m.templates["ada"], agent.Template{Space: "space-2", SubjectID: "ada", Embedding: person(1)})
		r.m.fail = failOn("DeleteSubject", errDisk)
		if _, err := r.Delete("ada"); err == nil {
			t.Fatal("no error")
		}
		r.m.fail = nil
		checkDeclined(t, r, person(1), agent.RiskLowSimilarity)
	})
}

func checkDeclined(tb testing.TB, r *rig, shown agent.Embedding, risk agent.Risk) {
	tb.Helper()
	checkEvidenceDeclined(tb, r, r.evidence(shown), risk)
}

func checkEvidenceDeclined(tb testing.TB, r *rig, ev *verify.Evidence, risk agent.Risk) {
	tb.Helper()
	v, err := r.Verify(context.Background(), "ada", ev)
	if err != nil {
		tb.Fatal(err)
	}
	checkDecision(tb, v.Decision, agent.Declined, risk)
	i, err := r.Identify(context.Background(), ev)
	if err != nil {
		tb.Fatal(err)
	}
	checkDecision(tb, i.Decision, agent.Declined, risk)
	if i.SubjectID != "" {
		tb.Errorf("a declined search names %s", i.SubjectID)
	}
}

func TestIdentify(t *testing.T) {
	for _, c := range []struct {
		name    string
		gallery []agent.Embedding // of subjects s0, s1, ...
		shown   agent.Embedding
		want    agent.Status
		subject string
		risk    agent.Risk
	}{
		{"found", []agent.Embedding{person(0), person(1)}, like(1, 0.95, 9), agent.Approved, "s1", ""},
		{"enough for 1:1 only", []agent.Embedding{person(0)}, like(0, 0.8, 9), agent.InReview, "s0", agent.RiskLowSimilarity},
		{"at the review threshold", []agent.Embedding{person(0)}, like(0, 0.9, 9), agent.InReview, "s0", agent.RiskLowSimilarity},
		{"stranger", []agent.Embedding{person(0), person(1)}, person(5), agent.Declined, "", agent.RiskLowSimilarity},
		{"empty gallery", nil, person(0), agent.Declined, "", agent.RiskNoReference},
		{"no evidence", []agent.Embedding{person(0)}, nil, agent.Declined, "", agent.RiskNoReference},
		{"twins", []agent.Embedding{person(0), person(0)}, person(0), agent.InReview, "", agent.RiskAmbiguous},
		{"lead below the margin", []agent.Embedding{person(0), like(0, 0.91, 1)}, person(0), agent.InReview, "s0", agent.RiskAmbiguous},
		{"lead above the margin", []agent.Embedding{person(0), like(0, 0.89, 1)}, person(0), agent.Approved, "s0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			for i, e := range c.gallery {
				r.mustEnrol(t, fmt.Sprintf("s%d", i), e)
			}
			var shown []agent.Embedding
			if c.shown != nil {
				shown = append(shown, c.shown)
			}
			res, err := r.Identify(context.Background(), r.evidence(shown...))
			if err != nil {
				t.Fatal(err)
			}
			checkDecision(t, res.Decision, c.want, c.risk)
			if c.subject != "" && res.SubjectID != c.subject || c.want == agent.Declined && res.SubjectID != "" {
				t.Errorf("subject %q, want %q", res.SubjectID, c.subject)
			}
			if res.Kind != agent.KindIdentify || len(r.m.stored()) != 1 {
				t.Errorf("result %+v", res)
			}
		})
	}
	t.Run("a wide margin counts below the decline threshold too", func(t *testing.T) {
		r := newRig(t, func(p *verify.Policy) { p.IdentifyMargin = 40 })
		r.mustEnrol(t, "s0", person(0))
		r.mustEnrol(t, "s1", like(0, 0.65, 1))
		res, err := r.Identify(context.Background(), r.evidence(person(0)))
		if err != nil {
			t.Fatal(err)
		}
		checkDecision(t, res.Decision, agent.InReview, agent.RiskAmbiguous)
	})
}

func TestIdentifyIsLimited(t *testing.T) {
	for name, c := range map[string]struct {
		max  int
		code agent.Code
	}{
		"off": {0, agent.CodeUnavailable}, "at the limit": {2, ""}, "above the limit": {1, agent.CodeUnavailable}, "nonsense": {-1, agent.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(p *verify.Policy) {
				p.Identify = &decide.Search{FPIR: float64(c.max) * 1e-5, ReviewFPIR: float64(c.max) * 1e-3}
				if c.max == 0 {
					p.Identify = nil
				}
			})
			r.mustEnrol(t, "ada", person(0))
			r.mustEnrol(t, "bob", person(1))
			res, err := r.Identify(context.Background(), r.evidence(person(0)))
			checkCode(t, err, c.code)
			d, lookErr := r.Lookup(r.evidence(person(0)))
			checkCode(t, lookErr, c.code)
			if err != nil {
				checkNothing(t, r, res)
				if d.Status != agent.Declined {
					t.Errorf("lookup %+v", d)
				}
				return
			}
			if d.Status != agent.Approved || res.SubjectID != "ada" {
				t.Errorf("lookup %+v, result %+v", d, res)
			}
		})
	}
}

// A decision that is not stored is not a decision.
func TestNotDurable(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		verb string
		want error
	}{
		{"append fails", context.Background(), "AppendResult", errDisk},
		{"cancelled", cancelled, "", context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.mustEnrol(t, "ada", person(0))
			r.m.fail = failOn(c.verb, errDisk)
			v, err := r.Verify(c.ctx, "ada", r.evidence(person(0)))
			if !errors.Is(err, c.want) {
				t.Errorf("verify: %v", err)
			}
			checkNothing(t, r, v)
			i, err := r.Identify(c.ctx, r.evidence(person(0)))
			if !errors.Is(err, c.want) {
				t.Errorf("identify: %v", err)
			}
			checkNothing(t, r, i)
		})
	}
	t.Run("subject cannot be read", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		r.m.fail = failOn("Subject", errDisk)
		v, err := r.Verify(context.Background(), "ada", r.evidence(person(0)))
		checkCode(t, err, agent.CodeStorage)
		checkNothing(t, r, v)
	})
	t.Run("lookups store nothing", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		if d := r.look(t, "ada", r.evidence(person(0))); d.Status != agent.Approved {
			t.Errorf("decision %+v", d)
		}
		if d, err := r.Lookup(r.evidence(person(0))); err != nil || d.Status != agent.Approved {
			t.Errorf("decision %+v, %v", d, err)
		}
		if n := len(r.m.stored()); n != 0 {
			t.Errorf("%d results", n)
		}
	})
}

func TestNewLoadsTheGallery(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ada", person(0), like(0, 0.9, 2))
	r.mustEnrol(t, "bob", person(1))
	before := r.look(t, "ada", r.evidence(like(0, 0.8, 2)))
	r.open(t)
	if r.Enrolled() != 2 {
		t.Errorf("%d subjects", r.Enrolled())
	}
	if after := r.look(t, "ada", r.evidence(like(0, 0.8, 2))); after.Score != before.Score || after.Status != agent.Approved {
		t.Errorf("score %v after the restart, %v before", after.Score, before.Score)
	}
	r.m.fail = failOn("EachTemplate", errDisk)
	if _, err := verify.New(verify.Config{Matcher: r.Matcher, Store: r.m, Space: space}); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("err = %v", err)
	}
}

func TestSubject(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ada", person(0))
	if s, ts, err := r.Subject("ada"); err != nil || s.ID != "ada" || len(ts) != 1 {
		t.Errorf("%+v %+v %v", s, ts, err)
	}
	if _, _, err := r.Subject("bob"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("err = %v", err)
	}
}

func TestDelete(t *testing.T) {
	t.Run("OK", func(t *testing.T) {
		r := newRig(t)
		for i := range 4 {
			r.mustEnrol(t, fmt.Sprintf("s%d", i), person(i))
		}
		if n, err := r.Delete("s1"); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		for i := range 4 {
			res, err := r.Identify(context.Background(), r.evidence(person(i)))
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("s%d", i); (i == 1) != (res.SubjectID == "") || i != 1 && res.SubjectID != want {
				t.Errorf("person %d is %q", i, res.SubjectID)
			}
		}
		_, err := r.Verify(context.Background(), "s1", r.evidence(person(1)))
		checkCode(t, err, agent.CodeNotFound)
		if r.Enrolled() != 3 {
			t.Errorf("%d subjects", r.Enrolled())
		}
	})
	t.Run("unknown", func(t *testing.T) {
		_, err := newRig(t).Delete("nobody")
		checkCode(t, err, agent.CodeNotFound)
	})
	t.Run("store fails", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		r.m.fail = failOn("DeleteSubject", errDisk)
		_, err := r.Delete("ada")
		checkCode(t, err, agent.CodeStorage)
		if d := r.look(t, "ada", r.evidence(person(0))); d.Status != agent.Approved {
			t.Errorf("who is still stored is not known any more: %+v", d)
		}
	})
	t.Run("store fails altogether", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		r.m.fail = func(string) error { return errDisk }
		_, err := r.Delete("ada")
		checkCode(t, err, agent.CodeStorage)
		if !strings.Contains(err.Error(), "until restart") {
			t.Errorf("error %q", err)
		}
		if d := r.look(t, "ada", r.evidence(person(0))); d.Status != agent.Declined {
			t.Errorf("decision %+v", d)
		}
	})
	t.Run("the gallery forgets first", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		r.m.onDelete = func() {
			if d := r.look(t, "ada", r.evidence(person(0))); d.Status != agent.Declined {
				t.Errorf("recognised while being deleted: %+v", d)
			}
		}
		if _, err := r.Delete("ada"); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever overlaps, the gallery ends up as the store is, and nobody is taken
// for somebody else.
func TestConcurrentUse(t *testing.T) {
	r := newRig(t)
	const people = 4
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for range 150 {
				i := rnd.IntN(people)
				id := fmt.Sprintf("s%d", i)
				switch rnd.IntN(4) {
				case 0:
					_, err := r.Enrol(context.Background(), verify.Enrolment{SubjectID: id, Pictures: []*agent.Frame{r.p.picture(id, probeOf(person(i)))}})
					if err != nil {
						t.Error(err)
					}
				case 1:
					if _, err := r.Delete(id); err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
						t.Error(err)
					}
				case 2:
					if res, err := r.Identify(context.Background(), r.evidence(person(i))); err != nil || res.SubjectID != "" && res.SubjectID != id {
						t.Errorf("person %d: %+v, %v", i, res, err)
					}
				case 3:
					res, err := r.Verify(context.Background(), id, r.evidence(person((i+1)%people)))
					if err == nil && res.Decision.Status != agent.Declined {
						t.Errorf("somebody else was let in: %+v", res)
					}
				}
			}
		})
	}
	wg.Wait()
	if r.Enrolled() != len(r.m.subjects) {
		t.Errorf("the gallery has %d subjects, the store %d", r.Enrolled(), len(r.m.subjects))
	}
	for i := range people {
		_, stored := r.m.subjects[fmt.Sprintf("s%d", i)]
		res, err := r.Identify(context.Background(), r.evidence(person(i)))
		if err != nil || (res.Decision.Status == agent.Approved) != stored {
			t.Errorf("person %d, stored %v: %+v, %v", i, stored, res, err)
		}
	}
}

// yield gives other goroutines every chance to get in between.
func yield() {
	for range 1000 {
		runtime.Gosched()
	}
}

// Who is deleted the moment they are enrolled is not recognised afterwards.
func TestDeleteDuringEnrol(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	r.m.onEnrol = func() {
		wg.Go(func() {
			if _, err := r.Delete("ada"); err != nil {
				t.Error(err)
			}
		})
		yield()
	}
	r.mustEnrol(t, "ada", person(0))
	wg.Wait()
	if r.Enrolled() != 0 {
		t.Fatal("the gallery knows who was deleted")
	}
}

// Two people at two terminals cannot enrol one face twice.
func TestConcurrentDuplicates(t *testing.T) {
	for range 20 {
		r := newRig(t)
		r.m.onEnrol = yield
		var wg sync.WaitGroup
		for i := range 4 {
			id := fmt.Sprintf("s%d", i)
			f := r.p.picture(id, probeOf(person(0)))
			wg.Go(func() { r.Enrol(context.Background(), verify.Enrolment{SubjectID: id, Pictures: []*agent.Frame{f}}) })
		}
		wg.Wait()
		if r.Enrolled() != 1 {
			t.Fatalf("%d subjects with one face", r.Enrolled())
		}
	}
}

// Random operations with parts that fail at random, against a model: only the
// right person is ever approved, only when no part failed, and only once it is
// stored.
func TestFailsClosed(t *testing.T) {
	verbs := []string{"", "", "", "Subject", "Templates", "Enrol", "DeleteSubject", "AppendResult", "probe"}
	rnd := rand.New(rand.NewPCG(7, 7))
	approved := 0
	for round := range 60 {
		r := newRig(t)
		for step := range 60 {
			i, j := rnd.IntN(3), rnd.IntN(3)
			id := fmt.Sprintf("s%d", i)
			broken := verbs[rnd.IntN(len(verbs))]
			r.m.fail, r.p.fail = failOn(broken, errDisk), nil
			if broken == "probe" {
				r.p.fail = func(string) error { return errBroken }
			}
			before := len(r.m.stored())
			_, wasThere := r.m.subjects[id]
			var res agent.Result
			var err error
			var op string
			switch rnd.IntN(6) {
			case 0:
				op = "enrol"
				_, err = r.enrol(id, false, probeOf(like(i, 0.95, 8+rnd.IntN(3))))
			case 1:
				op = "delete"
				_, err = r.Delete(id)
			case 2, 3:
				op = "verify"
				ev := r.observe(j)
				res, err = r.Verify(context.Background(), id, ev)
			case 4:
				op = "identify"
				ev := r.observe(j)
				res, err = r.Identify(context.Background(), ev)
				id, i = res.SubjectID, j
				wasThere = r.m.subjects[id].ID != ""
			case 5:
				op = "match"
				a, b := r.p.picture("a", probeOf(person(i))), r.p.picture("b", probeOf(person(j)))
				c, merr := r.Match(context.Background(), a, b)
				if c.Decision.Status == agent.Approved && (i != j || broken == "probe" || merr != nil) {
					t.Fatalf("round %d step %d: %+v with %q broken", round, step, c.Decision, broken)
				}
				continue
			}
			where := fmt.Sprintf("round %d step %d: %s %s shown %d with %q broken: %+v, %v", round, step, op, id, j, broken, res, err)
			if err != nil && res.ID != "" {
				t.Fatal("an error with a result:", where)
			}
			if res.Decision.Status != agent.Approved {
				continue
			}
			approved++
			if i != j || id != fmt.Sprintf("s%d", j) || !wasThere || broken == "probe" || broken == "AppendResult" || len(r.m.stored()) != before+1 {
				t.Fatal("wrongly approved:", where)
			}
		}
	}
	if approved < 50 {
		t.Errorf("only %d approvals: the test tests little", approved)
	}
}

// observe gathers evidence as the loop does: a failing prober spoils it.
func (r *rig) observe(i int) *verify.Evidence {
	ev := r.NewEvidence("cam", 1)
	p, err := r.p.Probe(context.Background(), r.p.picture("live", probeOf(person(i))))
	if err != nil {
		ev.Fail()
		p = probeOf(person(i)) // what was seen before the failure
	}
	ev.Add(&p)
	return ev
}

// A closed service knows nobody.
func TestCloseForgets(t *testing.T) {
	r := newRig(t)
	r.mustEnrol(t, "ada", person(0))
	r.Close()
	r.Close()
	res, err := r.Verify(context.Background(), "ada", r.evidence(person(0)))
	if err != nil {
		t.Fatal(err)
	}
	checkDecision(t, res.Decision, agent.Declined, agent.RiskNoReference)
	if r.Enrolled() != 0 {
		t.Error("somebody is still in the gallery")
	}
}
