package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/cases"
	"postern/agent/decide"
	"postern/agent/flow"
	casereport "postern/agent/report"
	"postern/agent/retention"
	"postern/agent/store"
	"postern/agent/store/storetest"
	"postern/agent/verify"
	"postern/agent/webhook"
)

// colours stands in for the networks: a picture's colour is the person on it, white
// is nobody. Red and pink resemble each other with a cosine of 0.6.
type colours struct {
	mu   sync.Mutex // guards the fields below
	live agent.Liveness
	fail error
}

var (
	red   = color.RGBA{200, 0, 0, 255}
	pink  = color.RGBA{120, 160, 0, 255}
	blue  = color.RGBA{0, 0, 200, 255}
	white = color.RGBA{255, 255, 255, 255}
)

func (c *colours) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	return c.ProbeLive(ctx, f)
}

func (c *colours) ProbeLive(_ context.Context, f *agent.Frame) (agent.Probe, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return agent.Probe{}, c.fail
	}
	r, g, b := f.Pix[0], f.Pix[1], f.Pix[2]
	if r > 240 && g > 240 && b > 240 {
		return agent.Probe{ModelID: "m", Space: "s"}, nil
	}
	e := agent.Embedding{float32(r), float32(g), float32(b), 0}
	e.Normalise()
	return agent.Probe{Face: &agent.Face{Box: agent.Box{X: 4, Y: 4, W: 20, H: 20}, Confidence: 0.9}, Faces: 1, Embedding: e, ModelID: "m", Space: "s",
		Quality: agent.Quality{Luminance: 50, Sharpness: 100, EyeDistance: 60, Inside: 1}, Liveness: c.live}, nil
}

func (c *colours) set(l agent.Liveness, fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live, c.fail = l, fail
}

func (c *colours) Compare(t agent.Thresholds, a, b *agent.Probe) agent.Decision {
	return agent.Decision{Status: agent.Declined}
}

var alive = agent.Liveness{Score: 95, Measured: true, Method: agent.LivenessPassive}

// caseRig is the API over the real services and store, with colours for faces.
type caseRig struct {
	t     *testing.T
	st    *store.Store
	flow  *flow.Service
	eyes  *colours
	svc   *verify.Service
	url   string
	key   string
	hooks *webhook.Deliverer

	matcher verify.Matcher

	mu  sync.Mutex // guards now
	now time.Time
}

