package hosted_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/hosted"
	"postern/agent/ui"
	"postern/agent/ui/uitest"
)

var start = time.Unix(1_700_000_000, 0)

// desk is a service with one session, open or not.
type desk struct {
	mu  sync.Mutex // guards v
	v   cases.Session
	err error
}

func (d *desk) SessionByToken(token string) (cases.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return cases.Session{}, d.err
	}
	if token != d.v.Token {
		return cases.Session{}, &agent.Error{Code: agent.CodeNotFound, Message: "secret detail"}
	}
	return d.v, nil
}

func (d *desk) Consent(context.Context, string) (cases.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.v.Consent(start)
	return d.v, err
}

func newDesk() *desk {
	w := cases.Workflow{GroupID: "g", UUID: "u", Version: 1, Expiration: 3600}
	steps := []cases.Step{{Feature: cases.Liveness, MaxAttempts: 3}, {Feature: cases.FaceMatch, MaxAttempts: 3}}
	cases.NameNodes(steps)
	v := cases.New(&w, cases.Variant{Steps: steps}, start, time.Hour)
	v.ID, v.Token, v.Callback = "11111111-2222-4333-8444-555555555555", "tok_en-12345", "https://shop.example/back?x=1"
	return &desk{v: v}
}

type probeFunc func() (agent.Probe, error)

func (f probeFunc) Probe(context.Context, *agent.Frame) (agent.Probe, error) { return f() }

func nobody() (agent.Probe, error) { return agent.Probe{}, nil }

func newServer(d *desk, change ...func(*hosted.Config)) http.Handler {
	c := hosted.Config{Sessions: d, Prober: probeFunc(nobody), Limits: agent.QualityLimits{MinEyeDistance: 30}, KeepMedia: 90 * 24 * time.Hour,
		Now: func() time.Time { return start }}
	for _, f := range change {
		f(&c)
	}
	return hosted.New(c).Handler()
}

func ask(h http.Handler, method, target string, body []byte, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const token = "tok_en-12345"

func TestTexts(t *testing.T) {
	uitest.Check(t, os.DirFS("."), []string{"hosted"}, "hosted.step.", "hosted.guide.", "hosted.risk.", "hosted.camera.", "hosted.result.", "hosted.left.", "hosted.trouble.", "hosted.failed.")
}

// TestKept: the page promises what the session's application keeps.
func TestKept(t *testing.T) {
	for _, c := range []struct {
		kept time.Duration
		err  error
		want string
		code int
	}{
		{365 * 24 * time.Hour, nil, "for 365 days", 200},
		{0, nil, "without a limit of time", 200},
		{time.Hour, &agent.Error{Code: agent.CodeStorage, Message: "secret detail"}, "", 503},
	} {
		d := newDesk()
		d.v.Application = "visitors"
		w := ask(newServer(d, func(o *hosted.Config) {
			o.Kept = func(application string) (time.Duration, error) {
				if application != "visitors" {
					t.Errorf("asked about %q", application)
				}
				return c.kept, c.err
			}
		}), "GET", "/session/"+token, nil)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%v: %d %s", c.kept, w.Code, w.Body)
		}
	}
}

func TestPage(t *testing.T) {
	for _, c := range []struct {
		path, lang, accept string
		want               int
	}{
		{"/session/" + token, "en", "", 200},
		{"/session/" + token, "ja", "ja,en;q=0.5", 200},
		{"/ja/session/" + token, "ja", "en", 200},
		{"/en/session/" + token, "en", "ja", 200},
		{"/pt-BR/session/" + token, "en", "", 200}, // a language that the page has not
		{"/session/" + token + "?lang=ja", "ja", "", 200},
		{"/session/wrong", "en", "", 404},
		{"/ja/session/wrong", "ja", "", 404},
	} {
		w := ask(newServer(newDesk()), "GET", c.path, nil, "Accept-Language", c.accept)
		body := w.Body.String()
		if w.Code != c.want || !strings.Contains(body, `<html lang="`+c.lang+`"`) || strings.Contains(body, "secret detail") || strings.Contains(body, ">hosted.") {
			t.Errorf("%+v: %d %.200s", c, w.Code, body)
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") || w.Header().Get("Referrer-Policy") != "no-referrer" || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s: headers %v", c.path, w.Header())
		}
	}
	broken := newDesk()
	broken.err = errors.New("secret detail")
	if w := ask(newServer(broken), "GET", "/session/"+token, nil); w.Code != 503 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a store that fails: %d", w.Code)
	}
}

