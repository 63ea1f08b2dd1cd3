package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"postern/agent/config"
	"postern/agent/retention"
	"postern/agent/store"
)

// built is the date of the source that this program was built from, YYYY-MM-DD, set at
// link time. No clock that is right is before it.
var built = ""

// sweeping is what the configuration lets retention delete.
func sweeping(cfg config.Config) store.Sweeping {
	date, _ := time.Parse(time.DateOnly, built) // zero where it is not known
	return store.Sweeping{Default: cfg.Retention.Policy(), Unsent: cfg.Retention.Unsent, Built: date, Synced: clockSynced()}
}

// clockSynced asks the kernel whether something keeps its clock synchronised.
func clockSynced() bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	const timeError = 5
	return err == nil && state != timeError
}

// sweepAndForget deletes what has been kept for its time; forget deletes a subject.
func sweepAndForget(ctx context.Context, st *store.Store, cfg config.Config, forget func(id string) (int, error)) (store.Swept, error) {
	out, err := st.Sweep(ctx, sweeping(cfg))
	for _, id := range out.Expired {
		if _, ferr := forget(id); ferr != nil {
			err = errors.Join(err, ferr)
		}
	}
	return out, err
}

func (c *cli) retentionCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retention",
		Short: "How long results, pictures and templates are kept",
		Long: `The settings retention.results, retention.images and retention.templates count for
every application that has none of its own: "unlimited", or 30 to 3653 days. The agent
deletes what has been kept for its time while it runs, except under a legal hold, and
never by a clock that it does not believe. Results that the hub has not acknowledged
stay until they are, unless retention.unsent is set.`,
		Example: "  postern retention list\n  postern retention set visitors --results 90d --templates 30d\n  postern retention sweep",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.retentionList(), c.retentionSet(), c.retentionDrop(), c.retentionSweep(), c.retentionTrust())
	return cmd
}

func (c *cli) retentionList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policies", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			return c.withStore(func(st *store.Store) error {
				own, err := st.Retentions()
				if err != nil {
					return err
				}
				all := append([]store.Retention{{Application: "(default)", Policy: cfg.Retention.Policy()}}, own...)
				return c.print(all, table("APPLICATION\tRESULTS\tIMAGES\tTEMPLATES", len(all), func(i int) string {
					r := all[i]
					return fmt.Sprintf("%s\t%s\t%s\t%s", r.Application, r.Results, r.Images, r.Templates)
				}))
			})
		},
	}
}

func (c *cli) retentionSet() *cobra.Command {
	var results, images, templates string
	cmd := &cobra.Command{
		Use: "set APPLICATION", Short: "Give an application a policy of its own", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			p, err := parsePolicy(results, images, templates)
			if err != nil {
				return err
			}
			return c.withStore(func(st *store.Store) error {
				r := store.Retention{Application: a[0], Policy: p}
				if err := st.SetRetention(r); err != nil {
					return err
				}
				return c.print(r, fmt.Sprintf("%s: results %s, images %s, templates %s\n", a[0], p.Results, p.Images, p.Templates))
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&results, "results", "unlimited", "decisions and sessions")
	f.StringVar(&images, "images", "off", "pictures")
	f.StringVar(&templates, "templates", "unlimited", "enrolled people, since their newest enrolment")
	return cmd
}

func parsePolicy(results, images, templates string) (p retention.Policy, err error) {
	var errs [3]error
	p.Results, errs[0] = retention.Parse(results, false)
	p.Images, errs[1] = retention.Parse(images, true)
	p.Templates, errs[2] = retention.Parse(templates, false)
	return p, errors.Join(errs[:]...)
}

func (c *cli) retentionDrop() *cobra.Command {
	return &cobra.Command{
		Use: "drop APPLICATION", Short: "Let the default count for an application again", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			return c.withStore(func(st *store.Store) error {
				if err := st.DropRetention(a[0]); err != nil {
					return err
				}
				return c.print(map[string]string{"application": a[0]}, a[0]+" has the default retention again\n")
			})
		},
	}
}

func (c *cli) retentionSweep() *cobra.Command {
	return &cobra.Command{
		Use: "sweep", Short: "Delete now what has been kept for its time", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			return c.withStore(func(st *store.Store) error {
				out, err := sweepAndForget(cmd.Context(), st, cfg, st.DeleteSubject)
				if err != nil {
					return err
				}
				return c.print(out, describeSwept(out))
			})
		},
	}
}

func describeSwept(s store.Swept) string {
	return fmt.Sprintf("deleted %s, %s, %s and %s; expired but kept: %d not acknowledged by the hub, %d under a legal hold\n",
		plural(s.Results, "result"), plural(s.Sessions, "session"), plural(s.Images, "picture"), plural(len(s.Expired), "subject"), s.Overdue, s.Held)
}

func (c *cli) retentionTrust() *cobra.Command {
	return &cobra.Command{
		Use: "trust-clock", Short: "Confirm that the clock is right, so that retention goes by it", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return c.withStore(func(st *store.Store) error {
				if err := st.TrustClock(); err != nil {
					return err
				}
				now := time.Now()
				return c.print(map[string]time.Time{"now": now}, "the clock is believed: it is "+now.Format(time.DateTime)+"\n")
			})
		},
	}
}

func (c *cli) holdCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hold",
		Short: "Legal holds: what must not be deleted",
		Long: `A hold on a subject, a result or a session keeps it from being deleted, by retention
or by hand, until it is removed. One on a subject covers its templates and the results
that name it.`,
		Example: "  postern hold add subject ada --reason \"case 7/26\" --by counsel\n  postern hold list\n  postern hold remove subject ada --by counsel",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.holdAdd(), c.holdList(), c.holdRemove())
	return cmd
}

func (c *cli) holdAdd() *cobra.Command {
	var reason, by string
	cmd := &cobra.Command{
		Use: "add subject|result|session ID", Short: "Place a hold", Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, a []string) error {
			return c.withStore(func(st *store.Store) error {
				h, err := st.Hold(store.Hold{Kind: store.HoldKind(a[0]), ID: a[1], Reason: reason, By: by})
				if err != nil {
					return err
				}
				return c.print(h, fmt.Sprintf("%s %s is on hold\n", h.Kind, h.ID))
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	cmd.Flags().StringVar(&by, "by", os.Getenv("USER"), "who asks for it")
	return cmd
}

func (c *cli) holdList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the holds", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return c.withStore(func(st *store.Store) error {
				hs, err := st.Holds()
				if err != nil {
					return err
				}
				return c.print(hs, table("KIND\tID\tSINCE\tBY\tREASON", len(hs), func(i int) string {
					h := hs[i]
					return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", h.Kind, h.ID, h.At.Local().Format(time.DateTime), h.By, h.Reason)
				}))
			})
		},
	}
}

func (c *cli) holdRemove() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use: "remove subject|result|session ID", Short: "Remove a hold", Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, a []string) error {
			return c.withStore(func(st *store.Store) error {
				h, err := st.Release(store.HoldKind(a[0]), a[1], by)
				if err != nil {
					return err
				}
				return c.print(h, fmt.Sprintf("%s %s is no longer on hold\n", h.Kind, h.ID))
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", os.Getenv("USER"), "who removes it")
	return cmd
}
