package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"postern/agent"
)

// Config is what the server is made of. Zero fields take the defaults named here.
type Config struct {
	Keys    keyStore
	Replays replayStore
	Compare comparer
	Saved   saver      // nil: requests can be answered only with save_api_request=false
	Media   mediaStore // nil: answers carry no picture links
	Screen  screener   // nil: no face search and no screening
	Health  func() error
	Ready   func() error

	PublicURL string           // scheme and host of links; "": those of the request
	Origins   []string         // that browsers may call from; none by default
	Rates     map[Budget]int   // requests a minute and key; 0 is without limit
	Workers   int              // pictures analysed at once (default 1)
	Queue     int              // requests that may wait for that (default 32)
	Timeout   time.Duration    // of one request (default 30 s)
	LinkLife  time.Duration    // of picture links (default 60 min)
	Log       *slog.Logger     // default: discards
	Now       func() time.Time // default: time.Now
	NewID     func() string    // default: random UUID
	Metrics   *Metrics         // default: one of its own
}

// DefaultRates are the published budgets, in requests a minute and key.
func DefaultRates() map[Budget]int {
	return map[Budget]int{BudgetRead: 600, BudgetWrite: 300, BudgetCreate: 600, BudgetPDF: 50, BudgetBiometrics: 600}
}

// Server is the API. Add routes, then serve Handler.
type Server struct {
	Config
	routes  []Route
	limiter *limiter
	gate    *gate
	replays *replays
	links   *Links
	started time.Time
}

// New makes a server with the routes of this package.
func New(c Config) (*Server, error) {
	if c.Keys == nil || c.Compare == nil || c.Replays == nil {
		return nil, errors.New("the API needs keys, something that compares and a memory of requests")
	}
	c.Workers, c.Queue = cmp.Or(c.Workers, 1), cmp.Or(c.Queue, 32)
	c.Timeout, c.LinkLife = cmp.Or(c.Timeout, 30*time.Second), cmp.Or(c.LinkLife, time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NewID == nil {
		c.NewID = uuid.NewString
	}
	if c.Rates == nil {
		c.Rates = DefaultRates()
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	s := &Server{Config: c, limiter: newLimiter(c.Now), gate: newGate(c.Workers, c.Queue), replays: &replays{store: c.Replays, now: c.Now, busy: map[replayKey]bool{}}, started: c.Now()}
	if c.Media != nil {
		key, err := c.Media.MediaKey()
		if err != nil {
			return nil, fmt.Errorf("key of picture links: %w", err)
		}
		s.links = &Links{Key: key, Life: c.LinkLife, Now: c.Now}
	}
	s.Add(s.systemRoutes()...)
	s.Add(s.biometricRoutes()...)
	s.Add(s.mediaRoutes()...)
	docs, err := s.documentRoutes()
	if err != nil {
		return nil, err
	}
	s.Add(docs...)
	return s, nil
}

// Add hangs further routes on the server, before Handler is called.
func (s *Server) Add(routes ...Route) { s.routes = append(s.routes, routes...) }

// Handler serves every route. It never redirects.
func (s *Server) Handler() http.Handler {
	mux := s.router()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		id := requestID(r)
		h := rec.Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		ctx, cancel := context.WithTimeout(r.Context(), s.Timeout)
		defer cancel()
		defer limitWrites(w, s.Timeout)()
		defer s.observe(rec, r, id, start)
		defer s.recover(rec)
		r = r.WithContext(ctx)
		if !clean(r.URL.Path) {
			fail(rec, s.Log, NotFound())
			return
		}
		if s.preflight(rec, r) {
			return
		}
		mux.ServeHTTP(rec, r)
	})
}

// limitWrites bounds the time of the whole answer, so that a client that does not read
// it is let go. The connection's next request is free of the limit: it may be a stream
// of the page beside the API.
func limitWrites(w http.ResponseWriter, d time.Duration) (lift func()) {
	rc := http.NewResponseController(w)
	if rc.SetWriteDeadline(time.Now().Add(2*d)) != nil {
		return func() {} // no connection, as in a test
	}
	return func() { rc.SetWriteDeadline(time.Time{}) }
}

// clean reports whether the mux would serve the path as it is, without redirecting.
func clean(p string) bool {
	return p != "" && p[0] == '/' && path.Clean(p) == cmp.Or(strings.TrimSuffix(p, "/"), "/")
}

