package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/cmd/fleet"
	"postern/agent/store"
	"postern/agent/throttle"
	"postern/agent/verify"
)

// A template on its way through the socket, which only its owner can open.
type carried struct {
	agent.Template
	Embedding agent.Embedding `json:"embedding"`
}

type enrolRequest struct {
	Subject   agent.Subject `json:"subject"`
	Templates []carried     `json:"templates"`
	Actor     string        `json:"actor"`
}

type enrolAnswer struct {
	Subject   agent.Subject    `json:"subject"`
	Templates []agent.Template `json:"templates"`
}

var (
	opEnrol = operation[enrolRequest, enrolAnswer]{"enrol", func(_ context.Context, h held, q enrolRequest) (a enrolAnswer, err error) {
		ts := make([]agent.Template, len(q.Templates))
		for i, t := range q.Templates {
			ts[i], ts[i].Embedding = t.Template, t.Embedding
			defer clear(t.Embedding)
		}
		err = h.change(q.Subject.ID, func() (err error) {
			a.Subject, a.Templates, err = h.st.Enrol(store.Enrolment{Subject: q.Subject, Templates: ts, Actor: q.Actor})
			return err
		})
		return a, err
	}}
	opGallery = operation[string, []carried]{"gallery", func(_ context.Context, h held, space string) (out []carried, err error) {
		err = h.st.EachTemplate(space, func(t agent.Template) error {
			out = append(out, carried{t, append(agent.Embedding(nil), t.Embedding...)})
			return nil
		})
		return out, err
	}}
	opErasures = operation[string, []fleet.ErasureStatus]{"erasures", func(_ context.Context, h held, subject string) ([]fleet.ErasureStatus, error) {
		tag := ""
		if h.st.FleetKey() == nil {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: "this data folder is not a hub's", Fix: "name the hub's data folder with --data"}
		}
		if subject != "" {
			tag = h.st.FleetTag(subject)
		}
		record := h.record
		if record == nil {
			r, err := fleet.OpenRecord(h.cfg.Data, h.st)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			record = r
		}
		return fleet.Erasures(h.st, record, devices(h.cfg), tag)
	}}
	opAccess = operation[accessRequest, store.Access]{"access", func(_ context.Context, h held, q accessRequest) (store.Access, error) {
		if q.Change {
			if err := h.st.SetAccess(q.Subject, q.Access, q.Actor); err != nil {
				return store.Access{}, err
			}
		}
		return h.st.Access(q.Subject)
	}}
)

type accessRequest struct {
	Subject string       `json:"subject"`
	Access  store.Access `json:"access"`
	Change  bool         `json:"change"`
	Actor   string       `json:"actor"`
}

// distant is the store of a running agent or hub, as far as enrolling needs it.
type distant struct {
	ctx context.Context
	c   *cli
}

func (d distant) Subject(id string) (agent.Subject, error) {
	return agent.Subject{}, &agent.Error{Code: agent.CodeNotFound, Message: "the store is another process's"}
}

func (d distant) Templates(string) ([]agent.Template, error) { return nil, nil }

func (d distant) EachTemplate(space string, fn func(agent.Template) error) error {
	all, err := on(d.ctx, d.c, opGallery, space)
	for _, t := range all {
		t.Template.Embedding = t.Embedding
		if err == nil {
			err = fn(t.Template)
		}
		clear(t.Embedding)
	}
	return err
}

func (d distant) Enrol(s agent.Subject, ts []agent.Template) (agent.Subject, []agent.Template, error) {
	q := enrolRequest{Subject: s, Actor: actor()}
	for _, t := range ts {
		q.Templates = append(q.Templates, carried{t, t.Embedding})
	}
	a, err := on(d.ctx, d.c, opEnrol, q)
	return a.Subject, a.Templates, err
}

func (d distant) DeleteSubject(string) (int, error) { return 0, errors.New("not here") }
func (d distant) Usable(agent.Subject) bool         { return false }