func TestFramedByIntegratorsOnly(t *testing.T) {
	h := newServer(newDesk(), func(c *hosted.Config) { c.Origins = []string{"https://shop.example"} })
	w := ask(h, "GET", "/session/"+token, nil)
	if !strings.HasSuffix(w.Header().Get("Content-Security-Policy"), "frame-ancestors https://shop.example") || w.Header().Get("X-Frame-Options") != "" {
		t.Errorf("headers %v", w.Header())
	}
	if !strings.Contains(w.Body.String(), `data-origins="[&#34;https://shop.example&#34;]"`) {
		t.Error("the page does not know whom to tell")
	}
}

// Without the session's token nothing is answered; it is a header, which no other site
// can make a browser send.
func TestToken(t *testing.T) {
	for _, call := range [][2]string{{"GET", "/hosted/state"}, {"POST", "/hosted/consent"}, {"POST", "/hosted/look"}} {
		for _, header := range [][]string{nil, {hosted.TokenHeader, ""}, {hosted.TokenHeader, "wrong"}, {"Cookie", hosted.TokenHeader + "=" + token}} {
			if w := ask(newServer(newDesk()), call[0], call[1]+"?token="+token, nil, header...); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%v %v: %d %s", call, header, w.Code, w.Body)
			}
		}
	}
}

func TestConsentIsKept(t *testing.T) {
	d := newDesk()
	h := newServer(d)
	state := func(method, path string) (v struct {
		Consented bool   `json:"consented"`
		Awaits    string `json:"awaits"`
		Callback  string `json:"callback"`
	}) {
		w := ask(h, method, path, nil, hosted.TokenHeader, token)
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return v
	}
	if v := state("GET", "/hosted/state"); v.Consented || v.Awaits != "face" || v.Callback != "https://shop.example/back?status=Not+Started&verificationSessionId=11111111-2222-4333-8444-555555555555&x=1" {
		t.Errorf("at first %+v", v)
	}
	state("POST", "/hosted/consent")
	state("POST", "/hosted/consent") // twice is once
	if v := state("GET", "/hosted/state"); !v.Consented || len(d.v.Happenings) != 2 {
		t.Errorf("then %+v, %v", v, d.v.Happenings)
	}
	d.v.Status = cases.Expired
	if w := ask(h, "POST", "/hosted/consent", nil, hosted.TokenHeader, token); w.Code != http.StatusConflict {
		t.Errorf("consent to what is over: %d", w.Code)
	}
}