func (r *caseRig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *caseRig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func newCaseRig(t *testing.T) *caseRig {
	t.Helper()
	r := &caseRig{t: t, eyes: &colours{live: alive}, now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	r.st = storetest.Open(t, func(o *store.Options) { o.Now = r.clock })
	curve, err := decide.NewCurve("c", []decide.Point{{Cosine: 0, Score: 0}, {Cosine: 1, Score: 100}})
	ok(t, err)
	m := verify.Matcher{Prober: r.eyes, Curve: curve, Policy: verify.Policy{Match: agent.Thresholds{Review: 70, Decline: 50}}}
	r.svc, err = verify.New(verify.Config{Matcher: m, Store: records{r.st}, Space: "s", Source: "test"})
	ok(t, err)
	r.matcher = m
	r.serve()
	r.key = r.newKey(agent.APIKey{Name: "ops"})
	return r
}

// serve makes the services and the server over the store, as a process that starts does.
func (r *caseRig) serve() {
	t := r.t
	var err error
	r.hooks = &webhook.Deliverer{Queue: r.st, Now: r.clock, Random: func() float64 { return 0.5 }, Loopback: true}
	r.hooks.Init()
	r.flow, err = flow.New(flow.Config{Store: r.st, Prober: r.eyes, Enrolled: r.svc, Matcher: r.matcher, Wake: r.hooks.Wake, Secret: r.st.ShareKey,
		Now: r.clock, Rand: rand.Reader, Idle: time.Hour, KeepMedia: 24 * time.Hour, KeepLog: 24 * time.Hour, PlainHTTP: true, LinkLife: time.Hour, Images: imagesOf(r.st, retention.Default())})
	ok(t, err)
	server, err := api.New(api.Config{Keys: r.st, Replays: r.st, Compare: r.eyes, Media: r.st, Saved: saver{r.flow}, Screen: screener{r.flow}, Now: r.clock,
		Rates: map[api.Budget]int{}})
	ok(t, err)
	server.AddCases(r.flow, func(_ context.Context, s *cases.Session) ([]byte, error) {
		return (&casereport.Report{Media: r.st.Media, Now: r.clock, By: "test"}).PDF(s)
	})
	h := httptest.NewServer(server.Handler())
	t.Cleanup(func() { http.DefaultClient.CloseIdleConnections(); h.Close() })
	r.url, r.hooks.Links = h.URL, server.WebhookLinks(h.URL)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *caseRig) newKey(k agent.APIKey) string {
	r.t.Helper()
	k.Scopes = map[agent.Resource]agent.Access{}
	for _, res := range agent.Resources {
		k.Scopes[res] = agent.WriteAccess
	}
	k, token, err := agent.NewAPIKey(k, rand.Reader)
	ok(r.t, err)
	_, err = r.st.CreateAPIKey(k)
	ok(r.t, err)
	return token
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

func (a reply) object(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%d %q is no object", a.status, a.body)
	}
	return m
}

func (r *caseRig) send(req *http.Request) reply {
	r.t.Helper()
	res, err := http.DefaultClient.Do(req)
	ok(r.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ok(r.t, err)
	return reply{res.StatusCode, res.Header, strings.TrimSpace(string(body))}
}

// call makes a request as the client of the Node package does: with the JSON content
// type whatever the method.
func (r *caseRig) call(method, path string, body any) reply { return r.as(r.key, method, path, body) }

func (r *caseRig) as(key, method, path string, body any) reply {
	r.t.Helper()
	var rd io.Reader
	if s, text := body.(string); text {
		rd = strings.NewReader(s)
	} else if body != nil {
		raw, err := json.Marshal(body)
		ok(r.t, err)
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, r.url+path, rd)
	ok(r.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Api-Key", key)
	return r.send(req)
}

// fetch follows a link without a key.
func (r *caseRig) fetch(link string) reply {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, link, nil)
	ok(r.t, err)
	return r.send(req)
}

func (r *caseRig) want(a reply, status int, body string) reply {
	r.t.Helper()
	if a.status != status || body != "" && a.body != body {
		r.t.Fatalf("answer is %d %s\nwant %d %s", a.status, a.body, status, body)
	}
	return a
}

func jpegOf(t *testing.T, c color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 32, 32))
	for i := range 32 * 32 {
		img.Set(i%32, i/32, c)
	}
	var b bytes.Buffer
	ok(t, jpeg.Encode(&b, img, &jpeg.Options{Quality: 100}))
	return b.Bytes()
}

func (r *caseRig) portrait(c color.Color) string {
	return base64.StdEncoding.EncodeToString(jpegOf(r.t, c))
}

// show submits pictures to a session, as its page does.
func (r *caseRig) show(token, what string, cs ...color.Color) reply {
	r.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, c := range cs {
		name := "image"
		if i > 0 {
			name = fmt.Sprintf("image_%d", i+1)
		}
		p, err := w.CreateFormFile(name, "p.jpg")
		ok(r.t, err)
		p.Write(jpegOf(r.t, c))
	}
	w.Close()
	req, err := http.NewRequest(http.MethodPost, r.url+"/v3/session/hosted/"+what+"/", &b)
	ok(r.t, err)
	req.Header.Set("Content-Type", w.FormDataContentType())
	req.Header.Set("Session-Token", token)
	return r.send(req)
}

// workflow makes one and returns its id.
func (r *caseRig) workflow(body string) string {
	r.t.Helper()
	return r.want(r.call("POST", "/v3/workflows/", body), 201, "").object(r.t)["workflow_id"].(string)
}

func (r *caseRig) session(body map[string]any) (id, token string) {
	r.t.Helper()
	s := r.want(r.call("POST", "/v3/session/", body), 201, "").object(r.t)
	return s["session_id"].(string), s["session_token"].(string)
}

func (r *caseRig) decision(id string) map[string]any {
	r.t.Helper()
	return r.want(r.call("GET", "/v3/session/"+id+"/decision/", nil), 200, "").object(r.t)
}

func (r *caseRig) enrol(id string, c color.Color) {
	r.t.Helper()
	rgba := c.(color.RGBA)
	f := &agent.Frame{Width: 1, Height: 1, Pix: []byte{rgba.R, rgba.G, rgba.B}, Source: id}
	_, err := r.svc.Enrol(context.Background(), verify.Enrolment{SubjectID: id, Pictures: []*agent.Frame{f}})
	ok(r.t, err)
}

const reauth = `{"features":["LIVENESS","FACE_MATCH"],"review_threshold":70,"decline_threshold":50}`

func TestSessionCreate(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(reauth)
	r.enrol("emp-1", red)
	for _, c := range []struct {
		name string
		body any
		want string
	}{
		{"no workflow", map[string]any{}, `{"workflow_id":["This field is required."]}`},
		{"unknown workflow", map[string]any{"workflow_id": "01a20fd1-8f9e-7fdf-831f-060ba0f390d2"}, `{"workflow_id":"Invalid workflow_id."}`},
		{"no uuid", map[string]any{"workflow_id": "x"}, `{"workflow_id":"Invalid workflow_id."}`},
		{"nothing to compare with", map[string]any{"workflow_id": wf, "vendor_data": "stranger"},
			`{"portrait_image":["This workflow compares faces: send portrait_image, or the vendor_data of an enrolled subject."]}`},
		{"portrait too large", map[string]any{"workflow_id": wf, "portrait_image": base64.StdEncoding.EncodeToString(make([]byte, 2<<20+1))},
			`{"portrait_image":["Image size exceeds 2MB."]}`},
		{"portrait without a face", map[string]any{"workflow_id": wf, "portrait_image": r.portrait(white)}, `{"portrait_image":["No face detected in the image."]}`},
		{"portrait that is none", map[string]any{"workflow_id": wf, "portrait_image": "%%%"}, `{"portrait_image":["Invalid base64 image."]}`},
		{"blank vendor_data", map[string]any{"workflow_id": wf, "vendor_data": ""}, `{"vendor_data":["This field may not be blank."]}`},
		{"a scenario with a live key", map[string]any{"workflow_id": wf, "sandbox_scenario": "approve"}, `{"sandbox_scenario":["Only sandbox keys may name a scenario."]}`},
		{"script as callback", map[string]any{"workflow_id": wf, "callback": "javascript:alert(1)"}, `{"callback":["Enter a valid URL."]}`},
		{"address without a country", map[string]any{"workflow_id": wf, "vendor_data": "emp-1", "expected_details": map[string]any{"address": "x"}},
			`{"expected_details":["A country is required with an address."]}`},
	} {
		t.Run(c.name, func(t *testing.T) { r.want(r.call("POST", "/v3/session/", c.body), 400, c.want) })
	}
	if _, n, err := r.st.Sessions(cases.SessionQuery{Environment: cases.Live}); err != nil || n != 0 {
		t.Fatalf("%d sessions after refusals: %v", n, err)
	}
	a := r.want(r.call("POST", "/v3/session/", map[string]any{"workflow_id": wf, "vendor_data": "emp-1", "language": "de",
		"callback": "https://app.example/x", "metadata": json.RawMessage(`{"a":1.0,"b":[null]}`)}), 201, "")
	s := a.object(t)
	if s["url"] != s["session_url"] || s["url"] != r.url+"/de/session/"+s["session_token"].(string) || len(s["session_token"].(string)) != 12 ||
		s["status"] != "Not Started" || s["workflow_version"] != 1.0 || !strings.Contains(a.body, `"metadata":{"a":1.0,"b":[null]}`) {
		t.Errorf("session %s", a.body)
	}
	again := r.want(r.call("POST", "/v3/session/", map[string]any{"workflow_id": wf, "vendor_data": "emp-1", "metadata": 7}), 201, "").object(t)
	if again["session_id"] != s["session_id"] || again["metadata"] != 7.0 || again["callback"] != nil {
		t.Errorf("not reused: %v", again)
	}
	// A new version of the workflow is a new session.
	r.want(r.call("PATCH", "/v3/workflows/"+wf+"/", `{"workflow_label":"new"}`), 200, "")
	if other := r.want(r.call("POST", "/v3/session/", map[string]any{"workflow_id": wf, "vendor_data": "emp-1"}), 201, "").object(t); other["session_id"] == s["session_id"] || other["workflow_version"] != 2.0 {
		t.Errorf("reused over a version: %v", other)
	}
	if got := r.want(r.call("GET", "/v3/session/"+s["session_id"].(string), nil), 200, "").object(t); got["session_id"] != s["session_id"] {
		t.Errorf("read %v", got)
	}
}

// Employee re-authentication: the enrolled templates are the reference, and adding
// FACE_MATCH to a workflow takes effect on the next session with no other change.
func TestReauthentication(t *testing.T) {
	r := newCaseRig(t)
	r.enrol("emp-1", red)
	wf := r.workflow(`{"features":["LIVENESS"]}`)
	id, token := r.session(map[string]any{"workflow_id": wf, "vendor_data": "emp-1"})
	r.want(r.show(token, "face", blue), 200, "")
	if d := r.decision(id); d["status"] != "Approved" || len(d["face_matches"].([]any)) != 0 {
		t.Fatalf("liveness alone: %v", d)
	}
	r.want(r.call("PATCH", "/v3/workflows/"+wf+"/", `{"features":["LIVENESS","FACE_MATCH"]}`), 200, "")
	for c, want := range map[color.RGBA]string{red: "Approved", pink: "In Review", blue: "Declined"} {
		id, token := r.session(map[string]any{"workflow_id": wf, "vendor_data": "emp-1"})
		for range 3 {
			if a := r.show(token, "face", c); a.status != 200 {
				r.want(a, 409, "")
			}
		}
		d := r.decision(id)
		m := d["face_matches"].([]any)[0].(map[string]any)
		if d["status"] != want || m["status"] != want || m["source_image"] != nil || m["target_image"] == nil {
			t.Errorf("%v: %s, match %v", c, d["status"], m)
		}
	}
	results, err := r.st.Results(store.ResultQuery{SubjectID: "emp-1"})
	if err != nil || len(results) != 5 {
		t.Errorf("%d comparisons with the enrolled subject were recorded, want 1+1+3: %v", len(results), err)
	}
}

func TestNothingIsApprovedByFailure(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(reauth)
	id, token := r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red)})
	r.eyes.set(alive, &agent.Error{Code: agent.CodeUnavailable, Message: "no model"})
	r.want(r.show(token, "face", red), 503, "")
	if d := r.decision(id); d["status"] != "Not Started" {
		t.Errorf("a broken part made it %v", d["status"])
	}
	for name, live := range map[string]agent.Liveness{
		"not measured": {}, "measured nonsense": {Measured: true, Score: 400}, "low": {Measured: true, Score: 50},
		"attack": {Measured: true, Score: 99, Signals: []agent.Signal{{Name: "x", Grade: agent.GradeAttack}}},
	} {
		r.eyes.set(live, nil)
		id, token := r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red), "vendor_data": name})
		for range 3 {
			r.show(token, "face", red)
		}
		if d := r.decision(id); d["status"] != "Declined" {
			t.Errorf("liveness %s: %v", name, d["status"])
		}
	}
}

