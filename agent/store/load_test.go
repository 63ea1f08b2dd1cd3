package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
)

// Where briefHeader answers, it answers as encoding/json does; for what the store
// writes itself, and for plain names, it always answers.
func TestBriefHeaderModel(t *testing.T) {
	plain := rapid.StringMatching(`[a-zA-Z0-9 ._:/-]{1,40}`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(plain, rapid.String())
		f := rapid.Float32Range(-1e9, 1e9)
		want := agent.Template{ID: name.Draw(t, "id"), SubjectID: name.Draw(t, "subject"), ModelID: name.Draw(t, "model"), Space: name.Draw(t, "space"),
			CreatedAt: stamp(time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "created"))),
			Quality:   agent.Quality{Yaw: f.Draw(t, "yaw"), Sharpness: f.Draw(t, "sharpness")}}
		h, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(h, &want); err != nil {
			t.Fatal(err)
		}
		want.Quality = agent.Quality{}
		got := agent.Template{ID: "before", SubjectID: want.SubjectID, Quality: agent.Quality{Yaw: 1}}
		if briefHeader(h, &got) {
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: %+v, want %+v", h, got, want)
			}
			return
		}
		for _, s := range []string{want.ID, want.SubjectID, want.ModelID, want.Space} {
			if q, _ := json.Marshal(s); string(q) != `"`+s+`"` || len(s) != len([]rune(s)) || s == "\x7f" {
				return // JSON writes it in another way
			}
			for _, c := range s {
				if c > '~' {
					return
				}
			}
		}
		t.Fatalf("no answer for %s", h)
	})
}

func TestBriefHeaderLeavesTheRestToJSON(t *testing.T) {
	h, err := json.Marshal(agent.Template{ID: "i", SubjectID: "s", ModelID: "m", Space: "e"})
	must(t, err)
	var got agent.Template
	if !briefHeader(h, &got) {
		t.Fatalf("no answer for %s", h)
	}
	for n := range h {
		if briefHeader(h[:n], &got) {
			t.Errorf("an answer for %s", h[:n])
		}
	}
	for _, other := range []string{
		"", "{}", " " + string(h), string(h) + " ", string(h[:len(h)-1]) + `,"id":"x"}`,
		`{"id":"i","subject_id":"s","model_id":"m","space":"e","quality":{"yaw":{}},"created_at":"0001-01-01T00:00:00Z"}`,
		`{"id":"i","subject_id":"s","model_id":"m","space":"e","quality":{},"created_at":"yesterday"}`,
		`{"id":"\u0069","subject_id":"s","model_id":"m","space":"e","quality":{},"created_at":"0001-01-01T00:00:00Z"}`,
		`{"subject_id":"s","id":"i","model_id":"m","space":"e","quality":{},"created_at":"0001-01-01T00:00:00Z"}`,
	} {
		if briefHeader([]byte(other), &got) {
			t.Errorf("an answer for %s", other)
		}
	}
}

func FuzzBriefHeader(f *testing.F) {
	h, err := json.Marshal(agent.Template{ID: "i", SubjectID: "s", ModelID: "m", Space: "e"})
	must(f, err)
	f.Add(h)
	f.Fuzz(func(t *testing.T, h []byte) {
		var got, want agent.Template
		if !briefHeader(h, &got) || json.Unmarshal(h, &want) != nil {
			return
		}
		want.Quality = agent.Quality{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", h, got, want)
		}
	})
}

// Batches are read at once and in any order; they arrive in that of the keys, each
// template with its own embedding, and what the walk reads is what Templates reads.
func TestEachTemplateIsTemplates(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	var want []agent.Template
	for i := range 200 {
		ts := testTemplates(7) // 1,400: several batches, which split subjects
		for j := range ts {
			ts[j].Embedding = unit(7*i+j, 24)
			if j%3 == 1 {
				ts[j].Space, ts[j].ModelID, ts[j].Embedding = "s2", `a "quoted" model`, unit(7*i+j, 40)
			}
		}
		id := fmt.Sprintf("subject-%03d", i)
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: ts})
		must(t, err)
		stored, err := s.Templates(id)
		must(t, err)
		want = append(want, stored...)
	}
	i := 0
	must(t, s.EachTemplate("", func(got agent.Template) error {
		want[i].Quality = agent.Quality{}
		if !reflect.DeepEqual(got, want[i]) {
			t.Fatalf("template %d: %+v, want %+v", i, got, want[i])
		}
		i++
		return nil
	}))
	if i != len(want) {
		t.Errorf("%d templates of %d", i, len(want))
	}
	stop := errors.New("stop")
	if err := s.EachTemplate("", func(agent.Template) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
