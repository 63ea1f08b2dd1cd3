package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

func TestFaceMatchAnswer(t *testing.T) {
	b := newBench(t, func(c *Config) { n := 0; c.NewID = func() string { n++; return []string{"m1", "m2", "id"}[(n+1)%3] } })
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.png", picture(t, red, 40, 30)),
		textField("vendor_data", "user-123"), textField("metadata", `{"flow":"login"}`), textField("rotate_image", "false"))
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	m := object(t, w)
	fm := m["face_match"].(map[string]any)
	if fm["status"] != "Approved" || fm["score"] != 100.0 || fm["source_image_session_id"] != nil || len(fm["warnings"].([]any)) != 0 {
		t.Errorf("block %v", fm)
	}
	entity := fm["user_image"].(map[string]any)["entities"].([]any)[0].(map[string]any)
	if got := entity["bbox"].([]any); got[0] != 0.0 || got[1] != 10.0 || got[2] != 16.0 || got[3] != 30.0 {
		t.Errorf("bbox %v is not cut to the picture", got)
	}
	if m["vendor_data"] != "user-123" || m["metadata"].(map[string]any)["flow"] != "login" || m["created_at"] != "2026-06-12T01:04:42.763237+00:00" {
		t.Errorf("envelope %v", m)
	}
	if len(b.saver.saved) != 1 || b.saver.saved[0].ID != m["request_id"] || b.saver.saved[0].Service != "FACE_MATCH" {
		t.Errorf("saved %+v", b.saver.saved)
	}
	if w.Header().Get("X-Request-Id") == "" || w.Header().Get("X-RateLimit-Limit") != "600" {
		t.Errorf("headers %v", w.Header())
	}
}

// The reference is source_image in one spelling and ref_image in the other.
func TestFaceMatchSpellings(t *testing.T) {
	b := newBench(t)
	person, reference := picture(t, red, 40, 30), picture(t, blue, 64, 64)
	for _, names := range [][2]string{{"user_image", "ref_image"}, {"target_image", "source_image"}} {
		w := b.post(t, "/v3/face-match", file(names[0], "a.jpg", person), file(names[1], "b.jpg", reference))
		fm := object(t, w)["face_match"].(map[string]any)
		source := b.get(strings.TrimPrefix(fm["source_image"].(string), "http://example.com"), "")
		target := b.get(strings.TrimPrefix(fm["target_image"].(string), "http://example.com"), "")
		if source.Body.String() != string(reference) || target.Body.String() != string(person) {
			t.Errorf("%v: the links are mixed up", names)
		}
	}
	mixture := `{"non_field_errors":["Send either user_image and ref_image, or target_image and source_image, not a mixture of both."]}`
	for _, names := range [][2]string{{"user_image", "source_image"}, {"target_image", "ref_image"}} {
		want(t, b.post(t, "/v3/face-match/", file(names[0], "a.jpg", person), file(names[1], "b.jpg", reference)), 400, mixture)
	}
}

func TestFaceMatchThreshold(t *testing.T) {
	b := newBench(t)
	same := []field{file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30))}
	for threshold, status := range map[string]string{"": "Approved", "99.99": "Approved", "100": "Declined", "0": "Approved"} {
		fields := same
		if threshold != "" {
			fields = append(fields[:2:2], textField(thresholdField, threshold))
		}
		fm := object(t, b.post(t, "/v3/face-match/", fields...))["face_match"].(map[string]any)
		if fm["status"] != status {
			t.Errorf("threshold %q: %v", threshold, fm)
		}
	}
	// The default declines what is not similar.
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, blue, 40, 30)))
	fm := object(t, w)["face_match"].(map[string]any)
	warning := fm["warnings"].([]any)[0].(map[string]any)
	if fm["status"] != "Declined" || warning["risk"] != "LOW_FACE_MATCH_SIMILARITY" || warning["feature"] != "FACEMATCH" || warning["log_type"] != "error" {
		t.Errorf("%v", fm)
	}
}

// Without a scorable pair the answer declines whatever the threshold says.
func TestFaceMatchNoReference(t *testing.T) {
	b := newBench(t)
	for _, save := range []string{"true", "false"} {
		w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, white, 40, 30)),
			textField(thresholdField, "0"), textField("save_api_request", save))
		fm := object(t, w)["face_match"].(map[string]any)
		if fm["status"] != "Declined" || fm["warnings"].([]any)[0].(map[string]any)["risk"] != "NO_REFERENCE_IMAGE" {
			t.Errorf("save %s: %v", save, fm)
		}
		if score := map[string]any{"true": nil, "false": 0.0}[save]; fm["score"] != score {
			t.Errorf("save %s: score %v", save, fm["score"])
		}
	}
}

func TestFaceMatchUnsavedStoresNothing(t *testing.T) {
	b := newBench(t)
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)), textField("save_api_request", "False"))
	fm := object(t, w)["face_match"].(map[string]any)
	if w.Code != 200 || len(b.saver.saved) != 0 || len(b.saver.media) != 0 || fm["source_image"] != nil || fm["target_image"] != nil {
		t.Errorf("%d %v, saved %d", w.Code, fm, len(b.saver.saved))
	}
}

// Nothing that fails ends in an approval.
func TestFaceMatchFailsClosed(t *testing.T) {
	b := newBench(t)
	same := []field{file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30))}
	b.faces.fail = errors.New("the network broke")
	want(t, b.post(t, "/v3/face-match/", same...), 503, `{"detail":"The service cannot answer now."}`)
	b.faces.fail = nil
	b.saver.fail = &agent.Error{Code: agent.CodeStorage, Message: "the disk is full"}
	w := b.post(t, "/v3/face-match/", same...)
	want(t, w, 503, `{"detail":"The service cannot answer now."}`)
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestFaceMatchLinksDie(t *testing.T) {
	b := newBench(t)
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)))
	link := strings.TrimPrefix(object(t, w)["face_match"].(map[string]any)["source_image"].(string), "http://example.com")
	b.clock.add(59 * time.Minute)
	got := b.get(link, "")
	if got.Code != 200 || got.Header().Get("Content-Type") != "image/jpeg" || got.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v", got.Code, got.Header())
	}
	b.clock.add(time.Minute)
	want(t, b.get(link, ""), 404, `{"detail":"Not found."}`)
	b.clock.add(-2 * time.Hour) // a clock set back does not revive it for longer than it was to live
	want(t, b.get(link, ""), 404, `{"detail":"Not found."}`)
}

func TestFaceMatchRotation(t *testing.T) {
	b := newBench(t)
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)), textField("rotate_image", "true"))
	fm := object(t, w)["face_match"].(map[string]any)
	if b.faces.seen != 8 || fm["user_image"].(map[string]any)["best_angle"] != 0.0 {
		t.Errorf("%d pictures analysed, %v", b.faces.seen, fm)
	}
}

func TestTurn(t *testing.T) {
	f := &agent.Frame{Width: 2, Height: 1, Pix: []byte{1, 1, 1, 2, 2, 2}}
	for angle, first := range map[int]byte{0: 1, 90: 1, 180: 2, 270: 2} {
		got := turn(f, angle)
		if got.Check() != nil || got.Pix[0] != first || angle%180 == 90 && got.Height != 2 {
			t.Errorf("%d: %+v", angle, got)
		}
	}
	back := turn(turn(turn(turn(f, 90), 90), 90), 90)
	if string(back.Pix) != string(f.Pix) {
		t.Error("four quarter turns are not the identity")
	}
}
