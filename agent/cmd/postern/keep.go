package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent/store"
)

// keepEvery is how often the agent looks after its data.
const keepEvery = 10 * time.Minute

// keep looks after the data while the agent runs, and ends it when the data can no
// longer be written safely: only opening anew, which verifies, can tell what is left.
// tidy, when it is given, comes after.
func (a *app) keep(ctx context.Context, st *store.Store, forget forgetter, tidy func() error) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-st.Broken():
			return st.Err()
		case <-tick.C:
			a.keepOnce(ctx, st, forget)
			if tidy == nil {
				continue
			}
			if err := tidy(); err != nil {
				a.log.Error("faces that searches look at could not be brought up to date", "err", err)
			}
		}
	}
}

// forgetter deletes a subject and tells how many templates there were.
type forgetter func(subject string) (int, error)

// keepOnce does what is due. What fails is tried again the next time.
func (a *app) keepOnce(ctx context.Context, st *store.Store, forget forgetter) {
	copied, err := st.Copy()
	if err != nil {
		a.log.Error("no good copy of the data could be kept", "err", err)
	}
	if len(copied) > 0 {
		a.log.Info("kept a good copy of the data", "files", copied)
	}
	swept, err := sweepAndForget(ctx, st, a.cfg, forget)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.log.Error("retention could not be kept", "err", err)
	case swept.Results+swept.Sessions+swept.Images+swept.Overdue+len(swept.Expired) > 0:
		a.log.Info("retention", "results", swept.Results, "sessions", swept.Sessions, "images", swept.Images,
			"subjects", len(swept.Expired), "overdue", swept.Overdue, "held", swept.Held)
	}
	a.safely(st)
}

func (c *cli) recoverCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Verify the data files, and replace damaged ones by the best that is left",
		Long: `Verify every page of the data files. A damaged one is replaced by its commit before
the newest, else by its last good copy, else by an empty file. The damaged file is kept
in the folder quarantine, and recovery.log says what was lost. "postern run" does the
same when it starts.`,
		Example: "  postern recover --data data",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c.recover = true
			return c.withStore(func(st *store.Store) error {
				if err := st.Check(); err != nil {
					return err
				}
				rs := st.Recovered()
				if rs == nil {
					rs = []store.Recovery{}
				}
				return c.print(rs, describeRecoveries(rs))
			})
		},
	}
}

func describeRecoveries(rs []store.Recovery) string {
	if len(rs) == 0 {
		return "all data files are sound\n"
	}
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%s was damaged (%s)\n  taken: %s; lost: %s\n  kept:  %s\n", r.File, r.Cause, r.Rung, r.Lost, r.Quarantined)
	}
	return b.String()
}
