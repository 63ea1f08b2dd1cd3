package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/decide"
	"postern/agent/keys"
	"postern/agent/liveness"
	"postern/agent/store"
	"postern/agent/throttle"
	"postern/agent/verify"
	"postern/inference"
	"postern/inference/litert"
	"postern/models"
)

// settings loads the configuration that flags and environment ask for.
func (c *cli) settings() (config.Config, error) {
	set := c.set
	if c.data != "" {
		set = append([]string{"data=" + c.data}, set...)
	}
	return config.Load(c.config, c.environ, set)
}

// logger writes to standard error. Commands that answer a question stay quiet
// unless asked; run logs by its settings.
func (c *cli) logger(cfg config.Config, quiet bool) *slog.Logger {
	var level slog.Level
	// Validated with the configuration.
	_ = level.UnmarshalText([]byte(cfg.Log.Level))
	if quiet {
		level = slog.LevelError
	}
	if c.verbose {
		level = slog.LevelDebug
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(c.err, o))
	}
	return slog.New(slog.NewTextHandler(c.err, o))
}

type logger = *slog.Logger

// libraryName is the file that inference needs beside the binary.
const libraryName = "libLiteRt.so"

// libraryPlaces lists where the library is looked for, the first that exists wins.
func libraryPlaces(cfg config.Config) []string {
	if cfg.Inference.Library != "" {
		return []string{cfg.Inference.Library}
	}
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		dirs = append(dirs, dir, filepath.Join(dir, "../.cache/litert"), filepath.Join(dir, "../lib/postern"))
	}
	dirs = append(dirs, ".cache/litert", "/usr/lib/postern")
	for i, d := range dirs {
		dirs[i] = filepath.Join(d, libraryName)
	}
	return dirs
}

func findLibrary(cfg config.Config) (string, error) {
	places := libraryPlaces(cfg)
	for _, p := range places {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the inference library %s was not found in %s", libraryName, strings.Join(places, ", ")),
		Fix: "run \"make setup\" in the project, or name it with inference.library"}
}

// brain is everything that turns pictures into decisions.
type brain struct {
	runtime *litert.Runtime
	pool    *inference.Pool
	set     *models.Set
	curve   *decide.Curve
	policy  verify.Policy
	live    bool // there is a network for liveness
}

// modelsOf loads the shipped models of the configured profile.
func modelsOf(cfg config.Config) (*models.Set, error) {
	set, err := models.ForProfile(cfg.Inference.Profile)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the models in this binary are damaged", Err: err}
	}
	return set, nil
}

// openBrain is openModels for the shipped models.
func openBrain(cfg config.Config, log *slog.Logger, parallel int) (*brain, error) {
	set, err := modelsOf(cfg)
	if err != nil {
		return nil, err
	}
	if err := recalibrate(&set.Embedder.Manifest, cfg.Match.Calibration); err != nil {
		return nil, err
	}
	return openModels(cfg, log, parallel, set)
}

// openModels loads the library and a pipeline of a set of models; up to parallel ones
// are loaded when so many are needed at once.
func openModels(cfg config.Config, log *slog.Logger, parallel int, set *models.Set) (*brain, error) {
	curve, err := curveOf(set.Embedder)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the calibration cannot be used", Err: err}
	}
	path, err := findLibrary(cfg)
	if err != nil {
		return nil, err
	}
	b := &brain{set: set, curve: curve, policy: policyOf(cfg)}
	if b.runtime, err = litert.Open(path, log.With("part", "litert")); err != nil {
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the inference library cannot be used", Err: err,
			Fix: "run \"make setup\" again"}
	}
	b.live = set.Liveness != nil
	o := inference.Options{Threads: cfg.Inference.Threads, Liveness: cfg.Liveness.On()}
	b.pool, err = inference.NewPool(litert.Engine{Runtime: b.runtime}, set, o, parallel)
	if err != nil {
		return nil, errors.Join(modelsError(err), b.runtime.Close())
	}
	set.Release()
	return b, nil
}

// modelsError tells a runtime that is wrong on this CPU, which must stop the start and
// not open the door, from models that cannot be loaded.
func modelsError(err error) error {
	if errors.Is(err, inference.ErrWrongAnswer) {
		return &agent.Error{Code: agent.CodeUnavailable, Message: "the networks do not work on this machine", Err: err,
			Fix: "use another CPU or another LiteRT; nobody can be told apart with this one"}
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: "the models cannot be loaded", Err: err}
}

func (b *brain) Close() error { return errors.Join(b.pool.Close(), b.runtime.Close()) }

func (b *brain) matcher() verify.Matcher {
	return verify.Matcher{Prober: b.pool, Curve: b.curve, Policy: b.policy}
}

// Probe analyses a frame of a live capture: with liveness, where that is required.
func (b *brain) Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error) {
	if b.policy.Liveness != nil {
		return b.pool.ProbeLive(ctx, f)
	}
	return b.pool.Probe(ctx, f)
}

