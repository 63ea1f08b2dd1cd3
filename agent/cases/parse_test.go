package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"postern/agent"
)

func TestParseWorkflow(t *testing.T) {
	plain, err := ParseWorkflow([]byte(`{"workflow_label":"w","features":["LIVENESS","FACE_MATCH"],"review_threshold":80,"decline_threshold":40}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	full, err := ParseWorkflow([]byte(`{"workflow_label":"w","features":[
		{"feature":"LIVENESS","config":{"face_liveness_method":"PASSIVE","face_liveness_score_review_threshold":80,"face_liveness_score_decline_threshold":40}},
		{"feature":"FACE_MATCH","config":{"face_match_score_review_threshold":80,"face_match_score_decline_threshold":40}}]}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(plain, full) {
		t.Errorf("the two published forms differ\n%+v\n%+v", plain, full)
	}
	st := plain.Variants[0].Steps
	if plain.Status != Published || st[0].Node != "feature_liveness_1" || st[1].Node != "feature_face_match_1" || st[1].Thresholds != (agent.Thresholds{Review: 80, Decline: 40}) || st[1].MaxAttempts != 3 {
		t.Errorf("workflow %+v", plain)
	}
}

// What a workflow shows under variants makes the same workflow again.
func TestWorkflowViewReadsBack(t *testing.T) {
	w, err := ParseWorkflow([]byte(`{"variants":[{"name":"a","weight":3,"features":["LIVENESS",{"feature":"FACE_MATCH","label":"x","run_if":{"feature":"LIVENESS","status":["In Review"],"score_above":10}}]},
		{"name":"b","features":[{"feature":"ID_VERIFICATION"},{"feature":"FACE_MATCH","config":{"face_match_max_attempts":1,"face_match_not_computed_action":"REVIEW"}},{"feature":"FACE_SEARCH","config":{"duplicated_face_action":"DECLINE"}}]}]}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{"variants": w.View(Links{})["variants"]})
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseWorkflow(raw, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	for i := range w.Variants {
		for j := range w.Variants[i].Steps { // what is usual is spelt out in the view
			a, b := &w.Variants[i].Steps[j], &again.Variants[i].Steps[j]
			for risk, act := range b.Actions {
				if a.actionOn(risk) != act {
					t.Errorf("%s: %s is %s, was %s", b.Node, risk, act, a.actionOn(risk))
				}
			}
			a.Actions, b.Actions = nil, nil
		}
	}
	if !reflect.DeepEqual(w.Variants, again.Variants) {
		t.Errorf("%+v\n%+v", w.Variants, again.Variants)
	}
}

// TestRetryWindow: what cannot be kept is refused, but for the null that answers show.
func TestRetryWindow(t *testing.T) {
	if _, err := ParseWorkflow([]byte(`{"features":["LIVENESS"],"retry_window_days":null}`), nil); err != nil {
		t.Error(err)
	}
	for _, v := range []string{"0", "7", `"7"`, "{}"} {
		_, err := ParseWorkflow([]byte(`{"features":["LIVENESS"],"retry_window_days":`+v+`}`), nil)
		var r *Refusal
		if !errors.As(err, &r) || r.Field != "retry_window_days" {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestParseWorkflowRefuses(t *testing.T) {
	for body, want := range map[string]string{
		``:                        "JSON object",
		`[]`:                      "JSON object",
		`{}`:                      "features: This field is required.",
		`{"features":[]}`:         "may not be empty",
		`{"features":["OCR"]}`:    "no text is read",
		`{"features":["AML"]}`:    "not available here",
		`{"features":["NONE"]}`:   "not a valid feature",
		`{"features":"LIVENESS"}`: "Expected a list",
		`{"features":[7]}`:        "a name or an object",
		`{"features":["LIVENESS"],"workflow_type":"kyc"}`:                                                                                         "workflow_type: Unknown field.",
		`{"features":["LIVENESS"],"is_face_match_enabled":true}`:                                                                                  "Unknown field.",
		`{"features":["LIVENESS"],"features":["FACE_MATCH"]}`:                                                                                     "stands twice",
		`{"features":["FACE_MATCH"],"review_threshold":40,"decline_threshold":60}`:                                                                "decline threshold",
		`{"features":["FACE_MATCH"],"review_threshold":100}`:                                                                                      "threshold",
		`{"features":["FACE_MATCH"],"review_threshold":"high"}`:                                                                                   "A valid number is required.",
		`{"features":["FACE_MATCH"],"status":"live"}`:                                                                                             "draft or published",
		`{"features":["FACE_MATCH"],"session_expiration_time":1}`:                                                                                 "between",
		`{"features":["FACE_MATCH"],"workflow_label":"` + strings.Repeat("x", 51) + `"}`:                                                          "no more than 50",
		`{"features":[{"feature":"FACE_MATCH","config":{"no_reference_image_action":"REVIEW"}}]}`:                                                 "unknown setting",
		`{"features":[{"feature":"FACE_MATCH","config":{"face_match_not_computed_action":"NO_ACTION"}}]}`:                                         "nothing can be approved",
		`{"features":[{"feature":"FACE_MATCH","config":{"face_match_eyes_covered_action":"DECLINE"}}]}`:                                           "not done here",
		`{"features":[{"feature":"LIVENESS","config":{"face_liveness_method":"active_3d"}}]}`:                                                     "not available here",
		`{"features":[{"feature":"LIVENESS","config":{"face_liveness_max_attempts":0}}]}`:                                                         "must be 1 to",
		`{"features":[{"feature":"LIVENESS","run_if":{"feature":"FACE_MATCH","status":"Approved"}}]}`:                                             "no former step",
		`{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS"}}]}`:                                                      "needs a status",
		`{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","status":"Great"}}]}`:                                     "not Approved, Declined or In Review",
		`{"features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","status":"Approved","x":1}}]}`:                            "unknown setting",
		`{"features":["LIVENESS"],"variants":[{"features":["LIVENESS"]}]}`:                                                                        "either features or variants",
		`{"variants":[{"name":"a","features":["LIVENESS"]},{"name":"a","features":["LIVENESS"]}]}`:                                                "a name of its own",
		`{"variants":[{"name":"a","weight":0,"features":["LIVENESS"]}]}`:                                                                          "weight",
		`{"features":["LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS","LIVENESS"]}`: "no more than 10",
	} {
		_, err := ParseWorkflow([]byte(body), nil)
		var r *Refusal
		if !errors.As(err, &r) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

// FACE_MATCH is a toggle: adding it changes nothing else.
func TestAddFeature(t *testing.T) {
	old, err := ParseWorkflow([]byte(`{"workflow_label":"door","features":["LIVENESS"],"session_expiration_time":600,"language":"de"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseWorkflow([]byte(`{"features":["LIVENESS","FACE_MATCH"]}`), &old)
	if err != nil {
		t.Fatal(err)
	}
	if got := FeatureNames(w.Variants[0].Steps); len(got) != 2 || w.Label != "door" || w.Expiration != 600 || w.Language != "de" || len(old.Variants[0].Steps) != 1 {
		t.Errorf("%+v", w)
	}
}

type zeros struct{ r *rand.Rand }

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(z.r.Uint32())
	}
	return len(p), nil
}

func TestChooseByWeight(t *testing.T) {
	w := Workflow{Variants: []Variant{{Name: "a", Weight: 1}, {Name: "b", Weight: 3}}}
	r, count := zeros{rand.New(rand.NewPCG(1, 2))}, map[string]int{}
	for range 4000 {
		v, err := w.Choose(r)
		if err != nil {
			t.Fatal(err)
		}
		count[v.Name]++
	}
	if count["a"] < 850 || count["a"] > 1150 { // 1,000 expected, 5 standard deviations are 137
		t.Errorf("chosen %v", count)
	}
	if _, err := w.Choose(bytes.NewReader(nil)); err == nil {
		t.Error("chosen without randomness")
	}
}

// FuzzParseWorkflow: no body breaks the parser, and what it accepts is valid.
func FuzzParseWorkflow(f *testing.F) {
	f.Add([]byte(both))
	f.Add([]byte(`{"variants":[{"name":"a","features":["LIVENESS",{"feature":"FACE_MATCH","run_if":{"feature":"LIVENESS","score_above":1}}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := ParseWorkflow(body, nil)
		if err != nil {
			return
		}
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseWorkflow([]byte(`{"workflow_label":"x"}`), &w); err != nil {
			t.Fatalf("a change of the label: %v", err)
		}
	})
}
