package main

import (
	"fmt"
	"strings"

	"postern/agent/evaluate"
)

// report tells a measurement to a person.
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
	if len(r.Scores) > 0 {
		b.WriteString("\nwhat a score means: the rates when pairs above it match\n")
		b.WriteString(table("SCORE\tCOSINE\tFMR\tFNMR", len(r.Scores), func(i int) string {
			s := r.Scores[i]
			return fmt.Sprintf("%g\t%.4f\t%s\t%s", s.Score, s.Cosine, fmrText(s.FMR), fnmrText(s.FNMR))
		}))
	}
	b.WriteString(discardText(r.Discard))
	b.WriteString(groupsText(r.Groups))
	for _, u := range r.Undetected {
		fmt.Fprintf(&b, "no face: %s\n", u)
	}
	return b.String()
}

func fmrText(r evaluate.Rate) string {
	if r.Value == nil {
		return fmt.Sprintf("below %.1e (%d of %d: too few for a rate)", r.Below, r.Errors, r.Trials)
	}
	return fmt.Sprintf("%.2e (%.2e to %.2e)", *r.Value, r.CI.Low, r.CI.High)
}

func fnmrText(r evaluate.Rate) string {
	if r.Value == nil {
		return fmt.Sprintf("below %.0f %% (%d of %d: too few for a rate)", 100*r.Below, r.Errors, r.Trials)
	}
	return fmt.Sprintf("%.2f %% (%.2f to %.2f)", 100**r.Value, 100*r.CI.Low, 100*r.CI.High)
}

func discardText(c *evaluate.DiscardCurve) string {
	if c == nil || c.Genuine == 0 {
		return ""
	}
	head := fmt.Sprintf("\nerror versus discard: %d genuine pairs, %d without a face left out, threshold at FMR %.0e (cosine %.4f)\n",
		c.Genuine, c.NoFace, c.FMR, c.Cosine)
	return head + table("DISCARDED\tQUALITY FROM\tFNMR\tPERFECT", len(c.Points), func(i int) string {
		p := c.Points[i]
		return fmt.Sprintf("%.0f %%\t%.1f\t%s\t%.2f %%", 100*p.Discarded, p.Quality, fnmrText(p.FNMR), 100*p.Perfect)
	})
}

func groupsText(g *evaluate.GroupReport) string {
	if g == nil {
		return ""
	}
	var lines []string
	for _, row := range g.Rows {
		for _, at := range row.At {
			lines = append(lines, fmt.Sprintf("%s\t%d\t%d\t%g\t%s\t%s", oneLine(row.Group), row.People, row.Images,
				at.Score, fmrText(at.FMR), fnmrText(at.FNMR)))
		}
	}
	var b strings.Builder
	b.WriteString("\nby group: impostor pairs within the group\n")
	b.WriteString(table("GROUP\tPEOPLE\tPICTURES\tSCORE\tFMR\tFNMR", len(lines), func(i int) string { return lines[i] }))
	for _, row := range g.Rows {
		if row.Small != "" {
			fmt.Fprintf(&b, "%s is too small to compare: %s\n", oneLine(row.Group), row.Small)
		}
	}
	b.WriteString(someOf("in the groups file, without a picture", g.Unknown))
	b.WriteString(someOf("with pictures, in no group", g.Ungrouped))
	return b.String()
}

// someOf tells how many people there are, and the first ones.
func someOf(what string, people []string) string {
	const most = 10
	if len(people) == 0 {
		return ""
	}
	more := ""
	if len(people) > most {
		more = ", … (--json lists all)"
	}
	return oneLine(fmt.Sprintf("%d people %s: %s%s", len(people), what, strings.Join(people[:min(most, len(people))], ", "), more)) + "\n"
}
