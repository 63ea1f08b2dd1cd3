package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// badBody is an endpoint with a body that it takes, and what is asked of its fields.
type badBody struct {
	method, path string
	good         map[string]any
	required     []string
	anything     []string // fields that take any JSON
	long         []string // texts with a limit of characters
}

// TestBadFields sends each field of each JSON body missing, null, of every wrong type, too
// long, twice, and in a wrong encoding: all are 400 that say which, and store nothing.
func TestBadFields(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(`{"features":["LIVENESS"]}`)
	id, token := r.session(map[string]any{"workflow_id": wf, "vendor_data": "v"})
	r.want(r.show(token, "face", red), 200, "")
	list := r.want(r.call("POST", "/v3/lists/", `{"name":"l","list_type":"custom","entry_type":"email"}`), 201, "").object(t)["uuid"].(string)
	faces := r.want(r.call("POST", "/v3/lists/", `{"name":"f","list_type":"allowlist","entry_type":"face"}`), 201, "").object(t)["uuid"].(string)
	hook := r.want(r.call("POST", "/v3/webhook/destinations/", `{"url":"https://x.example/"}`), 201, "").object(t)["uuid"].(string)
	before := r.everything()
	for _, b := range []badBody{
		{"POST", "/v3/session/", map[string]any{"workflow_id": wf, "vendor_data": "w", "callback": "https://x.example/", "callback_method": "both", "language": "en",
			"metadata": 1, "portrait_image": r.portrait(red), "contact_details": map[string]any{}, "expected_details": map[string]any{}, "sandbox_scenario": nil},
			[]string{"workflow_id"}, []string{"metadata"}, []string{"vendor_data", "callback", "language", "workflow_id"}},
		{"PATCH", "/v3/session/" + id + "/update-status/", map[string]any{"new_status": "Declined", "comment": "c", "nodes_to_resubmit": []string{}, "send_email": false,
			"email_address": "a@b.example", "email_language": "en"}, []string{"new_status"}, nil, []string{"comment", "new_status"}},
		{"POST", "/v3/sessions/" + id + "/reviews/", map[string]any{"comment": "c", "new_status": nil}, nil, nil, []string{"comment"}},
		{"POST", "/v3/sessions/delete/", map[string]any{"session_numbers": []int{999}, "delete_all": false}, []string{"session_numbers"}, nil, nil},
		{"DELETE", "/v3/session/" + id + "/delete/", map[string]any{"retain_face_embeddings": false, "face_retention_days": nil, "face_retention_deadline": nil,
			"deletion_instruction": nil, "instruction_id": "i"}, nil, nil, []string{"instruction_id"}},
		{"POST", "/v3/session/" + id + "/share/", map[string]any{"for_application_id": "p", "ttl_in_seconds": nil, "session_id": id, "partner_client_id": nil},
			[]string{"for_application_id"}, nil, []string{"for_application_id"}},
		{"POST", "/v3/session/import-shared/", map[string]any{"share_token": "t", "trust_review": true, "workflow_id": wf, "vendor_data": "v"},
			[]string{"share_token"}, nil, []string{"share_token", "vendor_data"}},
		{"POST", "/v3/workflows/", map[string]any{"features": []string{"LIVENESS"}, "workflow_label": "l", "status": "draft", "language": "en", "is_default": false,
			"is_white_label_enabled": false, "is_desktop_allowed": true, "session_expiration_time": 3600, "max_retry_attempts": 1, "review_threshold": 70, "decline_threshold": 50},
			[]string{"features"}, nil, []string{"workflow_label", "status", "language"}},
		{"PATCH", "/v3/workflows/" + wf + "/", map[string]any{"features": []string{"LIVENESS"}, "workflow_label": "l", "session_expiration_time": 3600}, nil, nil, []string{"workflow_label"}},
		{"POST", "/v3/lists/", map[string]any{"name": "n", "description": "d", "list_type": "custom", "entry_type": "email"},
			[]string{"name", "list_type", "entry_type"}, nil, []string{"name", "description", "list_type", "entry_type"}},
		{"PATCH", "/v3/lists/" + list + "/", map[string]any{"name": "n", "description": "d"}, nil, nil, []string{"name", "description"}},
		{"POST", "/v3/lists/" + list + "/entries/", map[string]any{"value": "v", "display_label": "d", "comment": "c", "metadata": 1, "reference_session_id": nil, "reference_object_uuid": nil},
			[]string{"value"}, []string{"metadata"}, []string{"value", "display_label", "comment"}},
		{"POST", "/v3/lists/" + faces + "/entries/face-upload/", map[string]any{"image": r.portrait(red), "display_label": "d", "comment": "c", "metadata": 1},
			[]string{"image"}, []string{"metadata"}, []string{"display_label", "comment"}},
		{"POST", "/v3/webhook/destinations/", map[string]any{"url": "https://y.example/", "label": "l", "enabled": true, "webhook_version": "v3", "subscribed_events": []string{"status.updated"}},
			[]string{"url"}, nil, []string{"url", "label", "webhook_version"}},
		{"PATCH", "/v3/webhook/destinations/" + hook + "/", map[string]any{"url": "https://y.example/", "label": "l", "enabled": true, "rotate_secret_key": false, "secret_overlap_seconds": 60},
			nil, nil, []string{"url", "label"}},
		{"PATCH", "/v3/webhook/", map[string]any{"webhook_url": "https://z.example/", "rotate_secret_key": false, "webhook_version": "v3"}, nil, nil, []string{"webhook_url"}},
	} {
		for _, field := range slices.Sorted(maps.Keys(b.good)) {
			for name, body := range b.faulty(t, field) {
				a := r.call(b.method, b.path, body)
				named := strings.Contains(a.body, `"`+field+``) || strings.HasPrefix(a.body, `{"detail":"JSON parse error - `) || b.path == "/v3/workflows/" || strings.HasPrefix(b.path, "/v3/session/import")
				if a.status != 400 || !json.Valid([]byte(a.body)) || !named {
					t.Errorf("%s %s, %s %s: %d %s\n%.200q", b.method, b.path, field, name, a.status, a.body, body)
				}
			}
		}
		for name, body := range map[string]string{"list": "[]", "text": `"x"`, "number": "1", "null": "null", "cut": `{"a":`, "more": "{} {}", "not UTF-8": "{\"\xff\":1}"} {
			if a := r.call(b.method, b.path, body); a.status != 400 || !json.Valid([]byte(a.body)) {
				t.Errorf("%s %s, body %s: %d %s", b.method, b.path, name, a.status, a.body)
			}
		}
	}
	if after := r.everything(); after != before {
		t.Errorf("something was stored: before\n%s\nafter\n%s", before, after)
	}
}

