package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/agent"
)

// agentReport is what a started agent was seen to do.
type agentReport struct {
	Starts        int     `json:"starts"`
	Ready         float64 `json:"ready_ms"`          // from the start of the process to the printed address; median
	FirstDecision float64 `json:"first_decision_ms"` // from the start of the process to the stored decision; median
	RSS           memory  `json:"resident_mb"`       // after the watch time
	FPS           float64 `json:"fps"`               // frames analysed a second on the feed
	Watched       float64 `json:"watched_s"`
}

// memory is what of a process is resident, in MB.
type memory struct {
	Total     int `json:"total"`
	Anonymous int `json:"anonymous"` // its own: heaps, tensors, frames
	Files     int `json:"files"`     // pages of the binary and the libraries, which the kernel can drop and read again
}

// feeds are the films that bench starts the agent before.
type feeds struct {
	film, first string
	watch       time.Duration
	wait        time.Duration // for what should happen in seconds
	starts      int
}

// benchAgent starts "postern run" as a process of its own: some times before a film in
// which the subject, enrolled from picture, is there from the first frame, to time the
// first decision, and once before a longer film, to measure memory and rate.
func (c *cli) benchAgent(ctx context.Context, picture string, f feeds) (*agentReport, error) {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if out, err := exec.CommandContext(ctx, exe, "enroll", "bench", picture, "--data", data,
		"--consent", "nobody: a benchmark", "--purpose", "benchmark").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("enrol for the benchmark: %s", out)
	}
	r := &agentReport{}
	if f.first != "" {
		if err := f.firstDecisions(ctx, exe, data, r); err != nil {
			return nil, err
		}
	}
	return r, f.watchFilm(ctx, exe, data, r)
}

// firstDecisions times starts, each until its first decision, which must be the one
// that lets the enrolled person in.
func (f feeds) firstDecisions(ctx context.Context, exe, data string, r *agentReport) error {
	var ready, decided []time.Duration
	for range f.starts {
		err := f.runChild(ctx, exe, data, f.first, func(_ context.Context, p *child) error {
			line, err := p.waitLog("decision")
			if err == nil && line.Status != string(agent.Approved) {
				err = fmt.Errorf("the first decision on %q is %s, want %s: does the film show the person enrolled?", f.first, line.Status, agent.Approved)
			}
			ready, decided = append(ready, p.ready), append(decided, line.Time.Sub(p.started))
			return err
		})
		if err != nil {
			return err
		}
	}
	r.Starts, r.Ready, r.FirstDecision = f.starts, ms(median(ready)), ms(median(decided))
	return nil
}

// watchFilm lets an agent watch the film for a while, and notes memory and rate.
func (f feeds) watchFilm(ctx context.Context, exe, data string, r *agentReport) error {
	return f.runChild(ctx, exe, data, f.film, func(ctx context.Context, p *child) (err error) {
		select {
		case <-time.After(f.watch):
		case <-ctx.Done():
			return ctx.Err()
		}
		r.Watched = f.watch.Seconds()
		if r.RSS, err = residentMB(p.cmd.Process.Pid); err != nil {
			return err
		}
		r.FPS, err = p.rate(ctx)
		return err
	})
}

// child is a running agent with its log.
type child struct {
	cmd     *exec.Cmd
	started time.Time
	ready   time.Duration // from started to the printed address
	log     *bufio.Scanner
	url     string
}

// runChild runs an agent before a film, and fn beside it, for f.wait and the watch time
// at most: a silent agent is an error, not a hang.
func (f feeds) runChild(ctx context.Context, exe, data, source string, fn func(context.Context, *child) error) error {
	limit := f.wait + f.watch
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "run", "--data", data, "--set", "camera.source="+source, "--set", "camera.loop=true",
		"--set", "identify.enabled=true", "--set", "http.listen=127.0.0.1:0", "--set", "log.format=json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p := &child{cmd: cmd, started: time.Now(), log: bufio.NewScanner(stderr)}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err = p.waitAddress(stdout); err == nil {
		err = fn(ctx, p)
	}
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	cmd.Process.Signal(os.Interrupt)
	io.Copy(io.Discard, stderr)
	werr := cmd.Wait()
	switch {
	case late:
		return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the agent did not do it in %v before %q", limit, source), Err: err,
			Fix: fmt.Sprintf("look at what \"postern run --set camera.source=%s\" logs", source)}
	case err == nil && werr != nil:
		return fmt.Errorf("the agent ended: %w", werr)
	}
	return err
}

