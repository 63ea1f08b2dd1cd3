package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/evaluate"
	"postern/models"
)

// section is one block of quoted figures in a document, between
// "<!-- figures: NAME -->" and "<!-- /figures -->".
type section struct {
	name string
	text string
}

func (c *cli) figuresCmd() *cobra.Command {
	var dir, model string
	var only []string
	var check, write bool
	var people, workers int
	cmd := &cobra.Command{
		Use:   "figures [FILE]...",
		Short: "Print, check or write the figures that documents quote",
		Long: `Print the figures that README, model cards and docs quote, in the form they quote
them. What the model's own score table says needs no data; with --data the faces are
measured and the rest is printed too.

In a FILE a block of figures stands between "<!-- figures: NAME -->" and
"<!-- /figures -->". With --check each is compared with what was just made, numbers
within rounding; with --write each is replaced. Blocks that need --data are left alone
without it.`,
		Example: "  postern eval figures --data lfw --check README.md docs/evaluation.md",
		RunE: func(cmd *cobra.Command, files []string) error {
			if check && write || (check || write) && len(files) == 0 {
				return usageError{fmt.Errorf("give --check or --write, and the files")}
			}
			c.data = "" // here --data names the faces, not the store
			sections, err := c.figures(cmd, dir, model, only, people, workers)
			if err != nil {
				return err
			}
			switch {
			case check:
				return c.checkFigures(sections, files)
			case write:
				return c.writeFigures(sections, files)
			}
			for _, s := range sections {
				fmt.Fprintf(c.out, "<!-- figures: %s -->\n%s<!-- /figures -->\n\n", s.name, s.text)
			}
			if dir == "" {
				fmt.Fprintln(c.out, "not here, since they need faces (--data DIR): accuracy, quality, robustness")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().StringVar(&model, "model", "", "folder of another embedder, with manifest.json and its model file")
	cmd.Flags().StringSliceVar(&only, "only", []string{"faces", "robustness"}, "what to measure with --data: faces (accuracy and quality), robustness")
	cmd.Flags().BoolVar(&check, "check", false, "compare the blocks in the files; exit 1 where one differs")
	cmd.Flags().BoolVar(&write, "write", false, "replace the blocks in the files")
	cmd.Flags().IntVar(&people, "people", 200, "people for the robustness table; 0 for all")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	return cmd
}

// figures makes all sections; without data those that need none.
func (c *cli) figures(cmd *cobra.Command, dir, model string, only []string, people, workers int) ([]section, error) {
	b, err := c.openModel(model, workers)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	man := &b.set.Embedder.Manifest
	sections := []section{{"answers", answersText(man)}, {"score-table", scoreTableText(man.Calibration)}}
	shipped, err := profileFigures()
	if err != nil {
		return nil, err
	}
	sections = append(sections, shipped...)
	if model != "" { // blocks without a name are the default model's
		sections = []section{{"answers/" + man.ID, answersText(man)}, {"score-table/" + man.ID, scoreTableText(man.Calibration)}}
	}
	if dir == "" {
		return sections, nil
	}
	d, err := evaluate.Open(dir)
	if err != nil {
		return nil, err
	}
	if slices.Contains(only, "faces") {
		more, err := c.faceFigures(cmd, b, d, workers)
		if err != nil {
			return nil, err
		}
		if model != "" {
			more = []section{{"accuracy/" + man.ID, more[0].text}}
		}
		sections = append(sections, more...)
	}
	if slices.Contains(only, "robustness") {
		worse := c.bar("worsen", 0)
		r, err := evaluate.Robustness(cmd.Context(), d, b.pool, evaluate.RobustnessOptions{People: people, Workers: workers, Cosine: b.cosine,
			Started: func(n int) { worse = c.bar("worsen", n) }, Progress: func(n int) { worse.set(n) }})
		worse.done()
		if err != nil {
			return nil, err
		}
		sections = append(sections, section{"robustness", robustnessMarkdown(r)})
	}
	return sections, nil
}

// faceFigures are those that need every picture once.
func (c *cli) faceFigures(cmd *cobra.Command, b *brain, d *evaluate.Dataset, workers int) ([]section, error) {
	bar := c.bar("measure", len(d.Images))
	defer bar.done()
	q, err := evaluate.Quality(cmd.Context(), d, b.pool, evaluate.QualityOptions{
		Options: evaluate.Options{Workers: workers, Progress: bar.set, Cosine: b.cosine}, Cover: 400,
		Limits: map[string]agent.QualityLimits{"enrol": b.policy.EnrolQuality, "verify": b.policy.VerifyQuality}})
	if err != nil {
		return nil, err
	}
	return []section{{"accuracy", accuracyText(q.Report)}, {"quality", qualityMarkdown(q)}}, nil
}

// profileFigures quotes the shipped embedders' own tables: nothing is measured.
func profileFigures() ([]section, error) {
	head := []string{"FMR"}
	var cards []section
	var tables []*models.Calibration
	networks := [][]string{{"network", "size", "FNMR at 1e-2, 1e-3, 1e-4, 1e-5"}}
	for _, profile := range []string{models.Fast, models.Accurate} {
		set, err := models.ForProfile(profile)
		if err != nil {
			return nil, err
		}
		m := &set.Embedder.Manifest
		head = append(head, fmt.Sprintf("FNMR, `%s`", profile), "95 % interval over people")
		tables = append(tables, m.Calibration)
		networks = append(networks, []string{"`" + m.ID + "`", fmt.Sprintf("%.2f MB", float64(m.Size)/1e6), anchorsLine(m.Calibration)})
		cards = append(cards, section{"answers/" + m.ID, answersText(m)}, section{"score-table/" + m.ID, scoreTableText(m.Calibration)})
	}
	rows := [][]string{head}
	for _, score := range quotedScores {
		row := []string{fmt.Sprintf("%.0e", evaluate.ScoreFMR(score))}
		for _, c := range tables {
			row = append(row, strings.Split(anchor(c, score), "\t")...)
		}
		rows = append(rows, row)
	}
	return append(cards, section{"profiles", markdown(rows)}, section{"networks", markdown(networks)}), nil
}

// quotedScores are the anchors that cards and README quote.
var quotedScores = []float64{30, 50, 70, 90}

// anchor is a table's FNMR at a score and its interval, parted by a tab.
func anchor(c *models.Calibration, score float64) string {
	for _, p := range c.Points {
		if p.Score == score && p.FNMRLimits != nil {
			return measuredRate("%.2f %%", p.FNMR, p.FNMRLimits, 100)
		}
	}
	return "not measured\t"
}

// anchorsLine has the FNMR at all anchors.
func anchorsLine(c *models.Calibration) string {
	var rates []string
	for _, score := range quotedScores {
		rate, _, _ := strings.Cut(anchor(c, score), "\t")
		rates = append(rates, rate)
	}
	return strings.Join(rates, ", ")
}

// answersText answers what a reviewer asks first.
func answersText(m *models.Manifest) string {
	c := m.Calibration
	var b strings.Builder
	fmt.Fprintf(&b, "`%s` on %s (%d people, %d pictures, %d genuine and %d impostor pairs), calibration `%s`:\n\n",
		m.ID, c.Data, c.People, c.Images, c.Genuine, c.Impostor, c.ID)
	for _, score := range quotedScores {
		for _, p := range c.Points {
			if p.Score == score && p.FMRLimits != nil && p.FNMRLimits != nil {
				fmt.Fprintf(&b, "- Above score %g%s: of 10,000 strangers %s get in; of 100 employees %s must try twice.\n",
					score, asDefault[score], outOf(1e4, p.FMR, p.FMRLimits), outOf(100, p.FNMR, p.FNMRLimits))
			}
		}
	}
	return b.String()
}

// asDefault says what a score is the default of.
var asDefault = map[float64]string{
	30: " (default of the stand-alone API call, where nothing is approved for good)",
	50: " (default `match.decline`: at or below is Declined)",
	70: " (default `match.review`: above is Approved)",
}

func outOf(n, rate float64, l *models.Limits) string {
	if rate == 0 {
		return fmt.Sprintf("fewer than %.3g", n*l[1])
	}
	return fmt.Sprintf("%.3g (95 %% interval %.3g to %.3g)", n*rate, n*l[0], n*l[1])
}

func scoreTableText(c *models.Calibration) string {
	rows := [][]string{{"score", "cosine", "FMR", "95 % interval", "FNMR", "95 % interval"}}
	for _, p := range c.Points {
		if p.FMRLimits == nil {
			continue
		}
		row := []string{fmt.Sprintf("%g", p.Score), fmt.Sprintf("%.4f", p.Cosine)}
		row = append(row, strings.Split(measuredRate("%.2e", p.FMR, p.FMRLimits, 1), "\t")...)
		rows = append(rows, append(row, strings.Split(measuredRate("%.2f %%", p.FNMR, p.FNMRLimits, 100), "\t")...))
	}
	return markdown(rows)
}

func accuracyText(r *evaluate.Report) string {
	rows := [][]string{{"FMR", "FNMR", "95 % interval"}}
	for _, p := range r.Points {
		rows = append(rows, []string{fmt.Sprintf("%.0e", p.FMR), fmt.Sprintf("%.2f %%", 100*p.FNMR), fmt.Sprintf("%.2f to %.2f %%", 100*p.CI.Low, 100*p.CI.High)})
	}
	return fmt.Sprintf("`%s`, %d pictures, %d without a face; accuracy on %d pairs %.2f %%; %d genuine and %d impostor cross pairs; intervals over people:\n\n",
		r.ModelID, r.Images, len(r.Undetected), r.Pairs, 100*r.Accuracy, r.Genuine, r.Impostor) + markdown(rows)
}

func qualityMarkdown(r *evaluate.QualityReport) string {
	rows := [][]string{{"left out by", "0 %", "2 %", "5 %", "10 %", "20 %"}}
	for _, d := range r.Discard {
		row := []string{d.Measure}
		for _, f := range d.FNMR {
			row = append(row, plainPercent(f))
		}
		rows = append(rows, row)
	}
	gates := [][]string{{"limits", "pictures refused", "FNMR of all", "FNMR of what passes"}}
	for _, g := range r.Gates {
		gates = append(gates, []string{g.Gate, plainPercent(g.Refused), plainPercent(g.All), plainPercent(g.Passed)})
	}
	covers := [][]string{{"measure", "limit", "found", "false alarms", "alarms at the other cover"}}
	for _, v := range r.Covered {
		covers = append(covers, []string{v.Measure, fmt.Sprintf("%g", v.Limit), plainPercent(v.Covered), plainPercent(v.Plain), plainPercent(v.Other)})
	}
	return fmt.Sprintf("FNMR at FMR %.0e when the lowest share of the genuine pairs is left out:\n\n%s\n%s\nMasks and sunglasses drawn over the mesh:\n\n%s",
		r.FMR, markdown(rows), markdown(gates), markdown(covers))
}

func robustnessMarkdown(r *evaluate.RobustnessReport) string {
	rows := [][]string{{"probe", "no face", "FNMR above score 50", "FNMR above score 70", "FMR above score 50"}}
	for _, w := range r.Rows {
		rows = append(rows, []string{w.Name, strconv.Itoa(w.NoFace), fnmrText(w.At[0].FNMR), fnmrText(w.At[1].FNMR), fmrText(w.At[0].FMR)})
	}
	return fmt.Sprintf("%d people, a genuine pair each, eyes %.0f pixels apart in the median:\n\n", r.People, r.EyeDistance) + markdown(rows)
}

func plainPercent(r evaluate.Rate) string {
	return fmt.Sprintf("%.2f %%", 100*float64(r.Errors)/float64(max(1, r.Trials)))
}

func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

var block = regexp.MustCompile(`(?s)<!-- figures: ([a-z0-9/-]+) -->\n(.*?)<!-- /figures -->`)

// checkFigures compares the blocks of the files with the sections.
func (c *cli) checkFigures(sections []section, files []string) error {
	compared, wrong := 0, 0
	var skipped []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("%q cannot be read", file), Err: err}
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			made, ok := find(sections, m[1])
			if !ok {
				skipped = append(skipped, fmt.Sprintf("%s, %s", file, m[1]))
				continue
			}
			compared++
			if why := differs(m[2], made); why != "" {
				wrong++
				fmt.Fprintf(c.out, "%s, %s: %s\n", file, m[1], why)
			}
		}
	}
	fmt.Fprintf(c.out, "%d blocks of figures compared, %d differ\n", compared, wrong)
	c.notMade(skipped)
	if wrong > 0 || compared == 0 {
		return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("%d of %d blocks of figures are not what was just made", wrong, compared),
			Fix: "postern eval figures --write"}
	}
	return nil
}

