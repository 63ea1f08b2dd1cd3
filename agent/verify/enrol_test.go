package verify_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/verify"
)

func (r *rig) enrol(id string, allow bool, ps ...agent.Probe) (verify.Enrolled, error) {
	q := verify.Enrolment{SubjectID: id, Name: "name of " + id, AllowDuplicate: allow}
	for i, p := range ps {
		q.Pictures = append(q.Pictures, r.p.picture(fmt.Sprintf("%s-%d.jpg", id, i), p))
	}
	return r.Enrol(context.Background(), q)
}

func TestEnrol(t *testing.T) {
	crowd := probeOf(person(0))
	crowd.Others = []agent.Face{{Box: agent.Box{W: 90, H: 90}}}
	otherSpace, poison := probeOf(person(0)), probeOf(agent.Embedding{2, 0})
	otherSpace.Space = "space-2"
	for _, c := range []struct {
		name   string
		id     string
		allow  bool
		ps     []agent.Probe
		code   agent.Code
		words  []string
		stored int // templates of the id afterwards
	}{
		{name: "OK", id: "bob", ps: []agent.Probe{probeOf(person(1)), probeOf(like(1, 0.9, 2))}, stored: 2},
		{name: "some refused", id: "bob", ps: []agent.Probe{blurred(probeOf(person(1))), probeOf(person(1)), nobody}, stored: 1},
		{name: "more of the same person", id: "ada", ps: []agent.Probe{probeOf(like(0, 0.8, 2))}, stored: 2},
		{name: "all blurred", id: "bob", ps: []agent.Probe{blurred(probeOf(person(1)))}, code: agent.CodeQuality,
			words: []string{"bob-0.jpg", "the face is blurred (1 sharpness, limit 40)"}},
		{name: "no face", id: "bob", ps: []agent.Probe{nobody}, code: agent.CodeQuality, words: []string{"no face was found"}},
		{name: "several people", id: "bob", ps: []agent.Probe{crowd}, code: agent.CodeQuality, words: []string{"several faces"}},
		{name: "no pictures", id: "bob", code: agent.CodeInvalid, words: []string{"bob"}},
		{name: "bad id", id: "bob smith", ps: []agent.Probe{probeOf(person(1))}, code: agent.CodeInvalid, words: []string{"bob smith"}},
		{name: "different people", id: "bob", ps: []agent.Probe{probeOf(person(1)), probeOf(person(2))}, code: agent.CodeConflict, words: []string{"different people"}},
		{name: "different people, allowed duplicate", id: "bob", allow: true, ps: []agent.Probe{probeOf(person(1)), probeOf(person(2))}, code: agent.CodeConflict},
		{name: "the id has another face", id: "ada", ps: []agent.Probe{probeOf(person(1))}, code: agent.CodeConflict, words: []string{"ada", "another face"}, stored: 1},
		{name: "the id has another face, allowed duplicate", id: "ada", allow: true, ps: []agent.Probe{probeOf(person(1))}, code: agent.CodeConflict, stored: 1},
		{name: "the face has another id", id: "bob", ps: []agent.Probe{probeOf(like(0, 0.8, 1))}, code: agent.CodeConflict, words: []string{"as subject ada (score 80.0)", "--allow-duplicate"}},
		{name: "the face of the second picture has another id", id: "bob", ps: []agent.Probe{probeOf(like(0, 0.69, 1)), probeOf(like(0, 0.9, 1))},
			code: agent.CodeConflict, words: []string{"ada"}},
		{name: "allowed duplicate", id: "bob", allow: true, ps: []agent.Probe{probeOf(like(0, 0.8, 1))}, stored: 1},
		{name: "looks a bit like another", id: "bob", ps: []agent.Probe{probeOf(like(0, 0.6, 1))}, stored: 1},
		{name: "another space", id: "bob", ps: []agent.Probe{otherSpace}, code: agent.CodeUnavailable, words: []string{space}},
		{name: "not normalised", id: "bob", ps: []agent.Probe{poison}, code: agent.CodeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.mustEnrol(t, "ada", person(0))
			got, err := r.enrol(c.id, c.allow, c.ps...)
			checkCode(t, err, c.code)
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
			if n := len(r.m.templates[c.id]); n != c.stored {
				t.Errorf("%d templates are stored, want %d", n, c.stored)
			}
			if err == nil && (got.Subject.ID != c.id || len(got.Templates)+len(got.Refused) != len(c.ps) || got.Templates[0].ID == "") {
				t.Errorf("enrolled %+v", got)
			}
			wantSubjects := 1
			if c.stored > 0 && c.id != "ada" {
				wantSubjects = 2
			}
			if r.Enrolled() != wantSubjects {
				t.Errorf("%d subjects are in the gallery, want %d", r.Enrolled(), wantSubjects)
			}
		})
	}
}

func TestEnrolFailures(t *testing.T) {
	t.Run("store", func(t *testing.T) {
		r := newRig(t)
		r.m.fail = failOn("Enrol", errDisk)
		_, err := r.enrol("ada", false, probeOf(person(0)))
		checkCode(t, err, agent.CodeStorage)
		if r.Enrolled() != 0 {
			t.Error("the gallery knows who was not stored")
		}
		r.m.fail = nil
		if _, err := r.Verify(context.Background(), "ada", r.evidence(person(0))); agent.ErrorCode(err) != agent.CodeNotFound {
			t.Errorf("verify: %v", err)
		}
		if res, err := r.Identify(context.Background(), r.evidence(person(0))); err != nil || res.Decision.Status != agent.Declined {
			t.Errorf("identify: %+v, %v", res, err)
		}
	})
	t.Run("store, of a known subject", func(t *testing.T) {
		r := newRig(t)
		r.mustEnrol(t, "ada", person(0))
		before := r.look(t, "ada", r.evidence(like(0, 0.8, 1)))
		r.m.fail = failOn("Enrol", errDisk)
		if _, err := r.enrol("ada", false, probeOf(like(0, 0.8, 1))); agent.ErrorCode(err) != agent.CodeStorage {
			t.Fatal(err)
		}
		if after := r.look(t, "ada", r.evidence(like(0, 0.8, 1))); after.Score != before.Score {
			t.Errorf("the reference moved: score %v, was %v", after.Score, before.Score)
		}
	})
	t.Run("prober", func(t *testing.T) {
		r := newRig(t)
		r.p.fail = failOn("ada-1.jpg", errBroken)
		_, err := r.enrol("ada", false, probeOf(person(0)), probeOf(person(0)))
		checkCode(t, err, agent.CodeUnavailable)
		if !strings.Contains(err.Error(), "ada-1.jpg") || len(r.m.subjects) != 0 {
			t.Errorf("%v; %d subjects stored", err, len(r.m.subjects))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(context.Background())
		q := verify.Enrolment{SubjectID: "ada", Progress: func(int, int) { cancel() },
			Pictures: []*agent.Frame{r.p.picture("x", probeOf(person(0)))}}
		if _, err := r.Enrol(ctx, q); err == nil || len(r.m.subjects) != 0 {
			t.Errorf("err = %v", err)
		}
	})
}

func TestEnrolProgress(t *testing.T) {
	r := newRig(t)
	var seen []int
	q := verify.Enrolment{SubjectID: "ada", Progress: func(done, total int) { seen = append(seen, done, total) },
		Pictures: []*agent.Frame{r.p.picture("x", probeOf(person(0))), r.p.picture("y", probeOf(person(0)))}}
	if _, err := r.Enrol(context.Background(), q); err != nil || fmt.Sprint(seen) != "[0 2 1 2]" {
		t.Errorf("progress %v, %v", seen, err)
	}
}
