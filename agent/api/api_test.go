package api

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
)

func TestMain(m *testing.M) {
	if addr, n, ok := strings.Cut(os.Getenv(crowdOf), ","); ok {
		many, _ := strconv.Atoi(n)
		crowd(addr, many)
		return
	}
	goleak.VerifyTestMain(m)
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fakeKeys is a keyStore in memory.
type fakeKeys map[string]agent.APIKey

func (k fakeKeys) APIKey(id string) (agent.APIKey, error) {
	if key, ok := k[id]; ok {
		return key, nil
	}
	return agent.APIKey{}, &agent.Error{Code: agent.CodeNotFound, Message: "no such key"}
}

// fakeFaces sees one face in every picture; its embedding is the mean colour's
// direction, so that pictures of one colour are one person.
type fakeFaces struct {
	mu    sync.Mutex
	fail  error
	block chan struct{} // non-nil: Probe waits for it
	seen  int
	live  agent.Liveness
}

func (f *fakeFaces) Probe(ctx context.Context, fr *agent.Frame) (agent.Probe, error) {
	f.mu.Lock()
	f.seen++
	fail, block := f.fail, f.block
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
		}
	}
	if fail != nil {
		return agent.Probe{}, fail
	}
	r, g, b := fr.Pix[0], fr.Pix[1], fr.Pix[2]
	if r > 250 && g > 250 && b > 250 {
		return agent.Probe{Space: "test", ModelID: "test"}, nil // white: nobody
	}
	e := agent.Embedding{float32(r), float32(g), float32(b)}
	e.Normalise()
	return agent.Probe{Face: &agent.Face{Box: agent.Box{X: -4, Y: 10, W: 20, H: 30}, Confidence: 0.875}, Faces: 1,
		Embedding: e, Space: "test", ModelID: "test"}, nil
}

func (f *fakeFaces) ProbeLive(ctx context.Context, fr *agent.Frame) (agent.Probe, error) {
	p, err := f.Probe(ctx, fr)
	p.Liveness = f.live
	return p, err
}

func (f *fakeFaces) Compare(t agent.Thresholds, a, b *agent.Probe) agent.Decision {
	d := agent.Decision{Status: agent.Declined, Thresholds: t, Warnings: []agent.Warning{}}
	warn := func(r agent.Risk) agent.Decision {
		d.Warnings = append(d.Warnings, agent.Warning{Feature: "FACEMATCH", Risk: r, LogType: agent.LogError})
		return d
	}
	if a.Face == nil || b.Face == nil {
		return warn(agent.RiskNoReference)
	}
	d.Scored, d.Score = true, float64(a.Embedding.Cosine(b.Embedding))*100
	if d.Score <= t.Decline {
		return warn(agent.RiskLowSimilarity)
	}
	d.Status = agent.Approved
	return d
}

// fakeSaver remembers what was saved, and keeps the pictures.
type fakeSaver struct {
	mu    sync.Mutex
	saved []Saved
	media map[string]agent.Media
	fail  error
	now   func() time.Time
}

func (f *fakeSaver) SaveRequest(_ context.Context, s Saved) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.saved = append(f.saved, s)
	for _, p := range s.Pictures {
		f.media[p.Media] = agent.Media{ID: p.Media, ContentType: p.ContentType, Data: p.Data, ExpiresAt: f.now().Add(24 * time.Hour)}
	}
	return nil
}

func (f *fakeSaver) PutMedia(m agent.Media) error { f.media[m.ID] = m; return nil }

func (f *fakeSaver) Media(id string) (agent.Media, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.media[id]; ok {
		return m, nil
	}
	return agent.Media{}, &agent.Error{Code: agent.CodeNotFound, Message: "gone"}
}

func (f *fakeSaver) HasMedia(id string) bool { _, err := f.Media(id); return err == nil }

// fakeReplays is a replayStore in memory.
type fakeReplays struct {
	mu   sync.Mutex
	all  map[string]agent.Replay
	fail error // of PutReplay
}

func (f *fakeReplays) Replay(caller, key string) (agent.Replay, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.all[caller+" "+key]; ok {
		return r, nil
	}
	return agent.Replay{}, &agent.Error{Code: agent.CodeNotFound, Message: "new"}
}

func (f *fakeReplays) PutReplay(caller, key string, r agent.Replay) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.all[caller+" "+key] = r
	}
	return f.fail
}

func (f *fakeReplays) DropReplay(caller, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, caller+" "+key)
	return nil
}

func (f *fakeSaver) MediaKey() ([]byte, error) { return bytes.Repeat([]byte{7}, 32), nil }

