package webhook

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// The published vectors: what independent receivers compute for these bodies.
const testID = "11111111-2222-3333-4444-555555555555"

var vectors = []struct {
	name, secret, body string // body as parsed from; S stands for testID
	canonical          string // "" where body is canonical already
	timestamp          int64
	status             string
	v2, simple         string
}{
	{name: "plain", secret: "whsec_test", timestamp: 1700000000, status: "Approved",
		body:   `{"created_at":1700000000,"event_id":"evt_0001","session_id":"S","status":"Approved","timestamp":1700000000,"webhook_type":"status.updated"}`,
		v2:     "b033b02d44163506a451bc3a53a95ceb05d56e43edfd336b9ce3a48d47a3efff",
		simple: "c1350de59469aa627bbf7818318f39ec42488080c492ba101beacf63edc75013"},
	{name: "whole floats", secret: "whsec_test", timestamp: 1700000001, status: "Declined",
		body: `{"webhook_type":"status.updated","session_id":"S","status":"Declined","created_at":1700000001,"timestamp":1700000001,
			"decision":{"session_id":"S","status":"Declined","face_matches":[
				{"score":99.0,"node_id":"feature_face_match_1","status":"Declined","warnings":[]},
				{"score":65.43,"node_id":"feature_face_match_2","status":"Declined","warnings":[]}]},
			"metadata":{"a":-0.0,"big":1e16,"l":[1.0,1.5,[100.0]],"n":null,"t":true,"z":2.0}}`,
		canonical: `{"created_at":1700000001,"decision":{"face_matches":[{"node_id":"feature_face_match_1","score":99,"status":"Declined","warnings":[]},{"node_id":"feature_face_match_2","score":65.43,"status":"Declined","warnings":[]}],"session_id":"S","status":"Declined"},"metadata":{"a":0,"big":10000000000000000,"l":[1,1.5,[100]],"n":null,"t":true,"z":2},"session_id":"S","status":"Declined","timestamp":1700000001,"webhook_type":"status.updated"}`,
		v2:        "d0d1942cf3b168535da2d0c93f1bf32b376416c679966195fb0250dfba6518d0",
		simple:    "9ba24517e317d4398f26398ad4df821c62b98959feed839a3ee4503a4c31929f"},
	{name: "letters of many scripts", secret: "s3cr3t-ñ", timestamp: 1700000002, status: "In Review",
		body:   `{"created_at":1700000002,"metadata":{"Z":3,"a":2,"é":1,"日":4},"session_id":"S","status":"In Review","timestamp":1700000002,"vendor_data":"José Müller 日本 😀","webhook_type":"status.updated"}`,
		v2:     "60c741e3927b075720d50a32f08ed3277e31962ddb99182376d0597f1361e27f",
		simple: "90f2ad2d2cdbef051db732c2f689ba7e030a3f4d7cfefb2690ddfe75951afb9c"},
	{name: "what encoders escape", secret: "whsec_test", timestamp: 1700000003, status: "Approved",
		body:      `{"created_at":1700000003,"session_id":"S","status":"Approved","timestamp":1700000003,"vendor_data":"<a href=\"/x?y=1&z=2\">'\\ \u2028\u2029 \u007f tab\t nl\n bs\b ff\f nul\u0001 </a>","webhook_type":"status.updated"}`,
		canonical: "{\"created_at\":1700000003,\"session_id\":\"S\",\"status\":\"Approved\",\"timestamp\":1700000003,\"vendor_data\":\"<a href=\\\"/x?y=1&z=2\\\">'\\\\ \u2028\u2029 \u007f tab\\t nl\\n bs\\b ff\\f nul\\u0001 </a>\",\"webhook_type\":\"status.updated\"}",
		v2:        "9b714037e27d0745352d30454e992ebdff3577082d6b6c8cd47d213f8f52237c",
		simple:    "4e76853b1102a9ac8cca57912ec3d4aa5fed46e7df896de9183643a1a00cf874"},
	{name: "a whole decision", secret: "tno2NTeRC1ZK3sBOYlBJDyEzBVENl3pQ1AcZyAW0xnQ", timestamp: 1785000000, status: "Approved",
		body:   `{"created_at":1785000000,"decision":{"created_at":"2026-07-25T17:20:00.000000Z","face_matches":[{"node_id":"feature_face_match_1","score":99.41,"source_image":"http://localhost:8080/media/a.jpg?sig=x&exp=1","source_image_session_id":null,"status":"Approved","target_image":"http://localhost:8080/media/b.jpg?sig=y&exp=1","warnings":[]}],"features":["LIVENESS","FACE_MATCH"],"id_verifications":[],"liveness_checks":[{"face_luminance":50.33,"face_quality":84.21,"matches":[],"method":"PASSIVE","node_id":"feature_liveness_1","score":95,"status":"Approved","warnings":[]}],"reviews":[],"session_id":"S","session_kind":"user","session_number":43762,"status":"Approved"},"environment":"live","event_id":"5f0c2f7e-0000-4000-8000-000000000001","metadata":{"user_type":"premium"},"session_id":"S","session_kind":"user","status":"Approved","timestamp":1785000000,"vendor_data":"user-123","webhook_type":"status.updated","workflow_id":"99999999-2222-3333-4444-555555555555","workflow_version":3}`,
		v2:     "4fe2a72dfe4822dea4a4d16bd307ab59f009c64edec4d163cffb72b5e576db32",
		simple: "f9509dc190a5e14e4cdf03fa6a3390acb2ab75622331d8db0b2718c1e9010aa5"},
}

func TestSignatureVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			in := strings.ReplaceAll(v.body, `"S"`, `"`+testID+`"`)
			want := strings.ReplaceAll(v.canonical, `"S"`, `"`+testID+`"`)
			if want == "" {
				want = in
			}
			body, err := Canonical(json.RawMessage(in))
			if err != nil || string(body) != want {
				t.Fatalf("canonical %v\n%s\nwant\n%s", err, body, want)
			}
			h := http.Header{}
			s := signed{body: body, timestamp: v.timestamp, session: testID, status: v.status, kind: "status.updated"}
			s.sign(h, v.secret, "")
			if h.Get(HeaderV2) != v.v2 || h.Get(HeaderRaw) != v.v2 || h.Get(HeaderSimple) != v.simple {
				t.Errorf("headers %v", h)
			}
			if _, there := h[http.CanonicalHeaderKey(HeaderNext)]; there {
				t.Error("a second signature without a second secret")
			}
		})
	}
}

func TestSignatureHeaders(t *testing.T) {
	h := http.Header{}
	s := signed{body: []byte("{}"), timestamp: 17}
	s.sign(h, "old", "new")
	if h.Get(HeaderTimestamp) != "17" || h.Get(HeaderV2) != Sign("old", s.body) || h.Get(HeaderNextV2) != Sign("new", s.body) || h.Get(HeaderNext) != Sign("new", s.body) {
		t.Errorf("headers %v", h)
	}
}

// Values as Python's json.dumps writes them after whole floats have become ints.
func TestCanonicalNumbers(t *testing.T) {
	for in, want := range map[string]string{
		`-0`: `0`, `-0.0`: `0`, `0.0`: `0`, `1E2`: `100`, `12345678901234567890123`: `12345678901234567890123`, `1e22`: `10000000000000000000000`,
		`0.1`: `0.1`, `0.0001`: `0.0001`, `0.00001`: `1e-05`, `1.5e-7`: `1.5e-07`, `-2.5`: `-2.5`, `123456789.125`: `123456789.125`, `1.7976931348623157e308`: "179769313486231570814527423731704356798070567525844996598917476803157260780028538760589558632766878171540458953514382464234321326889464182768467546703537516986049910576551282076245490090389328944075868508455133942304583236903222948165808559332123348274797826204144723168738177180919299881250404026184124858368",
	} {
		if got, err := Canonical(json.RawMessage(in)); err != nil || string(got) != want {
			t.Errorf("%s: %s %v, want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{`1e999`, `{"a":}`, ``, `1 2`, `"\xff"`} {
		if got, err := Canonical(json.RawMessage(bad)); err == nil && bad != `"\xff"` {
			t.Errorf("%q was encoded as %s", bad, got)
		}
	}
	if _, err := Canonical(map[string]any{"x": math.NaN()}); err == nil {
		t.Error("NaN was encoded")
	}
}

// Keys sort by code point: an astral one comes after U+FFFF, which UTF-16 units
// would turn round.
func TestCanonicalKeys(t *testing.T) {
	got, err := Canonical(map[string]any{"\U0001F600": 1, "\uFFFD": 2, "\uE000": 3, "b": 4, "B": 5, "": 6, "aa": 7, "a": 8})
	if want := "{\"\":6,\"B\":5,\"a\":8,\"aa\":7,\"b\":4,\"\uE000\":3,\"\uFFFD\":2,\"\U0001F600\":1}"; err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
}

// FuzzCanonical: what is encoded is valid JSON, means the same, and encodes to
// itself.
func FuzzCanonical(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.body))
	}
	f.Add([]byte(`{"a":[1e-5,-0.0,1E+300,"\ud800"],"":{"b":[[[]]]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Canonical(json.RawMessage(in))
		if err != nil {
			return
		}
		if !json.Valid(out) || !utf8.Valid(out) {
			t.Fatalf("%q is no JSON", out)
		}
		again, err := Canonical(json.RawMessage(out))
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q encodes to %q: %v", out, again, err)
		}
		var a, b any
		if json.Unmarshal(in, &a) == nil && json.Unmarshal(out, &b) == nil && !same(a, b) {
			t.Fatalf("%q means another thing than %q", out, in)
		}
	})
}

// same compares decoded values; -0 is 0.
func same(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if !same(a[k], b[k]) {
				return false
			}
		}
		return true
	}
	return a == b
}
