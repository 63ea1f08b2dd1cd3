package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/config"
	"postern/agent/kiosk"
	"postern/agent/store"
	"postern/agent/verify"
	"postern/agent/watch"
)

func (c *cli) runCmd() *cobra.Command {
	withHub := false
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent: watch the camera, decide, store, serve the page",
		Long: `Watch the camera, turn each person who stands before it into one stored decision
and serve a page with the live view. With identify.enabled everybody is searched
among the enrolled (1:N); otherwise the page asks for a badge number and the face
is compared with that subject only (1:1).`,
		Example: "  postern run\n  postern run --set camera.source=rtsp://camera/stream --set identify.enabled=true",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			a := &app{cli: c, cfg: cfg, log: c.logger(cfg, false), withHub: withHub}
			return a.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&withHub, "with-hub", false, "run a hub in this process too, and send the results to it")
	return cmd
}

// app is the running agent. Parts are opened in order and closed in reverse.
type app struct {
	*cli
	cfg     config.Config
	log     logger
	withHub bool // run a hub too

	// Set by serve, for telemetry.
	brain   *brain
	healthy func() error // of the camera; nil where there is none
	started bool
	weather *weather
}

func (a *app) run(ctx context.Context) error {
	leanHeap(a.environ)
	a.recover = true
	err := a.with(ctx, a.cfg, a.log, 1+a.cfg.API.Parallel, func(b *brain, st *store.Store, svc *verify.Service) (err error) {
		l, err := net.Listen("tcp", a.cfg.HTTP.Listen)
		if err != nil {
			return &agent.Error{Code: agent.CodeUnavailable, Message: "the page cannot be served at " + a.cfg.HTTP.Listen, Err: err,
				Fix: "choose another address with http.listen"}
		}
		defer l.Close()
		cam, err := a.frames(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cam.Close()) }()
		a.started = true
		return a.serve(ctx, b, st, svc, cam, l)
	})
	if err != nil && !a.started {
		return a.showWhy(ctx, err)
	}
	return err
}

// frameSource is a camera, or none.
type frameSource interface {
	Next(ctx context.Context, after uint64) (*agent.Frame, error)
	Close() error
}

// noCamera never has a frame: the agent serves its API only.
type noCamera struct{}

func (noCamera) Next(ctx context.Context, _ uint64) (*agent.Frame, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (noCamera) Close() error { return nil }

func (a *app) frames(ctx context.Context) (frameSource, error) {
	if a.cfg.Camera.Source == config.NoCamera {
		return noCamera{}, nil
	}
	return openCamera(ctx, a.cfg, a.log)
}

func (a *app) serve(ctx context.Context, b *brain, st *store.Store, svc *verify.Service, cam frameSource, l net.Listener) error {
	live := a.cfg.Live
	look, err := kioskLook(a.cfg)
	if err != nil {
		return err
	}
	a.weather = newWeather(a.cfg, st)
	w := &watch.Watcher{
		Frames: cam, Prober: b, Decider: svc, Now: time.Now, Log: a.log, Identify: a.cfg.Identify.Enabled, Source: "camera", Closed: a.weather.Closed,
		Settings: watch.Settings{Budget: a.cfg.CaptureTime(), MinFrames: live.MinFrames, MaxFrames: live.MaxFrames, Gone: live.Gone,
			MaxRate: live.MaxRate, ClaimFor: 5 * a.cfg.CaptureTime(), Stalled: 3 * time.Second},
	}
	page := &kiosk.Server{Frames: cam, Results: recent{st}, Claims: w, LiveFPS: a.cfg.HTTP.LiveFPS, Device: a.cfg.Device,
		Identify: a.cfg.Identify.Enabled, Log: a.log, Look: look, Names: nameIn(st), Conditions: a.weather.Conditions}
	w.Publish = page.Publish
	if err := svc.Unlocked(); err != nil {
		a.log.Warn("templates in memory may be written to swap; raise the limit of locked memory, see postern doctor", "err", err)
	}
	a.log.Info("agent started", "device", a.cfg.Device, "data", a.cfg.Data, "camera", a.cfg.Camera.Source, "subjects", svc.Enrolled(),
		"model", b.set.Embedder.Manifest.ID, "identify", a.cfg.Identify.Enabled)
	seen, working := page.Healthy, page.Working
	a.brain, a.healthy = b, page.Healthy
	if cam == frameSource(noCamera{}) {
		seen = func() error { return nil }
		working, a.healthy = seen, nil
	}
	cs, err := a.newCases(b, st, svc)
	if err != nil {
		return err
	}
	defer cs.flow.Close()
	server, err := a.newAPI(b, st, cs, seen)
	if err != nil {
		return err
	}
	address := a.scheme() + l.Addr().String()
	cs.deliverer.Links = server.WebhookLinks(address)
	control, err := a.listenControl()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "postern is running: open %s/ (Ctrl-C stops it)\n", address)
	if err := leanFiles(); err != nil {
		a.log.Debug("memory that only the start needed could not be given back", "err", err)
	}
	session, err := a.newHosted(b, cs)
	if err != nil {
		return err
	}
	tellSystemd(a.log, daemon.SdNotifyReady)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watchdog(ctx, a.log, working, func() error { return storeHealth(st) }) })
	g.Go(func() error { return a.sync(ctx, g, st, svc) })
	g.Go(func() error { return a.listen(ctx, l, server.Over(pagesOf(session, page.Handler()))) })
	g.Go(func() error {
		return serveControl(ctx, control, held{cfg: a.cfg, st: st, svc: svc, log: a.log, forget: cs.flow.Forget})
	})
	g.Go(func() error { return a.watch(ctx, w) })
	g.Go(func() error { return a.weather.run(ctx) })
	g.Go(func() error { return cs.flow.Run(ctx) })
	g.Go(func() error { return cs.deliverer.Run(ctx) })
	g.Go(func() error { return a.keep(ctx, st, svc.Delete, cs.flow.Forget) }) // retention deletes sessions too
	err = g.Wait()
	a.log.Info("agent stopped", "err", err)
	return err
}

// scheme starts the address of page and API.
func (a *app) scheme() string {
	if a.cfg.HTTP.TLSCert != "" {
		return "https://"
	}
	return "http://"
}

// listen serves page and API together.
func (a *app) listen(ctx context.Context, l net.Listener, h http.Handler) error {
	return api.Serve(ctx, l, h, api.ServeOptions{MaxConnections: a.cfg.HTTP.MaxConnections,
		CertFile: a.cfg.HTTP.TLSCert, KeyFile: a.cfg.HTTP.TLSKey, Log: a.log})
}

// watch runs the loop. When a recorded source has ended the page stays up, to be
// read.
func (a *app) watch(ctx context.Context, w *watch.Watcher) error {
	if a.cfg.Camera.Source == config.NoCamera {
		<-ctx.Done()
		return nil
	}
	if err := w.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		a.log.Info("the camera source has ended", "source", a.cfg.Camera.Source)
		<-ctx.Done()
	}
	return nil
}

// nameIn finds what to call a subject; a name that cannot be read is not said.
func nameIn(st *store.Store) func(id string) string {
	return func(id string) string {
		s, err := st.Subject(id)
		if err != nil {
			return ""
		}
		return s.Name
	}
}

// recent lends the store's results to the page.
type recent struct{ *store.Store }

func (r recent) Recent(n int) ([]agent.Result, error) {
	return r.Store.Results(store.ResultQuery{Limit: n})
}
