package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/evaluate"
)

// evalLivenessCmd measures the liveness check on drawn attacks.
func (c *cli) evalLivenessCmd() *cobra.Command {
	var dir, keep string
	var pictures, frames, workers int
	cmd := &cobra.Command{
		Use:   "liveness --data DIR",
		Short: "Measure the liveness check on drawn attacks",
		Long: `Draw, from each picture, the face as a living person before a camera, and as attacks:
prints, prints with cut-out eyes, screens, injected files, each in three degrees of
care. Judge every presentation as a live capture would, and report APCER for each
species (attacks taken for the living) and BPCER (the living taken for attacks).

Drawn attacks are not a laboratory's. The figures compare versions of this check with
each other; they are no conformance claim to ISO/IEC 30107-3.`,
		Example: "  postern eval liveness --data .cache/faces\n  postern eval liveness --data lfw --pictures 100",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("name the folder with --data DIR")}
			}
			c.data = "" // here --data names the faces, not the store
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			paths, err := evaluate.OpenFaces(dir)
			if err != nil {
				return err
			}
			paths = evaluate.Spread(paths, pictures)
			if !cfg.Liveness.On() {
				cfg.Liveness.Mode = "passive"
			}
			b, err := openBrain(cfg, c.logger(cfg, true), workers)
			if err != nil {
				return err
			}
			defer b.Close()
			bar := c.bar("present", len(paths))
			o := evaluate.LivenessOptions{Frames: frames, Workers: workers, Thresholds: b.policy.Liveness.Thresholds, Progress: bar.set, Judge: b.judge}
			if keep != "" {
				o.Keep = func(name string, fs []*agent.Frame) error { return saveFrames(keep, name, fs) }
			}
			r, err := evaluate.Liveness(cmd.Context(), paths, b.pool, o)
			bar.done()
			if err != nil {
				return err
			}
			return c.print(r, livenessText(r))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of faces, labelled or not")
	cmd.Flags().StringVar(&keep, "keep", "", "also write the frames of every presentation (PNG) to this folder")
	cmd.Flags().IntVar(&pictures, "pictures", 100, "use at most so many pictures, spread evenly; 0 for all")
	cmd.Flags().IntVar(&frames, "frames", 9, "frames of a presentation, 50 ms apart")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures at once")
	return cmd
}

// judge decides about the liveness of a sequence of frames as a live capture does.
func (b *brain) judge(ctx context.Context, frames []*agent.Frame) (agent.LivenessCheck, error) {
	m := b.matcher()
	ev := m.NewEvidence("eval", 1)
	for _, f := range frames {
		p, err := b.Probe(ctx, f)
		if err != nil {
			return agent.LivenessCheck{}, err
		}
		ev.Add(&p)
	}
	return ev.Live(), nil
}

func saveFrames(dir, name string, fs []*agent.Frame) error {
	for i, f := range fs {
		if err := savePicture(filepath.Join(dir, fmt.Sprintf("%s-%02d.png", name, i)), f); err != nil {
			return err
		}
	}
	return nil
}

func livenessText(r *evaluate.LivenessReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "model %s, %d pictures (%d more without a face), %d frames a presentation\n", r.ModelID, r.Pictures-r.Skipped, r.Skipped, r.Frames)
	fmt.Fprintf(&b, "errors where only scores above %g are let in, and above %g; 95 %% intervals (Wilson)\n", r.Thresholds.Review, r.Thresholds.Decline)
	rows := append(append([]evaluate.LivenessRow{}, r.BonaFide...), r.Attacks...)
	b.WriteString(table("SPECIES\tCARE\tMEDIAN SCORE\tERRORS AT REVIEW\tERRORS AT DECLINE\tSIGNS", len(rows), func(i int) string {
		w := rows[i]
		care := fmt.Sprint(w.Severity)
		if w.Severity == 0 {
			care = "all"
		}
		return fmt.Sprintf("%s\t%s\t%.1f\t%s\t%s\t%d", w.Species, care, w.Median, livenessRate(w.AtReview), livenessRate(w.AtDecline), w.Signs)
	}))
	fmt.Fprintf(&b, "errors of bona_fide are BPCER, of the others APCER; equal error against the worst species %.1f %% at score %.1f\n", 100*r.EER, r.EERScore)
	b.WriteString("drawn attacks, not a laboratory's: no conformance claim to ISO/IEC 30107-3\n")
	return b.String()
}

func livenessRate(r evaluate.Rate) string {
	if r.Trials == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %% (%.1f to %.1f)", 100*float64(r.Errors)/float64(r.Trials), 100*r.CI.Low, 100*r.CI.High)
}