// serve runs one route behind authentication and limits.
func (s *Server) serve(rt *Route, w http.ResponseWriter, r *http.Request) {
	if err := s.handle(rt, w, r); err != nil {
		fail(w, s.Log, err)
	}
}

func (s *Server) handle(rt *Route, w http.ResponseWriter, r *http.Request) error {
	if rt.Open {
		r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody())
		return rt.Handle(w, r)
	}
	caller, err := s.authenticate(r)
	if err != nil {
		return err
	}
	noteKey(w, caller.ID)
	if err := s.limiter.take(w.Header(), caller.ID, rt.budget(), s.Rates[rt.budget()]); err != nil {
		return err
	}
	if !caller.Allows(rt.Resource, rt.Access) {
		return Detail(http.StatusForbidden, "You do not have permission to perform this action.")
	}
	r = r.WithContext(withCaller(r.Context(), caller))
	r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody())
	return s.idempotent(rt, caller, w, r)
}

// recover answers a panic with 500 and keeps the process up.
func (s *Server) recover(w *recorder) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.Log.Error("request panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status == 0 {
		fail(w, s.Log, Detail(http.StatusInternalServerError, "Internal error."))
	}
}

// observe counts and logs the request. Neither holds anything personal: the route,
// never the path, and the key's public id.
func (s *Server) observe(w *recorder, r *http.Request, id string, start time.Time) {
	took := time.Since(start)
	s.Metrics.request(cmp.Or(w.route, "none"), r.Method, w.status, took)
	s.Log.Debug("request", "id", id, "method", short(r.Method), "route", w.route, "status", w.status, "took", took, "key", w.key)
}

var requestIDs = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,128}$`)

// requestID is the caller's own when it is well formed.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); requestIDs.MatchString(id) {
		return id
	}
	return rand.Text()
}

// recorder remembers what was answered, for metrics and log.
type recorder struct {
	http.ResponseWriter
	status int
	route  string
	key    string
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func noteRoute(w http.ResponseWriter, route string) {
	if r, ok := w.(*recorder); ok {
		r.route = route
	}
}

func noteKey(w http.ResponseWriter, id string) {
	if r, ok := w.(*recorder); ok {
		r.key = id
	}
}

// preflight handles CORS: only origins of the list get its headers, and an OPTIONS
// request of a browser is answered here.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if len(s.Origins) > 0 {
		w.Header().Add("Vary", "Origin")
	}
	if origin == "" || !slices.Contains(s.Origins, origin) {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, PUT, DELETE")
	h.Set("Access-Control-Allow-Headers", "Content-Type, Idempotency-Key, X-Api-Key, X-Request-Id")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// Base is the start of absolute links in an answer to r: scheme and host.
func (s *Server) Base(r *http.Request) string {
	if s.PublicURL != "" {
		return strings.TrimSuffix(s.PublicURL, "/")
	}
	host := r.Host
	if !hosts.MatchString(host) {
		host = "localhost"
	}
	if r.TLS != nil {
		return "https://" + host
	}
	return "http://" + host
}

var hosts = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?$`)

// Time is a moment as the wire spells it.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000+00:00") }

// keyStore finds API keys.
type keyStore interface {
	// APIKey returns the key with this id; agent.CodeNotFound when there is none.
	APIKey(id string) (agent.APIKey, error)
}

// Over serves the API at its own paths and page at all others.
func (s *Server) Over(page http.Handler) http.Handler {
	own := s.Handler()
	metrics := s.Metrics.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case p == "/metrics":
			loopback(metrics).ServeHTTP(w, r)
		case p == "/openapi.json", slices.ContainsFunc(ownPaths, func(o string) bool { return p == o || strings.HasPrefix(p, o+"/") }):
			own.ServeHTTP(w, r)
		default:
			page.ServeHTTP(w, r)
		}
	})
}

var ownPaths = []string{"/v3", "/system", "/media", "/docs"}

// loopback lets only this machine in: the numbers are for a collector beside the
// agent, not for the network that it serves.
func loopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !remote(r).Unmap().IsLoopback() {
			WriteJSON(w, http.StatusForbidden, map[string]string{"detail": "Metrics are for this machine only."})
			return
		}
		next.ServeHTTP(w, r)
	})
}
