package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/config"
	"postern/agent/hosted"
	"postern/agent/kiosk"
	"postern/agent/retention"
	"postern/agent/store"
	"postern/sync/device"
)

// maxLogo bounds a deployer's logo, in bytes.
const maxLogo = 256 << 10

// readLogo reads the file of a logo; an empty name is none.
func readLogo(setting, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err == nil && len(raw) > maxLogo {
		err = fmt.Errorf("it has %d bytes, more than %d", len(raw), maxLogo)
	}
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: setting + " cannot be used", Err: err, Fix: "name a small SVG, PNG, JPEG or WebP file"}
	}
	return raw, nil
}

// kioskLook is what the settings say about the kiosk.
func kioskLook(cfg config.Config) (kiosk.Look, error) {
	k := cfg.Kiosk
	logo, err := readLogo("kiosk.logo", k.Logo)
	return kiosk.Look{Language: k.Language, Theme: k.Theme, Name: k.Name, Logo: logo, Attendant: k.Attendant, PINPad: k.PINPad, Controller: k.Controller,
		Contact: k.Contact, Screensaver: k.Screensaver, Sounds: k.Sounds, KeepResults: cfg.Retention.Results, KeepFaces: cfg.Retention.Templates}, err
}

// weather watches what closes the door, and what people are told beside it. The loop
// asks it before each frame, so it looks anew only once in a while.
type weather struct {
	cfg   config.Config
	store *store.Store
	link  atomic.Pointer[device.Link] // nil: no hub, or not yet

	now     atomic.Pointer[[]kiosk.Condition]
	lostAt  time.Time // since when the hub has not been reached
	lostFor time.Duration
}

const (
	weatherEvery = 2 * time.Second
	hubPatience  = 15 * time.Second // a connection that comes back sooner is no news
	leastFree    = 16 << 20         // bytes that the disk must have for decisions to be stored
)

func newWeather(cfg config.Config, st *store.Store) *weather {
	w := &weather{cfg: cfg, store: st, lostFor: hubPatience}
	w.look()
	return w
}

// Conditions is what holds now.
func (w *weather) Conditions() []kiosk.Condition { return *w.now.Load() }

// Closed tells whether the door is closed by one of them.
func (w *weather) Closed() bool {
	for _, c := range w.Conditions() {
		if c.Blocking {
			return true
		}
	}
	return false
}

// run looks again and again until ctx ends.
func (w *weather) run(ctx context.Context) error {
	tick := time.NewTicker(weatherEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look()
		}
	}
}

func (w *weather) look() {
	var found []kiosk.Condition
	add := func(holds bool, c kiosk.Code) {
		if holds {
			found = append(found, c.New())
		}
	}
	add(underMaintenance(w.cfg), kiosk.Maintenance)
	add(w.full(), kiosk.DiskFull)
	add(w.store.ClockBelieved(sweeping(w.cfg)) != nil, kiosk.ClockWrong)
	if lost := w.hubLost(); lost {
		add(true, kiosk.HubLost)
		add(!networkUp(), kiosk.Offline)
	}
	w.now.Store(&found)
}

// full tells whether the store refuses to add, or the disk is about to.
func (w *weather) full() bool {
	s, err := w.store.Stats()
	limit := w.cfg.Store.MaxBytes * 8 / 10
	if err == nil && s.ResultsBytes >= limit {
		return true
	}
	var fs unix.Statfs_t
	return unix.Statfs(w.cfg.Data, &fs) == nil && fs.Bavail*uint64(fs.Bsize) < leastFree
}

func (w *weather) hubLost() bool {
	l := w.link.Load()
	if l == nil || l.Online() {
		w.lostAt = time.Time{}
		return false
	}
	if w.lostAt.IsZero() {
		w.lostAt = time.Now()
	}
	return time.Since(w.lostAt) >= w.lostFor
}

// networkUp tells whether any interface but the loopback is up and has an address.
func networkUp() bool {
	ifs, err := net.Interfaces()
	if err != nil {
		return true // not known
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagRunning == 0 {
			continue
		}
		if as, err := i.Addrs(); err == nil && len(as) > 0 {
			return true
		}
	}
	return false
}

// maintenanceFile in the data folder closes the door while it is there.
func maintenanceFile(cfg config.Config) string { return filepath.Join(cfg.Data, "maintenance") }

func underMaintenance(cfg config.Config) bool {
	_, err := os.Lstat(maintenanceFile(cfg))
	return err == nil
}

