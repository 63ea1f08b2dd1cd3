package api

import (
	"bytes"
	"crypto/sha256"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"
)

const (
	replayLife    = 24 * time.Hour
	maxReplays    = 2048
	maxReplayBody = 16 << 10
	maxReplayKey  = 255
)

// replays remembers the answers to requests that carried an Idempotency-Key, in
// memory: the newest 2048 of the last 24 hours. A restart forgets them.
type replays struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	byKey map[replayKey]*replay
	order []replayKey // oldest first
}

type replayKey struct{ caller, key string }

type replay struct {
	print  [32]byte // of method, path and body
	at     time.Time
	done   bool
	status int
	header http.Header
	body   []byte
}

func newReplays(now func() time.Time) *replays {
	return &replays{now: now, byKey: map[replayKey]*replay{}}
}

// idempotent runs the route, or repeats what it answered to the same request before.
func (s *Server) idempotent(rt *Route, c *Caller, w http.ResponseWriter, r *http.Request) error {
	key := r.Header.Get("Idempotency-Key")
	if key == "" || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return rt.Handle(w, r)
	}
	if len(key) > maxReplayKey || short(key[:min(len(key), 40)]) != key[:min(len(key), 40)] {
		return Detail(http.StatusBadRequest, "Idempotency-Key must have 1 to 255 printable characters.")
	}
	leave, err := s.gate.enter() // the whole body is held to compare it
	if err != nil {
		return err
	}
	defer leave()
	print, err := fingerprint(r)
	if err != nil {
		return err
	}
	k := replayKey{c.ID, key}
	old, err := s.replays.begin(k, print)
	if err != nil {
		return err
	}
	if old != nil {
		old.write(w)
		return nil
	}
	return s.replays.run(k, rt, w, r)
}

// fingerprint reads the body, leaves a copy for the handler and digests it. The
// boundary of a multipart body changes from try to try and does not count.
func fingerprint(r *http.Request) (sum [32]byte, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return sum, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	same := body
	if _, p, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && p["boundary"] != "" {
		same = bytes.ReplaceAll(body, []byte(p["boundary"]), nil)
	}
	h := sha256.New()
	io.WriteString(h, r.Method+" "+r.URL.RequestURI()+"\n")
	h.Write(same)
	return [32]byte(h.Sum(nil)), nil
}

// begin returns the finished answer for the key, or nil after taking note that this
// request is now under way.
func (p *replays) begin(k replayKey, print [32]byte) (*replay, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byKey[k]
	if old != nil && p.now().Sub(old.at) >= replayLife {
		old = nil
	}
	switch {
	case old == nil:
		p.byKey[k] = &replay{print: print, at: p.now()}
		p.order = append(p.order, k)
		p.trim()
		return nil, nil
	case old.print != print:
		return nil, Detail(http.StatusUnprocessableEntity, "This Idempotency-Key was used for another request.")
	case !old.done:
		return nil, &Error{Status: http.StatusConflict, RetryAfter: time.Second,
			Body: map[string]string{"detail": "A request with this Idempotency-Key is under way."}}
	}
	return old, nil
}

func (p *replays) trim() {
	for len(p.order) > maxReplays {
		delete(p.byKey, p.order[0])
		p.order = p.order[1:]
	}
}

// run handles the request and keeps its answer, unless it is one that a second try
// may better.
func (p *replays) run(k replayKey, rt *Route, w http.ResponseWriter, r *http.Request) error {
	t := &tee{ResponseWriter: w}
	kept := false
	defer func() {
		if !kept {
			p.forget(k)
		}
	}()
	err := rt.Handle(t, r)
	if err == nil && t.status < 300 && !t.overflow {
		p.mu.Lock()
		if e := p.byKey[k]; e != nil {
			e.done, e.status, e.body = true, t.status, t.body.Bytes()
			e.header = http.Header{"Content-Type": w.Header()["Content-Type"]}
			kept = true
		}
		p.mu.Unlock()
	}
	return err
}

func (p *replays) forget(k replayKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byKey, k)
}

func (e *replay) write(w http.ResponseWriter) {
	for k, v := range e.header {
		w.Header()[k] = v
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(e.status)
	w.Write(e.body)
}

// tee keeps a copy of a small answer.
type tee struct {
	http.ResponseWriter
	status   int
	body     bytes.Buffer
	overflow bool
}

func (t *tee) WriteHeader(status int) {
	t.status = status
	t.ResponseWriter.WriteHeader(status)
}

func (t *tee) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	if t.body.Len()+len(b) > maxReplayBody {
		t.overflow = true
	} else {
		t.body.Write(b)
	}
	return t.ResponseWriter.Write(b)
}
