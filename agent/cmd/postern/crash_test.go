package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// asPostern, in the environment, makes the test binary be postern itself: tests that
// kill it need a process of its own.
const asPostern = "TEST_AS_POSTERN"

// process is a started agent in a process of its own.
type process struct {
	cmd *exec.Cmd
	url string
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	lib, err := filepath.Abs(filepath.Join(root, ".cache/litert", libraryName))
	ok(t, err)
	p := &process{cmd: exec.Command(os.Args[0], append(args, "--set", "device=test", "--set", "inference.library="+lib)...)}
	p.cmd.Env = append(os.Environ(), asPostern+"=1")
	log := &output{}
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	ok(t, err)
	ok(t, p.cmd.Start())
	t.Cleanup(p.kill)
	for lines := bufio.NewScanner(out); p.url == "" && lines.Scan(); {
		p.url = strings.TrimSuffix(address.FindString(lines.Text()), "/")
	}
	if p.url == "" {
		t.Fatalf("the process does not serve:\n%s", log)
	}
	go io.Copy(io.Discard, out)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func (p *process) call(t *testing.T, key, method, path, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	ok(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Api-Key", key)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	ok(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	ok(t, err)
	return reply{res.StatusCode, res.Header, string(raw)}
}

// hook is a receiver that takes in so many deliveries and then hangs until it is let go.
type hook struct {
	secret string

	mu    sync.Mutex // guards the fields below
	left  int        // that are answered before it hangs; less than 0: all
	acked map[string]int
	seen  map[string]int // also those that were not answered
	wrong []string
	gone  chan struct{} // closed: hanging ones end
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	var e struct {
		ID        string `json:"event_id"`
		Timestamp int64  `json:"timestamp"`
	}
	_ = json.Unmarshal(raw, &e)
	h.mu.Lock()
	h.seen[e.ID]++
	m := hmac.New(sha256.New, []byte(h.secret))
	m.Write(raw)
	age := time.Since(time.Unix(e.Timestamp, 0))
	if sum := hex.EncodeToString(m.Sum(nil)); r.Header.Get("X-Signature") != sum || r.Header.Get("X-Signature-V2") != sum ||
		r.Header.Get("X-Timestamp") != strconv.FormatInt(e.Timestamp, 10) || age < -time.Minute || age > time.Minute {
		h.wrong = append(h.wrong, fmt.Sprint(r.Header, string(raw)))
	}
	hang := h.left == 0
	if !hang {
		h.left--
		h.acked[e.ID]++
	}
	gone := h.gone
	h.mu.Unlock()
	if hang {
		select {
		case <-gone:
		case <-r.Context().Done():
		}
	}
}

// state is how many events were seen and acknowledged.
func (h *hook) state() (seen, acked int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.seen), len(h.acked)
}

// TestKilledAgent kills the whole agent while webhooks wait: the next one delivers each
// event, under its own id, newly stamped and signed, loses none, and repeats none that was
// acknowledged but the one that was under way. A creation that is sent again under its
// Idempotency-Key is answered as before.
func TestKilledAgent(t *testing.T) {
	data := shortDir(t)
	h := &hook{left: 7, acked: map[string]int{}, seen: map[string]int{}, gone: make(chan struct{})}
	receiver := httptest.NewServer(h)
	t.Cleanup(func() { close(h.gone); receiver.Close() })
	var key newKey
	ok(t, json.Unmarshal([]byte((&started{}).postern(t, data, "keys", "create", "ops")), &key))
	args := []string{"run", "--data", data, "--set", "camera.source=none", "--set", "http.listen=127.0.0.1:0", "--set", "webhooks.allow_loopback=true"}

	p := startProcess(t, args...)
	made := p.call(t, key.Token, "POST", "/v3/webhook/destinations/", `{"url":"`+receiver.URL+`","subscribed_events":["status.updated"]}`).object(t)
	h.mu.Lock()
	h.secret = made["secret_shared_key"].(string)
	h.mu.Unlock()
	wf := p.call(t, key.Token, "POST", "/v3/workflows/", `{"features":["LIVENESS"]}`).object(t)["workflow_id"].(string)
	const events = 25
	create := func(i int) reply {
		return p.call(t, key.Token, "POST", "/v3/session/", fmt.Sprintf(`{"workflow_id":%q,"metadata":{"n":%d}}`, wf, i), "Idempotency-Key", strconv.Itoa(i))
	}
	var first []reply
	for i := range events {
		first = append(first, create(i))
	}
	waitFor(t, func() bool { seen, acked := h.state(); return acked == 7 && seen == 8 }, func() string { return fmt.Sprint(h.state()) })
	p.kill()

	h.mu.Lock()
	h.left = -1
	before := map[string]int{}
	for id, n := range h.acked {
		before[id] = n
	}
	h.mu.Unlock()
	p = startProcess(t, args...)
	waitFor(t, func() bool { _, acked := h.state(); return acked == events }, func() string { return fmt.Sprint(h.state()) })
	for i, was := range first {
		if now := create(i); now.status != 201 || ports.ReplaceAllString(now.body, "") != ports.ReplaceAllString(was.body, "") {
			t.Errorf("creation %d was\n%d %s\nand sent again\n%d %s", i, was.status, was.body, now.status, now.body)
		}
	}
	if n := p.call(t, key.Token, "GET", "/v3/sessions/?limit=1", "").object(t)["count"]; n != float64(events) {
		t.Errorf("%v sessions, want %d", n, events)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	again := 0
	for id := range before {
		again += h.acked[id] - 1
	}
	if len(h.wrong) > 0 || len(h.seen) != events || again > 1 {
		t.Errorf("%d events seen, want %d; %d acknowledged ones came again; wrong: %v", len(h.seen), events, again, h.wrong)
	}
}
