package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
)

const (
	noKeyBody = `{"detail":"Authentication credentials were not provided."}`
	badKey    = `{"detail":"Authentication credentials were not provided or are invalid."}`
	forbidden = `{"detail":"You do not have permission to perform this action."}`
)

func TestAuthentication(t *testing.T) {
	b := newBench(t)
	now := b.clock.now()
	expired := b.key(t, agent.APIKey{ExpiresAt: now})
	live := b.key(t, agent.APIKey{ExpiresAt: now.Add(time.Second)})
	revoked := b.key(t, agent.APIKey{RevokedAt: now.Add(-time.Hour)})
	elsewhere := b.key(t, agent.APIKey{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	here := b.key(t, agent.APIKey{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	readOnly := b.key(t, agent.APIKey{Scopes: map[agent.Resource]agent.Access{agent.ResourceBiometrics: agent.ReadAccess}})
	other := b.key(t, agent.APIKey{Scopes: map[agent.Resource]agent.Access{agent.ResourceSessions: agent.WriteAccess}})
	missing := `{"ref_image":["No file was submitted."],"user_image":["No file was submitted."]}`
	for _, c := range []struct {
		name, token string
		status      int
		body        string
	}{
		{"none", "", 403, noKeyBody},
		{"garbage", "x", 401, badKey},
		{"unknown", "postern_live_aaaaaaaaaa_" + strings.Repeat("a", 52), 401, badKey},
		{"right id, wrong secret", b.token[:len(b.token)-1] + map[bool]string{true: "b", false: "a"}[b.token[len(b.token)-1] == 'a'], 401, badKey},
		{"upper case", strings.ToUpper(b.token), 401, badKey},
		{"expired", expired, 401, badKey},
		{"not yet expired", live, 400, missing},
		{"revoked", revoked, 401, badKey},
		{"another network", elsewhere, 403, forbidden},
		{"the right network", here, 400, missing},
		{"read only", readOnly, 403, forbidden},
		{"another resource", other, 403, forbidden},
		{"good", b.token, 400, missing},
	} {
		t.Run(c.name, func(t *testing.T) { want(t, b.postAs(t, c.token, "/v3/face-match/"), c.status, c.body) })
	}
	t.Run("two keys", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodPost, "/v3/face-match/", nil)
		r.Header["X-Api-Key"] = []string{b.token, b.token}
		want(t, b.do(r, ""), 401, badKey)
	})
	if b.faces.seen != 0 {
		t.Error("a request that was not let in reached the networks")
	}
}

// A key without access to media gets null where links stand.
func TestNoMediaAccess(t *testing.T) {
	b := newBench(t)
	token := b.key(t, agent.APIKey{Scopes: map[agent.Resource]agent.Access{agent.ResourceBiometrics: agent.WriteAccess}})
	w := b.postAs(t, token, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)))
	if fm := object(t, w)["face_match"].(map[string]any); fm["source_image"] != nil || fm["target_image"] != nil {
		t.Errorf("%v", fm)
	}
}

func TestRates(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Rates = map[Budget]int{BudgetBiometrics: 2} })
	for i, remaining := range []string{"1", "0"} {
		w := b.post(t, "/v3/face-match/")
		if h := w.Header(); w.Code != 400 || h.Get("X-RateLimit-Limit") != "2" || h.Get("X-RateLimit-Remaining") != remaining {
			t.Errorf("request %d: %d %v", i, w.Code, h)
		}
	}
	w := b.post(t, "/v3/face-match/")
	want(t, w, 429, `{"detail":"Request was throttled. The budget is 2 requests a minute."}`)
	reset, err := strconv.ParseInt(w.Header().Get("X-RateLimit-Reset"), 10, 64)
	if left := time.Unix(reset, 0).Sub(b.clock.now()); err != nil || left <= 0 || left > time.Minute {
		t.Errorf("reset in %v", left)
	}
	if after, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || after < 1 || after > 60 {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	if w := b.postAs(t, b.key(t, agent.APIKey{}), "/v3/face-match/"); w.Code != 400 {
		t.Errorf("another key is throttled too: %d", w.Code)
	}
	b.clock.add(time.Minute)
	if w := b.post(t, "/v3/face-match/"); w.Code != 400 {
		t.Errorf("still throttled a minute later: %d", w.Code)
	}
}

