package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"postern/agent"
)

// A running agent holds the data folder, so commands that change it ask the agent
// through a socket in that folder, which only its owner can open.
const controlSocket = "control.sock"

// maxSocketPath is what the address of a socket holds on Linux.
const maxSocketPath = 107

// controlLimit bounds a message about a failure on the socket.
const controlLimit = 1 << 20

var errNoAgent = errors.New("no agent listens")

// listenControl makes the socket; nil when the folder's name is too long for one. The
// folder is locked by this process, so a socket file that is there is a dead one.
func (a *app) listenControl() (net.Listener, error) {
	path := filepath.Join(a.cfg.Data, controlSocket)
	if len(path) > maxSocketPath {
		a.log.Warn("the name of the data folder is too long for the agent's socket: stop the agent for commands that change it", "folder", a.cfg.Data)
		return nil, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		// The data folder is closed to others already; the mode is for folders made by hand.
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeStorage, Message: "the agent's socket cannot be made in the data folder", Err: err}
	}
	return l, nil
}

// serveControl answers on the socket until ctx ends.
func serveControl(ctx context.Context, l net.Listener, h held) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	for _, o := range offers() {
		mux.HandleFunc(o.pattern(), o.serve(h))
	}
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		srv.Close()
	}()
	err := srv.Serve(l)
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