func (d distant) AppendResult(agent.Result) (agent.Result, error) {
	return agent.Result{}, errors.New("not here")
}

func (d distant) Throttle(string) (throttle.State, error) {
	return throttle.State{}, errors.New("not here")
}

// withService runs fn with models and a service to enrol with: on the data folder, or on
// the running agent or hub that holds it.
func (c *cli) withService(ctx context.Context, fn func(*brain, *verify.Service) error) (err error) {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	if !answers(filepath.Join(cfg.Data, controlSocket)) {
		return c.with(ctx, cfg, c.logger(cfg, true), 1, func(b *brain, _ *store.Store, svc *verify.Service) error { return fn(b, svc) })
	}
	b, err := openBrain(cfg, c.logger(cfg, true), 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	svc, err := verify.New(verify.Config{Matcher: b.matcher(), Store: distant{ctx, c}, Space: b.set.Embedder.Manifest.Embedder.Space, Source: "cli"})
	if err != nil {
		return err
	}
	defer svc.Close()
	return fn(b, svc)
}

// answers tells whether somebody listens on a socket.
func answers(path string) bool {
	conn, err := net.Dial("unix", path)
	return err == nil && conn.Close() == nil
}

func (c *cli) eraseStatusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status [SUBJECT]",
		Short: "On a hub: at how many devices an erasure has arrived",
		Long: `Say on the hub's data folder at how many of its devices each erasure has been carried
out, and which have not said so yet. What is kept of an erased person is a keyed hash of
the id; with SUBJECT the one of that id is shown.`,
		Example: "  postern --data /var/lib/postern-hub erase status ada",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			list, err := on(cmd.Context(), c, opErasures, strings.Join(a, ""))
			if err != nil {
				return err
			}
			if len(a) == 1 && len(list) == 0 {
				return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("%s has not been erased in this fleet", oneLine(a[0]))}
			}
			return c.print(list, table("ERASED\tTAG\tDONE\tWAITING\tHELD\tREVOKED", len(list), func(i int) string {
				e := list[i]
				return fmt.Sprintf("%s\t%s\t%d of %d\t%s\t%s\t%s", e.At.Local().Format(time.DateTime), e.Tag, e.Done, e.Of,
					orDash(strings.Join(e.Waiting, ",")), orDash(strings.Join(e.Held, ",")), orDash(strings.Join(e.Revoked, ",")))
			}))
		},
	}
}

func (c *cli) accessCmd() *cobra.Command {
	var q accessRequest
	var everywhere bool
	cmd := &cobra.Command{
		Use:   "access SUBJECT",
		Short: "On a hub: which devices know a person",
		Long: `Say on the hub's data folder which devices a person is enrolled at: those that are named
and those of the groups that are named, or everywhere. The others forget the person.
Without flags it shows what holds.`,
		Example: "  postern --data /var/lib/postern-hub access ada --group north --device door-7",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			q.Subject, q.Actor = a[0], actor()
			q.Change = everywhere || len(q.Access.Devices)+len(q.Access.Groups) > 0
			if everywhere && len(q.Access.Devices)+len(q.Access.Groups) > 0 {
				return usageError{errors.New("give either --everywhere or names")}
			}
			got, err := on(cmd.Context(), c, opAccess, q)
			if err != nil {
				return err
			}
			text := "at all devices"
			if len(got.Devices)+len(got.Groups) > 0 {
				text = fmt.Sprintf("at devices [%s] and groups [%s]", strings.Join(got.Devices, " "), strings.Join(got.Groups, " "))
			}
			return c.print(got, oneLine(a[0])+" "+text+"\n")
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&q.Access.Devices, "device", nil, "a device; may be repeated")
	f.StringSliceVar(&q.Access.Groups, "group", nil, "a group of devices; may be repeated")
	f.BoolVar(&everywhere, "everywhere", false, "all devices")
	return cmd
}
