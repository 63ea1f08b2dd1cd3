package kiosk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/agent/kiosk"
	"postern/agent/ui"
	"postern/agent/ui/uitest"
	"postern/agent/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nextFunc is a camera.
type nextFunc func(ctx context.Context, after uint64) (*agent.Frame, error)

func (f nextFunc) Next(ctx context.Context, after uint64) (*agent.Frame, error) { return f(ctx, after) }

// recentFunc is a store.
type recentFunc func(n int) ([]agent.Result, error)

func (f recentFunc) Recent(n int) ([]agent.Result, error) { return f(n) }

type claimFunc func(id string) error

func (f claimFunc) Claim(id string) error { return f(id) }

// frame is a w x h picture, red on its left half and blue on its right.
func frame(w, h int, seq uint64) *agent.Frame {
	f := &agent.Frame{Width: w, Height: h, Seq: seq, Pix: make([]byte, w*h*3)}
	for i := range w * h {
		if i%w < w/2 {
			f.Pix[i*3] = 255
		} else {
			f.Pix[i*3+2] = 255
		}
	}
	return f
}

// endless gives a new frame whenever it is asked.
func endless(w, h int) nextFunc {
	return func(ctx context.Context, after uint64) (*agent.Frame, error) { return frame(w, h, after+1), ctx.Err() }
}

var start = time.Unix(1_700_000_000, 0)

func newServer() *kiosk.Server {
	return &kiosk.Server{
		Frames: endless(64, 48), Results: recentFunc(func(int) ([]agent.Result, error) { return []agent.Result{}, nil }),
		Claims: claimFunc(func(string) error { return nil }), LiveFPS: 1000, Device: "door-7",
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return start },
	}
}

// serve runs a server until the test ends and returns its address.
func serve(tb testing.TB, s *kiosk.Server) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

// ask sends one request to the handler alone.
func ask(s *kiosk.Server, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html", "/monitor": "text/html", "/kiosk/kiosk.js": "text/javascript", "/kiosk/kiosk.css": "text/css", "/ui/icon.svg": "image/svg+xml", "/design": "text/html",
		"/status": "application/json", "/results": "application/json",
	} {
		t.Run(path, func(t *testing.T) {
			w := ask(newServer(), "GET", path, "")
			if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Body.Len() == 0 {
				t.Fatalf("%d %s, %d bytes", w.Code, w.Header().Get("Content-Type"), w.Body.Len())
			}
			checkHeaders(t, w.Header(), strings.HasPrefix(path, "/kiosk/") || strings.HasPrefix(path, "/ui/"))
		})
	}
	for _, path := range []string{"/none", "/kiosk/../kiosk.go", "/kiosk/none.js", "/kiosk-logo", "/live", "/claim"} {
		t.Run("not "+path, func(t *testing.T) {
			if w := ask(newServer(), "GET", path, ""); w.Code == http.StatusOK {
				t.Errorf("%d: %s", w.Code, w.Body)
			}
		})
	}
}

