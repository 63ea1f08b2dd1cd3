package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/photo"
	"postern/agent/verify"
)

func (c *cli) matchCmd() *cobra.Command {
	var alive bool
	cmd := &cobra.Command{
		Use:   "match REFERENCE PROBE",
		Short: "Compare the largest faces of two pictures",
		Long: `Compare the largest faces of two pictures and print a score from 0 to 100.

The score stands for a measured false match rate: 50 is about 1 in 1,000
strangers, 70 about 1 in 10,000, 90 about 1 in 100,000. At or below match.decline
(50) the answer is Declined, at or below match.review (70) In Review, above it
Approved. JPEG, PNG, WebP and TIFF are read; nothing is stored. With --liveness the
probe must also look like a living face, as far as one picture can tell.`,
		Example: "  postern match badge.jpg selfie.jpg\n  postern match a.jpg b.jpg --json --set match.review=90",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			start := time.Now()
			frames, err := loadAll(a)
			if err != nil {
				return err
			}
			decode := time.Since(start)
			if !alive {
				cfg.Liveness.Mode = "off" // nobody knows how the pictures were taken
			} else if !cfg.Liveness.On() {
				cfg.Liveness.Mode = "passive"
			}
			b, err := openBrain(cfg, c.logger(cfg, true), 1) // a second pipeline takes longer to load than the picture
			if err != nil {
				return err
			}
			defer b.Close()
			m := b.matcher()
			cmp, err := m.Match(cmd.Context(), frames[0], frames[1])
			if err != nil {
				return err
			}
			if alive {
				if err := b.requireLiveness(cmd.Context(), frames[1], &cmp); err != nil {
					return err
				}
			}
			cmp.Decision.Timings.Decode = decode
			return c.answerMatch(a, cmp)
		},
	}
	cmd.Flags().BoolVar(&alive, "liveness", false, "also require that the probe looks alive")
	return cmd
}

// requireLiveness measures the probe's liveness and lowers the decision by it.
func (b *brain) requireLiveness(ctx context.Context, probe *agent.Frame, cmp *verify.Comparison) error {
	p, err := b.pool.ProbeLive(ctx, probe)
	if err != nil {
		return &agent.Error{Code: agent.CodeUnavailable, Message: "the liveness of the probe could not be measured", Err: err}
	}
	policy := *b.policy.Liveness
	policy.Active = false // a picture answers no challenge
	cmp.Decision = decide.Require(cmp.Decision, decide.Capture{Policy: policy, Liveness: p.Liveness, Findings: cmp.Probe.Findings})
	return nil
}

func loadAll(paths []string) ([]*agent.Frame, error) {
	frames := make([]*agent.Frame, len(paths))
	for i, p := range paths {
		f, err := photo.Load(p)
		if err != nil {
			return nil, err
		}
		frames[i] = f
	}
	return frames, nil
}

// seen is what a picture showed, for JSON.
type seen struct {
	Picture  string          `json:"picture"`
	Faces    int             `json:"faces"`
	Face     *agent.Face     `json:"face"`
	Quality  *agent.Quality  `json:"quality"`
	Findings []agent.Finding `json:"findings"`
}

func see(name string, p agent.Probe) seen {
	s := seen{Picture: name, Faces: p.Faces, Face: p.Face, Findings: p.Findings}
	if s.Findings == nil {
		s.Findings = []agent.Finding{}
	}
	if p.Face != nil {
		s.Quality = &p.Quality
	}
	return s
}

func (c *cli) answerMatch(a []string, cmp verify.Comparison) error {
	v := struct {
		agent.Decision
		Reference seen `json:"reference"`
		Probe     seen `json:"probe"`
	}{cmp.Decision, see(a[0], cmp.Reference), see(a[1], cmp.Probe)}
	if err := c.print(v, describe(cmp.Decision)); err != nil {
		return err
	}
	return verdict{cmp.Decision.Status}
}

// describe tells a decision to a person.
func describe(d agent.Decision) string {
	var b strings.Builder
	if d.Scored {
		fmt.Fprintf(&b, "%s  score %.2f  (declined up to %g, in review up to %g)\n", d.Status, d.Score, d.Thresholds.Decline, d.Thresholds.Review)
	} else {
		fmt.Fprintf(&b, "%s  no score\n", d.Status)
	}
	if l := d.Liveness; l != nil && l.Measured {
		fmt.Fprintf(&b, "liveness %.2f, %s  (declined up to %g, in review up to %g)\n", l.Score, strings.ToLower(string(l.Method)), l.Thresholds.Decline, l.Thresholds.Review)
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(&b, "  %s: %s\n", w.Risk, w.Long)
	}
	return b.String()
}