func TestDocumentSession(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(`{"features":["ID_VERIFICATION","FACE_MATCH"]}`)
	id, token := r.session(map[string]any{"workflow_id": wf})
	r.want(r.show(token, "face", red), 409, "")
	if a := r.want(r.show(token, "document", white), 200, "").object(t); a["awaits"] != "document" || a["attempts_left"] != 2.0 {
		t.Errorf("no portrait: %v", a)
	}
	r.want(r.show(token, "document", red), 200, "")
	r.want(r.show(token, "face", red, blue), 400, "")
	r.want(r.show(token, "face", red, red, white), 200, "")
	d := r.decision(id)
	m, doc := d["face_matches"].([]any)[0].(map[string]any), d["id_verifications"].([]any)[0].(map[string]any)
	if d["status"] != "Approved" || doc["status"] != "Approved" || doc["document_number"] != nil || m["score"] != 100.0 {
		t.Fatalf("decision %v", d)
	}
	for _, link := range []any{m["source_image"], m["target_image"], doc["front_image"]} {
		if got := r.fetch(link.(string)); got.status != 200 || got.header.Get("Content-Type") != "image/jpeg" {
			t.Errorf("%s: %d", link, got.status)
		}
	}
	pdf := r.want(r.call("GET", "/v3/session/"+id+"/generate-pdf", nil), 200, "")
	if !strings.HasPrefix(pdf.body, "%PDF-") || pdf.header.Get("Content-Type") != "application/pdf" ||
		pdf.header.Get("Content-Disposition") != "attachment; filename=session_"+id+".pdf" || !strings.Contains(pdf.body, "/Subtype /Image") {
		t.Errorf("report of %d bytes, %v", len(pdf.body), pdf.header)
	}
	r.pass(61 * time.Minute)
	if got := r.fetch(m["source_image"].(string)); got.status != 404 {
		t.Errorf("a link lives after an hour: %v", got)
	}
	if pdf := r.want(r.call("GET", "/v3/session/"+id+"/generate-pdf", nil), 200, ""); strings.Contains(pdf.body, "/Subtype /Image") {
		t.Error("the report shows pictures that are not kept")
	}
	open, _ := r.session(map[string]any{"workflow_id": wf})
	r.want(r.call("GET", "/v3/session/"+open+"/generate-pdf/", nil), 403, `{"detail":"You can only generate a PDF for sessions in review, declined, approved or kyc expired"}`)
}

// Every array of the decision is there, empty and not null, whatever has run.
func TestDecisionArrays(t *testing.T) {
	r := newCaseRig(t)
	id, _ := r.session(map[string]any{"workflow_id": r.workflow(reauth), "portrait_image": r.portrait(red)})
	d := r.decision(id)
	for _, name := range []string{"id_verifications", "nfc_verifications", "liveness_checks", "face_matches", "poa_verifications", "document_ai_documents",
		"phone_verifications", "email_verifications", "aml_screenings", "ip_analyses", "database_validations", "questionnaire_responses", "reviews", "warnings"} {
		if list, isList := d[name].([]any); !isList || len(list) != 0 {
			t.Errorf("%s is %v", name, d[name])
		}
	}
	for _, name := range []string{"raw_data", "document", "biometrics", "aml", "review"} {
		if _, there := d[name]; there {
			t.Errorf("%s means something else to clients", name)
		}
	}
	if d["features"].([]any)[0] != "LIVENESS" {
		t.Errorf("features %v", d["features"])
	}
	e := r.want(r.call("GET", "/v3/session/"+id+"/decision/?include=events", nil), 200, "").object(t)
	if len(e["events"].([]any)) != 1 || e["features"].([]any)[1].(map[string]any)["node_id"] != "feature_face_match_1" {
		t.Errorf("events %v features %v", e["events"], e["features"])
	}
}

