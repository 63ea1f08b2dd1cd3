package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postern/agent"
)

// agentReport is what a started agent was seen to do.
type agentReport struct {
	FirstDecision float64 `json:"first_decision_ms"` // from the start of the process to the stored decision
	RSS           int     `json:"rss_mb"`            // resident memory after the watch time
	FPS           float64 `json:"fps"`               // frames analysed a second on the feed
	Watched       float64 `json:"watched_s"`
}

// benchAgent starts "postern run" as a process of its own, twice: before a folder
// with the second picture, to time the first decision about the subject enrolled
// from the first, and before a video feed, to measure memory and rate.
func (c *cli) benchAgent(ctx context.Context, pictures []string, feed string, watch time.Duration) (*agentReport, error) {
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
	if out, err := exec.CommandContext(ctx, exe, "enroll", "bench", pictures[0], "--data", data,
		"--consent", "nobody: a benchmark", "--purpose", "benchmark").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("enrol for the benchmark: %s", out)
	}
	show := filepath.Join(dir, "camera")
	raw, err := os.ReadFile(pictures[1])
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(show, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(show, "1"+filepath.Ext(pictures[1])), raw, 0o600); err != nil {
		return nil, err
	}
	var r agentReport
	err = runChild(ctx, exe, data, show, func(p *child) error {
		line, err := p.waitLog("decision")
		r.FirstDecision = ms(line.Sub(p.started))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = runChild(ctx, exe, data, feed, func(p *child) error {
		if _, err := p.waitLog("agent started"); err != nil {
			return err
		}
		select {
		case <-time.After(watch):
		case <-ctx.Done():
			return ctx.Err()
		}
		r.Watched = watch.Seconds()
		if r.RSS, err = residentMB(p.cmd.Process.Pid); err != nil {
			return err
		}
		r.FPS, err = p.rate(ctx)
		return err
	})
	return &r, err
}

// child is a running agent with its log.
type child struct {
	cmd     *exec.Cmd
	started time.Time
	log     *bufio.Scanner
	url     string
}

func runChild(ctx context.Context, exe, data, source string, fn func(*child) error) error {
	cmd := exec.CommandContext(ctx, exe, "run", "--data", data, "--set", "camera.source="+source, "--set", "camera.loop=true",
		"--set", "identify.enabled=true", "--set", "http.listen=127.0.0.1:0", "--set", "log.format=json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p := &child{cmd: cmd, started: time.Now(), log: bufio.NewScanner(pipe)}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if i := strings.Index(line, "http://"); err == nil && i >= 0 {
		p.url = strings.Fields(line[i:])[0]
	}
	err = fn(p)
	cmd.Process.Signal(os.Interrupt)
	go io.Copy(io.Discard, pipe)
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("the agent ended: %w", werr)
	}
	return err
}

// waitLog waits for a log line with this message and returns its time.
func (p *child) waitLog(msg string) (time.Time, error) {
	for p.log.Scan() {
		var line struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal(p.log.Bytes(), &line) == nil && line.Msg == msg {
			return line.Time, nil
		}
	}
	return time.Time{}, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the agent ended without logging %q", msg)}
}

// rate reads the loop's own rate from the page's event stream.
func (p *child) rate(ctx context.Context) (float64, error) {
	u, err := firstUpdate(ctx, p.url+"events")
	return u.RateFPS, err
}

// residentMB reads VmRSS of a process.
func residentMB(pid int) (int, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