func picture(t *testing.T, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewRGBA(image.Rect(0, 0, w, h)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLook(t *testing.T) {
	face := func(eyes float32) probeFunc {
		return func() (agent.Probe, error) {
			return agent.Probe{Face: &agent.Face{Box: agent.Box{X: 40, Y: 10, W: 40, H: 40}}, Faces: 1, Quality: agent.Quality{EyeDistance: eyes}}, nil
		}
	}
	for _, c := range []struct {
		name   string
		prober probeFunc
		body   []byte
		want   int
		answer string
	}{
		{"good", face(50), picture(t, 120, 90), 200, `{"findings":[],"x":0.5}`},
		{"far", face(10), picture(t, 120, 90), 200, `{"findings":["FACE_TOO_SMALL"],"x":0.5}`},
		{"nobody", nobody, picture(t, 120, 90), 200, `{"findings":["NO_FACE"],"x":0.5}`},
		{"not a picture", nobody, []byte("hello"), 400, ""},
		{"nothing", nobody, nil, 400, ""},
		{"too many bytes", nobody, bytes.Repeat([]byte("x"), 600<<10), 400, ""},
		{"too many pixels", nobody, picture(t, 2000, 1000), 400, ""},
		{"the pipeline fails", func() (agent.Probe, error) { return agent.Probe{}, errors.New("secret detail") }, picture(t, 120, 90), 204, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newServer(newDesk(), func(k *hosted.Config) { k.Prober = c.prober })
			w := ask(h, "POST", "/hosted/look", c.body, hosted.TokenHeader, token)
			if w.Code != c.want || strings.Contains(w.Body.String(), "secret") || c.answer != "" && strings.TrimSpace(w.Body.String()) != c.answer {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if w := ask(h, "POST", "/hosted/look", c.body, hosted.TokenHeader, token); w.Code != http.StatusTooManyRequests {
				t.Errorf("again at once: %d", w.Code)
			}
		})
	}
	over := newDesk()
	over.v.Status = cases.Approved
	if w := ask(newServer(over), "POST", "/hosted/look", picture(t, 120, 90), hosted.TokenHeader, token); w.Code != http.StatusConflict {
		t.Errorf("a session that is over: %d", w.Code)
	}
}

// Guidance analyses one picture at a time: the second gets no advice rather than a place
// in a queue.
func TestLookDoesNotQueue(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	h := newServer(newDesk(), func(k *hosted.Config) {
		now := start
		k.Now = func() time.Time { now = now.Add(time.Second); return now }
		k.Prober = probeFunc(func() (agent.Probe, error) {
			close(inside)
			<-release
			return agent.Probe{}, nil
		})
	})
	body, done := picture(t, 120, 90), make(chan int)
	go func() { done <- ask(h, "POST", "/hosted/look", body, hosted.TokenHeader, token).Code }()
	<-inside
	if w := ask(h, "POST", "/hosted/look", body, hosted.TokenHeader, token); w.Code != http.StatusNoContent {
		t.Errorf("the second: %d", w.Code)
	}
	close(release)
	if code := <-done; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBrands(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "logo.svg", `<svg xmlns="http://www.w3.org/2000/svg"/>`)
	write(t, dir, "default.json", `{"name": "House <i>"}`)
	write(t, dir, "shop.json", `{"name": "Shop", "logo": "logo.svg", "accent": "#003366", "on_accent": "#ffffff", "domains": ["id.shop.example"], "contact": "help@shop.example",
		"privacy": "https://shop.example/privacy", "texts": {"en": {"hosted.consent.title": "Show us that it is you"}}}`)
	brands, err := hosted.LoadBrands(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk()
	h := newServer(d, func(c *hosted.Config) { c.Brands = brands })
	if page := ask(h, "GET", "/session/"+token, nil).Body.String(); !strings.Contains(page, "House &lt;i&gt;") || strings.Contains(page, "<i>") {
		t.Error("the default brand is not there, or is markup")
	}
	shop := func(target string) {
		page := ask(h, "GET", target, nil).Body.String()
		for _, want := range []string{"Show us that it is you", "/hosted/brand/shop/logo", "/hosted/brand/shop/style.css", "help@shop.example", "https://shop.example/privacy"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s lacks %q", target, want)
			}
		}
	}
	shop("http://id.shop.example:8443/session/" + token)
	d.v.Application = "shop"
	shop("/session/" + token)
	if css := ask(h, "GET", "/hosted/brand/shop/style.css", nil).Body.String(); !strings.Contains(css, "#003366") {
		t.Errorf("style %q", css)
	}
	if w := ask(h, "GET", "/hosted/brand/shop/logo", nil); w.Header().Get("Content-Type") != "image/svg+xml" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("logo %v", w.Header())
	}
	if w := ask(h, "GET", "/hosted/brand/none/logo", nil); w.Code != 404 {
		t.Errorf("no logo: %d", w.Code)
	}
}

func TestBadBrands(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "unexpected", `{"nmae": "x"}`: "unknown field", `{"accent": "#003366"}`: "come together", `{"accent": "red", "on_accent": "#ffffff"}`: "colours like",
		`{"accent": "#777777", "on_accent": "#888888"}`: "contrast", `{"privacy": "javascript:alert(1)"}`: "https", `{"texts": {"fr": {}}}`: "no language",
		`{"texts": {"en": {"hosted.none": "x"}}}`: "no text", `{"logo": "none.svg"}`: "none.svg",
	} {
		dir := t.TempDir()
		write(t, dir, "x.json", text)
		if _, err := hosted.LoadBrands(dir); agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.json") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := hosted.LoadBrands(t.TempDir()); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestOwns(t *testing.T) {
	for path, want := range map[string]bool{
		"/session/x": true, "/ja/session/x": true, "/pt-BR/session/x": true, "/hosted/state": true, "/ui/postern.css": true,
		"/": false, "/monitor": false, "/claim": false, "/results": false, "/x/session/y": false, "/kiosk/session": false, "/sessions": false,
	} {
		if got := hosted.Owns(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// Every risk that can stop an attempt, and every finding, has its words; others have the
// general ones.
func TestEveryFindingIsGuided(t *testing.T) {
	m := ui.Catalogue(ui.Japanese, "hosted")
	for k := range ui.Catalogue(ui.Japanese, "kiosk") {
		if code, ok := strings.CutPrefix(k, "kiosk.guide."); ok && m["hosted.guide."+code] == "" {
			t.Errorf("%s has no guidance", code)
		}
	}
}
