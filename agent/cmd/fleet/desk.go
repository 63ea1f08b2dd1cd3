package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"postern/agent"
)

// A running hub answers commands on a socket in its data folder, which only its owner
// can open.
const deskSocket = "fleet.sock"

// deskLimit bounds what goes over the socket.
const deskLimit = 64 << 20

// ErrNoHub is returned by Ask when no hub runs on the folder.
var ErrNoHub = errors.New("no hub runs on this data folder")

// refusal is an error on its way over the socket.
type refusal struct {
	Code    agent.Code `json:"code"`
	Message string     `json:"message"`
	Fix     string     `json:"fix,omitempty"`
}

// Ask asks the hub that runs on a data folder. in and out may be nil.
func Ask(ctx context.Context, data, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, &body)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", filepath.Join(data, deskSocket))
		if err != nil {
			return nil, ErrNoHub
		}
		return conn, nil
	}}}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(io.LimitReader(resp.Body, deskLimit))
	if resp.StatusCode != http.StatusOK {
		var f refusal
		if err := dec.Decode(&f); err != nil || f.Code == "" {
			return &agent.Error{Code: agent.CodeInternal, Message: "the hub answered " + resp.Status}
		}
		return &agent.Error{Code: f.Code, Message: f.Message, Fix: f.Fix}
	}
	if out == nil {
		return nil
	}
	return dec.Decode(out)
}

// answer writes what fn gives.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	f := refusal{Code: agent.ErrorCode(err), Message: err.Error()}
	if e, ok := errors.AsType[*agent.Error](err); ok && e.Err == nil {
		f.Message, f.Fix = e.Message, e.Fix
	}
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(f)
}

// desk serves the socket until ctx is done. A folder whose name is too long for a socket
// has none.
func (o *HubOptions) desk(ctx context.Context, h http.Handler) error {
	path := filepath.Join(o.Data, deskSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		o.Log.Warn("commands cannot reach this hub: its socket cannot be made", "path", path, "err", err)
		<-ctx.Done()
		return nil
	}
	return serveHTTP(ctx, l, h)
}

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// routes are what the desk answers.
func (b *board) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /devices", func(w http.ResponseWriter, _ *http.Request) {
		list, err := b.status()
		answer(w, list, err)
	})
	mux.HandleFunc("GET /devices/{name}/checkpoints", func(w http.ResponseWriter, r *http.Request) {
		list, err := b.fleet.Checkpoints(r.PathValue("name"))
		answer(w, list, err)
	})
	mux.HandleFunc("GET /devices/{name}/telemetry", func(w http.ResponseWriter, r *http.Request) {
		list, err := b.fleet.Reports(r.PathValue("name"), 1440)
		answer(w, list, err)
	})
	return mux
}

// metrics serves Prometheus, where an address is set.
func (o *HubOptions) metrics(ctx context.Context, b *board) error {
	if o.Metrics == "" {
		return nil
	}
	l, err := net.Listen("tcp", o.Metrics)
	if err != nil {
		return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("metrics cannot be served at %s", o.Metrics), Err: err, Fix: "choose another address with hub.metrics"}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(b))
	o.Log.Info("metrics are served", "at", "http://"+l.Addr().String()+"/metrics")
	return serveHTTP(ctx, l, mux)
}
