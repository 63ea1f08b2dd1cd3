package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/evaluate"
)

// qualityCmd measures what the quality measures are worth.
func (c *cli) qualityCmd() *cobra.Command {
	var dir, model string
	var cover, workers int
	cmd := &cobra.Command{
		Use:   "quality --data DIR",
		Short: "Measure what the quality measures and limits are worth",
		Long: `Measure each quality measure on labelled faces: its spread over the pictures; the false
non-match rate (FNMR) when the pairs with the lowest values are left out, by each
measure and by face_quality; the FNMR of the pairs that meet the limits of the
settings; and how often a mask or sunglasses drawn over the face mesh are found.`,
		Example: "  postern eval quality --data lfw",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("name the folder with --data DIR")}
			}
			c.data = "" // here --data names the faces, not the store
			d, err := evaluate.Open(dir)
			if err != nil {
				return err
			}
			b, err := c.openModel(model, workers)
			if err != nil {
				return err
			}
			defer b.Close()
			bar := c.bar("measure", len(d.Images))
			r, err := evaluate.Quality(cmd.Context(), d, b.pool, evaluate.QualityOptions{
				Options: evaluate.Options{Workers: workers, Progress: bar.set}, Cover: cover,
				Limits: map[string]agent.QualityLimits{"enrol": b.policy.EnrolQuality, "verify": b.policy.VerifyQuality}})
			bar.done()
			if err != nil {
				return err
			}
			return c.print(r, qualityText(r))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().StringVar(&model, "model", "", "folder of another embedder, with manifest.json and its model file")
	cmd.Flags().IntVar(&cover, "cover", 400, "pictures to draw masks and sunglasses on")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	return cmd
}

func qualityText(r *evaluate.QualityReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "model %s, %d pictures\n\nspread over the pictures\n", r.ModelID, r.Images)
	b.WriteString(table("MEASURE\t1 %\t5 %\tMEDIAN\t95 %\t99 %", len(r.Spread), func(i int) string {
		s := r.Spread[i]
		return fmt.Sprintf("%s\t%.3g\t%.3g\t%.3g\t%.3g\t%.3g", s.Measure, s.At[0], s.At[1], s.At[2], s.At[3], s.At[4])
	}))
	fmt.Fprintf(&b, "\nFNMR at FMR %.0e (cosine %.4f) with the lowest share of the pairs left out\n", r.FMR, r.Cosine)
	b.WriteString(table("BY\t0 %\t2 %\t5 %\t10 %\t20 %", len(r.Discard), func(i int) string {
		row := r.Discard[i].Measure
		for _, f := range r.Discard[i].FNMR {
			row += fmt.Sprintf("\t%.2f %%", 100*float64(f.Errors)/float64(max(1, f.Trials)))
		}
		return row
	}))
	b.WriteString("\nwhat the limits leave\n")
	b.WriteString(table("GATE\tPICTURES REFUSED\tFNMR OF ALL\tFNMR OF WHAT PASSES", len(r.Gates), func(i int) string {
		g := r.Gates[i]
		return fmt.Sprintf("%s\t%s\t%s\t%s", g.Gate, fnmrText(g.Refused), fnmrText(g.All), fnmrText(g.Passed))
	}))
	b.WriteString("\ncovers drawn over the mesh, at the limit for enrolment\n")
	b.WriteString(table("MEASURE\tLIMIT\tFOUND\tFALSE ALARMS\tALARMS AT THE OTHER COVER", len(r.Covered), func(i int) string {
		v := r.Covered[i]
		return fmt.Sprintf("%s\t%g\t%s\t%s\t%s", v.Measure, v.Limit, fnmrText(v.Covered), fnmrText(v.Plain), fnmrText(v.Other))
	}))
	return b.String()
}