func TestUpdateStatus(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(reauth)
	id, token := r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red)})
	path := "/v3/session/" + id + "/update-status/"
	r.want(r.call("PATCH", path, `{"nonsense`), 400, `{"detail":"Only sessions with status Approved, Declined, In Review, Kyc Expired, Abandoned, Resubmitted can be updated. Current status: Not Started"}`)
	r.want(r.show(token, "face", pink), 200, "")
	r.want(r.call("PATCH", path, `{}`), 400, `{"new_status":["This field is required."]}`)
	r.want(r.call("PATCH", path, `{"new_status":"Approved","send_email":true}`), 400, `{"email_address":["This field is required."]}`)
	r.want(r.call("PATCH", path, `{"new_status":"Approved","comment":"seen"}`), 200, `{"session_id":"`+id+`"}`)
	r.want(r.call("PATCH", path, `{"new_status":"Approved"}`), 400, `["The new status is the same as the current status."]`)
	// Both forms of nodes_to_resubmit.
	r.want(r.call("PATCH", path, `{"new_status":"Resubmitted","nodes_to_resubmit":[{"node_id":"feature_face_match_1","feature":"KYB"}]}`), 400, "")
	r.want(r.call("PATCH", path, `{"new_status":"Resubmitted","nodes_to_resubmit":[{"node_id":"feature_face_match_1","feature":"FACE_MATCH"}]}`), 200, "")
	if info := r.decision(id)["resubmit_info"].(map[string]any); fmt.Sprint(info["nodes"]) != "[feature_face_match_1]" {
		t.Errorf("resubmit_info %v", info)
	}
	r.want(r.show(token, "face", red), 200, "") // the link works again
	if s := r.decision(id)["status"]; s != "Approved" {
		t.Errorf("after the new face: %v", s)
	}
	r.want(r.call("PATCH", path, `{"new_status":"Resubmitted","nodes_to_resubmit":["feature_liveness"]}`), 200, "")
	reviews := r.want(r.call("GET", "/v3/sessions/"+id+"/reviews/", nil), 200, "")
	if n := strings.Count(reviews.body, `"reviewed_by":"ops"`); n != 3 {
		t.Errorf("%d reviews: %s", n, reviews.body)
	}
	r.want(r.call("POST", "/v3/sessions/"+id+"/reviews/", `{"comment":"hm"}`), 201, "")
	r.want(r.call("POST", "/v3/sessions/"+id+"/reviews/", `{}`), 400, "")
}

func TestSessionList(t *testing.T) {
	r := newCaseRig(t)
	wf, other := r.workflow(reauth), r.workflow(`{"features":["LIVENESS"]}`)
	var ids []string
	for i := range 7 {
		id, token := r.session(map[string]any{"workflow_id": other, "vendor_data": fmt.Sprintf("user-%d", i), "expected_details": map[string]any{"first_name": "Ada", "last_name": fmt.Sprint("Nr", i)}})
		if i%2 == 0 {
			r.want(r.show(token, "face", red), 200, "")
		}
		ids = append(ids, id)
		r.pass(24 * time.Hour)
	}
	r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red)})
	count := func(query string) int {
		t.Helper()
		return int(r.want(r.call("GET", "/v3/sessions/?"+query, nil), 200, "").object(t)["count"].(float64))
	}
	for query, want := range map[string]int{
		"": 8, "session_kind=USER": 8, "session_kind=all": 8, "session_kind=business": 0, "status=Approved": 4, "status=approved": 0, "status=Approved,Not+Started": 8 - 0,
		"vendor_data=user-3": 1, "vendor_data=user": 0, "search=user-": 7, "search=ADA+NR5": 1, "search=" + ids[2]: 1, "search=7": 1, "search=00": 0,
		"workflow_id=" + other: 7, "workflow_id=" + wf + "," + other: 8, "workflow_id=nonsense": 0, "country=ESP": 0,
		"date_from=2026-03-04": 6, "date_to=2026-03-02": 1, "date_from=2026-03-03&date_to=2026-03-04": 2,
		"date_from=2026-03-03T09:00:00%2B00:00": 7, "date_from=2026-03-03T09:00:00.000001Z": 6, "date_to=2026-03-03T09:00:00Z": 2,
		"status=Approved&date_from=2026-03-04&vendor_data=user-4": 1, "limit=2&offset=6": 8,
	} {
		if got := count(query); got != want {
			// Two days later an unfinished session is still open: its link lives a week.
			t.Errorf("%q: %d sessions, want %d", query, got, want)
		}
	}
	r.want(r.call("GET", "/v3/sessions/?session_kind=dog", nil), 400, "")
	r.want(r.call("GET", "/v3/sessions?date_from=yesterday", nil), 400, `{"date_from":["Enter a valid date."]}`)
	// Pages: newest first, nothing twice, exact to the end.
	var numbers []float64
	for next := r.url + "/v3/sessions/?limit=3"; next != ""; {
		page := r.want(r.call("GET", strings.TrimPrefix(next, r.url), nil), 200, "").object(t)
		for _, row := range page["results"].([]any) {
			numbers = append(numbers, row.(map[string]any)["session_number"].(float64))
		}
		next, _ = page["next"].(string)
	}
	if fmt.Sprint(numbers) != "[8 7 6 5 4 3 2 1]" {
		t.Errorf("numbers %v", numbers)
	}
}

func TestExpiry(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(`{"features":["LIVENESS"],"session_expiration_time":600}`)
	id, _ := r.session(map[string]any{"workflow_id": wf})
	r.pass(599 * time.Second)
	ok(t, r.flow.Sweep())
	if s := r.decision(id)["status"]; s != "Not Started" {
		t.Errorf("before its end: %v", s)
	}
	r.pass(time.Second)
	if s := r.decision(id)["status"]; s != "Expired" {
		t.Errorf("at its end, before the sweeper: %v", s)
	}
	id, token := r.session(map[string]any{"workflow_id": r.workflow(`{"features":["LIVENESS"]}`)})
	r.eyes.set(agent.Liveness{}, nil)
	r.want(r.show(token, "face", red), 200, "")
	r.pass(time.Hour)
	ok(t, r.flow.Sweep())
	if s := r.decision(id)["status"]; s != "Abandoned" {
		t.Errorf("left alone for an hour: %v", s)
	}
	r.want(r.show(token, "face", red), 409, "")
}

