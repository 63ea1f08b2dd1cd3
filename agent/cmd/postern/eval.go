package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/agent/evaluate"
)

func (c *cli) evalCmd() *cobra.Command {
	var dir, crops, groups, out, compare, model string
	var workers int
	cmd := &cobra.Command{
		Use:   "eval --data DIR",
		Short: "Measure the error rates on labelled faces",
		Long: `Measure the shipped pipeline on a folder with one sub-folder a person: accuracy
on the pairs of pairs.txt (LFW view-2 format, optional), and the false non-match
rate (FNMR) at fixed false match rates (FMR) over all cross pairs. A picture in
which no face is found counts as a miss in each of its genuine pairs.

Then, what each score means on these data; and how the FNMR falls when the faces of
the lowest quality are left out. A rate that the data cannot support, for want of
pairs, is told as a bound. Some intervals take pairs as independent; those of the
same people are not, so the tables by group and of the discard curve are narrower than
the truth. The others are bootstrapped over people.

With --compare a second embedder runs on the same pictures. Told are the differences,
B less A, with what chance alone would do: McNemar's test on the pairs, intervals from
the same drawings of people for the FNMR.`,
		Example: "  postern eval --data lfw --out pictures\n  postern eval --data lfw --groups groups.csv --json",
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
			byGroup, err := openGroups(groups)
			if err != nil {
				return err
			}
			if out != "" {
				if err := evaluate.NewPictureFolder(out); err != nil {
					return err
				}
			}
			b, err := c.openModel(model, workers)
			if err != nil {
				return err
			}
			defer b.Close()
			if crops != "" {
				return c.writeCrops(cmd.Context(), b, d, crops)
			}
			bar := c.bar("embed", len(d.Images))
			r, err := evaluate.Run(cmd.Context(), d, b.pool, evaluate.Options{Workers: workers, Progress: bar.set,
				Cosine: b.cosine, Groups: byGroup})
			bar.done()
			if err != nil {
				return err
			}
			if out != "" {
				if err := r.WritePictures(out); err != nil {
					return err
				}
			}
			if compare != "" {
				return c.compare(cmd, r, dir, compare, workers)
			}
			return c.print(r, report(r))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().StringVar(&crops, "crops", "", "instead of measuring, write the aligned faces (PNG) to this new folder")
	cmd.Flags().StringVar(&out, "out", "", "also draw DET, ROC and histogram (SVG) to this folder; nothing is overwritten")
	cmd.Flags().StringVar(&groups, "groups", "", "CSV file of person,group: also report the error rates of each group")
	cmd.Flags().StringVar(&model, "model", "", "folder of another embedder to measure, with manifest.json and its model file")
	cmd.Flags().StringVar(&compare, "compare", "", "folder of an embedder to measure beside it on the same pictures, with paired tests")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	cmd.AddCommand(c.robustnessCmd(), c.qualityCmd(), c.figuresCmd(), c.evalLivenessCmd())
	return cmd
}

// cosine is the threshold of a score, for evaluate.
func (b *brain) cosine(score float64) float64 { return float64(b.curve.Cosine(score)) }

func openGroups(path string) (evaluate.Groups, error) {
	if path == "" {
		return nil, nil
	}
	return evaluate.OpenGroups(path)
}
