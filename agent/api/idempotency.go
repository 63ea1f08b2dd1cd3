package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"postern/agent"
)

const (
	maxReplayBody = 16 << 10
	maxReplayKey  = 255
)

// replayStore remembers requests that carry an Idempotency-Key, durably.
type replayStore interface {
	// Replay returns what is known of a caller's request; agent.CodeNotFound when it is new.
	Replay(caller, key string) (agent.Replay, error)
	PutReplay(caller, key string, r agent.Replay) error
	DropReplay(caller, key string) error
}

// replays leads requests that are sent again to what they came to at first. A request is
// noted, with the id of what it will make, before it is worked on, and its answer before
// it is given: a try after a crash finds the answer, or what was made, or makes it.
type replays struct {
	store replayStore
	now   func() time.Time

	mu   sync.Mutex // guards busy
	busy map[replayKey]bool
}

type replayKey struct{ caller, key string }

// underway is a request with an Idempotency-Key that is being worked on.
type underway struct {
	agent.Replay
	unsaved bool // its caller wants nothing of it kept, so neither is the answer
}

type underwayKey struct{}

// replayIn returns what is known of the request itself; nil without an Idempotency-Key.
func replayIn(ctx context.Context) *underway {
	r, _ := ctx.Value(underwayKey{}).(*underway)
	return r
}

// recordOf is the id of what a request makes; "" leaves it to the maker.
func recordOf(ctx context.Context) string {
	if r := replayIn(ctx); r != nil {
		return r.Record
	}
	return ""
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
	done, err := s.replays.take(k)
	if err != nil {
		return err
	}
	defer done()
	known, err := s.replays.begin(k, print)
	if err != nil {
		return err
	}
	if known.Status != 0 {
		w.Header().Set("Idempotency-Replayed", "true")
		writeReplay(w, known)
		return nil
	}
	return s.replays.run(k, &underway{Replay: known}, rt, w, r)
}

// fingerprint reads the body, leaves a copy for the handler and digests it. The
// boundary of a multipart body changes from try to try and does not count.
func fingerprint(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	same := body
	if _, p, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && p["boundary"] != "" {
		same = bytes.ReplaceAll(body, []byte(p["boundary"]), nil)
	}
	h := sha256.New()
	io.WriteString(h, r.Method+" "+r.URL.RequestURI()+"\n")
	h.Write(same)
	return h.Sum(nil), nil
}

// take lets one request at a time have a key.
func (p *replays) take(k replayKey) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[k] {
		return nil, &Error{Status: http.StatusConflict, RetryAfter: time.Second,
			Body: map[string]string{"detail": "A request with this Idempotency-Key is under way."}}
	}
	p.busy[k] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.busy, k)
	}, nil
}

// begin returns what is known of the request, after taking note of one that is new.
func (p *replays) begin(k replayKey, print []byte) (agent.Replay, error) {
	known, err := p.store.Replay(k.caller, k.key)
	fresh := agent.ErrorCode(err) == agent.CodeNotFound || err == nil && p.now().Sub(known.At) >= agent.ReplayLife
	switch {
	case fresh:
	case err != nil:
		return known, err
	case !bytes.Equal(known.Print, print):
		return known, Detail(http.StatusUnprocessableEntity, "This Idempotency-Key was used for another request.")
	default:
		return known, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return known, &agent.Error{Code: agent.CodeInternal, Message: "there is no randomness for an id", Err: err}
	}
	known = agent.Replay{Print: print, Record: id.String(), At: p.now().UTC().Truncate(time.Microsecond)}
	return known, p.store.PutReplay(k.caller, k.key, known)
}

// run handles the request and keeps its answer before it is given, unless it is one that
// a second try may better.
func (p *replays) run(k replayKey, known *underway, rt *Route, w http.ResponseWriter, r *http.Request) error {
	held := &answer{header: http.Header{}}
	err := rt.Handle(held, r.WithContext(context.WithValue(r.Context(), underwayKey{}, known)))
	if err != nil || held.status >= 300 || known.unsaved || held.body.Len() > maxReplayBody {
		if dropped := p.store.DropReplay(k.caller, k.key); dropped != nil && err == nil {
			err = dropped
		}
		if err == nil {
			held.writeTo(w)
		}
		return err
	}
	known.Status, known.ContentType, known.Body = held.status, held.header.Get("Content-Type"), held.body.Bytes()
	known.About = aboutOf(&known.Replay)
	if err := p.store.PutReplay(k.caller, k.key, known.Replay); err != nil {
		return err
	}
	held.writeTo(w)
	return nil
}

// aboutOf is the id of the record that an answer is about.
func aboutOf(r *agent.Replay) string {
	var ids struct {
		Session string `json:"session_id"`
		Request string `json:"request_id"`
	}
	_ = json.Unmarshal(r.Body, &ids) // not every answer is an object with one
	switch {
	case ids.Session != "":
		return ids.Session
	case ids.Request != "":
		return ids.Request
	}
	return r.Record
}

func writeReplay(w http.ResponseWriter, r agent.Replay) {
	if r.ContentType != "" {
		w.Header().Set("Content-Type", r.ContentType)
	}
	w.WriteHeader(r.Status)
	w.Write(r.Body) // who has gone away needs no error
}

// answer holds an answer back until it is known to be kept.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *answer) writeTo(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.WriteHeader(a.status)
	w.Write(a.body.Bytes()) // who has gone away needs no error
}
