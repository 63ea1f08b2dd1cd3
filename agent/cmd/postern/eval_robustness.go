package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/agent/evaluate"
)

// robustnessCmd measures how the miss rate grows with worse pictures.
func (c *cli) robustnessCmd() *cobra.Command {
	var dir string
	var people, workers int
	cmd := &cobra.Command{
		Use:   "robustness --data DIR",
		Short: "Measure how often worse pictures are missed",
		Long: `Compare the first picture of each person with worsened copies of the second: blurred,
noisy, recompressed, dark, bright, coarse, turned, with a mask or sunglasses drawn over
the face mesh. Told is the false non-match rate (FNMR) at the thresholds of scores 50
and 70, and the false match rate (FMR) of the worsened pictures against everybody
else's first. The degradations are made by computation, and stand in for those of a
camera only roughly.`,
		Example: "  postern eval robustness --data lfw --people 200",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("name the folder with --data DIR")}
			}
			if people < 0 {
				return usageError{fmt.Errorf("--people %d is below 0", people)}
			}
			c.data = "" // here --data names the faces, not the store
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			d, err := evaluate.Open(dir)
			if err != nil {
				return err
			}
			b, err := openBrain(cfg, c.logger(cfg, true), workers)
			if err != nil {
				return err
			}
			defer b.Close()
			var progress bar
			r, err := evaluate.Robustness(cmd.Context(), d, b.pool, evaluate.RobustnessOptions{People: people, Workers: workers,
				Cosine:   b.cosine,
				Started:  func(n int) { progress = c.bar("worsen", n) },
				Progress: func(done int) { progress.set(done) }})
			progress.done()
			if err != nil {
				return err
			}
			return c.print(r, robustnessText(r))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().IntVar(&people, "people", 200, "use at most so many people, spread evenly; 0 for all")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	return cmd
}

func robustnessText(r *evaluate.RobustnessReport) string {
	head := fmt.Sprintf("model %s, %d people, a genuine pair each; %d more left out, without a face in one picture\nmedian distance of the eyes: %.0f pixels\n",
		r.ModelID, r.People, r.Skipped, r.EyeDistance)
	return head + table("PROBE\tNO FACE\tMEDIAN COSINE\tFNMR AT SCORE 50\tFNMR AT SCORE 70\tFMR AT SCORE 50", len(r.Rows), func(i int) string {
		row := r.Rows[i]
		return fmt.Sprintf("%s\t%d\t%.3f\t%s\t%s\t%s", row.Name, row.NoFace, row.Median, fnmrText(row.At[0].FNMR), fnmrText(row.At[1].FNMR), fmrText(row.At[0].FMR))
	})
}
