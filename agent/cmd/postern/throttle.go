package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/store"
	"postern/agent/throttle"
)

func (c *cli) throttleCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "throttle",
		Short: "List who has failed too often, and let them try again",
		Long: `Attempts that fail in a row are counted for each subject and for the device
(NIST SP 800-63B-4, 3.2.3). After throttle.subject.failures of them every attempt
waits for throttle.subject.delay; after throttle.subject.stop there are no more
until somebody unlocks. The same goes for throttle.device.`,
		Example: "  postern throttle list\n  postern throttle unlock ada\n  postern throttle unlock --device",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.throttleList(), c.throttleUnlock())
	return cmd
}

// throttleRow is one line of the list.
type throttleRow struct {
	store.Throttled
	Next string `json:"next"` // what a further attempt may do now
}

func (c *cli) throttleList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List failed attempts in a row, of the device and of subjects",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			return c.withStore(func(st *store.Store) error {
				all, err := st.Throttles()
				if err != nil {
					return err
				}
				rows := make([]throttleRow, len(all))
				for i, t := range all {
					rows[i] = throttleRow{t, nextAttempt(cfg, t, throttle.System())}
				}
				return c.print(rows, table("WHO\tFAILED\tLAST\tNEXT ATTEMPT", len(rows), func(i int) string {
					r := rows[i]
					return fmt.Sprintf("%s\t%d\t%s\t%s", who(r.Subject), r.Failures, r.Last.At.Local().Format(time.DateTime), r.Next)
				}))
			})
		},
	}
}

func who(subject string) string {
	if subject == "" {
		return "(this device)"
	}
	return subject
}

func nextAttempt(cfg config.Config, t store.Throttled, now throttle.Mark) string {
	l := cfg.Throttle.Device
	if t.Subject != "" {
		l = cfg.Throttle.Subject
	}
	switch v := l.Judge(t.State, 0, now); v.Answer {
	case throttle.Allowed:
		return "now"
	case throttle.Later:
		return "in " + v.Wait.Round(time.Second).String()
	}
	return "after unlocking"
}

func (c *cli) throttleUnlock() *cobra.Command {
	var device bool
	cmd := &cobra.Command{
		Use:   "unlock [SUBJECT]",
		Short: "Start the counting of a subject, or of the device, anew",
		Args: args(func(cmd *cobra.Command, a []string) error {
			if len(a) > 1 || (len(a) == 1) == device {
				return fmt.Errorf("name a subject, or give --device")
			}
			return nil
		}),
		RunE: func(_ *cobra.Command, a []string) error {
			subject := ""
			if !device {
				subject = a[0]
			}
			return c.withStore(func(st *store.Store) error {
				was, err := st.Unlock(subject)
				if err != nil {
					return err
				}
				return c.print(map[string]any{"subject": subject, "failures": was.Failures},
					fmt.Sprintf("unlocked %s after %s\n", who(subject), plural(was.Failures, "failed attempt")))
			})
		},
	}
	cmd.Flags().BoolVar(&device, "device", false, "unlock the device instead of a subject")
	return cmd
}

// auditThrottle states who stands for limits beyond the standard's, in the log and in
// the audit.
func auditThrottle(cfg config.Config, st *store.Store, log *slog.Logger) error {
	t := cfg.Throttle
	if !t.Subject.LooserThan(cfg.Ceiling()) && !t.Device.LooserThan(cfg.Ceiling()) {
		return nil
	}
	log.Warn("attempts are limited less than NIST SP 800-63B-4 asks for", "override", t.Override,
		"subject", t.Subject, "device", t.Device)
	return st.Audit(agent.AuditEvent{Action: agent.AuditOverride, Detail: map[string]string{"throttle": t.Override,
		"subject": fmt.Sprint(t.Subject), "device": fmt.Sprint(t.Device)}})
}