func TestDelete(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(reauth)
	id, token := r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red)})
	r.want(r.show(token, "face", red), 200, "")
	link := r.decision(id)["face_matches"].([]any)[0].(map[string]any)["target_image"].(string)
	lists := r.call("GET", "/v3/lists/?list_type=blocklist&entry_type=face", nil).object(t)["results"].([]any)
	list := lists[0].(map[string]any)["uuid"].(string)
	r.want(r.call("POST", "/v3/lists/"+list+"/entries/", map[string]any{"reference_session_id": id}), 201, "")
	r.want(r.call("DELETE", "/v3/session/"+id+"/delete/", nil), 200,
		`{"biometric_template_expires_at":null,"biometric_template_uuid":null,"deleted_child_verifications":0,"face_retention_outcome":"deleted","session_id":"`+id+`","session_number":1}`)
	r.want(r.call("DELETE", "/v3/session/"+id+"/delete/", nil), 404, "")
	r.want(r.call("GET", "/v3/session/"+id+"/decision/", nil), 404, `{"detail":"Not found."}`)
	if got := r.fetch(link); got.status != 404 {
		t.Errorf("a picture outlived its session: %v", got)
	}
	if _, err := r.st.Face("session/"+id, cases.FaceCapture); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("a template outlived its session: %v", err)
	}
	// The entry survives, and still blocks.
	id, token = r.session(map[string]any{"workflow_id": r.workflow(`{"features":["FACE_SEARCH"]}`)})
	r.want(r.show(token, "face", red), 200, "")
	if d := r.decision(id); d["status"] != "Declined" || !strings.Contains(fmt.Sprint(d["face_searches"]), "FACE_IN_BLOCKLIST") {
		t.Errorf("a blocked face: %v", d)
	}
	r.want(r.call("POST", "/v3/sessions/delete/", `{}`), 400, "")
	r.want(r.call("POST", "/v3/sessions/delete/", `{"session_numbers":[2,99],"delete_all":false}`), 200, `{"deleted":1}`)
	r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red)})
	r.want(r.call("POST", "/v3/sessions/delete/", `{"session_numbers":[],"delete_all":true}`), 200, `{"deleted":1}`)
}

func TestListsOfFaces(t *testing.T) {
	r := newCaseRig(t)
	list := r.call("GET", "/v3/lists/?list_type=blocklist&entry_type=face", nil).object(t)["results"].([]any)[0].(map[string]any)["uuid"].(string)
	r.want(r.call("POST", "/v3/lists/"+list+"/entries/face-upload/", map[string]any{"image": r.portrait(white)}), 400, `{"image":["No face detected in the image."]}`)
	e := r.want(r.call("POST", "/v3/lists/"+list+"/entries/face-upload/", map[string]any{"image": r.portrait(blue), "comment": "c"}), 201, "").object(t)
	if e["added_by"] != "api" || e["comment"] != "c" || e["metadata"].(map[string]any)["reference_image_url"] == nil {
		t.Errorf("entry %v", e)
	}
	wf := r.workflow(`{"features":[{"feature":"LIVENESS","config":{"face_search_enabled":true}}]}`)
	blocked := func() any {
		id, token := r.session(map[string]any{"workflow_id": wf})
		r.want(r.show(token, "face", blue), 200, "")
		return r.decision(id)["status"]
	}
	if s := blocked(); s != "Declined" {
		t.Errorf("a blocked face: %v", s)
	}
	r.want(r.call("DELETE", "/v3/lists/"+list+"/entries/"+e["uuid"].(string)+"/", nil), 204, "")
	if s := blocked(); s != "Approved" {
		t.Errorf("after the entry was deleted: %v", s)
	}
	r.want(r.call("DELETE", "/v3/lists/"+list+"/", nil), 403, "")
	// People are blocked by vendor_data.
	users := r.call("GET", "/v3/lists/?list_type=blocklist&entry_type=user", nil).object(t)["results"].([]any)[0].(map[string]any)["uuid"].(string)
	r.want(r.call("POST", "/v3/lists/"+users+"/entries/", `{"value":"mallory"}`), 201, "")
	r.want(r.call("POST", "/v3/session/", map[string]any{"workflow_id": wf, "vendor_data": "mallory"}), 400,
		`{"vendor_data":"This user or business has been blocked and cannot create new verification sessions."}`)
}

func TestVariantsAreRecorded(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(`{"variants":[{"name":"control","weight":1,"features":["LIVENESS"]},{"name":"match","weight":1,"features":["LIVENESS","FACE_SEARCH"]}]}`)
	seen := map[any]int{}
	for range 40 {
		id, _ := r.session(map[string]any{"workflow_id": wf})
		d := r.decision(id)
		seen[d["workflow_variant"]]++
		if want := map[any]int{"control": 1, "match": 2}[d["workflow_variant"]]; len(d["features"].([]any)) != want {
			t.Errorf("variant %v has %v", d["workflow_variant"], d["features"])
		}
	}
	if len(seen) != 2 { // both stay out with a chance of 2 in 2^40
		t.Errorf("variants %v", seen)
	}
}

func TestScopes(t *testing.T) {
	r := newCaseRig(t)
	wf, other := r.workflow(`{"features":["LIVENESS"]}`), r.workflow(`{"features":["LIVENESS"]}`)
	id, _ := r.session(map[string]any{"workflow_id": other, "vendor_data": "secret"})
	limited := r.newKey(agent.APIKey{Name: "limited", Workflows: []string{wf}})
	sandbox := r.newKey(agent.APIKey{Name: "box", Sandbox: true})
	for _, key := range []string{limited, sandbox} {
		for _, path := range []string{"/", "/decision/", "/generate-pdf/", "/webhooks/"} {
			r.want(r.as(key, "GET", "/v3/session/"+id+path, nil), 404, `{"detail":"Not found."}`)
		}
		r.want(r.as(key, "DELETE", "/v3/session/"+id+"/delete/", nil), 404, "")
		r.want(r.as(key, "PATCH", "/v3/session/"+id+"/update-status/", `{"new_status":"Approved"}`), 404, "")
		if n := r.as(key, "GET", "/v3/sessions/", nil).object(t)["count"]; n != 0.0 {
			t.Errorf("%v sessions are seen", n)
		}
		r.want(r.as(key, "POST", "/v3/sessions/delete/", `{"delete_all":true}`), 200, `{"deleted":0}`)
	}
	r.want(r.as(limited, "POST", "/v3/session/", map[string]any{"workflow_id": other}), 400, `{"workflow_id":"Invalid workflow_id."}`)
	r.want(r.as(limited, "GET", "/v3/workflows/"+other+"/", nil), 404, "")
	r.want(r.as(sandbox, "PATCH", "/v3/workflows/"+wf+"/", `{"workflow_label":"x"}`), 403, "")
	r.want(r.as(sandbox, "GET", "/v3/lists/", nil), 403, "")
	// A sandbox session answers by its scenario, and looks at nothing.
	r.eyes.set(agent.Liveness{}, &agent.Error{Code: agent.CodeInternal, Message: "the sandbox looked"})
	both := r.workflow(reauth)
	for scenario, want := range map[string]string{"approve": "Approved", "decline_face_match_low_similarity": "Declined", "review_face_match_borderline": "In Review", "decline_liveness_attack": "Declined"} {
		s := r.want(r.as(sandbox, "POST", "/v3/session/", map[string]any{"workflow_id": both, "sandbox_scenario": scenario}), 201, "").object(t)
		r.want(r.show(s["session_token"].(string), "face", red), 200, "")
		d := r.want(r.as(sandbox, "GET", "/v3/session/"+s["session_id"].(string)+"/decision/", nil), 200, "").object(t)
		if d["status"] != want || d["environment"] != "sandbox" {
			t.Errorf("%s: %v in %v", scenario, d["status"], d["environment"])
		}
	}
}