func checkHeaders(tb testing.TB, h http.Header, file bool) {
	tb.Helper()
	csp := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(csp, want) {
			tb.Errorf("policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || (h.Get("Cache-Control") != "no-store") != file {
		tb.Errorf("headers %v", h)
	}
}

// Texts come from the catalogue, and the pages obey their own policy.
func TestTexts(t *testing.T) {
	uitest.Check(t, os.DirFS("."), []string{"kiosk"}, "kiosk.guide.", "kiosk.task.", "kiosk.result.", "kiosk.closed.", "kiosk.note.", "kiosk.monitor.state.",
		"kiosk.start.", "kiosk.badge.", "kiosk.walkup.", "kiosk.claimed.", "kiosk.looking.", "kiosk.throttled.", "kiosk.no_camera.", "kiosk.failed.", "kiosk.lost.")
}

// What the page refers to is there, in both languages.
func TestPageIsSelfContained(t *testing.T) {
	for _, target := range []string{"/", "/?lang=ja", "/monitor", "/monitor?lang=ja"} {
		page := ask(newServer(), "GET", target, "").Body.String()
		if strings.Contains(page, ">kiosk.") {
			t.Errorf("%s shows a key", target)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="(/(?:ui|kiosk)/[^"#]+)`).FindAllStringSubmatch(page, -1) {
			if w := ask(newServer(), "GET", m[1], ""); w.Code != http.StatusOK {
				t.Errorf("%s: %d", m[1], w.Code)
			}
		}
	}
}

// Every finding that the loop can have has its guidance, and every state of the loop
// its word.
func TestEveryFindingIsGuided(t *testing.T) {
	m := ui.Catalogue(ui.English, "kiosk")
	for _, f := range []agent.FindingCode{agent.FindingNoFace, agent.FindingSeveralFaces, agent.FindingFaceCut, agent.FindingTooSmall, agent.FindingTooDark,
		agent.FindingTooBright, agent.FindingBlurred, agent.FindingTurnedAway, agent.FindingFlat, agent.FindingEyesClosed, agent.FindingMouthCovered,
		agent.FindingEyesCovered, agent.FindingLowScore} {
		if m["kiosk.guide."+string(f)] == "" {
			t.Errorf("%s has no guidance", f)
		}
	}
	for _, s := range []watch.State{watch.Idle, watch.Looking, watch.Decided, watch.Waiting, watch.Throttled, watch.NoCamera, watch.OutOfWork, watch.Closed} {
		if m["kiosk.monitor.state."+string(s)] == "" {
			t.Errorf("%s has no word", s)
		}
	}
	for _, c := range []kiosk.Code{kiosk.Maintenance, kiosk.ModelMissing, kiosk.DiskFull, kiosk.ClockWrong, kiosk.Offline, kiosk.HubLost} {
		key := "kiosk.note." + string(c)
		if c.New().Blocking {
			key = "kiosk.closed." + string(c) + ".title"
		}
		if m[key] == "" {
			t.Errorf("%s has no words", c)
		}
	}
}

// Conditions reach the pages when they change, whether or not there are frames.
func TestConditions(t *testing.T) {
	s := newServer()
	var mu sync.Mutex // guards now
	now := []kiosk.Condition{}
	s.Conditions = func() []kiosk.Condition {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	open := listen(t, serve(t, s))
	status := func() string {
		for {
			if kind, data := open.any(); kind == "status" {
				return data
			}
		}
	}
	if got := status(); got != `{"conditions":[]}` {
		t.Errorf("at first %s", got)
	}
	mu.Lock()
	now = []kiosk.Condition{kiosk.DiskFull.New(), kiosk.HubLost.New()}
	mu.Unlock()
	if got := status(); got != `{"conditions":[{"code":"disk_full","blocking":true},{"code":"hub_lost","blocking":false}]}` {
		t.Errorf("then %s", got)
	}
}

// The name of who was let in is said, of nobody else.
func TestNames(t *testing.T) {
	s := newServer()
	s.Names = func(id string) string { return "Name of " + id }
	address := serve(t, s)
	for i, status := range []agent.Status{agent.Approved, agent.InReview, agent.Declined} {
		u := decided(uint64(i+1), "ada")
		u.Result.Decision.Status = status
		s.Publish(u)
	}
	open := listen(t, address)
	for range 3 {
		kind, data := open.next()
		if named := strings.Contains(data, "Name of ada"); kind != "result" || named != strings.Contains(data, `"Approved"`) {
			t.Errorf("%s %s", kind, data)
		}
	}
}

func TestLook(t *testing.T) {
	s := newServer()
	s.Look = kiosk.Look{Language: "ja", Theme: "dark", Name: "Acme <b>", Logo: []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), Attendant: "room 5",
		PINPad: true, Controller: "Acme KK", Contact: "dpo@acme.example", KeepResults: "30d", KeepFaces: "unlimited"}
	page := ask(s, "GET", "/", "").Body.String()
	for _, want := range []string{`lang="ja" data-theme="dark"`, "/kiosk-logo", "Acme &lt;b&gt;", "room 5", "Acme KK", "dpo@acme.example", "30 日間"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if w := ask(s, "GET", "/kiosk-logo", ""); w.Header().Get("Content-Type") != "image/svg+xml" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("logo: %v", w.Header())
	}
}

func TestHost(t *testing.T) {
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "127.0.0.1:8080": 200, "192.168.1.7": 200, "[::1]:8080": 200, "[fe80::1]": 200,
		"rebound.example": 421, "rebound.example:8080": 421, "localhost.rebound.example": 421, "127.0.0.1.rebound.example": 421, "": 421, ":8080": 421,
	} {
		t.Run(host, func(t *testing.T) {
			for _, path := range []string{"/", "/status", "/kiosk/kiosk.js"} {
				if w := ask(newServer(), "GET", path, "", "Host", host); w.Code != want {
					t.Errorf("%s: %d, want %d", path, w.Code, want)
				}
			}
			for _, path := range []string{"/events", "/live.mjpg"} { // streams: only the refusal ends
				if want == 421 {
					if w := ask(newServer(), "GET", path, "", "Host", host); w.Code != want {
						t.Errorf("%s: %d, want %d", path, w.Code, want)
					}
				}
			}
		})
	}
}

