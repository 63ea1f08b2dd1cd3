package store

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"postern/agent"
	"postern/agent/keys"
)

const testDevice = "kiosk-1"

// envChild makes the test binary play another process: "role:folder".
const envChild = "TEST_STORE_CHILD"

func TestMain(m *testing.M) {
	if role, dir, ok := strings.Cut(os.Getenv(envChild), ":"); ok {
		childMain(role, dir)
		return
	}
	inMemory()
	if raceEnabled { // it makes them ten times slower, and looks for something else
		flag.Set("rapid.checks", "15")
	}
	goleak.VerifyTestMain(m)
}

// inMemory puts the temporary folders of tests into memory where there is room: what
// these tests look at is what the kernel has been told, not how fast a disk is.
func inMemory() {
	const dir = "/dev/shm"
	var st unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) > 512<<20 && unix.Access(dir, unix.W_OK) == nil {
		os.Setenv("TMPDIR", dir)
	}
}

func childMain(role, dir string) {
	roles := map[string]func(string) error{
		"hold": childHold, "load": childLoad, "careless": childCareless, "limit": childLimit, "nobody": childNobody, "hooks": childHooks,
		"chores": childChores, "restore": childRestore,
	}
	if err := roles[role](dir); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

// testOptions are options for a folder of their own.
func testOptions(tb testing.TB) Options {
	return Options{Dir: filepath.Join(tb.TempDir(), "data"), Device: testDevice, Timeout: time.Second, Command: "postern test",
		Root: memoryRoot()}
}

// memoryRoot is a root key that openings of the same options share.
func memoryRoot() func(bool) (Root, error) {
	m := &keys.Memory{}
	return func(existing bool) (Root, error) { return m.Open(existing) }
}

// fileRoot is a root key beside the data folder, for what spans processes.
func fileRoot(dir string) func(bool) (Root, error) {
	return func(existing bool) (Root, error) {
		return keys.Options{Kind: keys.File, Dir: filepath.Clean(dir) + ".keys"}.Open(existing)
	}
}

// mustOpen opens a store that is checked and closed when the test ends.
func mustOpen(tb testing.TB, o Options) *Store {
	tb.Helper()
	s, err := Open(o)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	tb.Cleanup(func() { mustClose(tb, s) })
	return s
}

// mustClose checks and closes; doing it again does nothing.
func mustClose(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.Check(); err != nil && agent.ErrorCode(err) != agent.CodeUnavailable {
		tb.Errorf("check: %v", err)
	}
	if err := s.Close(); err != nil {
		tb.Errorf("close: %v", err)
	}
}

func mustReopen(tb testing.TB, s *Store) *Store {
	tb.Helper()
	mustClose(tb, s)
	return mustOpen(tb, s.opts)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantCode(tb testing.TB, err error, want agent.Code, contains ...string) {
	tb.Helper()
	if got := agent.ErrorCode(err); got != want {
		tb.Fatalf("error code %q, want %q: %v", got, want, err)
	}
	for _, c := range contains {
		if !strings.Contains(err.Error(), c) {
			tb.Errorf("error %q does not say %q", err, c)
		}
	}
	var e *agent.Error
	if errors.As(err, &e) && strings.Contains(e.Message, "\n") {
		tb.Errorf("message %q is not one sentence", e.Message)
	}
}

// unit is an embedding of length 1 that depends on seed.
func unit(seed, dim int) agent.Embedding {
	e := make(agent.Embedding, dim)
	for i := range e {
		e[i] = float32(math.Sin(float64(seed*131+i*7) + 0.5))
	}
	e.Normalise()
	return e
}

func testTemplate(seed int) agent.Template {
	return agent.Template{ModelID: "m1", Space: "s1", Embedding: unit(seed, 8), Quality: agent.Quality{Sharpness: float32(seed)}}
}

func testTemplates(n int) []agent.Template {
	out := make([]agent.Template, n)
	for i := range out {
		out[i] = testTemplate(i)
	}
	return out
}

func testResult(subject string, status agent.Status) agent.Result {
	return agent.Result{
		Kind: agent.KindVerify, SubjectID: subject, Source: "camera-1",
		Decision: agent.Decision{Status: status, Score: 83.25, Scored: true, Cosine: 0.61,
			ModelID: "m1", Calibration: "c1", Frames: 3, Warnings: []agent.Warning{}},
	}
}