func TestWrongKeysAreThrottled(t *testing.T) {
	b := newBench(t)
	for range failedAuth {
		b.postAs(t, "x", "/v3/face-match/")
	}
	if w := b.postAs(t, "x", "/v3/face-match/"); w.Code != 429 {
		t.Errorf("after %d wrong keys: %d", failedAuth, w.Code)
	}
	if w := b.post(t, "/v3/face-match/"); w.Code != 400 {
		t.Errorf("a good key from there: %d", w.Code)
	}
}

// Beyond workers and queue requests are sent away at once, before their body is read.
func TestGateIsBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Workers, c.Queue = 1, 2 })
	release := make(chan struct{})
	b.faces.block = release
	same := []field{file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30))}
	var wg sync.WaitGroup
	codes := make(chan int, 3)
	for range 3 {
		wg.Go(func() { codes <- b.post(t, "/v3/face-match/", same...).Code })
	}
	for len(b.gate.tickets) < 3 {
		time.Sleep(time.Millisecond)
	}
	w := b.post(t, "/v3/face-match/", same...)
	want(t, w, 503, `{"detail":"Too many requests are being worked on. Try again in a moment."}`)
	if w.Header().Get("Retry-After") != "1" {
		t.Error("no Retry-After")
	}
	close(release)
	wg.Wait()
	close(codes)
	for c := range codes {
		if c != 200 {
			t.Errorf("a waiting request ended with %d", c)
		}
	}
}

// TestLateAnalysis: a request whose time ends while its pictures are looked at is told to
// come back; that is no error of the server's.
func TestLateAnalysis(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(c *Config) {
		c.Timeout, c.Log = 20*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	b.faces.block, b.faces.fail = make(chan struct{}), context.DeadlineExceeded
	w := b.post(t, "/v3/face-match/", file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)))
	want(t, w, 503, `{"detail":"The request waited too long for its turn. Try again in a moment."}`)
	if w.Header().Get("Retry-After") != "1" || log.Len() > 0 || len(b.saver.saved) != 0 {
		t.Errorf("Retry-After %q, logged %q", w.Header().Get("Retry-After"), &log)
	}
}

func TestIdempotency(t *testing.T) {
	b := newBench(t)
	send := func(key, vendor string, fields ...field) *httptest.ResponseRecorder {
		ct, body := form(t, append(fields, file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)), textField("vendor_data", vendor))...)
		r := httptest.NewRequest(http.MethodPost, "/v3/face-match/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", ct)
		r.Header.Set("Idempotency-Key", key)
		return b.do(r, b.token)
	}
	first, again := send("k1", "a"), send("k1", "a") // the boundary differs
	if first.Code != 200 || again.Body.String() != first.Body.String() || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("%d, again %d %s", first.Code, again.Code, again.Body)
	}
	if len(b.saver.saved) != 1 {
		t.Errorf("%d requests saved", len(b.saver.saved))
	}
	want(t, send("k1", "b"), 422, `{"detail":"This Idempotency-Key was used for another request."}`)
	if w := send("k2", "a"); w.Header().Get("Idempotency-Replayed") != "" || len(b.saver.saved) != 2 {
		t.Error("another key was replayed")
	}
	want(t, send(strings.Repeat("x", 256), "a"), 400, `{"detail":"Idempotency-Key must have 1 to 255 printable characters."}`)
	// What failed may be tried again.
	b.saver.fail = &agent.Error{Code: agent.CodeStorage, Message: "full"}
	if w := send("k3", "a"); w.Code != 503 {
		t.Errorf("%d", w.Code)
	}
	b.saver.fail = nil
	if w := send("k3", "a"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// An answer that cannot be kept is not given.
	b.replays.fail = &agent.Error{Code: agent.CodeStorage, Message: "full"}
	if w := send("k4", "a"); w.Code != 503 {
		t.Errorf("%d", w.Code)
	}
	b.replays.fail = nil
	// A caller who wants nothing kept has no answer kept either.
	n := len(b.replays.all)
	if w := send("k5", "a", textField("save_api_request", "false")); w.Code != 200 || len(b.replays.all) != n {
		t.Errorf("%d, %d answers kept, then %d", w.Code, n, len(b.replays.all))
	}
	b.clock.add(25 * time.Hour)
	if w := send("k1", "b"); w.Code != 200 {
		t.Errorf("a day later: %d", w.Code)
	}
}