func find(sections []section, name string) (text string, ok bool) {
	for _, s := range sections {
		if s.name == name {
			return s.text, true
		}
	}
	return "", false
}

// notMade names the blocks that this run had no figures for.
func (c *cli) notMade(blocks []string) {
	if len(blocks) == 0 {
		return
	}
	fmt.Fprintln(c.out, "not looked at, since this run did not measure them (--data names the faces; --only and --model choose what is measured):")
	for _, b := range blocks {
		fmt.Fprintln(c.out, "  "+b)
	}
}

var number = regexp.MustCompile(`-?[0-9][0-9,]*(\.[0-9]+)?(e[-+][0-9]+)?`)

// differs says where two texts differ by more than rounding; their words must be the
// same, their numbers within 2 %, or 1 in the last place.
func differs(quoted, made string) string {
	if number.ReplaceAllString(quoted, "#") != number.ReplaceAllString(made, "#") {
		return "the text differs"
	}
	a, b := number.FindAllString(quoted, -1), number.FindAllString(made, -1)
	for i := range a {
		x, errX := strconv.ParseFloat(strings.ReplaceAll(a[i], ",", ""), 64)
		y, errY := strconv.ParseFloat(strings.ReplaceAll(b[i], ",", ""), 64)
		if errX != nil || errY != nil || math.Abs(x-y) > max(0.02*math.Abs(y), lastPlace(b[i])) {
			return fmt.Sprintf("%s is quoted, %s was made", a[i], b[i])
		}
	}
	return ""
}

// lastPlace is what 1 in the last place of a printed number is worth.
func lastPlace(s string) float64 {
	mantissa, exponent, _ := strings.Cut(s, "e")
	_, decimals, _ := strings.Cut(mantissa, ".")
	e, _ := strconv.Atoi(exponent)
	return 1.01 * math.Pow(10, float64(e-len(decimals)))
}

func (c *cli) writeFigures(sections []section, files []string) error {
	var left []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("%q cannot be read", file), Err: err}
		}
		out := block.ReplaceAllStringFunc(string(text), func(old string) string {
			name := block.FindStringSubmatch(old)[1]
			if made, ok := find(sections, name); ok {
				return "<!-- figures: " + name + " -->\n" + made + "<!-- /figures -->"
			}
			left = append(left, fmt.Sprintf("%s, %s", file, name))
			return old
		})
		if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
			return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("%q cannot be written", file), Err: err}
		}
	}
	c.notMade(left)
	return nil
}
