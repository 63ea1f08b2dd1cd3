package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"postern/agent"
	"postern/agent/store"
)

// A running agent holds the data folder, so the commands about keys ask it through a
// socket in that folder, which only its owner can open.
const controlSocket = "control.sock"

// keyRequest is what is to be done about keys; the zero value lists them.
type keyRequest struct {
	Create *agent.APIKey `json:"create,omitempty"`
	Revoke string        `json:"revoke,omitempty"`
}

// controlAnswer carries keys or an error of the domain.
type controlAnswer struct {
	Keys    []agent.APIKey `json:"keys"`
	Code    agent.Code     `json:"code,omitempty"`
	Message string         `json:"message,omitempty"`
}

// keyWork does the request on the store, or asks the agent that holds it.
func (c *cli) keyWork(ctx context.Context, q keyRequest) ([]agent.APIKey, error) {
	cfg, err := c.settings()
	if err != nil {
		return nil, err
	}
	keys, err := askAgent(ctx, filepath.Join(cfg.Data, controlSocket), q)
	if !errors.Is(err, errNoAgent) {
		return keys, err
	}
	err = c.withStore(func(st *store.Store) (err error) {
		keys, err = changeKeys(st, q)
		return err
	})
	return keys, err
}

func changeKeys(st *store.Store, q keyRequest) ([]agent.APIKey, error) {
	var k agent.APIKey
	var err error
	switch {
	case q.Create != nil:
		k, err = st.CreateAPIKey(*q.Create)
	case q.Revoke != "":
		k, err = st.RevokeAPIKey(q.Revoke)
	default:
		return st.APIKeys()
	}
	return []agent.APIKey{k}, err
}

// maxSocketPath is what the address of a socket holds on Linux.
const maxSocketPath = 107

var errNoAgent = errors.New("no agent listens")

// controlLimit bounds a message on the socket.
const controlLimit = 1 << 20

func askAgent(ctx context.Context, socket string, q keyRequest) ([]agent.APIKey, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, errNoAgent
			}
			return conn, nil
		}}}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/keys", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var a controlAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, controlLimit)).Decode(&a); err != nil {
		return nil, &agent.Error{Code: agent.CodeInternal, Message: "the running agent gave no answer", Err: err}
	}
	if a.Code != "" {
		return nil, &agent.Error{Code: a.Code, Message: a.Message}
	}
	return a.Keys, nil
}

// serveControl answers on the socket until ctx ends. The folder is locked by this
// process, so a socket file that is there is a dead one.
func serveControl(ctx context.Context, h held) error {
	dir, st, log := h.cfg.Data, h.st, h.log
	path := filepath.Join(dir, controlSocket)
	if len(path) > maxSocketPath {
		log.Warn("the name of the data folder is too long for the agent's socket: stop the agent to change keys", "folder", dir)
		<-ctx.Done()
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := listenPrivately(path)
	if err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: "the agent's socket cannot be made in the data folder", Err: err}
	}
	mux := http.NewServeMux()
	for _, o := range offers() {
		mux.HandleFunc(o.pattern(), o.serve(h))
	}
	mux.HandleFunc("POST /keys", func(w http.ResponseWriter, r *http.Request) { answerControl(w, r, st) })
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		srv.Close()
	}()
	err = srv.Serve(l)
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func answerControl(w http.ResponseWriter, r *http.Request, st *store.Store) {
	var q keyRequest
	var a controlAnswer
	err := json.NewDecoder(io.LimitReader(r.Body, controlLimit)).Decode(&q)
	if err == nil {
		a.Keys, err = changeKeys(st, q)
	}
	if err != nil {
		a = controlAnswer{Code: agent.ErrorCode(err), Message: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a)
}

// listenPrivately makes a socket that only its owner can open. The data folder is
// closed to others already; the mode is for folders made by hand.
func listenPrivately(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
