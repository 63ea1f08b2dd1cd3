package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/store"
	"postern/camera"
	"postern/inference/litert"
	"postern/models"
)

// check is one line of the doctor's report.
type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // without it nothing works
	Detail string `json:"detail"`
}

func (c *cli) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what is installed, and say how to get what is missing",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			checks := c.examine()
			var b strings.Builder
			var bad []string
			for _, k := range checks {
				mark := "ok  "
				if !k.OK {
					mark = "warn"
					if k.Needed {
						mark = "FAIL"
						bad = append(bad, k.Name)
					}
				}
				fmt.Fprintf(&b, "%s  %-14s %s\n", mark, k.Name, oneLine(k.Detail))
			}
			if err := c.print(checks, b.String()); err != nil {
				return err
			}
			if len(bad) > 0 {
				return &agent.Error{Code: agent.CodeUnavailable, Message: "not ready: " + strings.Join(bad, ", ")}
			}
			return nil
		},
	}
}

// examine runs every check; one that fails does not keep the next from running.
func (c *cli) examine() []check {
	cfg, err := c.settings()
	out := []check{
		{"system", true, false, fmt.Sprintf("%s/%s, %d CPUs, postern %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), version)},
		result("configuration", true, err, orDefaults(c.config)),
	}
	if err != nil {
		cfg = config.Default()
		cfg.Device = "doctor"
	}
	out = append(out, checkLibrary(cfg), checkModels(cfg))
	if out[len(out)-1].OK && out[len(out)-2].OK {
		out = append(out, c.checkPipeline(cfg))
	}
	return append(out, c.checkKeys(cfg), c.checkStore(cfg), checkMemory(), checkRecoveries(cfg), checkCamera(cfg))
}

func orDefaults(path string) string {
	if path == "" {
		return "defaults, environment and flags (no file given)"
	}
	return path
}

func result(name string, needed bool, err error, detail string) check {
	if err != nil {
		return check{name, false, needed, err.Error()}
	}
	return check{name, true, needed, detail}
}

func checkLibrary(cfg config.Config) check {
	path, err := findLibrary(cfg)
	if err != nil {
		return result("inference", true, err, "")
	}
	rt, err := litert.Open(path, nil)
	if err != nil {
		return result("inference", true, err, "")
	}
	defer rt.Close()
	return result("inference", true, nil, fmt.Sprintf("LiteRT %s at %s", rt.Version(), path))
}

func checkModels(cfg config.Config) check {
	set, err := models.ForProfile(cfg.Inference.Profile)
	if err != nil {
		return result("models", true, err, "")
	}
	m := set.Embedder.Manifest
	return result("models", true, nil, fmt.Sprintf("%s, %s, %s, embedder %s (calibration %s), all with the SHA-256 of their manifests",
		set.Near.Manifest.ID, set.Far.Manifest.ID, set.Mesh.Manifest.ID, m.ID, m.Calibration.ID))
}

func (c *cli) checkPipeline(cfg config.Config) check {
	cfg.Liveness.Mode = "passive" // every network, also the one that is loaded with its first use
	b, err := openBrain(cfg, c.logger(cfg, true), 1)
	if err != nil {
		return result("pipeline", true, err, "")
	}
	return result("pipeline", true, b.Close(), "all networks load")
}

// checkKeys says what the root key protects, without making one.
func (c *cli) checkKeys(cfg config.Config) check {
	o := c.rootKey(cfg)
	l, err := o.Label()
	if err != nil {
		return result("keys", true, err, "")
	}
	detail := fmt.Sprintf("root key: %s %s; it %s", l.Kind, l.Place, l.Protects)
	r, err := o.Peek()
	if errors.Is(err, fs.ErrNotExist) {
		return check{"keys", true, false, detail + "; it is made on first use"}
	}
	if err == nil {
		detail += fmt.Sprintf("; key %s of %s", r.ID(), r.Made().Format(time.DateOnly))
		r.Close()
	}
	return result("keys", true, err, detail)
}

// checkStore opens the data folder only when it is there: a look must not make one.
func (c *cli) checkStore(cfg config.Config) check {
	if _, err := os.Stat(cfg.Data); os.IsNotExist(err) {
		return check{"data", true, false, fmt.Sprintf("folder %q does not exist yet; it is made on first use", cfg.Data)}
	}
	st, err := c.openStore(cfg, c.logger(cfg, true))
	if agent.ErrorCode(err) == agent.CodeLocked {
		return check{"data", true, false, err.Error()}
	}
	if err != nil {
		return result("data", true, err, "")
	}
	defer st.Close()
	s, err := st.Stats()
	return result("data", true, err, describeStats(cfg.Data, s))
}

// checkRecoveries says what had to be recovered, however long ago: somebody has to know.
// checkMemory says how much of the templates in memory can be kept out of swap.
func checkMemory() check {
	limit, err := lockable()
	switch {
	case err != nil:
		return result("memory", false, err, "")
	case limit == unix.RLIM_INFINITY:
		return result("memory", false, nil, "templates in memory are kept out of core dumps and out of swap")
	}
	return check{"memory", limit >= 1<<30, false, fmt.Sprintf("templates in memory are kept out of core dumps, and out of swap up to %.0f MB, then not: allow more locked memory (LimitMEMLOCK=infinity in the systemd unit, or ulimit -l), or encrypt the swap",
		float64(limit)/1e6)}
}

func checkRecoveries(cfg config.Config) check {
	rs, err := store.Recoveries(cfg.Data)
	if err != nil || len(rs) == 0 {
		return result("recoveries", false, err, "no data file ever had to be recovered here")
	}
	r := rs[len(rs)-1]
	return check{"recoveries", false, false, fmt.Sprintf("%s, the last of %s on %s: %s was taken, lost is %s; the damaged file is %s",
		plural(len(rs), "recovery"), r.File, r.At.Local().Format(time.DateTime), r.Rung, r.Lost, r.Quarantined)}
}

func describeStats(dir string, s store.Stats) string {
	return fmt.Sprintf("folder %q: %s, %s, %s; encrypted", dir, plural(s.Subjects, "subject"), plural(s.Templates, "template"), plural(s.Results, "result"))
}

func checkCamera(cfg config.Config) check {
	ds, err := camera.List()
	if err != nil {
		return result("camera", false, err, "")
	}
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = d.Path + " " + d.Name
	}
	if len(ds) == 0 {
		return check{"camera", false, false, fmt.Sprintf("no V4L2 camera on this machine (configured source: %q)", cfg.Camera.Source)}
	}
	return check{"camera", true, false, strings.Join(names, ", ")}
}