func TestClaim(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   string
		err    error
		want   int
		header []string
		called string // subject that reached the loop
	}{
		{name: "OK", body: "subject=ada", want: 204, called: "ada"},
		{name: "blanks around", body: "subject=+ada+", want: 204, called: "ada"},
		{name: "own page", body: "subject=ada", header: []string{"Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "same-origin"}, want: 204, called: "ada"},
		{name: "unknown", body: "subject=eve", err: &agent.Error{Code: agent.CodeNotFound, Message: "secret detail"}, want: 404, called: "eve"},
		{name: "store broken", body: "subject=ada", err: errors.New("secret detail"), want: 503, called: "ada"},
		{name: "empty", body: "subject=", want: 400},
		{name: "no field", body: "x=y", want: 400},
		{name: "space inside", body: "subject=a+b", want: 400},
		{name: "control character", body: "subject=a%00b", want: 400},
		{name: "too long", body: "subject=" + strings.Repeat("x", 129), want: 400},
		{name: "far too long", body: "subject=" + strings.Repeat("x", 10000), want: 400},
		{name: "cross site", body: "subject=ada", header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		{name: "same site, other origin", body: "subject=ada", header: []string{"Sec-Fetch-Site", "same-site"}, want: 403},
		{name: "old browser, other origin", body: "subject=ada", header: []string{"Origin", "http://evil.example"}, want: 403},
		{name: "opaque origin", body: "subject=ada", header: []string{"Origin", "null"}, want: 403},
		{name: "rebound name", body: "subject=ada", header: []string{"Host", "evil.example", "Origin", "http://evil.example"}, want: 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, called := newServer(), ""
			s.Claims = claimFunc(func(id string) error {
				called = id
				return c.err
			})
			w := ask(s, "POST", "/claim", c.body, c.header...)
			if w.Code != c.want || called != c.called {
				t.Errorf("%d, the loop was told %q; want %d, %q", w.Code, called, c.want, c.called)
			}
			if strings.Contains(w.Body.String(), "secret detail") {
				t.Errorf("the answer tells too much: %s", w.Body)
			}
			checkHeaders(t, w.Header(), false)
		})
	}
	t.Run("badges not in use", func(t *testing.T) {
		s := newServer()
		s.Claims = nil
		if w := ask(s, "POST", "/claim", "subject=ada"); w.Code != http.StatusNotFound {
			t.Errorf("%d", w.Code)
		}
		if w := ask(s, "GET", "/status", ""); !strings.Contains(w.Body.String(), `"claims":false`) {
			t.Errorf("status %s", w.Body)
		}
	})
	t.Run("GET", func(t *testing.T) {
		if w := ask(newServer(), "GET", "/claim?subject=ada", ""); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%d", w.Code)
		}
	})
}

