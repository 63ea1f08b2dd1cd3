package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
)

// loadPoint is what one number of callers got.
type loadPoint struct {
	Callers int     `json:"callers"`
	Answers int     `json:"answers"`
	Refused int     `json:"refused"` // 503: the queue was full; the caller waits as long as the answer says
	Rate    float64 `json:"matches_per_s"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Ratio   float64 `json:"ratio_to_bare"` // time of a match at this rate, to the bare invokes of one
}

// loadReport is what "postern bench api" measured in one run.
type loadReport struct {
	Machine string      `json:"machine"`
	Bare    float64     `json:"bare_invokes_ms"` // sum of the bare network invokes of one match, one after the other
	Points  []loadPoint `json:"points"`
}

// loader sends face matches to a server.
type loader struct {
	url, key    string
	contentType string
	body        []byte
	client      *http.Client
}

func (c *cli) benchAPICmd() *cobra.Command {
	var l loader
	var callers []int
	var each time.Duration
	var size int
	cmd := &cobra.Command{
		Use:   "api PICTURE PICTURE",
		Short: "Load a started agent's face match and time its answers",
		Long: `Send face matches to a started agent from a growing number of callers, each sending
its next request when the last is answered, and compare the time with the bare invokes
of the networks, measured on this machine in the same run before the load starts. A
caller that is refused waits for Retry-After.`,
		Example: "  postern bench api a.jpg b.jpg --url http://127.0.0.1:8080 --key postern_live_…",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r, err := c.benchAPI(cmd.Context(), &l, a, callers, each, size)
			if err != nil {
				return err
			}
			return c.print(r, r.text())
		},
	}
	f := cmd.Flags()
	f.StringVar(&l.url, "url", "http://127.0.0.1:8080", "address of the agent")
	f.StringVar(&l.key, "key", "", "API key, without a limit of requests (api.rates.biometrics=0)")
	f.IntSliceVar(&callers, "callers", []int{1, 2, 4, 8, 16, 32, 64}, "numbers of callers at once")
	f.DurationVar(&each, "for", 10*time.Second, "how long to load with each number")
	f.IntVar(&size, "size", 250, "first cut both pictures to squares of this size around the face; 0 takes them as they are")
	return cmd
}

func (c *cli) benchAPI(ctx context.Context, l *loader, paths []string, callers []int, each time.Duration, size int) (*loadReport, error) {
	r := &loadReport{Machine: machine()}
	paths, clean, err := c.prepareLoad(ctx, r, paths, size)
	if err != nil {
		return nil, err
	}
	defer clean()
	if err := l.fill(paths); err != nil {
		return nil, err
	}
	for _, n := range callers {
		p, err := l.run(ctx, n, each)
		if err != nil {
			return nil, err
		}
		if p.Rate > 0 && r.Bare > 0 {
			p.Ratio = 1000 / p.Rate / r.Bare
		}
		r.Points = append(r.Points, p)
	}
	return r, nil
}

// prepareLoad measures the bare invokes and cuts the pictures, and unloads the
// networks again before the load starts.
func (c *cli) prepareLoad(ctx context.Context, r *loadReport, paths []string, size int) ([]string, func(), error) {
	cfg, err := c.settings()
	if err != nil {
		return nil, nil, err
	}
	b, err := openBrain(cfg, c.logger(cfg, true), 1)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	bare, err := b.pool.Bare(ctx, 50)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range bare {
		if n.PerFace {
			r.Bare += 2 * ms(median(n.Times))
		}
	}
	if size <= 0 {
		return paths, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return nil, nil, err
	}
	cut, err := squares(ctx, b, paths, size, dir)
	return cut, func() { os.RemoveAll(dir) }, err
}

// fill encodes the request once.
func (l *loader) fill(paths []string) error {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i, field := range []string{"user_image", "ref_image"} {
		data, err := os.ReadFile(paths[i])
		if err != nil {
			return &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("picture %q cannot be read", paths[i]), Err: err}
		}
		p, err := w.CreateFormFile(field, filepath.Base(paths[i]))
		if err != nil {
			return err
		}
		p.Write(data)
	}
	if err := errors.Join(w.WriteField("save_api_request", "false"), w.Close()); err != nil {
		return err
	}
	l.contentType, l.body = w.FormDataContentType(), buf.Bytes()
	l.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	return nil
}

// run loads the server with n callers for a while.
func (l *loader) run(ctx context.Context, n int, each time.Duration) (loadPoint, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := time.Now().Add(each)
	var mu sync.Mutex // guards p and times
	p := loadPoint{Callers: n}
	var times []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				took, wait, err := l.once(ctx)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				if wait == 0 {
					times = append(times, took)
				} else {
					p.Refused++
				}
				mu.Unlock()
				pause(ctx, wait)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return p, err
	}
	took := time.Since(start).Seconds()
	slices.Sort(times)
	p.Answers, p.Rate = len(times), float64(len(times))/took
	if len(times) > 0 {
		p.P50, p.P99 = ms(times[len(times)/2]), ms(times[min(len(times)-1, len(times)*99/100)])
	}
	return p, nil
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// once sends one request. Only 200 and 503 are answers to a load; wait is how long the
// latter asks to wait.
func (l *loader) once(ctx context.Context) (took, wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(l.url, "/")+"/v3/face-match/", bytes.NewReader(l.body))
	if err != nil {
		return 0, 0, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%q is not an address", l.url), Err: err}
	}
	r.Header.Set("Content-Type", l.contentType)
	r.Header.Set("X-Api-Key", l.key)
	start := time.Now()
	resp, err := l.client.Do(r)
	if err != nil {
		return 0, 0, &agent.Error{Code: agent.CodeUnavailable, Message: "the agent gives no answer", Err: err, Fix: "start it with postern run, and name its address with --url"}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took = time.Since(start)
	if seconds, bad := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode == http.StatusServiceUnavailable && bad == nil {
		return took, time.Duration(max(1, seconds)) * time.Second, err
	}
	if err != nil || resp.StatusCode == http.StatusOK {
		return took, 0, err
	}
	return took, 0, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("the agent answers %d: %.200s", resp.StatusCode, body),
		Fix: "a key without a limit is needed: start the agent with --set api.rates.biometrics=0"}
}

func (r *loadReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nbare invokes of one match %.1f ms\n\n", r.Machine, r.Bare)
	fmt.Fprintf(&b, "%8s %8s %8s %10s %9s %9s %9s\n", "callers", "answers", "refused", "matches/s", "p50 ms", "p99 ms", "to bare")
	for _, p := range r.Points {
		fmt.Fprintf(&b, "%8d %8d %8d %10.1f %9.1f %9.1f %9.2f\n", p.Callers, p.Answers, p.Refused, p.Rate, p.P50, p.P99, p.Ratio)
	}
	return b.String()
}
