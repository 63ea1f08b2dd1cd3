package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent/evaluate"
)

// compare measures a second model on the same pictures and tells the differences.
func (c *cli) compare(cmd *cobra.Command, a *evaluate.Report, data, model string, workers int) error {
	b, _, err := c.measure(cmd, data, model, workers)
	if err != nil {
		return err
	}
	r := evaluate.Compare(a, b)
	return c.print(r, comparisonText(r))
}

func comparisonText(c *evaluate.Comparison) string {
	var b strings.Builder
	fmt.Fprintf(&b, "A: %s\nB: %s\n%d pictures, %d genuine and %d impostor pairs\n", c.A.ModelID, c.B.ModelID, c.A.Images, c.A.Genuine, c.A.Impostor)
	b.WriteString(table("FMR\tFNMR A\tFNMR B\tB - A, POINTS\t95 % INTERVAL\t", len(c.FNMR), func(i int) string {
		d := c.FNMR[i]
		return fmt.Sprintf("%.0e\t%.2f %%\t%.2f %%\t%+.2f\t%+.2f to %+.2f\t%s", d.FMR, 100*c.A.Points[i].FNMR, 100*c.B.Points[i].FNMR,
			100*d.Value, 100*d.CI.Low, 100*d.CI.High, verdictOf(d))
	}))
	if c.A.Pairs > 0 {
		fmt.Fprintf(&b, "accuracy on %d pairs: A %.2f %%, B %.2f %%; right in A only %d, in B only %d; McNemar p = %.3g\n",
			c.A.Pairs, 100*c.A.Accuracy, 100*c.B.Accuracy, c.OnlyA, c.OnlyB, c.McNemar)
	}
	fmt.Fprintf(&b, "ms a picture with %d workers: A %.2f, B %.2f\n", c.A.Workers, c.A.MillisPerOne, c.B.MillisPerOne)
	return b.String()
}

func verdictOf(d evaluate.Difference) string {
	switch {
	case !d.Significant:
		return "no difference shown"
	case d.Value < 0:
		return "B is better"
	}
	return "A is better"
}