func TestResults(t *testing.T) {
	s := newServer()
	s.Results = recentFunc(func(n int) ([]agent.Result, error) {
		if n < 1 || n > 1000 {
			t.Errorf("asked for %d results", n)
		}
		return []agent.Result{result(7, "ada")}, nil
	})
	var rs []agent.Result
	if err := json.Unmarshal(ask(s, "GET", "/results", "").Body.Bytes(), &rs); err != nil || len(rs) != 1 || rs[0].Seq != 7 {
		t.Errorf("%+v, %v", rs, err)
	}
	s.Results = recentFunc(func(int) ([]agent.Result, error) { return nil, errors.New("secret detail") })
	if w := ask(s, "GET", "/results", ""); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func result(seq uint64, subject string) agent.Result {
	return agent.Result{ID: fmt.Sprintf("r%d", seq), Seq: seq, Kind: agent.KindVerify, SubjectID: subject,
		Decision: agent.Decision{Status: agent.Approved, Warnings: []agent.Warning{}}}
}

func decided(seq uint64, subject string) watch.Update {
	r := result(seq, subject)
	return watch.Update{State: watch.Decided, At: start, Seq: seq, Result: &r}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		name string
		u    *watch.Update
		want int
	}{
		{"nothing yet", nil, 503},
		{"idle", &watch.Update{State: watch.Idle, At: start}, 200},
		{"decided", &watch.Update{State: watch.Decided, At: start}, 200},
		{"no camera", &watch.Update{State: watch.NoCamera, At: start}, 503},
		{"failed", &watch.Update{State: watch.OutOfWork, At: start}, 503},
		{"a moment ago", &watch.Update{State: watch.Idle, At: start.Add(-10 * time.Second)}, 200},
		{"the loop is stuck", &watch.Update{State: watch.Idle, At: start.Add(-time.Minute)}, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer()
			if c.u != nil {
				s.Publish(*c.u)
			}
			w := ask(s, "GET", "/system/healthcheck", "")
			if w.Code != c.want || !strings.Contains(w.Body.String(), `"timestamp":"2023-11-14T22:13:20.000Z"`) {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
		})
	}
}

// stream is an open event stream.
type stream struct {
	tb  testing.TB
	res *http.Response
	sc  *bufio.Scanner
}

func listen(tb testing.TB, address string) *stream {
	tb.Helper()
	res, err := http.Get(address + "/events")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { res.Body.Close() })
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		tb.Fatalf("content type %q", got)
	}
	s := &stream{tb: tb, res: res, sc: bufio.NewScanner(res.Body)}
	s.sc.Buffer(nil, 1<<20)
	return s
}

// next reads one event that is about the loop.
func (s *stream) next() (kind, data string) {
	s.tb.Helper()
	for {
		if kind, data = s.any(); kind != "status" && kind != "beat" {
			return kind, data
		}
	}
}

// any reads one event.
func (s *stream) any() (kind, data string) {
	s.tb.Helper()
	for s.sc.Scan() {
		field, value, _ := strings.Cut(s.sc.Text(), ": ")
		switch field {
		case "event":
			kind = value
		case "data":
			data = value
		case "":
			return kind, data
		default:
			s.tb.Fatalf("line %q", s.sc.Text())
		}
	}
	s.tb.Fatalf("the stream ended: %v", s.sc.Err())
	return "", ""
}