// bench is a server under test.
type bench struct {
	*Server
	handler http.Handler
	clock   *clock
	keys    fakeKeys
	faces   *fakeFaces
	saver   *fakeSaver
	replays *fakeReplays
	token   string
	tb      testing.TB
}

func newBench(tb testing.TB, change ...func(*Config)) *bench {
	tb.Helper()
	b := &bench{tb: tb, clock: &clock{t: time.Date(2026, 6, 12, 1, 4, 42, 763237000, time.UTC)}, keys: fakeKeys{}, faces: &fakeFaces{},
		replays: &fakeReplays{all: map[string]agent.Replay{}}}
	b.saver = &fakeSaver{media: map[string]agent.Media{}, now: b.clock.now}
	c := Config{Keys: b.keys, Replays: b.replays, Compare: b.faces, Saved: b.saver, Media: b.saver, Now: b.clock.now}
	for _, fn := range change {
		fn(&c)
	}
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	b.Server, b.handler = s, s.Handler()
	b.token = b.key(tb, agent.APIKey{})
	return b
}

// key makes a key, by default with every permission.
func (b *bench) key(tb testing.TB, k agent.APIKey) string {
	tb.Helper()
	if k.Scopes == nil {
		k.Scopes = map[agent.Resource]agent.Access{}
		for _, r := range agent.Resources {
			k.Scopes[r] = agent.WriteAccess
		}
	}
	k, token, err := agent.NewAPIKey(k, randomness{})
	if err != nil {
		tb.Fatal(err)
	}
	b.keys[k.ID] = k
	return token
}

// randomness counts; keys need to differ, not to be secret, here.
type randomness struct{}

var randomCount struct {
	sync.Mutex
	n byte
}

func (randomness) Read(p []byte) (int, error) {
	randomCount.Lock()
	defer randomCount.Unlock()
	for i := range p {
		randomCount.n += 7
		p[i] = randomCount.n
	}
	randomCount.n++
	return len(p), nil
}

// picture is a JPEG of one colour.
func picture(tb testing.TB, c color.Color, w, h int) []byte {
	tb.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, c)
		}
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 95}); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

var (
	red   = color.RGBA{200, 20, 20, 255}
	blue  = color.RGBA{20, 20, 200, 255}
	white = color.RGBA{255, 255, 255, 255}
)

// field is one part of a form.
type field struct {
	name, file string // file "": a text field
	data       []byte
}

func textField(name, value string) field { return field{name, "", []byte(value)} }
func file(name, filename string, data []byte) field {
	return field{name, filename, data}
}

// form encodes parts as the clients do, every file as application/octet-stream.
func form(tb testing.TB, fields ...field) (string, []byte) {
	tb.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, f := range fields {
		var p io.Writer
		var err error
		if f.file == "" {
			p, err = w.CreateFormField(f.name)
		} else {
			p, err = w.CreateFormFile(f.name, f.file)
		}
		if err != nil {
			tb.Fatal(err)
		}
		p.Write(f.data)
	}
	w.Close()
	return w.FormDataContentType(), buf.Bytes()
}

// post sends a form with the bench's key.
func (b *bench) post(tb testing.TB, path string, fields ...field) *httptest.ResponseRecorder {
	tb.Helper()
	return b.postAs(tb, b.token, path, fields...)
}

func (b *bench) postAs(tb testing.TB, token, path string, fields ...field) *httptest.ResponseRecorder {
	tb.Helper()
	ct, body := form(tb, fields...)
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", ct)
	return b.do(r, token)
}

// do answers a request and holds the answer against the OpenAPI document.
func (b *bench) do(r *http.Request, token string) *httptest.ResponseRecorder {
	if token != "" {
		r.Header.Set("X-Api-Key", token)
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	checkAnswer(b.tb, r, w)
	return w
}

func (b *bench) get(path, token string) *httptest.ResponseRecorder {
	return b.do(httptest.NewRequest(http.MethodGet, path, nil), token)
}

// object decodes an answer.
func object(tb testing.TB, w *httptest.ResponseRecorder) map[string]any {
	tb.Helper()
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		tb.Fatalf("answer %d is no JSON object: %q", w.Code, w.Body)
	}
	return m
}

// want checks status and exact body.
func want(tb testing.TB, w *httptest.ResponseRecorder, status int, body string) {
	tb.Helper()
	if w.Code != status || w.Body.String() != body {
		tb.Errorf("answer is %d %s\nwant %d %s", w.Code, w.Body, status, body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		tb.Errorf("content type %q", ct)
	}
}