func TestShareAndImport(t *testing.T) {
	r := newCaseRig(t)
	id, token := r.session(map[string]any{"workflow_id": r.workflow(`{"features":["LIVENESS"]}`), "vendor_data": "v"})
	r.want(r.call("POST", "/v3/session/"+id+"/share/", `{"for_application_id":"p"}`), 400,
		`{"detail":["Only sessions with status Approved, Declined or In Review can be shared. Current status: Not Started"]}`)
	r.want(r.show(token, "face", red), 200, "")
	share := r.want(r.call("POST", "/v3/session/"+id+"/share/", map[string]any{"session_id": id, "partner_client_id": "p"}), 200, "").object(t)
	if share["for_application_id"] != "p" || strings.Count(share["share_token"].(string), ".") != 2 {
		t.Errorf("share %v", share)
	}
	got := r.want(r.call("POST", "/v3/session/import-shared/", map[string]any{"share_token": share["share_token"]}), 201, "").object(t)
	if got["shared_from_session"] != id || got["status"] != "In Review" || got["session_id"] == id || got["vendor_data"] != nil {
		t.Errorf("imported %v", got)
	}
	if got := r.want(r.call("POST", "/v3/session/import-shared/", map[string]any{"share_token": share["share_token"], "trust_review": true}), 201, "").object(t); got["status"] != "Approved" {
		t.Errorf("imported with trust: %v", got["status"])
	}
	forged := share["share_token"].(string)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + strings.Split(forged, ".")[1] + "."
	for _, bad := range []string{forged[:len(forged)-2], none, "x"} {
		r.want(r.call("POST", "/v3/session/import-shared/", map[string]any{"share_token": bad}), 400, `{"share_token":["The token is invalid or has expired."]}`)
	}
	r.pass(61 * time.Minute)
	r.want(r.call("POST", "/v3/session/import-shared/", map[string]any{"share_token": forged}), 400, "")
}

// receiver collects deliveries and answers as told.
type receiver struct {
	mu      sync.Mutex // guards the fields below
	answers []int      // of the next deliveries; then 200
	got     []delivered
	arrived chan struct{}
}

type delivered struct {
	header http.Header
	raw    []byte
	body   map[string]any
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	raw, _ := io.ReadAll(req.Body)
	d := delivered{header: req.Header, raw: raw}
	json.Unmarshal(raw, &d.body)
	rc.mu.Lock()
	status := 200
	if len(rc.answers) > 0 {
		status, rc.answers = rc.answers[0], rc.answers[1:]
	}
	rc.got = append(rc.got, d)
	rc.mu.Unlock()
	w.WriteHeader(status)
	rc.arrived <- struct{}{}
}

// wait returns all deliveries when there are n.
func (rc *receiver) wait(t *testing.T, n int) []delivered {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		rc.mu.Lock()
		got := slices.Clone(rc.got)
		rc.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-rc.arrived:
		case <-deadline:
			t.Fatalf("%d deliveries, want %d", len(got), n)
		}
	}
}

// deliver runs the deliverer until the test ends.
func (r *caseRig) deliver() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.hooks.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
}

func (r *caseRig) receiver() (*receiver, string) {
	rc := &receiver{arrived: make(chan struct{}, 1000)}
	h := httptest.NewServer(rc)
	r.t.Cleanup(h.Close)
	return rc, h.URL
}

func TestWebhooks(t *testing.T) {
	r := newCaseRig(t)
	rc, address := r.receiver()
	d := r.want(r.call("POST", "/v3/webhook/destinations/", map[string]any{"label": "a", "url": address,
		"subscribed_events": []string{"status.updated", "session.verified", "session.declined", "session.review_started"}}), 201, "").object(t)
	secret := d["secret_shared_key"].(string)
	if len(secret) != 43 {
		t.Errorf("secret of %d characters", len(secret))
	}
	r.want(r.call("POST", "/v3/webhook/destinations/", map[string]any{"url": address}), 400, `{"url":["A webhook destination with this URL already exists."]}`)
	r.want(r.call("POST", "/v3/webhook/destinations/", map[string]any{"url": address + "/2", "subscribed_events": []string{}}), 400, "")
	r.want(r.call("POST", "/v3/webhook/destinations/", map[string]any{"url": "ftp://x.example"}), 400, `{"url":["The URL must start with https://."]}`)
	if list := r.want(r.call("GET", "/v3/webhook/destinations/", nil), 200, ""); !strings.HasPrefix(list.body, "[{") || strings.Contains(list.body, "secret") {
		t.Errorf("list %s", list.body)
	}
	wf := r.workflow(reauth)
	rc.answers = []int{503}
	r.deliver()
	id, token := r.session(map[string]any{"workflow_id": wf, "portrait_image": r.portrait(red), "metadata": []int{1}})
	first := rc.wait(t, 1)[0]
	r.pass(time.Second)
	r.want(r.show(token, "face", red), 200, "")
	got := rc.wait(t, 4)
	var names []string
	for _, g := range got {
		names = append(names, fmt.Sprint(g.body["webhook_type"], " ", g.body["status"]))
		if v2 := webhook.Sign(secret, g.raw); g.header.Get("X-Signature-V2") != v2 || g.header.Get("X-Signature") != v2 ||
			g.header.Get("X-Timestamp") != fmt.Sprint(int64(g.body["timestamp"].(float64))) || g.body["created_at"] != g.body["timestamp"] ||
			g.body["metadata"] != nil || g.body["session_id"] != id || bytes.Contains(g.raw, []byte("base64")) {
			t.Errorf("delivery %v %s", g.header, g.raw)
		}
	}
	if fmt.Sprint(names) != "[status.updated Not Started status.updated In Progress status.updated Approved session.verified Approved]" {
		t.Errorf("told: %v", names)
	}
	// The failed one comes again: stamped and signed anew, the same event.
	r.pass(90 * time.Second)
	r.hooks.Wake()
	again := rc.wait(t, 5)[4]
	if again.body["event_id"] != first.body["event_id"] || again.body["timestamp"].(float64)-first.body["timestamp"].(float64) != 91 ||
		again.header.Get("X-Signature-V2") != webhook.Sign(secret, again.raw) || again.header.Get("X-Signature-V2") == first.header.Get("X-Signature-V2") || again.body["status"] != "Not Started" {
		t.Errorf("again %v", again.body)
	}
	r.checkLog(d["uuid"].(string), id, rc, first.body["event_id"])
}

