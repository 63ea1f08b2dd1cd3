package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/store"
)

type verifyRequest struct {
	Kept []store.Checkpoint `json:"kept"`
}

var (
	opAuditList = operation[store.AuditQuery, []agent.AuditEvent]{"audit.list", func(_ context.Context, h held, q store.AuditQuery) ([]agent.AuditEvent, error) {
		return h.st.AuditLog(q)
	}}
	opAuditVerify = operation[verifyRequest, store.AuditReport]{"audit.verify", func(_ context.Context, h held, q verifyRequest) (store.AuditReport, error) {
		return h.st.VerifyAudit(q.Kept...)
	}}
	opAuditCheckpoint = operation[struct{}, []store.Checkpoint]{"audit.checkpoint", func(_ context.Context, h held, _ struct{}) ([]store.Checkpoint, error) {
		return h.st.Checkpoints()
	}}
)

func (c *cli) auditCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show and verify who did what",
		Long: `Show and verify the audit log: who enrolled, erased, reviewed, configured, rotated,
exported. Each entry is chained to the one before it and signed by the device. People
who have been erased are not named any more: a keyed hash of their id stands for them.`,
		Example: "  postern audit list\n  postern audit verify\n  postern audit checkpoint > kept-elsewhere.json",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.auditList(), c.auditVerify(), c.auditCheckpoint())
	return cmd
}

func (c *cli) auditList() *cobra.Command {
	var q store.AuditQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what was done, newest first",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			es, err := on(cmd.Context(), c, opAuditList, q)
			if err != nil {
				return err
			}
			return c.print(es, table("TIME\tLOG\tACTION\tWHO\tSUBJECT\tDETAIL", len(es), func(i int) string {
				e := es[i]
				subject := e.Subject
				if subject == "" && e.Tag != "" {
					subject = "(erased " + e.Tag[:8] + ")"
				}
				return fmt.Sprintf("%s\t%s %d\t%s\t%s\t%s\t%s", e.At.Local().Format(time.DateTime), e.File, e.Seq, e.Action, e.Actor, subject, detail(e.Detail))
			}))
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&q.Action), "action", "", "only this: enrol, erase, consent, review, configure, key_use, rotate, backup, restore, export, import, override, system")
	f.StringVar(&q.Subject, "subject", "", "only about this person, also one who has been erased")
	f.IntVarP(&q.Limit, "number", "n", 100, "how many, 1 to 1000")
	return cmd
}

func detail(d map[string]string) string {
	parts := []string{}
	for k, v := range d {
		parts = append(parts, k+"="+oneLine(v))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func (c *cli) auditVerify() *cobra.Command {
	var kept string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Find any change, gap, reordering or cut in the log",
		Long: `Read the whole log and verify every hash, number and signature. Its end is compared
with the checkpoint that is kept beside the root key, and with one that "postern audit
checkpoint" printed earlier, if it is given. Exit code 9 when something is wrong.`,
		Example: "  postern audit verify\n  postern audit verify --checkpoint kept-elsewhere.json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var q verifyRequest
			if kept != "" {
				b, err := os.ReadFile(kept)
				if err != nil {
					return usageError{err}
				}
				if q.Kept, err = store.DecodeCheckpoints(b); err != nil {
					return err
				}
			}
			r, err := on(cmd.Context(), c, opAuditVerify, q)
			if err != nil {
				return err
			}
			if err := c.print(r, describeAudit(r)); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return &agent.Error{Code: agent.CodeStorage, Message: "the audit log is not whole", Fix: "keep the data folder as it is for an inquiry"}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kept, "checkpoint", "", "file with checkpoints that were kept elsewhere")
	return cmd
}

func describeAudit(r store.AuditReport) string {
	var lines []string
	for _, f := range r.Files {
		lines = append(lines, fmt.Sprintf("%-10s %s, in order, chained and signed", f.File, entries(f.Entries)))
	}
	lines = append(lines, fmt.Sprintf("compared with %s; public key %s", plural(r.Kept, "kept checkpoint"), r.PublicKey))
	for _, p := range r.Problems {
		lines = append(lines, "PROBLEM "+oneLine(p))
	}
	return joined(lines)
}

func entries(n uint64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

func (c *cli) auditCheckpoint() *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the signed end of the log, in JSON, to be kept somewhere else",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cs, err := on(cmd.Context(), c, opAuditCheckpoint, struct{}{})
			if err != nil {
				return err
			}
			was := c.json
			c.json = true
			defer func() { c.json = was }()
			return c.print(cs, "")
		},
	}
}
