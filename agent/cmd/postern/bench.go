package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/photo"
)

// timing is one line of the benchmark, in milliseconds.
type timing struct {
	Stage  string  `json:"stage"`
	Median float64 `json:"median_ms"`
	P90    float64 `json:"p90_ms"`
}

// benchReport is what "postern bench" measured in one run.
type benchReport struct {
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Stages  []timing `json:"stages"`
	Bare    float64  `json:"bare_invokes_ms"` // sum of the bare network invokes of one whole match
	Whole   float64  `json:"whole_match_ms"`
	Ratio   float64  `json:"ratio"`
	OneCore float64  `json:"ratio_sequential"` // with the two pictures one after the other
	Live    float64  `json:"live_fps"`

	Agent *agentReport `json:"agent,omitempty"`
	Aims  []aim        `json:"aims"`

	near string // the network that is the yardstick
}

// bareStage starts the name of a stage that is one bare invoke of a network.
const bareStage = "bare invoke "

func (c *cli) benchCmd() *cobra.Command {
	var rounds, size int
	f := feeds{wait: time.Minute}
	cmd := &cobra.Command{
		Use:   "bench PICTURE PICTURE",
		Short: "Time every stage of a match on this machine",
		Long: `Time every stage of a match of two pictures, the whole match from file to
decision, and the bare invokes of the networks it needs, all in one run: the
ratio says what everything around the networks costs. Also analyses the first
picture, in the middle of a frame of 1280x720, as fast as it can.

With --feed and --first it also starts agents before these films and measures memory,
rate and the time to the first decision. In both films comes who is on the first picture.
"postern camera sample" renders such films; "make bench" does all of it.`,
		Example: "  postern bench a.jpg b.jpg\n  postern bench a.jpg b.jpg --feed film.avi --first door.avi",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			b, err := openBrain(cfg, c.logger(cfg, true), 2)
			if err != nil {
				return err
			}
			defer b.Close()
			pictures := a
			if size > 0 {
				dir, err := os.MkdirTemp("", "postern-bench-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				if pictures, err = squares(cmd.Context(), b, a, size, dir); err != nil {
					return err
				}
			}
			r, err := c.bench(cmd.Context(), b, pictures, max(3, rounds))
			if err != nil {
				return err
			}
			if err := b.Close(); err != nil { // the agents shall have the machine for themselves
				return err
			}
			if f.film != "" {
				if r.Agent, err = c.benchAgent(cmd.Context(), a[0], f); err != nil {
					return err
				}
			}
			r.Aims = r.aims()
			return c.print(r, r.text())
		},
	}
	cmd.Flags().IntVarP(&rounds, "rounds", "n", 200, "rounds to measure")
	cmd.Flags().IntVar(&size, "size", 250, "first cut both pictures to squares of this size around the face; 0 takes them as they are")
	cmd.Flags().StringVar(&f.film, "feed", "", "also start an agent before this film, and measure memory and rate")
	cmd.Flags().StringVar(&f.first, "first", "", "with --feed: time the first decision on this film, which shows the person from its first frame")
	cmd.Flags().IntVar(&f.starts, "starts", 5, "how often to start for the first decision")
	cmd.Flags().DurationVar(&f.watch, "watch", 20*time.Second, "how long to let it watch the film of --feed")
	cmd.AddCommand(c.benchSearchCmd(), c.benchAPICmd(), c.benchStoreCmd())
	return cmd
}

func (c *cli) bench(ctx context.Context, b *brain, paths []string, rounds int) (*benchReport, error) {
	r := &benchReport{Machine: machine(), Rounds: rounds, near: b.set.Near.Manifest.ID}
	s := &samples{byStage: map[string][]time.Duration{}}
	bar := c.bar("bench", rounds)
	defer bar.done()
	m := b.matcher()
	for i := range rounds {
		start := time.Now()
		frames, err := loadAll(paths)
		if err != nil {
			return nil, err
		}
		decode := time.Since(start)
		cmp, err := m.Match(ctx, frames[0], frames[1])
		if err != nil {
			return nil, err
		}
		s.add("whole match, two pictures at once", time.Since(start))
		if err := c.benchStages(ctx, b, s, frames, decode, cmp.Decision.Timings.Match); err != nil {
			return nil, err
		}
		bar.set(i + 1)
	}
	bare, err := b.pool.Bare(ctx, rounds)
	if err != nil {
		return nil, err
	}
	for _, n := range bare {
		s.byStage[bareStage+n.Model] = n.Times
		if n.PerFace {
			r.Bare += 2 * ms(median(n.Times))
		}
	}
	if r.Live, err = liveRate(ctx, b, paths[0], s); err != nil {
		return nil, err
	}
	r.Stages = s.timings()
	r.Whole = ms(median(s.byStage["whole match, two pictures at once"]))
	r.Ratio = r.Whole / r.Bare
	r.OneCore = ms(median(s.byStage["whole match, one after the other"])) / r.Bare
	return r, nil
}

