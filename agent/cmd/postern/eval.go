package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent/evaluate"
)

func (c *cli) evalCmd() *cobra.Command {
	var dir, crops string
	var workers int
	cmd := &cobra.Command{
		Use:   "eval --data DIR",
		Short: "Measure the error rates on labelled faces",
		Long: `Measure the shipped pipeline on a folder with one sub-folder a person: accuracy
on the pairs of pairs.txt (LFW view-2 format, optional), and the false non-match
rate (FNMR) at fixed false match rates (FMR) over all cross pairs. A picture in
which no face is found counts as a miss in each of its genuine pairs.`,
		Example: "  postern eval --data lfw",
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
			d, err := evaluate.Open(dir)
			if err != nil {
				return err
			}
			b, err := openBrain(cfg, c.logger(cfg, true), workers)
			if err != nil {
				return err
			}
			defer b.Close()
			if crops != "" {
				return c.writeCrops(cmd.Context(), b, d, crops)
			}
			bar := c.bar("embed", len(d.Images))
			r, err := evaluate.Run(cmd.Context(), d, b.pool, workers, bar.set)
			bar.done()
			if err != nil {
				return err
			}
			return c.print(r, report(r))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().StringVar(&crops, "crops", "", "instead of measuring, write the aligned faces (PNG) to this new folder")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	return cmd
}

func report(r *evaluate.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "model %s, %d pictures, %d without a face, %.2f ms a picture with %d workers\n",
		r.ModelID, r.Images, len(r.Undetected), r.MillisPerOne, r.Workers)
	if r.Pairs > 0 {
		fmt.Fprintf(&b, "accuracy on %d pairs: %.2f %%\n", r.Pairs, 100*r.Accuracy)
	}
	fmt.Fprintf(&b, "cross pairs: %d genuine, %d impostor\n", r.Genuine, r.Impostor)
	b.WriteString(table("FMR\tFNMR\t95 % interval\tcosine", len(r.Points), func(i int) string {
		p := r.Points[i]
		return fmt.Sprintf("%.0e\t%.2f %%\t%.2f to %.2f %%\t%.4f", p.FMR, 100*p.FNMR, 100*p.CI.Low, 100*p.CI.High, p.Cosine)
	}))
	for _, u := range r.Undetected {
		fmt.Fprintf(&b, "no face: %s\n", u)
	}
	return b.String()
}
