package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/config"
	"postern/agent/liveness"
	"postern/agent/verify"
	"postern/camera"
)

func (c *cli) enrollCmd() *cobra.Command {
	var name, application string
	var live, duplicate bool
	var shots int
	var given consentFlags
	cmd := &cobra.Command{
		Use:     "enroll SUBJECT [PICTURE...]",
		Aliases: []string{"enrol"},
		Short:   "Learn a person from pictures or from the camera",
		Long: `Learn a person under an id of your choice: one template a picture, several
pictures make a better reference. A picture that is blurred, dark, small, turned
away or shows several people is refused with the reason. A face that is enrolled
under another id is refused unless --allow-duplicate says it is meant. Without the
person's consent and its purpose nobody is enrolled, unless enrol.require_consent is
off.`,
		Example: "  postern enroll ada ada1.jpg ada2.jpg --name \"Ada Lovelace\" --consent \"Ada Lovelace\" --purpose \"door 3\"\n  postern enroll ada --live --consent Ada --purpose door",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if live == (len(a) > 1) {
				return usageError{errors.New("give either pictures or --live (usage: " + cmd.UseLine() + ")")}
			}
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			consent, err := given.consent(time.Now())
			if err == nil && application != "" {
				err = agent.CheckApplication(application)
			}
			if err != nil {
				return err
			}
			frames, err := loadAll(a[1:])
			if err != nil {
				return err
			}
			return c.withService(cmd.Context(), func(b *brain, svc *verify.Service) error {
				if live {
					if frames, err = c.capture(cmd.Context(), cfg, b, shots); err != nil {
						return err
					}
				}
				return c.enroll(cmd.Context(), svc, verify.Enrolment{SubjectID: a[0], Name: name, Pictures: frames, AllowDuplicate: duplicate, Consent: consent, Application: application})
			})
		},
	}
	given.add(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the person's name")
	f.StringVar(&application, "application", "", "on whose behalf: its retention counts for the templates and the decisions about the person")
	f.BoolVar(&live, "live", false, "take the pictures with the camera")
	f.IntVar(&shots, "shots", 3, "pictures to take with --live")
	f.BoolVar(&duplicate, "allow-duplicate", false, "enrol a face that another subject has already")
	return cmd
}

func (c *cli) enroll(ctx context.Context, svc *verify.Service, q verify.Enrolment) error {
	bar := c.bar("enrol", len(q.Pictures))
	q.Progress = func(done, _ int) { bar.set(done) }
	e, err := svc.Enrol(ctx, q)
	bar.done()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "enrolled %s with %s\n", e.Subject.ID, plural(len(e.Templates), "template"))
	for _, r := range e.Refused {
		fmt.Fprintf(&b, "  refused %s: %s\n", r.Picture, r.Reason)
	}
	type refused struct {
		Picture string `json:"picture"`
		Reason  string `json:"reason"`
	}
	v := struct {
		Subject   agent.Subject    `json:"subject"`
		Templates []agent.Template `json:"templates"`
		Refused   []refused        `json:"refused"`
	}{e.Subject, e.Templates, []refused{}}
	for _, r := range e.Refused {
		v.Refused = append(v.Refused, refused(r))
	}
	return c.print(v, b.String())
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// captureTime is how long a live capture waits for good pictures.
const captureTime = 30 * time.Second

// capture takes n pictures that meet the enrolment limits, half a second apart so
// that they differ.
func (c *cli) capture(ctx context.Context, cfg config.Config, b *brain, n int) ([]*agent.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, captureTime)
	defer cancel()
	s, err := openCamera(ctx, cfg, c.logger(cfg, true))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	fmt.Fprintln(c.err, "look into the camera")
	bar := c.bar("capture", n)
	defer bar.done()
	var frames []*agent.Frame
	var last []agent.Finding
	m := b.matcher()
	ev := m.NewEvidence("camera", n)
	var asked liveness.Task
	for after := uint64(0); len(frames) < n || !ev.Enough() || asked != ""; {
		f, err := s.Next(ctx, after)
		if err != nil {
			return nil, captureError(err, len(frames), n, last)
		}
		after = f.Seq
		p, err := b.Probe(ctx, f)
		if err != nil {
			return nil, captureError(err, len(frames), n, last)
		}
		verdict := ev.Add(&p)
		asked = c.ask(asked, ev.Task())
		switch verdict {
		case verify.Different: // somebody else has stepped in: begin again
			frames, ev = nil, m.NewEvidence("camera", n)
			ev.Add(&p)
		case verify.Unusable:
			if ev.Attacked() {
				return nil, notAlive(ev)
			}
			last = p.Findings
			continue
		}
		if n := len(frames); n > 0 && f.CapturedAt.Sub(frames[n-1].CapturedAt) < time.Second/2 {
			continue
		}
		if last = b.policy.EnrolQuality.Findings(&p); len(last) == 0 && len(frames) < n {
			frames = append(frames, f)
			bar.set(len(frames))
		}
	}
	if b.policy.Liveness != nil && ev.Live().Status != agent.Approved {
		return nil, notAlive(ev)
	}
	return frames, nil
}

// notAlive refuses to enrol from a capture that may not show a living person.
func notAlive(ev *verify.Evidence) error {
	l := ev.Live()
	return &agent.Error{Code: agent.CodeQuality, Message: fmt.Sprintf("the camera may not show a living person (liveness %.0f, %s)", l.Score, l.Status),
		Fix: "try again in even light without glare, or enrol from pictures that you trust"}
}

func captureError(err error, have, want int, last []agent.Finding) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, io.EOF) {
		return err
	}
	message := fmt.Sprintf("only %d of %d good pictures were seen by the camera", have, want)
	if len(last) > 0 {
		message += "; the last was refused: " + describeFinding(last[0])
	}
	return &agent.Error{Code: agent.CodeQuality, Message: message}
}

// openCamera opens the configured source.
func openCamera(ctx context.Context, cfg config.Config, log logger) (*camera.Stream, error) {
	k := cfg.Camera
	return camera.Open(ctx, camera.Options{
		Target: k.Source, Kind: camera.Kind(k.Kind), Width: k.Width, Height: k.Height, FPS: k.FPS,
		Rotate: k.Rotate, Mirror: k.Mirror, Crop: camera.Rect(k.Crop), Loop: k.Loop, RealTime: k.RealTime,
		Log: log.With("part", "camera"),
	})
}
