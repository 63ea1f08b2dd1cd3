package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/store"
)

func (c *cli) subjectsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "subjects",
		Short:   "List, show and delete enrolled people",
		Example: "  postern subjects list\n  postern subjects show ada\n  postern subjects delete ada",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.subjectsList(), c.subjectsShow(), c.subjectsDelete())
	return cmd
}

// withStore opens the store alone: listing needs no models.
func (c *cli) withStore(fn func(*store.Store) error) (err error) {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	st, err := c.openStore(cfg, c.logger(cfg, true))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return fn(st)
}

func (c *cli) subjectsList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the enrolled people",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return c.withStore(func(st *store.Store) error {
				all, err := allSubjects(st)
				if err != nil {
					return err
				}
				return c.print(all, table("ID\tNAME\tTEMPLATES\tENROLLED", len(all), func(i int) string {
					s := all[i]
					return fmt.Sprintf("%s\t%s\t%d\t%s", s.ID, s.Name, s.Templates, s.CreatedAt.Local().Format(time.DateTime))
				}))
			})
		},
	}
}

func allSubjects(st *store.Store) ([]store.SubjectInfo, error) {
	const page = 1000
	all := []store.SubjectInfo{}
	for after := ""; ; {
		part, err := st.Subjects(after, page)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
		if len(part) < page {
			return all, nil
		}
		after = part[len(part)-1].ID
	}
}

// table lays out rows in columns under a heading.
func table(heading string, n int, row func(int) string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	for i := range n {
		fmt.Fprintln(w, row(i))
	}
	w.Flush()
	return b.String()
}

func (c *cli) subjectsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show SUBJECT",
		Short: "Show one person's templates and their quality",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			return c.withStore(func(st *store.Store) error {
				sub, err := st.Subject(a[0])
				if err != nil {
					return err
				}
				ts, err := st.Templates(a[0])
				if err != nil {
					return err
				}
				v := struct {
					agent.Subject
					Templates []agent.Template `json:"templates"`
				}{sub, ts}
				head := fmt.Sprintf("%s  %s  enrolled %s; %s\n", sub.ID, sub.Name, sub.CreatedAt.Local().Format(time.DateTime), describeConsent(sub.Consent))
				return c.print(v, head+table("TEMPLATE\tMODEL\tEYES px\tLUMINANCE\tSHARPNESS\tYAW\tPITCH", len(ts), func(i int) string {
					t, q := ts[i], ts[i].Quality
					return fmt.Sprintf("%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f", t.ID, t.ModelID, q.EyeDistance, q.Luminance, q.Sharpness, q.Yaw, q.Pitch)
				}))
			})
		},
	}
}

func (c *cli) subjectsDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete SUBJECT",
		Short: "Delete a person and all templates; see also postern erase --prove",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := on(cmd.Context(), c, opErase, eraseRequest{Subject: a[0], Actor: actor()})
			if err != nil {
				return err
			}
			n := p.Templates
			return c.print(map[string]any{"subject": a[0], "templates": n}, fmt.Sprintf("deleted %s and %s\n", a[0], plural(n, "template")))
		},
	}
}

func (c *cli) resultsCmd() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:     "results",
		Short:   "List stored decisions, newest first",
		Example: "  postern results -n 5 --json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return c.withStore(func(st *store.Store) error {
				rs, err := st.Results(store.ResultQuery{Limit: n})
				if err != nil {
					return err
				}
				return c.print(rs, table("SEQ\tTIME\tKIND\tSTATUS\tSCORE\tSUBJECT\tSOURCE", len(rs), func(i int) string {
					r := rs[i]
					return fmt.Sprintf("%d\t%s\t%s\t%s\t%.2f\t%s\t%s", r.Seq, r.At.Local().Format(time.DateTime), r.Kind, r.Decision.Status, r.Decision.Score, r.SubjectID, r.Source)
				}))
			})
		},
	}
	cmd.Flags().IntVarP(&n, "number", "n", 20, "how many, 1 to 1000")
	return cmd
}