func (c *cli) maintenanceCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "maintenance on|off|status",
		Short: "Close the door while somebody works on the device",
		Long: `While maintenance is on, a running agent decides nothing about who stands before the
camera, and the kiosk says that the door is closed. It lasts over a restart.`,
		Example:   "  postern maintenance on\n  postern maintenance off",
		Args:      args(cobra.ExactArgs(1)),
		ValidArgs: []string{"on", "off", "status"},
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			switch a[0] {
			case "on":
				err = os.WriteFile(maintenanceFile(cfg), nil, 0o600)
			case "off":
				if err = os.Remove(maintenanceFile(cfg)); errors.Is(err, os.ErrNotExist) {
					err = nil
				}
			case "status":
			default:
				return usageError{fmt.Errorf("maintenance is on, off or status, not %q", a[0])}
			}
			if err != nil {
				return &agent.Error{Code: agent.CodeStorage, Message: "maintenance cannot be switched " + a[0], Err: err, Fix: "check the data folder (--data)"}
			}
			on := underMaintenance(cfg)
			return c.print(map[string]bool{"maintenance": on}, map[bool]string{true: "maintenance is on\n", false: "maintenance is off\n"}[on])
		},
	}
}

// showWhy serves the kiosk for a while with the reason why the agent cannot start, so
// that people before a dark door know that it is not they. The error stays the error.
func (a *app) showWhy(ctx context.Context, cause error) error {
	if a.cfg.Kiosk.Hold <= 0 || agent.ErrorCode(cause) != agent.CodeUnavailable || ctx.Err() != nil {
		return cause
	}
	look, err := kioskLook(a.cfg)
	if err != nil {
		return cause
	}
	l, err := net.Listen("tcp", a.cfg.HTTP.Listen)
	if err != nil {
		return cause
	}
	defer l.Close()
	a.log.Error("the agent cannot start; the kiosk says so", "err", cause, "for", a.cfg.Kiosk.Hold)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Kiosk.Hold)
	defer cancel()
	page := &kiosk.Server{Frames: noCamera{}, Results: noResults{}, LiveFPS: a.cfg.HTTP.LiveFPS, Device: a.cfg.Device, Log: a.log, Look: look,
		Conditions: func() []kiosk.Condition { return []kiosk.Condition{kiosk.ModelMissing.New()} }}
	err = api.Serve(ctx, l, page.Handler(), api.ServeOptions{MaxConnections: 64, CertFile: a.cfg.HTTP.TLSCert, KeyFile: a.cfg.HTTP.TLSKey, Log: a.log})
	return errors.Join(cause, err)
}

// newHosted makes the page of verification sessions.
func (a *app) newHosted(b *brain, cs *caseParts) (*hosted.Server, error) {
	brands, err := hosted.LoadBrands(a.cfg.Hosted.Brands)
	if err != nil {
		return nil, err
	}
	return hosted.New(hosted.Config{Sessions: cs.flow, Prober: newFaces(b), Limits: guidance(a.cfg), Brands: brands, Origins: a.cfg.Hosted.OriginList(),
		PublicURL: a.cfg.API.PublicURL, Kept: a.keptOf(cs), Log: a.log.With("part", "hosted")}), nil
}

// keptOf says how long an application keeps pictures at most: by its policy, or as long as
// they may wait for a decision where it keeps none.
func (a *app) keptOf(cs *caseParts) func(string) (time.Duration, error) {
	return func(application string) (time.Duration, error) {
		p, err := cs.flow.Images(application)
		if p == retention.Off {
			return a.cfg.Sessions.KeepMedia, err
		}
		return time.Duration(p), err
	}
}

// leastSelfie is the least distance of the eyes, in pixels of the pictures for
// guidance, which are 480 wide or high: the head is then a fourth of it or more.
const leastSelfie = 24

// guidance is what the page asks of a picture before it is sent in: what the live view
// asks, and that the face is near.
func guidance(cfg config.Config) agent.QualityLimits {
	l := cfg.Quality.Verify
	l.MinEyeDistance = leastSelfie
	return l
}

// pagesOf serves the page of sessions at its own paths and the kiosk at all others.
func pagesOf(session *hosted.Server, kiosk http.Handler) http.Handler {
	own := session.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hosted.Owns(r.URL.Path) {
			own.ServeHTTP(w, r)
			return
		}
		kiosk.ServeHTTP(w, r)
	})
}

// noResults is a store that has none.
type noResults struct{}

func (noResults) Recent(int) ([]agent.Result, error) { return []agent.Result{}, nil }