// waitAddress reads the line with the address of the page.
func (p *child) waitAddress(out io.Reader) error {
	line, err := bufio.NewReader(out).ReadString('\n')
	p.ready = time.Since(p.started)
	i := strings.Index(line, "http://")
	if i < 0 {
		return errors.Join(errors.New("the agent printed no address"), err, p.lastError())
	}
	p.url = strings.Fields(line[i:])[0]
	return nil
}

// lastError is what an agent that ended said last.
func (p *child) lastError() (err error) {
	for p.log.Scan() {
		err = errors.New(p.log.Text())
	}
	return err
}

// logged is what the benchmark reads of a log line.
type logged struct {
	Time   time.Time `json:"time"`
	Msg    string    `json:"msg"`
	Status string    `json:"status"`
}

// waitLog waits for a log line with this message.
func (p *child) waitLog(msg string) (logged, error) {
	for p.log.Scan() {
		var line logged
		if json.Unmarshal(p.log.Bytes(), &line) == nil && line.Msg == msg {
			return line, nil
		}
	}
	return logged{}, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the agent ended without logging %q", msg)}
}

// rate reads the loop's own rate from the page's event stream.
func (p *child) rate(ctx context.Context) (float64, error) {
	u, err := firstUpdate(ctx, p.url+"events")
	return u.RateFPS, err
}

// residentMB reads what of a process is resident.
func residentMB(pid int) (m memory, err error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return m, err
	}
	kb := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			kb[f[0]], _ = strconv.Atoi(f[1])
		}
	}
	m = memory{kb["VmRSS:"] / 1024, kb["RssAnon:"] / 1024, (kb["RssFile:"] + kb["RssShmem:"]) / 1024}
	if m.Total == 0 {
		return m, fmt.Errorf("process %d has no resident memory", pid)
	}
	return m, nil
}

// aim is a figure that the project wants to reach, beside what was measured.
type aim struct {
	What     string  `json:"what"`
	Unit     string  `json:"unit,omitempty"`
	Want     float64 `json:"want"`
	AtLeast  bool    `json:"at_least,omitempty"` // Want is a floor, not a ceiling
	Measured float64 `json:"measured"`
	Met      bool    `json:"met"`
}

func (a aim) judged() aim {
	if a.Met = a.Measured <= a.Want; a.AtLeast {
		a.Met = a.Measured >= a.Want
	}
	return a
}

// aims compares a report with what the project aims at on two cores of a current x86
// processor.
func (r *benchReport) aims() []aim {
	as := []aim{
		{What: "whole match / bare invokes, pictures one after the other", Want: 1.3, Measured: r.OneCore},
		{What: "whole match / bare invokes, both at once", Want: 1.3, Measured: r.Ratio},
		{What: "whole match of two JPEGs", Unit: "ms", Want: 25, Measured: r.Whole},
		{What: "live loop at 1280x720", Unit: "frames/s", Want: 15, AtLeast: true, Measured: r.Live},
	}
	if a := r.Agent; a != nil {
		as = append(as, aim{What: "resident memory of postern run", Unit: "MB", Want: 150, Measured: float64(a.RSS.Total)})
		if a.Starts > 0 {
			as = append(as, aim{What: "first decision after the start", Unit: "ms", Want: 1500, Measured: a.FirstDecision})
		}
	}
	for i := range as {
		as[i] = as[i].judged()
	}
	return as
}

func aimsText(as []aim) string {
	return table("AIM\tUNIT\tWANTED\tMEASURED\t", len(as), func(i int) string {
		a := as[i]
		bound, met := "≤", "met"
		if a.AtLeast {
			bound = "≥"
		}
		if !a.Met {
			met = "missed"
		}
		return fmt.Sprintf("%s\t%s\t%s %g\t%.4g\t%s", a.What, a.Unit, bound, a.Want, a.Measured, met)
	})
}

// yardstickMS is how long one invoke of the near detector takes on the machine for which
// the aims in milliseconds were set: two cores of a current x86 server.
const yardstickMS = 1.4

// yardstick says how fast this machine is beside the one that the aims were set for, so
// that a missed or a met aim can be told from a slow or a fast machine.
func (r *benchReport) yardstick() string {
	i := slices.IndexFunc(r.Stages, func(t timing) bool { return t.Stage == bareStage+r.near })
	if i < 0 || r.Stages[i].Median == 0 {
		return ""
	}
	here := r.Stages[i].Median
	return fmt.Sprintf("yardstick: one bare invoke of %s takes %.2f ms here, %.1f ms on the machine that the aims in ms were set for;\n"+
		"  the whole match takes as long as %.1f of them, the aim is %.1f; the bare invokes for one picture take %.1f ms here, and no whole match can take less\n",
		r.near, here, yardstickMS, r.Whole/here, 25/yardstickMS, r.Bare/2)
}
