package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/decide"
	"postern/agent/liveness"
	"postern/agent/store"
	"postern/agent/verify"
	"postern/camera"
)

func describeFinding(f agent.Finding) string { return decide.Describe(f) }

func (c *cli) verifyCmd() *cobra.Command {
	var images []string
	var live bool
	cmd := &cobra.Command{
		Use:   "verify SUBJECT",
		Short: "Is the person who the badge says? (1:1)",
		Long: `Compare a person with the templates of one enrolled subject and store the
decision. Without --image the camera is used: several frames within live.budget
are fused, and it stops early when it is sure. A live capture must show a living
person (liveness.mode); of pictures that cannot be asked.`,
		Example: "  postern verify ada --image probe.jpg\n  postern verify ada",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if live && len(images) > 0 {
				return usageError{errors.New("give either --image or --live")}
			}
			return c.decide(cmd.Context(), images, func(ctx context.Context, svc *verify.Service, ev *verify.Evidence) (agent.Result, error) {
				return svc.Verify(ctx, a[0], ev)
			}, func(svc *verify.Service, ev *verify.Evidence) (agent.Decision, error) {
				return svc.LookupClaim(a[0], ev)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&images, "image", "i", nil, "picture to use instead of the camera (may be repeated)")
	cmd.Flags().BoolVar(&live, "live", false, "use the camera, which is the default without --image")
	return cmd
}

func (c *cli) identifyCmd() *cobra.Command {
	var images []string
	var live bool
	cmd := &cobra.Command{
		Use:   "identify",
		Short: "Who of the enrolled people is this? (1:N)",
		Long: `Search all enrolled subjects and store the decision. It is off unless
identify.enabled is set, since the chance of a false hit grows with the number
of subjects; its thresholds are stricter than those of verify.`,
		Example: "  postern identify --image probe.jpg --set identify.enabled=true",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live && len(images) > 0 {
				return usageError{errors.New("give either --image or --live")}
			}
			return c.decide(cmd.Context(), images, func(ctx context.Context, svc *verify.Service, ev *verify.Evidence) (agent.Result, error) {
				return svc.Identify(ctx, ev)
			}, func(svc *verify.Service, ev *verify.Evidence) (agent.Decision, error) {
				return svc.Lookup(ev)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&images, "image", "i", nil, "picture to use instead of the camera (may be repeated)")
	cmd.Flags().BoolVar(&live, "live", false, "use the camera, which is the default without --image")
	return cmd
}

type (
	decideFunc func(context.Context, *verify.Service, *verify.Evidence) (agent.Result, error)
	lookFunc   func(*verify.Service, *verify.Evidence) (agent.Decision, error)
)

// decide gathers evidence from pictures or the camera and asks for the decision.
func (c *cli) decide(ctx context.Context, images []string, final decideFunc, look lookFunc) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	frames, err := loadAll(images)
	if err != nil {
		return err
	}
	var r agent.Result
	err = c.with(ctx, cfg, c.logger(cfg, true), 1, func(b *brain, _ *store.Store, svc *verify.Service) error {
		var ev *verify.Evidence
		if len(frames) > 0 {
			ev, err = fromPictures(ctx, b, svc, frames)
		} else {
			ev, err = c.fromCamera(ctx, cfg, b, svc, look)
		}
		if err != nil {
			return err
		}
		defer ev.Wipe()
		r, err = final(ctx, svc, ev)
		return err
	})
	if err != nil {
		return err
	}
	text := describe(r.Decision)
	if r.Kind == agent.KindIdentify && r.SubjectID != "" {
		text = r.SubjectID + "  " + text
	}
	if err := c.print(r, text); err != nil {
		return err
	}
	return verdict{r.Decision.Status}
}

func fromPictures(ctx context.Context, b *brain, svc *verify.Service, frames []*agent.Frame) (*verify.Evidence, error) {
	ev := svc.NewPictureEvidence("cli")
	for _, f := range frames {
		p, err := b.pool.Probe(ctx, f)
		if err != nil {
			return nil, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("picture %q could not be analysed", f.Source), Err: err}
		}
		if ev.Add(&p) == verify.Different {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("picture %q shows another face than those before it", f.Source)}
		}
	}
	return ev, nil
}

// fromCamera gathers frames until the evidence would be approved, the frames are
// enough or the budget is spent.
func (c *cli) fromCamera(ctx context.Context, cfg config.Config, b *brain, svc *verify.Service, look lookFunc) (*verify.Evidence, error) {
	s, err := openCamera(ctx, cfg, c.logger(cfg, true))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	fmt.Fprintln(c.err, "look into the camera")
	began, budget := time.Now(), cfg.CaptureTime()
	ev := svc.NewEvidence("camera", cfg.Live.MinFrames)
	looked := false
	var asked liveness.Task
	for after := uint64(0); ; {
		f, err := nextWithin(ctx, s, after, budget)
		if errors.Is(err, io.EOF) || (errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil) {
			return ev, nil
		}
		if err != nil {
			return nil, err
		}
		after = f.Seq
		p, err := b.Probe(ctx, f)
		if err != nil {
			return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the picture of the camera could not be analysed", Err: err}
		}
		if ev.Add(&p) == verify.Different {
			if looked {
				return ev, nil // who has been compared is decided about
			}
			ev = svc.NewEvidence("camera", cfg.Live.MinFrames)
			ev.Add(&p)
		}
		if ev.Attacked() {
			return ev, nil // nothing that comes can make it good again
		}
		asked = c.ask(asked, ev.Task())
		used, seen := ev.Frames()
		late := ev.Late(time.Since(began), budget, seen)
		if used < ev.Needs() {
			if late {
				return ev, nil
			}
			continue
		}
		looked = true
		if d, err := look(svc, ev); err != nil || late || d.Status == agent.Approved || used >= cfg.Live.MaxFrames && ev.Task() == "" {
			return ev, err
		}
	}
}

// nextWithin is the next frame, if the camera gives one in time.
func nextWithin(ctx context.Context, s *camera.Stream, after uint64, limit time.Duration) (*agent.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.Next(ctx, after)
}

// ask tells the person a new task of the challenge and returns it.
func (c *cli) ask(before, now liveness.Task) liveness.Task {
	if text := map[liveness.Task]string{
		liveness.TurnLeft:  "turn your head to your left",
		liveness.TurnRight: "turn your head to your right",
		liveness.Blink:     "blink",
	}[now]; now != before && text != "" {
		fmt.Fprintln(c.err, text)
	}
	return now
}
