package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"
)

// postern runs one command on a data folder and returns its output.
func (s *started) postern(t *testing.T, data string, args ...string) string {
	t.Helper()
	var out, errw bytes.Buffer
	if code := execute(context.Background(), append([]string{"--data", data, "--set", "device=test", "--json"}, args...), nil, nil, &out, &errw); code != 0 {
		t.Fatalf("postern %v: exit %d: %s", args, code, &errw)
	}
	return out.String()
}

// faceMatch asks the started agent and returns status and body.
func (s *started) faceMatch(t *testing.T, token string, pictures ...string) (int, map[string]any) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for i, name := range pictures {
		raw, err := os.ReadFile(face(t, name))
		if err != nil {
			t.Fatal(err)
		}
		p, err := form.CreateFormFile([]string{"target_image", "source_image"}[i], name)
		if err != nil {
			t.Fatal(err)
		}
		p.Write(raw)
	}
	form.Close()
	r, err := http.NewRequest(http.MethodPost, s.url+"v3/face-match/", &body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.Header.Set("X-Api-Key", token)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%d %s", resp.StatusCode, raw)
	}
	return resp.StatusCode, answer
}

// The whole way: a key made while the agent runs, a match of real faces with it, its
// links, the saved session, and the key's end.
func TestRunAPI(t *testing.T) {
	data := shortDir(t)
	s := start(t, "--data", data, "--set", "camera.source=none")
	var key newKey
	if err := json.Unmarshal([]byte(s.postern(t, data, "keys", "create", "door")), &key); err != nil {
		t.Fatal(err)
	}
	code, answer := s.faceMatch(t, key.Token, "obama.jpg", "obama2.jpg")
	match, _ := answer["face_match"].(map[string]any)
	if code != 200 || match["status"] != "Approved" {
		t.Fatalf("%d %v", code, answer)
	}
	if code, body := get(t, match["source_image"].(string)); code != 200 || len(body) < 1000 {
		t.Errorf("the link to the reference: %d, %d bytes", code, len(body))
	}
	if code, answer := s.faceMatch(t, key.Token, "obama.jpg", "biden.jpg"); code != 200 || answer["face_match"].(map[string]any)["status"] != "Declined" {
		t.Errorf("two people: %d %v", code, answer)
	}
	r, err := http.NewRequest(http.MethodGet, s.url+"v3/session/"+answer["request_id"].(string)+"/decision/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", key.Token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the saved request: %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()

	list := s.postern(t, data, "keys", "list")
	if !strings.Contains(list, key.ID) || strings.Contains(list, key.Token[len(key.Token)-52:]) || strings.Contains(list, "digest") {
		t.Errorf("keys list: %s", list)
	}
	s.postern(t, data, "keys", "revoke", key.ID)
	if code, answer := s.faceMatch(t, key.Token, "obama.jpg", "obama2.jpg"); code != 401 {
		t.Errorf("a revoked key: %d %v", code, answer)
	}
	if log := s.postern(t, data, "audit", "list"); strings.Count(log, key.ID) != 2 {
		t.Errorf("the audit log does not tell the key's beginning and end: %s", log)
	}
	if code, _ := get(t, s.url+"system/healthcheck"); code != 200 {
		t.Errorf("health %d", code)
	}
	if code, page := get(t, s.url); code != 200 || !strings.Contains(page, "<html") {
		t.Errorf("the page beside the API: %d", code)
	}
}

func TestKeysRefuseNonsense(t *testing.T) {
	for _, args := range [][]string{{"--scope", "everything"}, {"--scope", "sessions=all"}, {"--network", "10.0.0.1"}, {"--expires", "-1h"}} {
		var out, errw bytes.Buffer
		all := append([]string{"--data", t.TempDir(), "keys", "create", "x"}, args...)
		if code := execute(context.Background(), all, nil, nil, &out, &errw); code != exitInvalid || out.Len() > 0 {
			t.Errorf("%v: exit %d, %s%s", args, code, &out, &errw)
		}
	}
}
