package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/hosted"
	"postern/agent/store"
	"postern/agent/throttle"
	"postern/agent/verify"
)

// hubAPI is the v3 API at the hub, and the page of its sessions: the agent's own handlers,
// services and networks over the hub's store, without a camera.
type hubAPI struct {
	*app
	brain *brain
	svc   *verify.Service
	cases *caseParts
	api   *api.Server
	page  *hosted.Server // of a session
	l     net.Listener
}

// openHubAPI loads the networks and opens the address. Where hub.http_listen is empty
// there is no API, and no network is loaded.
func (a *app) openHubAPI(st *store.Store) (h *hubAPI, err error) {
	if a.cfg.Hub.HTTPListen == "" {
		return nil, nil
	}
	h = &hubAPI{app: a}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.l, err = net.Listen("tcp", a.cfg.Hub.HTTPListen); err != nil {
		return h, &agent.Error{Code: agent.CodeUnavailable, Message: "the hub's API cannot be served at " + a.cfg.Hub.HTTPListen, Err: err,
			Fix: "choose another address with hub.http_listen, or none: hub.http_listen="}
	}
	if h.brain, err = openBrain(a.cfg, a.log, a.cfg.API.Parallel); err != nil {
		return h, fmt.Errorf("the hub's API (hub.http_listen= switches it off): %w", err)
	}
	if err = auditThrottle(a.cfg, st, a.log); err != nil {
		return h, err
	}
	h.svc, err = verify.New(verify.Config{Matcher: h.brain.matcher(), Store: strangers{records{st}}, Space: h.brain.set.Embedder.Manifest.Embedder.Space,
		Source: "hub", Throttle: throttle.Policy{Subject: a.cfg.Throttle.Subject, Device: a.cfg.Throttle.Device}})
	if err != nil {
		return h, err
	}
	if h.cases, err = a.newCases(h.brain, st, &passing{svc: h.svc}); err != nil {
		return h, err
	}
	if h.page, err = a.newHosted(h.brain, h.cases); err != nil {
		return h, err
	}
	h.api, err = a.newAPI(h.brain, st, h.cases, func() error { return nil })
	return h, err
}

// Close is safe on what was opened in part, and on nil.
func (h *hubAPI) Close() error {
	if h == nil {
		return nil
	}
	var errs []error
	if h.l != nil {
		if err := h.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if h.svc != nil {
		h.svc.Close()
	}
	if h.brain != nil {
		errs = append(errs, h.brain.Close())
	}
	return errors.Join(errs...)
}

// run serves until ctx ends, where there is something to serve.
func (h *hubAPI) run(ctx context.Context) error {
	if h == nil {
		return nil
	}
	address := h.scheme() + h.l.Addr().String()
	h.cases.deliverer.Links = h.api.WebhookLinks(address)
	fmt.Fprintf(h.out, "the hub's API is at %s/docs/\n", address)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.listen(ctx, h.l, h.api.Over(pagesOf(h.page, http.HandlerFunc(nothingHere)))) })
	g.Go(func() error { return h.cases.flow.Run(ctx) })
	g.Go(func() error { return h.cases.deliverer.Run(ctx) })
	return g.Wait()
}

// nothingHere answers for what no route has.
func nothingHere(w http.ResponseWriter, _ *http.Request) {
	api.WriteJSON(w, http.StatusNotFound, map[string]string{"detail": "Not found."})
}

// strangers is a store of which no template is held in memory: a hub's people come and
// go with the fleet's, and most are never compared here.
type strangers struct{ records }

func (strangers) EachTemplate(string, func(agent.Template) error) error { return nil }

// passing decides about enrolled people with their templates in memory for that long only.
type passing struct {
	svc *verify.Service
	mu  sync.Mutex // one at a time: who is done takes the templates away again
}

func (p *passing) Subject(id string) (agent.Subject, []agent.Template, error) {
	return p.svc.Subject(id)
}

func (p *passing) Verify(ctx context.Context, id string, ev *verify.Evidence) (agent.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.svc.Change(id, func() error { return nil }); err != nil {
		return agent.Result{}, err
	}
	defer p.svc.Forget(id)
	return p.svc.Verify(ctx, id, ev)
}