// benchStages runs the two pictures one after the other on one pipeline and
// notes the time of each stage for one picture.
func (c *cli) benchStages(ctx context.Context, b *brain, s *samples, frames []*agent.Frame, decode, match time.Duration) error {
	whole := decode + match
	for _, f := range frames {
		p, err := b.pool.Probe(ctx, f)
		if err != nil {
			return err
		}
		t := p.Timings
		s.add("detect", t.Detect)
		s.add("landmarks", t.Landmarks)
		s.add("align", t.Align)
		s.add("quality", t.Quality)
		s.add("embed", t.Embed)
		whole += t.Total
	}
	s.add("decode", decode/2)
	s.add("match", match)
	s.add("whole match, one after the other", whole)
	return nil
}

// samples collects durations by stage, in order of first appearance.
type samples struct {
	byStage map[string][]time.Duration
}

func (s *samples) add(stage string, d time.Duration) {
	s.byStage[stage] = append(s.byStage[stage], d)
}

var stageOrder = []string{"decode", "detect", "landmarks", "align", "quality", "embed", "match", "liveness",
	"whole match, one after the other", "whole match, two pictures at once"}

func (s *samples) timings() []timing {
	names := slices.Clone(stageOrder)
	var bare []string
	for n := range s.byStage {
		if strings.HasPrefix(n, bareStage) {
			bare = append(bare, n)
		}
	}
	slices.Sort(bare)
	var out []timing
	for _, n := range append(names, bare...) {
		ds := s.byStage[n]
		slices.Sort(ds)
		out = append(out, timing{n, ms(ds[len(ds)/2]), ms(ds[len(ds)*9/10])})
	}
	return out
}

func median(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// liveRate analyses a 1280x720 frame over and over on one pipeline for two seconds, as
// a live capture does: with liveness, which a match of two pictures does without.
func liveRate(ctx context.Context, b *brain, path string, s *samples) (float64, error) {
	f, err := photo.Load(path)
	if err != nil {
		return 0, err
	}
	f = onCanvas(f, 1280, 720)
	n, start := 0, time.Now()
	for time.Since(start) < 2*time.Second {
		p, err := b.Probe(ctx, f)
		if err != nil {
			return 0, err
		}
		s.add("liveness", p.Timings.Liveness)
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// onCanvas puts the picture into the middle of a grey one, cut to fit.
func onCanvas(f *agent.Frame, w, h int) *agent.Frame {
	out := &agent.Frame{Pix: make([]byte, w*h*3), Width: w, Height: h}
	for i := range out.Pix {
		out.Pix[i] = 128
	}
	ox, oy := max(0, (w-f.Width)/2), max(0, (h-f.Height)/2)
	for y := range min(h, f.Height) {
		src := f.Pix[y*f.Width*3:]
		copy(out.Pix[((y+oy)*w+ox)*3:], src[:min(w, f.Width)*3])
	}
	return out
}

func (r *benchReport) text() string {
	t := table("STAGE\tMEDIAN ms\tP90 ms", len(r.Stages), func(i int) string {
		s := r.Stages[i]
		return fmt.Sprintf("%s\t%.3f\t%.3f", s.Stage, s.Median, s.P90)
	})
	text := fmt.Sprintf("%s, %d rounds\n%sbare invokes of one match: %.2f ms; whole match %.2f ms, ratio %.2f (one after the other: %.2f)\nlive: %.0f frames/s at 1280x720\n",
		r.Machine, r.Rounds, t, r.Bare, r.Whole, r.Ratio, r.OneCore, r.Live)
	if a := r.Agent; a != nil {
		text += fmt.Sprintf("agent: %d MB resident after %.0f s of film (%d its own, %d of files), %.1f frames/s analysed\n",
			a.RSS.Total, a.Watched, a.RSS.Anonymous, a.RSS.Files, a.FPS)
		if a.Starts > 0 {
			text += fmt.Sprintf("agent: address %.0f ms and first decision %.0f ms after the start of the process, median of %d\n", a.Ready, a.FirstDecision, a.Starts)
		}
	}
	text += r.yardstick() + aimsText(r.Aims)
	return text
}

// machine names the CPU for a report.
func machine() string {
	model := "unknown CPU"
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
