//go:build cgo

package litert

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestMain fails the run when a test leaves a native object behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if n := Live(); n != 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d native objects are still alive after all tests\n", n)
		code = 1
	}
	os.Exit(code)
}

// repoRoot walks up to go.mod.
func repoRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// libraryPath is where the set-up puts LiteRT; TEST_LITERT overrides it.
func libraryPath(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("TEST_LITERT")
	if path == "" {
		path = filepath.Join(repoRoot(tb), ".cache", "litert", "libLiteRt.so")
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("the LiteRT library is missing: %v\nrun: make setup", err)
	}
	return path
}

// shippedModels are the networks under models/, by folder.
var shippedIDs = []string{"blazeface-short", "blazeface-full", "facemesh-468", "fr-feature-512-int8", "fr-feature-512-mirror-int8"}

func shippedModel(tb testing.TB, id string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(repoRoot(tb), "models", id, "model.tflite"))
	if err != nil {
		tb.Fatalf("a shipped model is missing: %v\nrun: make models", err)
	}
	return data
}

func openRuntime(tb testing.TB, log *slog.Logger) *Runtime {
	tb.Helper()
	r, err := Open(libraryPath(tb), log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	return r
}

func loadModel(tb testing.TB, r *Runtime, data []byte, o Options) *Model {
	tb.Helper()
	m, err := r.Load(data, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return m
}

// buffers allocates one buffer for each tensor.
func buffers(ts []Tensor) []Buffer {
	var out []Buffer
	for _, t := range ts {
		switch t.Type {
		case Float32:
			out = append(out, Data(make([]float32, t.Len())))
		case Int8:
			out = append(out, Data(make([]int8, t.Len())))
		case Uint8:
			out = append(out, Data(make([]uint8, t.Len())))
		default:
			out = append(out, Data(make([]int32, t.Len())))
		}
	}
	return out
}

// logBuffer is a log that tests can read while others write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog(level slog.Level) (*slog.Logger, *logBuffer) {
	b := &logBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: level})), b
}
