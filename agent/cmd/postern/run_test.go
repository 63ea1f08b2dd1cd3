package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
)

func crc(b []byte) []byte {
	s := crc32.ChecksumIEEE(b)
	return []byte{byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}
}

// output collects what a running agent prints.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// started is an agent that runs in this process.
type started struct {
	url  string
	out  *output
	stop func() int
}

var address = regexp.MustCompile(`http://[0-9.:]+/`)

// start runs the agent and waits for its page.
func start(t *testing.T, args ...string) *started {
	t.Helper()
	lib := library(t)
	ctx, cancel := context.WithCancel(context.Background())
	out := &output{}
	done := make(chan int, 1)
	args = append([]string{"run", "--set", "http.listen=127.0.0.1:0", "--set", "device=test", "--set", "inference.library=" + lib}, args...)
	go func() { done <- execute(ctx, args, nil, nil, out, out) }()
	var once sync.Once
	code := -1
	s := &started{out: out, stop: func() int {
		once.Do(func() { cancel(); code = <-done })
		return code
	}}
	t.Cleanup(func() { s.stop() })
	waitFor(t, func() bool {
		s.url = address.FindString(out.String())
		return s.url != "" || len(done) > 0
	}, func() string { return out.String() })
	if s.url == "" {
		t.Fatalf("the agent did not start:\n%s", out)
	}
	return s
}

// waitFor polls a condition until a generous deadline.
func waitFor(t *testing.T, ok func() bool, state func() string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it did not happen:\n%s", state())
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// cameraOf makes a folder source that shows one portrait over and over. Liveness is
// off: such frames are what it refuses (TestRepeatedPictureIsRefused).
func cameraOf(t *testing.T, name string) []string {
	t.Helper()
	dir := t.TempDir()
	raw, err := os.ReadFile(face(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--set", "camera.source=" + dir, "--set", "camera.kind=folder", "--set", "camera.loop=true", "--set", "camera.fps=15",
		"--set", "liveness.mode=off"}
}

// firstResult waits for the first stored decision.
func (s *started) firstResult(t *testing.T) agent.Result {
	t.Helper()
	var rs []agent.Result
	waitFor(t, func() bool {
		_, body := get(t, s.url+"results")
		if err := json.Unmarshal([]byte(body), &rs); err != nil {
			t.Fatalf("results: %v: %s", err, body)
		}
		return len(rs) > 0
	}, s.out.String)
	return rs[len(rs)-1]
}

func TestRunRecognisesAndRefuses(t *testing.T) {
	for _, c := range []struct {
		name, shows string
		want        agent.Status
		subject     string
	}{
		{"Enrolled", "obama2.jpg", agent.Approved, "b44"},
		{"Stranger", "biden.jpg", agent.Declined, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "store")
			if a := postern(t, "enroll", "b44", face(t, "obama.jpg"), "--data", data); a.code != 0 {
				t.Fatal(a.err)
			}
			args := append(cameraOf(t, c.shows), "--data", data, "--set", "identify.enabled=true")
			s := start(t, args...)
			r := s.firstResult(t)
			if r.Decision.Status != c.want || r.SubjectID != c.subject || r.Decision.Frames < 3 {
				t.Fatalf("got %+v", r)
			}
			if a := postern(t, "subjects", "list", "--data", data); a.code != exitLocked || !strings.Contains(a.err, "in use by") {
				t.Fatalf("a second opener: exit %d: %s", a.code, a.err)
			}
			if code := s.stop(); code != 0 {
				t.Fatalf("stopped with %d:\n%s", code, s.out)
			}
			rs := decode[[]agent.Result](t, postern(t, "results", "--data", data, "--json"))
			if len(rs) != 1 || rs[0].ID != r.ID {
				t.Fatalf("stored %+v, shown %s", rs, r.ID)
			}
		})
	}
}

func TestRunBadge(t *testing.T) {
	data := filepath.Join(t.TempDir(), "store")
	if a := postern(t, "enroll", "b44", face(t, "obama.jpg"), "--data", data); a.code != 0 {
		t.Fatal(a.err)
	}
	// Budget and patience leave time for the race detector.
	s := start(t, append(cameraOf(t, "obama3.jpg"), "--data", data, "--set", "live.budget=60s", "--set", "live.gone=20s")...)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	claim := func(id string) int {
		resp, err := c.Post(s.url+"claim", "application/x-www-form-urlencoded", strings.NewReader("subject="+id))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := claim("nobody"); code != http.StatusNotFound {
		t.Fatalf("unknown badge: %d", code)
	}
	if code := claim("b44"); code != http.StatusNoContent {
		t.Fatalf("badge: %d", code)
	}
	if r := s.firstResult(t); r.Kind != agent.KindVerify || r.Decision.Status != agent.Approved || r.SubjectID != "b44" {
		t.Fatalf("got %+v", r)
	}
}

func TestRunPage(t *testing.T) {
	s := start(t, append(cameraOf(t, "obama.jpg"), "--data", filepath.Join(t.TempDir(), "store"))...)
	if code, body := get(t, s.url); code != 200 || !strings.Contains(body, "<title>Entrance test") {
		t.Fatalf("page: %d %s", code, body)
	}
	resp, err := http.Get(s.url + "events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok && strings.Contains(data, `"face"`) {
			return // the loop sees the face and the page is told
		}
	}
	t.Fatalf("no face arrived: %v\n%s", sc.Err(), s.out)
}

func TestRunPortInUse(t *testing.T) {
	s := start(t, append(cameraOf(t, "obama.jpg"), "--data", filepath.Join(t.TempDir(), "store"))...)
	listen := strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/")
	a := postern(t, append(cameraOf(t, "obama.jpg"), "run", "--data", filepath.Join(t.TempDir(), "other"), "--set", "http.listen="+listen)...)
	if a.code != exitUnavailable || !strings.Contains(a.err, listen) {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
}

// TestRepeatedPictureIsRefused: one stored picture in the place of a camera gives the
// same frame over and over, which no sensor does.
func TestRepeatedPictureIsRefused(t *testing.T) {
	data := enrolled(t)
	camera := append(cameraOf(t, "obama.jpg"), "--set", "liveness.mode=passive", "--set", "live.budget=20s")
	for _, live := range [][]string{nil, {"--live"}} {
		a := postern(t, append(append(camera, "verify", "b44", "--json", "--data", data), live...)...)
		var r agent.Result
		if err := json.Unmarshal([]byte(a.out), &r); err != nil {
			t.Fatalf("%v: %s%s", err, a.out, a.err)
		}
		attack := slices.ContainsFunc(r.Decision.Warnings, func(w agent.Warning) bool { return w.Risk == agent.RiskFaceAttack })
		if a.code != 1 || r.Decision.Status != agent.Declined || !attack {
			t.Errorf("exit %d, %+v", a.code, r.Decision)
		}
	}
}

// TestEnrolLiveRefusesARepeatedPicture: nobody is enrolled from a stored picture that
// stands in for the camera.
func TestEnrolLiveRefusesARepeatedPicture(t *testing.T) {
	camera := append(cameraOf(t, "obama.jpg"), "--set", "liveness.mode=passive")
	a := postern(t, append(camera, "enroll", "b44", "--live", "--data", filepath.Join(t.TempDir(), "store"))...)
	if a.code != 6 || !strings.Contains(a.err, "living person") {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
}