// until reads events up to the update with this seq, and returns the numbers of
// the results before it.
func (s *stream) until(seq uint64) (results []uint64, updates int) {
	s.tb.Helper()
	for {
		kind, data := s.next()
		switch kind {
		case "result":
			var r agent.Result
			if err := json.Unmarshal([]byte(data), &r); err != nil {
				s.tb.Fatal(err)
			}
			results = append(results, r.Seq)
		case "update":
			var u watch.Update
			if err := json.Unmarshal([]byte(data), &u); err != nil {
				s.tb.Fatal(err)
			}
			updates++
			if u.Seq == seq {
				return results, updates
			}
		default:
			s.tb.Fatalf("event %q", kind)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Run("the present state first", func(t *testing.T) {
		s := newServer()
		address := serve(t, s)
		s.Publish(watch.Update{State: watch.Idle, At: start, Seq: 1})
		s.Publish(watch.Update{State: watch.Looking, At: start, Seq: 2})
		if kind, data := listen(t, address).next(); kind != "update" || !strings.Contains(data, `"state":"looking"`) {
			t.Errorf("%s %s", kind, data)
		}
	})
	t.Run("nothing before the first update", func(t *testing.T) {
		s := newServer()
		open := listen(t, serve(t, s))
		s.Publish(watch.Update{State: watch.Idle, At: start, Seq: 1})
		if kind, data := open.next(); kind != "update" || !strings.Contains(data, `"state":"idle"`) {
			t.Errorf("%s %s", kind, data)
		}
	})
	t.Run("results of before the page, for reconnecting", func(t *testing.T) {
		s := newServer()
		address := serve(t, s)
		s.Publish(decided(1, "ada"))
		s.Publish(decided(2, "bob"))
		s.Publish(watch.Update{State: watch.Idle, At: start, Seq: 3})
		if results, _ := listen(t, address).until(3); fmt.Sprint(results) != "[1 2]" {
			t.Errorf("results %v", results)
		}
	})
	t.Run("every page gets every result", func(t *testing.T) {
		s := newServer()
		address := serve(t, s)
		pages := []*stream{listen(t, address), listen(t, address)}
		s.Publish(decided(1, "ada"))
		s.Publish(decided(2, "bob"))
		for _, p := range pages {
			if results, _ := p.until(2); fmt.Sprint(results) != "[1 2]" {
				t.Errorf("results %v", results)
			}
		}
	})
	t.Run("only the last results are kept", func(t *testing.T) {
		s := newServer()
		address := serve(t, s)
		for i := range uint64(100) {
			s.Publish(decided(i+1, "ada"))
		}
		if results, _ := listen(t, address).until(100); len(results) != 20 || results[0] != 81 {
			t.Errorf("results %v", results)
		}
	})
}

// slowWriter is a page that reads nothing until it is told to.
type slowWriter struct {
	*httptest.ResponseRecorder
	mu      sync.Mutex    // guards the recorder
	arrived chan struct{} // closed when the first write waits
	once    sync.Once
	release chan struct{}
	last    string        // in the last event
	seen    chan struct{} // closed when it was written
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.arrived) })
	<-w.release
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(p, []byte(w.last)) {
		close(w.seen)
	}
	return w.ResponseRecorder.Write(p)
}

func (w *slowWriter) FlushError() error                { return nil }
func (w *slowWriter) SetWriteDeadline(time.Time) error { return nil }

func (w *slowWriter) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.Body.String(), what)
}

// A page that cannot keep up skips updates but no result, and never holds up
// the loop.
func TestSlowPage(t *testing.T) {
	s := newServer()
	s.Publish(watch.Update{State: watch.Idle, At: start, Seq: 1})
	w := &slowWriter{ResponseRecorder: httptest.NewRecorder(), arrived: make(chan struct{}), release: make(chan struct{}),
		last: `"seq":1001,`, seen: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1/events", nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Handler().ServeHTTP(w, r)
	}()
	<-w.arrived
	for i := range uint64(1000) { // while the page's write hangs
		s.Publish(watch.Update{State: watch.Looking, At: start, Seq: i + 2})
		if i%100 == 0 {
			s.Publish(decided(i+2, "ada"))
		}
	}
	close(w.release)
	select {
	case <-w.seen:
	case <-done:
		t.Fatal("the stream ended")
	}
	cancel()
	<-done
	if n := w.count("event: result"); n != 10 {
		t.Errorf("%d results of 10", n)
	}
	if n := w.count("event: update"); n > 10 {
		t.Errorf("%d updates were queued", n)
	}
}