func TestCORS(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Origins = []string{"https://app.example"} })
	ask := func(origin, method string) http.Header {
		r := httptest.NewRequest(http.MethodOptions, "/v3/face-match/", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		return w.Header()
	}
	if h := ask("https://app.example", "POST"); h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("%v", h)
	}
	for _, origin := range []string{"https://evil.example", "null", "https://app.example.evil", "http://app.example"} {
		if h := ask(origin, "POST"); h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is allowed", origin)
		}
	}
	if h := newBench(t).get("/system/ready/", "").Header(); h.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS is on by default")
	}
}

func TestPanicIsAnswered(t *testing.T) {
	b := newBench(t)
	b.Add(Route{Method: "GET", Path: "/v3/panic/", Open: true, Handle: func(http.ResponseWriter, *http.Request) error { panic("oh") }})
	b.handler = b.Handler()
	want(t, b.get("/v3/panic/", ""), 500, `{"detail":"Internal error."}`)
}

func TestSystem(t *testing.T) {
	var ill error
	b := newBench(t, func(c *Config) { c.Health = func() error { return ill } })
	for _, path := range []string{"/system/healthcheck", "/system/healthcheck/", "/system/ready", "/system/ready/"} {
		want(t, b.get(path, ""), 200, `{"status":"ok","timestamp":"2026-06-12T01:04:42.763Z"}`)
	}
	ill = &agent.Error{Code: agent.CodeStorage, Message: "secret path"}
	want(t, b.get("/system/healthcheck", ""), 503, `{"status":"unhealthy","timestamp":"2026-06-12T01:04:42.763Z"}`)
	w := httptest.NewRecorder()
	b.Over(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 403 {
		t.Errorf("metrics from elsewhere: %d", w.Code)
	}
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.RemoteAddr = "127.0.0.1:5"
	w = httptest.NewRecorder()
	b.Over(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `postern_http_request_seconds_count{method="GET",route="/system/ready/",status="200"} 2`) {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
}

// Labels and their number do not depend on what callers send.
func TestMetricsAreBounded(t *testing.T) {
	b := newBench(t)
	for _, m := range []string{"BREW", "X1", "X2"} {
		r := httptest.NewRequest(m, "/v3/some/"+m, nil)
		b.handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	families, err := b.Metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "postern_http_request_seconds" && len(f.GetMetric()) != 1 {
			t.Errorf("%d series for unknown methods and paths", len(f.GetMetric()))
		}
	}
}

func TestPagination(t *testing.T) {
	b := newBench(t)
	r := httptest.NewRequest(http.MethodGet, "/v3/sessions/?limit=10&offset=10&status=Approved,In%20Review", nil)
	f := Fields{}
	l := b.Listing(r, ParsePage(r.URL.Query(), f), 25, []int{})
	if f.Err() != nil || *l.Next != "http://example.com/v3/sessions/?limit=10&offset=20&status=Approved%2CIn+Review" || *l.Previous != "http://example.com/v3/sessions/?limit=10&status=Approved%2CIn+Review" {
		t.Errorf("%s %s", *l.Next, *l.Previous)
	}
	for query, bad := range map[string]bool{"": false, "limit=1000": false, "limit=0": true, "limit=-1": true, "limit=x": true, "limit=": true, "offset=-1": true, "offset=99999999999999999999": true} {
		r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
		f := Fields{}
		p := ParsePage(r.URL.Query(), f)
		if (f.Err() != nil) != bad || p.Limit > MaxPage {
			t.Errorf("%q: %v %+v", query, f, p)
		}
	}
}

func TestSandbox(t *testing.T) {
	b := newBench(t)
	b.faces.fail = &agent.Error{Code: agent.CodeInternal, Message: "real data was touched"}
	token := b.key(t, agent.APIKey{Sandbox: true})
	jpg := picture(t, white, 40, 30)
	pair := []field{file("user_image", "a.jpg", jpg), file("ref_image", "b.jpg", jpg)}
	one := pair[:1]
	for _, c := range []struct {
		path, block, scenario, status, risk string
		fields                              []field
	}{
		{"/v3/face-match/", "face_match", "", "Approved", "", pair},
		{"/v3/face-match/", "face_match", "approve", "Approved", "", pair},
		{"/v3/face-match/", "face_match", "decline_face_match_low_similarity", "Declined", "LOW_FACE_MATCH_SIMILARITY", pair},
		{"/v3/face-match/", "face_match", "decline_face_match_no_reference_image", "Declined", "NO_REFERENCE_IMAGE", pair},
		{"/v3/face-match/", "face_match", "review_face_match_borderline", "Approved", "", pair},
		{"/v3/passive-liveness/", "liveness", "", "Approved", "", one},
		{"/v3/passive-liveness/", "liveness", "decline_liveness_attack", "Declined", "LIVENESS_FACE_ATTACK", one},
		{"/v3/passive-liveness/", "liveness", "decline_liveness_no_face", "Declined", "NO_FACE_DETECTED", one},
		{"/v3/passive-liveness/", "liveness", "decline_face_in_blocklist", "Declined", "FACE_IN_BLOCKLIST", one},
		{"/v3/face-search/", "face_search", "", "Approved", "", one},
		{"/v3/face-search/", "face_search", "duplicated_face", "Approved", "DUPLICATED_FACE", one},
		{"/v3/face-search/", "face_search", "decline_face_in_blocklist", "Declined", "FACE_IN_BLOCKLIST", one},
	} {
		fields := c.fields[:len(c.fields):len(c.fields)]
		if c.scenario != "" {
			fields = append(fields, textField("sandbox_scenario", c.scenario))
		}
		w := b.postAs(t, token, c.path, fields...)
		block, _ := object(t, w)[c.block].(map[string]any)
		if block == nil || block["status"] != c.status {
			t.Errorf("%s %s: %d %s", c.path, c.scenario, w.Code, w.Body)
			continue
		}
		ws := block["warnings"].([]any)
		if c.risk != "" && (len(ws) == 0 || ws[0].(map[string]any)["risk"] != c.risk) {
			t.Errorf("%s %s: warnings %v", c.path, c.scenario, ws)
		}
	}
	want(t, b.postAs(t, token, "/v3/face-match/", append(pair[:2:2], textField("sandbox_scenario", "win"))...), 400, `{"sandbox_scenario":["\"win\" is not a valid choice."]}`)
	for _, s := range b.saver.saved {
		if s.Face != nil || s.Scenario == "" {
			t.Error("a sandbox request carries a face")
		}
	}
}

func TestLiveness(t *testing.T) {
	b := newBench(t)
	jpg := file("user_image", "a.jpg", picture(t, red, 40, 30))
	for name, c := range map[string]struct {
		live   agent.Liveness
		status string
		risk   string
		score  any
	}{
		"not measured": {agent.Liveness{}, "Declined", "LIVENESS_NOT_COMPUTED", nil},
		"alive":        {agent.Liveness{Measured: true, Score: 95}, "Approved", "", 95.0},
		"at the limit": {agent.Liveness{Measured: true, Score: 30}, "Declined", "LOW_LIVENESS_SCORE", 30.0},
		"nonsense":     {agent.Liveness{Measured: true, Score: 400}, "Declined", "LIVENESS_NOT_COMPUTED", nil},
		"attack": {agent.Liveness{Measured: true, Score: 80, Signals: []agent.Signal{{Name: "x", Grade: agent.GradeAttack}}},
			"Declined", "LIVENESS_FACE_ATTACK", 80.0},
	} {
		t.Run(name, func(t *testing.T) {
			b.faces.live = c.live
			block := object(t, b.post(t, "/v3/passive-liveness/", jpg))["liveness"].(map[string]any)
			ws := block["warnings"].([]any)
			if block["status"] != c.status || block["score"] != c.score || (c.risk == "") != (len(ws) == 0) || c.risk != "" && ws[0].(map[string]any)["risk"] != c.risk {
				t.Errorf("%v", block)
			}
		})
	}
	block := object(t, b.post(t, "/v3/passive-liveness/", file("user_image", "a.jpg", picture(t, white, 40, 30))))["liveness"].(map[string]any)
	if block["status"] != "Declined" || block["warnings"].([]any)[0].(map[string]any)["risk"] != "NO_FACE_DETECTED" {
		t.Errorf("%v", block)
	}
}