func curveOf(m *models.Model) (*decide.Curve, error) {
	cal := m.Manifest.Calibration
	points := make([]decide.Point, len(cal.Points))
	var rates []decide.Rate
	for i, p := range cal.Points {
		points[i] = decide.Point{Cosine: p.Cosine, Score: p.Score}
		if p.FMRLimits != nil {
			rates = append(rates, decide.Rate{Score: p.Score, FMR: p.FMRLimits[1]})
		}
	}
	curve, err := decide.NewCurve(cal.ID, points)
	if err != nil {
		return nil, err
	}
	return curve.WithRates(rates)
}

func policyOf(cfg config.Config) verify.Policy {
	p := verify.Policy{
		Match:          agent.Thresholds{Review: cfg.Match.Review, Decline: cfg.Match.Decline},
		IdentifyMargin: cfg.Identify.Margin,
		EnrolQuality:   cfg.Quality.Enrol,
		VerifyQuality:  cfg.Quality.Verify,
	}
	if cfg.Identify.Enabled {
		p.Identify = &decide.Search{FPIR: cfg.Identify.FPIR, ReviewFPIR: cfg.Identify.ReviewFPIR}
	}
	if l := cfg.Liveness; l.On() {
		p.Liveness = &decide.LivenessPolicy{
			Thresholds:   agent.Thresholds{Review: l.Review, Decline: l.Decline},
			MinFrames:    l.MinFrames,
			Active:       l.Mode == "active",
			SeveralFaces: decide.Action(l.SeveralFaces), Quality: decide.Action(l.LowQuality),
			Dark: decide.Action(l.Dark), Bright: decide.Action(l.Bright),
		}
		if l.Mode == "active" {
			p.Challenge = func() *liveness.Challenge { return liveness.NewChallenge(chance(), l.Tasks, l.TaskTime) }
		}
	}
	return p
}

// chance is a source of randomness that nobody outside can foresee.
func chance() *mrand.Rand {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // it never fails: it ends the program instead
	return mrand.New(mrand.NewChaCha8(seed))
}

// records lends the store to the service.
type records struct{ *store.Store }

func (r records) Enrol(s agent.Subject, ts []agent.Template) (agent.Subject, []agent.Template, error) {
	return r.Store.Enrol(store.Enrolment{Subject: s, Templates: ts})
}

func (c *cli) openStore(cfg config.Config, log *slog.Logger) (*store.Store, error) {
	return store.Open(c.storeOptions(cfg, log))
}

func (c *cli) storeOptions(cfg config.Config, log *slog.Logger) store.Options {
	root := c.rootKey(cfg)
	return store.Options{Recover: c.recover, MaxBytes: cfg.Store.MaxBytes, Dir: cfg.Data, Device: cfg.Device, Tenant: cfg.Tenant, Log: log.With("part", "store"),
		Root: func(existing bool) (store.Root, error) { return root.Open(existing) }, AdoptPlain: cfg.Keys.AdoptPlain,
		Witness: cfg.KeyDir(), Actor: actor(), RequireConsent: cfg.Enrol.RequireConsent, Rewrap: rewrap(cfg)}
}

// stale tells whether the hub was not heard for too long; nil where there is no limit.
func stale(cfg config.Config, st *store.Store) func() bool {
	if cfg.Sync.OfflineLimit == 0 {
		return nil
	}
	return func() bool { return st.Stale(cfg.Sync.OfflineLimit) }
}

// actor names who runs this process, for the audit log.
func actor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "user " + u.Username
	}
	return fmt.Sprintf("user %d", os.Getuid())
}

// rootKey says where the configuration has the root key.
func (c *cli) rootKey(cfg config.Config) keys.Options {
	return keys.Options{Kind: cfg.Keys.Root, Dir: cfg.KeyDir(), TPM: cfg.Keys.TPM, CredentialsDir: variable(c.environ, "CREDENTIALS_DIRECTORY")}
}

// with runs fn with store and service open, and closes them.
func (c *cli) with(ctx context.Context, cfg config.Config, log *slog.Logger, parallel int, fn func(*brain, *store.Store, *verify.Service) error) (err error) {
	st, err := c.openStore(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	b, err := openBrain(cfg, log, parallel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := auditThrottle(cfg, st, log); err != nil {
		return err
	}
	svc, err := verify.New(verify.Config{Matcher: b.matcher(), Store: records{st}, Space: b.set.Embedder.Manifest.Embedder.Space, Source: "cli",
		Stale:    stale(cfg, st),
		Throttle: throttle.Policy{Subject: cfg.Throttle.Subject, Device: cfg.Throttle.Device}})
	if err != nil {
		return err
	}
	defer svc.Close()
	return fn(b, st, svc)
}