// everything is what the API shows of what is stored.
func (r *caseRig) everything() string {
	var b strings.Builder
	for _, path := range []string{"/v3/sessions/", "/v3/workflows/", "/v3/lists/", "/v3/webhook/destinations/", "/v3/webhook/"} {
		fmt.Fprintln(&b, r.want(r.call("GET", path, nil), 200, "").body)
	}
	for _, l := range r.call("GET", "/v3/lists/?limit=100", nil).object(r.t)["results"].([]any) {
		fmt.Fprintln(&b, r.call("GET", "/v3/lists/"+l.(map[string]any)["uuid"].(string)+"/entries/", nil).body)
	}
	return b.String()
}

// faulty makes a body for each way in which a field can be wrong.
func (b *badBody) faulty(t *testing.T, field string) map[string]string {
	t.Helper()
	with := func(v any) string {
		body := maps.Clone(b.good)
		body[field] = v
		raw, err := json.Marshal(body)
		ok(t, err)
		return string(raw)
	}
	out := map[string]string{}
	whole := with(b.good[field])
	out["twice"] = whole[:len(whole)-1] + `,"` + field + `":null}`
	out["not UTF-8"] = strings.Replace(with("MARK"), "MARK", "a\xff", 1)
	if slices.Contains(b.required, field) {
		body := maps.Clone(b.good)
		delete(body, field)
		raw, err := json.Marshal(body)
		ok(t, err)
		out["missing"] = string(raw)
		out["null"] = with(nil)
	}
	if slices.Contains(b.anything, field) {
		out["deep"] = with(json.RawMessage(strings.Repeat("[", 40) + strings.Repeat("]", 40)))
		return out
	}
	for name, v := range map[string]any{"text": "zz", "number": 1.5, "flag": true, "list of numbers": []float64{1.5}, "object": map[string]any{"zz": 1}} {
		if same(v, b.good[field]) || name == "text" && b.good[field] == nil {
			continue
		}
		out[name] = with(v)
	}
	if slices.Contains(b.long, field) {
		out["too long"] = with(strings.Repeat("é", 5000))
		out["NUL"] = with("a\x00b")
	}
	return out
}

// same tells whether two values are of one JSON type, so that one is no fault.
func same(a, b any) bool {
	kind := func(v any) string {
		switch v.(type) {
		case string:
			return "text"
		case int, float64:
			return "number"
		case bool:
			return "flag"
		case nil:
			return "null"
		case []string, []int, []float64:
			return "list"
		}
		return "object"
	}
	return kind(a) == kind(b) && kind(a) != "list"
}
