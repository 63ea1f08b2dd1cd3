// Package kiosk serves the pages of a device: the kiosk, which guides the people before
// the camera from the badge to the result, and the monitor, with the live view, what
// the loop sees in it and the last decisions. Everything is embedded; it works offline.
package kiosk

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"postern/agent"
	"postern/agent/ui"
	"postern/agent/watch"
)

type frameSource interface {
	Next(ctx context.Context, after uint64) (*agent.Frame, error)
}

type recorder interface {
	Recent(n int) ([]agent.Result, error)
}

type claimer interface{ Claim(subjectID string) error }

// Server is the page. Fill the exported fields, call Publish from the loop and
// serve Handler.
type Server struct {
	Frames   frameSource
	Results  recorder
	Claims   claimer // nil: no badge field
	LiveFPS  float64
	Device   string
	Identify bool
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
	Look     Look
	// Names gives the name of a recognised subject for the greeting; nil: none is said.
	Names func(subjectID string) string
	// Conditions says what is the matter with the device now; nil: nothing ever is.
	Conditions func() []Condition

	feed    feed
	view    view
	weather weather
}

// Publish hands the loop's newest update to every open page. It never blocks.
func (s *Server) Publish(u watch.Update) { s.feed.publish(u) }

// Handler returns the page's routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page("kiosk"))
	mux.HandleFunc("GET /monitor", s.page("monitor"))
	mux.Handle("GET /kiosk/", assetsHandler())
	mux.HandleFunc("GET /kiosk-logo", s.logo)
	mux.Handle("GET /ui/", ui.Assets())
	mux.Handle("GET /design", ui.Design())
	mux.HandleFunc("GET /live.mjpg", s.live)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /results", s.results)
	mux.HandleFunc("POST /claim", s.claim)
	mux.HandleFunc("GET /system/healthcheck", s.health)
	return guard(mux)
}

// guard sets the security headers and refuses requests that a foreign web page
// made the browser send: the Host must be an address or localhost (a name that
// an attacker rebinds is neither), and changes must come from this origin.
func guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ui.Secure(w.Header())
		if !localHost(r.Host) {
			http.Error(w, "open this page by address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		cross.Handler(next).ServeHTTP(w, r)
	})
}

func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return host == "localhost" || net.ParseIP(host) != nil
}

// status answers what holds for the device.
func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"device": s.Device, "identify": s.Identify, "claims": s.Claims != nil, "conditions": s.conditions()})
}

func (s *Server) results(w http.ResponseWriter, _ *http.Request) {
	rs, err := s.Results.Recent(recentResults)
	if err != nil {
		s.Log.Error("list results", "err", err)
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"detail": "the results cannot be read now"})
		return
	}
	writeJSON(w, http.StatusOK, rs)
}

// recentResults is how many decisions the page shows.
const recentResults = 20

// claim takes a badge number typed on the page.
func (s *Server) claim(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	if s.Claims == nil {
		writeJSON(w, http.StatusNotFound, map[string]string{"detail": "badges are not in use here"})
		return
	}
	id := strings.TrimSpace(r.FormValue("subject"))
	if err := agent.ValidateSubject(id, ""); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"detail": err.Error()})
		return
	}
	switch err := s.Claims.Claim(id); {
	case agent.ErrorCode(err) == agent.CodeNotFound:
		writeJSON(w, http.StatusNotFound, map[string]string{"detail": "this badge is not known here"})
	case err != nil:
		s.Log.Error("claim", "err", err)
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"detail": "the badge cannot be checked now"})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// silent is how long the loop may publish nothing before it counts as stuck.
const silent = 15 * time.Second

// Healthy is nil while the loop sees pictures and no part has failed.
func (s *Server) Healthy() error {
	if err := s.Working(); err != nil {
		return err
	}
	if u, _ := s.feed.latest(); u.State == watch.NoCamera {
		return errors.New("the camera gives no pictures")
	}
	return nil
}

// Working is nil while the loop goes on and no part has failed, with or without
// pictures: a camera that is gone is waited for.
func (s *Server) Working() error {
	u, ok := s.feed.latest()
	switch {
	case !ok || s.now().Sub(u.At) > silent:
		return errors.New("the loop says nothing")
	case u.State == watch.OutOfWork:
		return errors.New("a part of the loop has failed")
	}
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	status, code := "ok", http.StatusOK
	if s.Healthy() != nil {
		status, code = "unhealthy", http.StatusServiceUnavailable
	}
	writeJSON(w, code, map[string]string{"status": status, "timestamp": s.now().UTC().Format("2006-01-02T15:04:05.000Z")})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(body)
}

// Serve listens and serves until ctx ends. Open streams end with ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close() // a browser that holds a connection open is no reason to fail
		}
	}()
	err := srv.Serve(l)
	cancel()
	<-done
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
