package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/store"
	"postern/agent/verify"
	"postern/sync/hub"
)

// held is a data folder that this process holds. svc is nil where only the store is
// open: no gallery has to hear of a change then.
type held struct {
	cfg config.Config
	st  *store.Store
	svc *verify.Service
	log logger

	record hub.Store // a hub's; nil where it is not open

	// forget wipes from memory what was erased past it; nil where nothing is in memory.
	forget func() error
}

// change runs fn, which erases a subject or changes whether it may be used, so that
// the gallery never has more than the store allows.
func (h held) change(subject string, fn func() error) error {
	if h.svc == nil {
		return fn()
	}
	err := h.svc.Change(subject, fn)
	if h.forget != nil {
		err = errors.Join(err, h.forget())
	}
	return err
}

// operation is something that a command does to a data folder: on the store itself,
// or through the agent that holds the folder.
type operation[Q, A any] struct {
	name string
	do   func(ctx context.Context, h held, q Q) (A, error)
}

// controlled is an operation that an agent offers on its socket.
type controlled interface {
	pattern() string
	serve(h held) http.HandlerFunc
}

func (o operation[Q, A]) pattern() string { return "POST /do/" + o.name }

// failure is an error of the domain on its way through the socket.
type failure struct {
	Code    agent.Code `json:"code"`
	Message string     `json:"message"`
	Fix     string     `json:"fix,omitempty"`
}

func failureOf(err error) failure {
	f := failure{Code: agent.ErrorCode(err), Message: err.Error()}
	var e *agent.Error
	if errors.As(err, &e) && e.Err == nil && e.Error() == f.Message {
		f.Message, f.Fix = e.Message, e.Fix
	}
	return f
}

func (f failure) error() error { return &agent.Error{Code: f.Code, Message: f.Message, Fix: f.Fix} }

func (o operation[Q, A]) serve(h held) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		err := json.NewDecoder(io.LimitReader(r.Body, operationLimit)).Decode(&q)
		var a A
		if err == nil {
			a, err = o.do(r.Context(), h, q)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(failureOf(err))
			return
		}
		json.NewEncoder(w).Encode(a)
	}
}

// operationLimit bounds a message on the socket: exports are the largest.
const operationLimit = 1 << 30

// on does the operation on the store, or asks the agent that holds it.
func on[Q, A any](ctx context.Context, c *cli, o operation[Q, A], q Q) (a A, err error) {
	cfg, err := c.settings()
	if err != nil {
		return a, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	resp, err := control(ctx, cfg.Data, "/do/"+o.name, bytes.NewReader(body))
	if errors.Is(err, errNoAgent) {
		err = c.withStore(func(st *store.Store) (err error) {
			a, err = o.do(ctx, held{cfg: cfg, st: st, log: c.logger(cfg, true)}, q)
			return err
		})
		return a, err
	}
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	return a, json.NewDecoder(io.LimitReader(resp.Body, operationLimit)).Decode(&a)
}

// control sends a request to the agent that holds the data folder. The error is
// errNoAgent when there is none.
func control(ctx context.Context, dir, path string, body io.Reader) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, controlSocket))
		if err != nil {
			return nil, errNoAgent
		}
		return conn, nil
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, controlLimit)).Decode(&f); err != nil || f.Code == "" {
		return nil, &agent.Error{Code: agent.CodeInternal, Message: fmt.Sprintf("the running agent answered %s", resp.Status)}
	}
	return nil, f.error()
}
