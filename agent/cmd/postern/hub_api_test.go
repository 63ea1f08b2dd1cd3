package main

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestHubServesTheAPI drives a hub, in a process of its own and without a camera, as
// TestRunAPI and TestWebhooks drive an agent: matches of real faces, a session, its
// webhook; then kills it, and finds all of it again.
func TestHubServesTheAPI(t *testing.T) {
	data := shortDir(t)
	rc := &receiver{arrived: make(chan struct{}, 1000)}
	hook := httptest.NewServer(rc)
	t.Cleanup(hook.Close)
	args := []string{"hub", "--data", data, "--set", "hub.listen=127.0.0.1:0", "--set", "hub.http_listen=127.0.0.1:0", "--set", "webhooks.allow_loopback=true"}
	p := startProcess(t, args...)
	s := &started{url: p.url + "/"}
	var key newKey
	ok(t, json.Unmarshal([]byte(s.postern(t, data, "keys", "create", "back office")), &key))
	for pair, want := range map[[2]string]string{{"obama.jpg", "obama2.jpg"}: "Approved", {"obama.jpg", "biden.jpg"}: "Declined"} {
		code, answer := s.faceMatch(t, key.Token, pair[0], pair[1])
		if match, _ := answer["face_match"].(map[string]any); code != 200 || match["status"] != want {
			t.Errorf("%v: %d %v", pair, code, answer)
		}
	}
	if a := p.call(t, "wrong", "GET", "/v3/sessions/", ""); a.status != 401 {
		t.Errorf("a wrong key: %d", a.status)
	}

	d := p.call(t, key.Token, "POST", "/v3/webhook/destinations/", `{"url":"`+hook.URL+`"}`).object(t)
	if d["secret_shared_key"] == nil {
		t.Fatalf("destination %v", d)
	}
	wf := p.call(t, key.Token, "POST", "/v3/workflows/", `{"features":["ID_VERIFICATION","FACE_MATCH"]}`).object(t)["workflow_id"].(string)
	made := p.call(t, key.Token, "POST", "/v3/session/", `{"workflow_id":"`+wf+`","vendor_data":"emp-7"}`).object(t)
	id, token := made["session_id"].(string), made["session_token"].(string)
	if made["url"] != p.url+"/session/"+token {
		t.Errorf("the session's link is %v", made["url"])
	}
	if code, page := get(t, made["url"].(string)); code != 200 || !strings.Contains(page, "<html") {
		t.Errorf("the session's page: %d", code)
	}
	p.show(t, token, "document", "obama.jpg")
	if state := p.show(t, token, "face", "obama2.jpg"); state["status"] != "Approved" {
		t.Errorf("the same person: %v", state)
	}
	seen := map[any]bool{}
	for _, got := range rc.wait(t, 3) {
		seen[got.body["status"]] = true
	}
	if !seen["Not Started"] || !seen["In Progress"] || !seen["Approved"] {
		t.Errorf("webhooks told of %v", seen)
	}

	p.kill()
	p = startProcess(t, args...)
	if d := p.call(t, key.Token, "GET", "/v3/session/"+id+"/decision/", "").object(t); d["status"] != "Approved" {
		t.Errorf("after a kill the session is %v", d["status"])
	}
	if n := p.call(t, key.Token, "GET", "/v3/sessions/", "").object(t)["count"]; n != 3.0 {
		t.Errorf("%v sessions, want the session and two saved requests", n)
	}
	if code, _ := get(t, p.url+"/"); code != 404 {
		t.Errorf("the root of a hub answers %d", code)
	}
}

// show submits a test portrait to a session, as its page does.
func (p *process) show(t *testing.T, token, what, name string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(face(t, name))
	ok(t, err)
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("image", name)
	ok(t, err)
	part.Write(raw)
	w.Close()
	a := p.call(t, "", "POST", "/v3/session/hosted/"+what+"/", b.String(), "Content-Type", w.FormDataContentType(), "Session-Token", token)
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", what, a.status, a.body)
	}
	return a.object(t)
}

// TestHubAPIAddress: an address that cannot be had is told, with the setting.
func TestHubAPIAddress(t *testing.T) {
	data := shortDir(t)
	a := postern(t, "hub", "--data", data, "--set", "hub.listen=127.0.0.1:0", "--set", "hub.http_listen=192.0.2.1:1")
	if a.code == 0 || !strings.Contains(a.err, "hub.http_listen") {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
}
