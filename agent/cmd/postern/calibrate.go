package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/evaluate"
	"postern/models"
)

// maxCalibration bounds what is read as a calibration file.
const maxCalibration = 1 << 20

// recalibrate replaces a model's table by that of a file; no path, no change. What
// cannot be used is an error, never the old table: thresholds would silently mean
// something else than the deployer measured.
func recalibrate(m *models.Manifest, path string) error {
	if path == "" {
		return nil
	}
	fail := func(code agent.Code, err error) error {
		return &agent.Error{Code: code, Message: fmt.Sprintf("calibration file %q cannot be used", path), Err: err,
			Fix: "make it anew with \"postern calibrate\", or unset match.calibration"}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(agent.CodeNotFound, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCalibration+1))
	if err != nil {
		return fail(agent.CodeStorage, err)
	}
	if len(raw) > maxCalibration {
		return fail(agent.CodeInvalid, fmt.Errorf("it is larger than %d bytes", maxCalibration))
	}
	c, err := models.ParseCalibration(raw)
	if err == nil {
		err = m.Recalibrate(c)
	}
	if err != nil {
		return fail(agent.CodeInvalid, err)
	}
	return nil
}

func (c *cli) calibrateCmd() *cobra.Command {
	var dir, out, model, id, data string
	var workers int
	cmd := &cobra.Command{
		Use:   "calibrate --data DIR",
		Short: "Fit the score to your own faces",
		Long: `Fit the table from cosine to score on a folder with one sub-folder a person, and
print it: score 30 stands for a false match rate of 1e-2, 50 for 1e-3, 70 for 1e-4, 90
for 1e-5. The folder should hold pictures as your camera takes them, of people as they
come to your door. Rates are given with 95 % intervals over people. A score that fewer
than ten false matches support is placed by extrapolation and told as a bound.

With --out the table is written to a file; match.calibration makes the agent use it.
It belongs to one network, and is refused with any other.`,
		Example: "  postern calibrate --data staff --out staff.calibration.json\n  postern run --set match.calibration=staff.calibration.json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("name the folder with --data DIR")}
			}
			if out != "" {
				if _, err := os.Lstat(out); err == nil {
					return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("%q exists already", out), Fix: "name another file"}
				}
			}
			c.data = "" // here --data names the faces, not the store
			r, b, err := c.measure(cmd, dir, model, workers)
			if err != nil {
				return err
			}
			man := &b.set.Embedder.Manifest
			if data == "" {
				data = filepath.Base(filepath.Clean(dir))
			}
			if id == "" {
				id = fmt.Sprintf("%s/%s-%s", man.ID, data, time.Now().UTC().Format("20060102"))
			}
			cal, err := r.Fit(id, data)
			if err != nil {
				return err
			}
			cal.Model, cal.SHA256 = man.ID, man.SHA256
			if out != "" {
				if err := saveCalibration(out, cal); err != nil {
					return err
				}
			}
			return c.print(cal, calibrationText(cal))
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "folder of labelled faces")
	cmd.Flags().StringVar(&out, "out", "", "write the table to this new file")
	cmd.Flags().StringVar(&model, "model", "", "folder of another embedder, with manifest.json and its model file")
	cmd.Flags().StringVar(&id, "id", "", "name of the table in each decision; default: model, folder and date")
	cmd.Flags().StringVar(&data, "name", "", "what the data are, for people; default: the folder's name")
	cmd.Flags().IntVar(&workers, "workers", 2, "pictures analysed at once")
	return cmd
}

// measure runs the evaluation of one model: the shipped one, or that of a folder.
func (c *cli) measure(cmd *cobra.Command, dir, model string, workers int) (*evaluate.Report, *brain, error) {
	d, err := evaluate.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	b, err := c.openModel(model, workers)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	bar := c.bar("embed", len(d.Images))
	defer bar.done()
	r, err := evaluate.Run(cmd.Context(), d, b.pool, evaluate.Options{Workers: workers, Progress: bar.set, Cosine: b.cosine})
	return r, b, err
}

// openModel opens the shipped models, with the embedder of a folder where one is named.
func (c *cli) openModel(dir string, workers int) (*brain, error) {
	cfg, err := c.settings()
	if err != nil {
		return nil, err
	}
	cfg.Liveness.Mode = "off" // it takes time and says nothing about who it is
	if dir == "" {
		return openBrain(cfg, c.logger(cfg, true), workers)
	}
	set, err := modelsOf(cfg)
	if err != nil {
		return nil, err
	}
	if set.Embedder, err = models.LoadDir(dir); err != nil {
		code := agent.CodeInvalid
		if errors.Is(err, os.ErrNotExist) {
			code = agent.CodeNotFound
		}
		return nil, &agent.Error{Code: code, Message: fmt.Sprintf("model folder %q cannot be used", dir), Err: err,
			Fix: "name a folder with manifest.json and the model file"}
	}
	return openModels(cfg, c.logger(cfg, true), workers, set)
}

func saveCalibration(path string, cal *models.Calibration) error {
	raw, err := json.MarshalIndent(cal, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.Write(append(raw, '\n'))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("calibration file %q cannot be written", path), Err: err}
	}
	return nil
}

// calibrationText tells a table to a person, and which of its anchors are bounds.
func calibrationText(c *models.Calibration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "calibration %s on %s: %d people, %d pictures, %d genuine and %d impostor pairs\n",
		c.ID, c.Data, c.People, c.Images, c.Genuine, c.Impostor)
	rows := c.Points[1 : len(c.Points)-1]
	b.WriteString(table("SCORE\tCOSINE\tFMR\t95 % INTERVAL\tFNMR\t95 % INTERVAL", len(rows), func(i int) string {
		p := rows[i]
		return fmt.Sprintf("%g\t%.4f\t%s\t%s", p.Score, p.Cosine, measuredRate("%.2e", p.FMR, p.FMRLimits, 1), measuredRate("%.2f %%", p.FNMR, p.FNMRLimits, 100))
	}))
	var bounds []string
	for _, p := range rows {
		if p.FMRLimits != nil && p.FMR == 0 {
			bounds = append(bounds, fmt.Sprintf("%g", p.Score))
		}
	}
	if len(bounds) > 0 {
		fmt.Fprintf(&b, "bounds only, for want of impostor pairs: score %s; their cosines are extrapolated\n", strings.Join(bounds, ", "))
	}
	return b.String()
}

func measuredRate(format string, v float64, l *models.Limits, scale float64) string {
	switch {
	case l == nil:
		return "not measured\t"
	case l[0] == 0 && v == 0:
		return "bound\tbelow " + fmt.Sprintf(format, scale*l[1])
	}
	return fmt.Sprintf(format+"\t"+format+" to "+format, scale*v, scale*l[0], scale*l[1])
}
