package report

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

var now = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

// pictures are a store of pictures by id.
func pictures(t *testing.T) func(string) (agent.Media, error) {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 40, 20))
	var j, p bytes.Buffer
	if jpeg.Encode(&j, img, nil) != nil || png.Encode(&p, img) != nil {
		t.Fatal("no pictures")
	}
	return func(id string) (agent.Media, error) {
		m := agent.Media{ID: id, ContentType: "image/jpeg", Data: j.Bytes(), ExpiresAt: now.Add(time.Hour)}
		switch id {
		case "png":
			m.ContentType, m.Data = "image/png", p.Bytes()
		case "webp":
			m.ContentType = "image/webp"
		case "broken":
			m.Data = []byte("\xff\xd8\xff no picture")
		case "expired":
			m.ExpiresAt = now
		case "gone":
			return m, &agent.Error{Code: agent.CodeNotFound, Message: "gone"}
		}
		return m, nil
	}
}

func match(source, target string) cases.StepState {
	score := 65.43
	return cases.StepState{Attempts: 1, Step: cases.Step{Node: "feature_face_match_1", Feature: cases.FaceMatch, MaxAttempts: 3, Thresholds: agent.Thresholds{Review: 70, Decline: 50}},
		Outcome: cases.Outcome{Status: cases.NodeInReview, Score: &score, Source: source, Target: target, Reference: cases.FromPortrait}}
}

func TestPDF(t *testing.T) {
	for _, c := range []struct {
		name           string
		source, target string
		pictures       int
	}{
		{"both faces", "jpeg", "png", 2},
		{"one is gone", "gone", "png", 1},
		{"one has expired", "expired", "png", 1},
		{"one cannot be shown", "webp", "jpeg", 1},
		{"one is broken", "broken", "jpeg", 1},
		{"none", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &cases.Session{ID: "s", Number: 7, Status: cases.InReview, CreatedAt: now, UpdatedAt: now, VendorData: "José 日本 \x00\u202e😀",
				Steps: []cases.StepState{match(c.source, c.target), {Skipped: true, Step: cases.Step{Feature: cases.Liveness}}}}
			for range cases.MaxReviews {
				s.Reviews = append(s.Reviews, cases.Review{User: "ann", Comment: strings.Repeat("Σ long ", 140), CreatedAt: now})
			}
			r := &Report{Media: pictures(t), Now: func() time.Time { return now }, By: "test"}
			pdf, err := r.PDF(s)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(pdf, []byte("%PDF-")) || !bytes.Contains(pdf[len(pdf)-32:], []byte("%%EOF")) {
				t.Errorf("%d bytes are no PDF", len(pdf))
			}
			if n := bytes.Count(pdf, []byte("/Subtype /Image")); n != c.pictures {
				t.Errorf("%d pictures, want %d", n, c.pictures)
			}
		})
	}
}

func TestShown(t *testing.T) {
	if got := shown("José Ω Ж\n日\u202e😀\x00"); got != "José Ω Ж ¿¿¿¿" {
		t.Errorf("shown as %q", got)
	}
}
