package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

// fileless is a Store that only decodes.
func fileless() *Store {
	return &Store{opts: Options{Device: testDevice}, results: &dbFile{epoch: "e1"}}
}

func goldenTemplate() agent.Template {
	return agent.Template{
		ID: "t1", SubjectID: "a", ModelID: "m1", Space: "s1",
		Quality:   agent.Quality{EyeDistance: 61.5, Luminance: 48, Contrast: 20, Sharpness: 300, Yaw: -2, Pitch: 1, Roll: 0.5, Inside: 1},
		CreatedAt: time.Date(2026, 11, 2, 14, 3, 0, 5000, time.UTC), Embedding: agent.Embedding{0.6, -0.8},
	}
}

func goldenResult() agent.Result {
	r := testResult("a", agent.InReview)
	r.ID, r.At = "r1", time.Date(2026, 11, 2, 14, 3, 0, 5000, time.UTC)
	r.Decision.Thresholds = agent.Thresholds{Review: 90, Decline: 50}
	r.Decision.Warnings = []agent.Warning{{Feature: "FACE_MATCH", Risk: agent.RiskLowSimilarity, LogType: agent.LogWarning}}
	r.Decision.Timings.Embed = 7 * time.Millisecond
	return r
}

// TestGolden reads records as version 1 wrote them, behind the version byte. When
// it fails, files in the field cannot be read any more: do not change the test.
func TestGolden(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile("testdata/" + name)
		must(t, err)
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		must(t, err)
		return b
	}
	s := fileless()
	tp, err := templateOf(templateKey("a", "t1"), "a", "t1", read("template-v1.hex")[1:])
	must(t, err)
	if !reflect.DeepEqual(tp, goldenTemplate()) {
		t.Errorf("template %+v", tp)
	}
	r, err := s.resultOf(seqKey(7), 7, read("result-v1.hex")[1:])
	must(t, err)
	want := goldenResult()
	s.position(&want, 7)
	if !reflect.DeepEqual(r, want) {
		t.Errorf("result %+v", r)
	}
}

func templatePayload(tb testing.TB, t agent.Template) []byte {
	tb.Helper()
	p, err := encodePayload(t, t.Embedding)
	must(tb, err)
	return p
}

func resultPayload(tb testing.TB, r agent.Result) []byte {
	tb.Helper()
	p, err := encodePayload(r, nil)
	must(tb, err)
	return p
}

func TestDecodeRefuses(t *testing.T) {
	good := templatePayload(t, goldenTemplate())
	s, key := fileless(), templateKey("a", "t1")
	open := func(p []byte) (agent.Template, error) { return templateOf(key, "a", "t1", p) }
	edit := func(fn func([]byte) []byte) []byte { return fn(bytes.Clone(good)) }
	n := len(good)
	for name, v := range map[string][]byte{
		"nothing":       nil,
		"header length": edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b, math.MaxUint32); return b }),
		"header long":   edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b, uint32(n)); return b }),
		"header json":   edit(func(b []byte) []byte { b[4] = 'x'; return b }),
		"dimension":     edit(func(b []byte) []byte { b[n-9] = 1; return b }),
		"dimension big": edit(func(b []byte) []byte { b[n-9] = 3; return b }),
		"nan":           edit(func(b []byte) []byte { copy(b[n-4:], []byte{0, 0, 0xc0, 0x7f}); return b }),
		"inf":           edit(func(b []byte) []byte { copy(b[n-4:], []byte{0, 0, 0x80, 0xff}); return b }),
		"trailing":      edit(func(b []byte) []byte { return append(b, 0) }),
		"other subject": edit(func(b []byte) []byte { return bytes.Replace(b, []byte(`"a"`), []byte(`"b"`), 1) }),
		"a result":      resultPayload(t, goldenResult()),
	} {
		if tp, err := open(v); agent.ErrorCode(err) != agent.CodeStorage || tp.Embedding != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		if _, err := open(good[:i]); err == nil {
			t.Errorf("cut at %d was accepted", i)
		}
	}
	if _, err := open(good); err != nil {
		t.Error(err)
	}
	for _, v := range [][]byte{nil, good, templatePayload(t, agent.Template{}), resultPayload(t, agent.Result{})} {
		if _, err := s.resultOf(seqKey(1), 1, v); agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("result of %d bytes: %v", len(v), err)
		}
		if _, err := subjectOf([]byte("a"), v); agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("subject of %d bytes: %v", len(v), err)
		}
	}
}

func FuzzDecodeTemplate(f *testing.F) {
	f.Add(templatePayload(f, goldenTemplate()))
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		tp, err := decodeTemplate(p)
		if err != nil {
			return
		}
		if err := checkTemplate(&tp); err != nil {
			t.Fatalf("accepted %+v: %v", tp, err)
		}
		again, err := encodePayload(tp, tp.Embedding)
		must(t, err)
		if tp2, err := decodeTemplate(again); err != nil || !reflect.DeepEqual(tp, tp2) {
			t.Fatalf("%+v became %+v: %v", tp, tp2, err)
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(resultPayload(f, goldenResult()))
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := decodeResult(p)
		if err != nil {
			return
		}
		again, err := encodePayload(r, nil)
		if err != nil {
			t.Fatalf("accepted %+v: %v", r, err)
		}
		r2, err := decodeResult(again)
		if err != nil || !reflect.DeepEqual(mustJSON(t, r), mustJSON(t, r2)) {
			t.Fatalf("%+v became %+v: %v", r, r2, err)
		}
	})
}

func FuzzDecodeSubject(f *testing.F) {
	p, err := encodePayload(agent.Subject{ID: "a", Name: "Ann"}, nil)
	must(f, err)
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, err := decodeSubject(p); err == nil {
			must(t, agent.ValidateSubject(s.ID, s.Name))
		}
	})
}

func mustJSON(tb testing.TB, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	must(tb, err)
	return string(b)
}