// Names reach the page as JSON only, whatever they are.
func TestNamesAreNotMarkup(t *testing.T) {
	const evil = `</script><img/src=x/onerror=alert(1)>`
	s := newServer()
	s.Results = recentFunc(func(int) ([]agent.Result, error) { return []agent.Result{result(1, evil)}, nil })
	s.Device = evil
	address := serve(t, s)
	s.Publish(decided(1, evil))
	_, event := listen(t, address).next()
	for name, text := range map[string]string{
		"results": ask(s, "GET", "/results", "").Body.String(), "status": ask(s, "GET", "/status", "").Body.String(),
		"event": event, "page": ask(s, "GET", "/", "").Body.String(),
		"claim": ask(s, "POST", "/claim", "subject="+url.QueryEscape(evil+" x")).Body.String(),
	} {
		if strings.Contains(text, "<img/") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if kind := ask(s, "POST", "/claim", "subject=a+b").Header().Get("Content-Type"); kind != "application/json" {
		t.Errorf("the answer to a bad badge is %s", kind)
	}
}

// openLive reads the live view; the parts end when the test does.
func openLive(tb testing.TB, address string) *multipart.Reader {
	tb.Helper()
	res, err := http.Get(address + "/live.mjpg")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { res.Body.Close() })
	_, boundary, ok := strings.Cut(res.Header.Get("Content-Type"), "multipart/x-mixed-replace; boundary=")
	if !ok {
		tb.Fatalf("content type %q", res.Header.Get("Content-Type"))
	}
	return multipart.NewReader(res.Body, boundary)
}

func TestLive(t *testing.T) {
	for _, c := range []struct{ w, h, wantW, wantH int }{
		{64, 48, 64, 48}, {640, 480, 640, 480}, {641, 480, 320, 240}, {1280, 720, 640, 360}, {1920, 1080, 640, 360},
	} {
		t.Run(fmt.Sprintf("%dx%d", c.w, c.h), func(t *testing.T) {
			s := newServer()
			s.Frames = endless(c.w, c.h)
			parts := openLive(t, serve(t, s))
			for range 2 {
				part, err := parts.NextPart()
				if err != nil {
					t.Fatal(err)
				}
				raw := make([]byte, contentLength(t, part))
				if _, err := io.ReadFull(part, raw); err != nil {
					t.Fatal(err)
				}
				img, err := jpeg.Decode(bytes.NewReader(raw))
				if err != nil {
					t.Fatal(err)
				}
				if b := img.Bounds(); b.Dx() != c.wantW || b.Dy() != c.wantH {
					t.Errorf("size %v, want %dx%d", b, c.wantW, c.wantH)
				}
				left, _, _, _ := img.At(c.wantW/4, c.wantH/2).RGBA()
				_, _, right, _ := img.At(3*c.wantW/4, c.wantH/2).RGBA()
				if left < 0xe000 || right < 0xe000 {
					t.Error("the colours are wrong")
				}
			}
		})
	}
}

func contentLength(tb testing.TB, p *multipart.Part) (n int) {
	tb.Helper()
	if _, err := fmt.Sscan(p.Header.Get("Content-Length"), &n); err != nil || p.Header.Get("Content-Type") != "image/jpeg" {
		tb.Fatalf("header %v", p.Header)
	}
	return n
}

// When the viewer leaves, the handler asks for no more frames and returns.
func TestLiveStops(t *testing.T) {
	for name, err := range map[string]error{"viewer leaves": nil, "camera ends": io.EOF} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			asked := 0
			s.Frames = nextFunc(func(ctx context.Context, after uint64) (*agent.Frame, error) {
				if asked++; asked < 3 {
					return frame(32, 24, after+1), nil
				}
				if err != nil {
					return nil, err
				}
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			})
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1/live.mjpg", nil))
			if asked != 3 || strings.Count(w.Body.String(), "--postern-frame\r\n") != 2 {
				t.Errorf("asked for %d frames", asked)
			}
		})
	}
}

// Open streams do not keep the agent from stopping.
func TestServeStops(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	s.Frames = nextFunc(func(ctx context.Context, after uint64) (*agent.Frame, error) { // a camera with one frame
		if after == 0 {
			return frame(32, 24, 1), nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	address := "http://" + l.Addr().String()
	s.Publish(watch.Update{State: watch.Idle, At: start, Seq: 1})
	listen(t, address).next()
	if _, err := openLive(t, address).NextPart(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a stop is not a failure: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// When the listener breaks Serve says so and leaves nothing behind (goleak).
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newServer().Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("err = %v", err)
	}
}