// checkLog reads the log and sends a delivery again by hand.
func (r *caseRig) checkLog(dest, session string, rc *receiver, event any) {
	t := r.t
	t.Helper()
	path := "/v3/webhook/destinations/" + dest + "/"
	var rows []any
	for range 100 { // the attempt is recorded after the receiver has answered
		rows = r.want(r.call("GET", path+"deliveries/", nil), 200, "").object(t)["results"].([]any)
		if rows[len(rows)-1].(map[string]any)["status"] == "delivered" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	oldest := rows[len(rows)-1].(map[string]any)
	if tries := oldest["attempts"].([]any); len(rows) != 4 || oldest["event_id"] != event || len(tries) != 2 || tries[0].(map[string]any)["status_code"] != 503.0 {
		t.Errorf("log %v", rows)
	}
	r.want(r.call("POST", path+"deliveries/"+oldest["uuid"].(string)+"/resend/", nil), 202, "")
	if got := rc.wait(t, 6)[5]; got.body["event_id"] != event {
		t.Errorf("sent again as %v", got.body["event_id"])
	}
	r.want(r.call("GET", "/v3/session/"+session+"/webhooks/", nil), 200, "")
	r.want(r.call("POST", path+"test/", nil), 202, "")
	if got := rc.wait(t, 7)[6]; got.header.Get("X-Didit-Test-Webhook") != "true" {
		t.Errorf("test delivery %v", got.header)
	}
	// Rotation: the old secret signs on, the new one beside it, then takes over.
	v := r.want(r.call("PATCH", path, `{"rotate_secret_key":true,"secret_overlap_seconds":3600}`), 200, "").object(t)
	old, next := v["secret_shared_key"].(string), v["next_secret_shared_key"].(string)
	r.want(r.call("POST", path+"test/", nil), 202, "")
	if got := rc.wait(t, 8)[7]; got.header.Get("X-Signature-V2") != webhook.Sign(old, got.raw) || got.header.Get("X-Signature-V2-Next") != webhook.Sign(next, got.raw) {
		t.Errorf("while rotating: %v", got.header)
	}
	r.pass(time.Hour)
	r.want(r.call("POST", path+"test/", nil), 202, "")
	if got := rc.wait(t, 9)[8]; got.header.Get("X-Signature-V2") != webhook.Sign(next, got.raw) || got.header.Get("X-Signature-V2-Next") != "" {
		t.Errorf("after the rotation: %v", got.header)
	}
	r.want(r.call("DELETE", path, nil), 204, "")
	r.want(r.call("GET", path, nil), 404, "")
}

// TestApplications: whoever has a key of one application finds nothing of another's.
func TestApplications(t *testing.T) {
	r := newCaseRig(t)
	mine, theirs := r.key, r.newKey(agent.APIKey{Name: "guests", Application: "visitors"})
	wf := r.workflow(`{"features":["LIVENESS"],"is_default":true}`)
	list := r.want(r.call("POST", "/v3/lists/", `{"name":"known","list_type":"allowlist","entry_type":"face"}`), 201, "").object(t)["uuid"].(string)
	entry := r.want(r.call("POST", "/v3/lists/"+list+"/entries/face-upload/", map[string]any{"image": r.portrait(red)}), 201, "").object(t)["uuid"].(string)
	hook := r.want(r.call("POST", "/v3/webhook/destinations/", `{"url":"http://127.0.0.1:9/a"}`), 201, "").object(t)["uuid"].(string)
	id, token := r.session(map[string]any{"workflow_id": wf, "vendor_data": "v"})
	r.want(r.show(token, "face", red), 200, "")
	delivery := r.want(r.call("GET", "/v3/webhook/destinations/"+hook+"/deliveries/", nil), 200, "").object(t)["results"].([]any)[0].(map[string]any)["uuid"].(string)

	for _, at := range []string{"GET /v3/workflows/" + wf, "PATCH /v3/workflows/" + wf, "DELETE /v3/workflows/" + wf,
		"GET /v3/session/" + id, "GET /v3/session/" + id + "/decision", "PATCH /v3/session/" + id + "/update-status", "DELETE /v3/session/" + id + "/delete",
		"GET /v3/session/" + id + "/generate-pdf", "GET /v3/sessions/" + id + "/reviews", "POST /v3/sessions/" + id + "/reviews", "POST /v3/session/" + id + "/share",
		"GET /v3/session/" + id + "/webhooks", "POST /v3/session/" + id + "/webhook/" + delivery + "/resend",
		"GET /v3/lists/" + list, "PATCH /v3/lists/" + list, "DELETE /v3/lists/" + list, "GET /v3/lists/" + list + "/entries",
		"POST /v3/lists/" + list + "/entries", "POST /v3/lists/" + list + "/entries/face-upload", "DELETE /v3/lists/" + list + "/entries/" + entry,
		"GET /v3/webhook/destinations/" + hook, "PATCH /v3/webhook/destinations/" + hook, "DELETE /v3/webhook/destinations/" + hook,
		"POST /v3/webhook/destinations/" + hook + "/test", "GET /v3/webhook/destinations/" + hook + "/deliveries",
		"GET /v3/webhook/destinations/" + hook + "/deliveries/" + delivery} {
		method, path, _ := strings.Cut(at, " ")
		body := map[string]any{"comment": "x", "new_status": "Approved", "features": []string{"LIVENESS"}, "for_application_id": "p", "value": "v", "image": r.portrait(blue)}
		if got := r.as(theirs, method, path+"/", body); got.status != 404 || got.body != `{"detail":"Not found."}` {
			t.Errorf("%s: %d %s", at, got.status, got.body)
		}
	}
	r.want(r.as(theirs, "POST", "/v3/session/", map[string]any{"workflow_id": wf}), 400, `{"workflow_id":"Invalid workflow_id."}`)
	for path, want := range map[string]float64{"/v3/sessions/": 0, "/v3/workflows/": 0, "/v3/lists/?list_type=allowlist": 0, "/v3/lists/?list_type=blocklist": float64(len(cases.EntryTypes))} {
		if n := r.want(r.as(theirs, "GET", path, nil), 200, "").object(t)["count"]; n != want {
			t.Errorf("%s has %v, want %v", path, n, want)
		}
	}
	r.want(r.as(theirs, "GET", "/v3/webhook/destinations/", nil), 200, "[]")
	r.want(r.as(theirs, "POST", "/v3/sessions/delete/", `{"delete_all":true}`), 200, `{"deleted":0}`)

	// What they have is theirs: the same names, the same address, their own default.
	r.want(r.as(theirs, "POST", "/v3/lists/", `{"name":"known","list_type":"allowlist","entry_type":"face"}`), 201, "")
	r.want(r.as(theirs, "POST", "/v3/webhook/destinations/", `{"url":"http://127.0.0.1:9/a"}`), 201, "")
	r.want(r.as(theirs, "POST", "/v3/workflows/", `{"features":["FACE_SEARCH"],"is_default":true}`), 201, "")
	if w := r.call("GET", "/v3/workflows/"+wf+"/", nil).object(t); w["is_default"] != true {
		t.Error("another application's default took ours away")
	}
	search := func(key string) float64 {
		t.Helper()
		req, err := http.NewRequest("POST", r.url+"/v3/face-search/", nil)
		ok(t, err)
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		p, err := w.CreateFormFile("user_image", "p.jpg")
		ok(t, err)
		p.Write(jpegOf(t, red))
		w.Close()
		req.Body = io.NopCloser(&b)
		req.Header.Set("Content-Type", w.FormDataContentType())
		req.Header.Set("X-Api-Key", key)
		return r.want(r.send(req), 200, "").object(t)["face_search"].(map[string]any)["total_matches"].(float64)
	}
	if n := search(mine); n != 2 {
		t.Errorf("we find %v faces, want the list's and the session's", n)
	}
	if n := search(theirs); n != 0 {
		t.Errorf("they find %v of our faces", n)
	}
	// A person enrolled for one application is nobody to another.
	r.enrol("emp", red)
	re := r.want(r.as(theirs, "POST", "/v3/workflows/", `{"features":["FACE_MATCH"]}`), 201, "").object(t)["workflow_id"]
	r.want(r.as(theirs, "POST", "/v3/session/", map[string]any{"workflow_id": re, "vendor_data": "emp"}), 400, "")
	ours := r.workflow(`{"features":["FACE_MATCH"]}`)
	r.session(map[string]any{"workflow_id": ours, "vendor_data": "emp"})
}

// TestImagesAreKeptAsTheApplicationWants: by default pictures go when the links to them
// die; an application that keeps images has them for its time.
func TestImagesAreKeptAsTheApplicationWants(t *testing.T) {
	r := newCaseRig(t)
	visitors := r.newKey(agent.APIKey{Name: "guests", Application: "visitors"})
	ok(t, r.st.SetRetention(store.Retention{Application: "visitors", Policy: retention.Policy{Images: retention.Period(retention.Shortest)}}))
	links := func(key string) (id, link string) {
		t.Helper()
		wf := r.want(r.as(key, "POST", "/v3/workflows/", `{"features":["LIVENESS"]}`), 201, "").object(t)["workflow_id"]
		s := r.want(r.as(key, "POST", "/v3/session/", map[string]any{"workflow_id": wf}), 201, "").object(t)
		r.want(r.show(s["session_token"].(string), "face", red), 200, "")
		id = s["session_id"].(string)
		d := r.want(r.as(key, "GET", "/v3/session/"+id+"/decision/", nil), 200, "").object(t)
		return id, d["liveness_checks"].([]any)[0].(map[string]any)["reference_image"].(string)
	}
	idA, a := links(r.key)
	idB, b := links(visitors)
	r.want(r.fetch(a), 200, "")
	r.want(r.fetch(b), 200, "")
	r.pass(61 * time.Minute)
	again := func(key, id string) any {
		d := r.want(r.as(key, "GET", "/v3/session/"+id+"/decision/", nil), 200, "").object(t)
		return d["liveness_checks"].([]any)[0].(map[string]any)["reference_image"]
	}
	if link, _ := again(r.key, idA).(string); link != "" {
		r.want(r.fetch(link), 404, "") // its time is over, even before the sweep
	}
	r.want(r.fetch(again(visitors, idB).(string)), 200, "")
	_, err := r.st.Sweep(t.Context(), store.Sweeping{Default: retention.Default()})
	ok(t, err)
	if link := again(r.key, idA); link != nil {
		t.Errorf("a link to a picture that is gone: %v", link)
	}
	r.want(r.fetch(again(visitors, idB).(string)), 200, "")
}

var ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// TestIdempotentCreates: a try after a crash finds what the first one made, whether the
// crash came before or after its answer was kept.
func TestIdempotentCreates(t *testing.T) {
	r := newCaseRig(t)
	wf := r.workflow(`{"features":["LIVENESS"]}`)
	list := r.want(r.call("POST", "/v3/lists/", `{"name":"l","list_type":"custom","entry_type":"email"}`), 201, "").object(t)["uuid"].(string)
	send := func(key, path, body string) reply {
		t.Helper()
		req, err := http.NewRequest("POST", r.url+path, strings.NewReader(body))
		ok(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Api-Key", r.key)
		req.Header.Set("Idempotency-Key", key)
		got := r.want(r.send(req), 201, "")
		got.body = ports.ReplaceAllString(got.body, "") // each process has one of its own
		return got
	}
	id, _ := agent.KeyIDOf(r.key)
	for path, body := range map[string]string{
		"/v3/session/":                    `{"workflow_id":"` + wf + `","metadata":{"a":1}}`,
		"/v3/workflows/":                  `{"features":["LIVENESS"],"workflow_label":"again"}`,
		"/v3/lists/":                      `{"name":"again","list_type":"custom","entry_type":"email"}`,
		"/v3/lists/" + list + "/entries/": `{"value":"a@b.example"}`,
		"/v3/webhook/destinations/":       `{"url":"https://again.example/"}`,
	} {
		first := send("key "+path, path, body)
		r.serve()
		if again := send("key "+path, path, body); again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: first\n%s\nthen\n%s", path, first.body, again.body)
		}
		// The process died after the change and before its answer was kept.
		known, err := r.st.Replay(id, "key "+path)
		ok(t, err)
		known.Status, known.Body = 0, nil
		ok(t, r.st.PutReplay(id, "key "+path, known))
		r.serve()
		if again := send("key "+path, path, body); again.body != first.body || again.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: first\n%s\nafter a crash\n%s", path, first.body, again.body)
		}
	}
	if n := r.call("GET", "/v3/sessions/", nil).object(t)["count"]; n != 1.0 {
		t.Errorf("%v sessions", n)
	}
}
