//go:build cgo

package litert

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOpen(t *testing.T) {
	lib := libraryPath(t)
	text := filepath.Join(t.TempDir(), "text.so")
	other := filepath.Join(t.TempDir(), "other.so")
	short := filepath.Join(t.TempDir(), "short.so")
	raw, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		text: []byte("hello"), short: raw[:len(raw)/2], other: otherMachine(raw),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, path, want string }{
		{"Missing", filepath.Join(t.TempDir(), "none.so"), "does not exist"},
		{"NotALibrary", text, "is not a shared library"},
		{"Folder", t.TempDir(), "is not a shared library"},
		{"OtherMachine", other, "is for EM_S390, this machine is"},
		{"Truncated", short, "library not usable"},
		{"NoSymbol", systemLibrary(t), "has no function LiteRtCreateEnvironment; want LiteRT " + wantVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Open(c.path, nil)
			if r != nil || !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open gave %v, %v, want %q", r, err, c.want)
			}
		})
	}
	if _, err := Open("/nowhere/lib.so", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gave %v, want fs.ErrNotExist", err)
	}
}

// otherMachine changes an ELF header's machine to IBM S/390.
func otherMachine(raw []byte) []byte {
	out := bytes.Clone(raw)
	out[18] = 22
	return out
}

// systemLibrary is a shared library without LiteRT's functions.
func systemLibrary(t *testing.T) string {
	t.Helper()
	for _, glob := range []string{"/lib/*/libm.so.6", "/lib64/libm.so.6", "/usr/lib/libm.so.6"} {
		if found, _ := filepath.Glob(glob); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("no libm.so.6 on this system")
	return ""
}

func TestVersion(t *testing.T) {
	if got := openRuntime(t, nil).Version(); got != wantVersion {
		t.Errorf("Version is %q, want %q (is this another build of LiteRT?)", got, wantVersion)
	}
	if got := versionOf(systemLibrary(t)); !strings.HasPrefix(got, "unknown (sha256 ") {
		t.Errorf("version of another file is %q", got)
	}
}

func TestShippedModels(t *testing.T) {
	r := openRuntime(t, nil)
	for _, id := range shippedIDs {
		t.Run(id, func(t *testing.T) {
			m := loadModel(t, r, shippedModel(t, id), Options{})
			in, out := buffers(m.Inputs()), buffers(m.Outputs())
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
			t.Log(m.Inputs(), m.Outputs())
		})
	}
}

// TestConvolution compares a network with sums done by hand: y = W x + b with a
// 1x1 window and stride 2, then the same through int8.
func TestConvolution(t *testing.T) {
	r := openRuntime(t, nil)
	m := loadModel(t, r, halfNetwork().encode(), Options{})
	x, y := make([]float32, 8*8*3), make([]float32, 4*4*4)
	for i := range x {
		x[i] = float32(i)
	}
	if err := m.Run([]Buffer{Data(x)}, []Buffer{Data(y)}); err != nil {
		t.Fatal(err)
	}
	bias := []float32{-3. / 8, -2. / 8, -1. / 8, 0}
	for i, got := range y {
		pixel := (i/16*2*8 + i/4%4*2) * 3
		sum := 0.5*(x[pixel]+x[pixel+1]+x[pixel+2]) + bias[i%4]
		if math.Abs(float64(got-max(0, sum))) > 1e-4 {
			t.Fatalf("output %d is %v, want %v", i, got, max(0, sum))
		}
	}
}

func TestQuantised(t *testing.T) {
	r := openRuntime(t, nil)
	m := loadModel(t, r, int8Network().sign().encode(), Options{})
	in, out := m.Inputs()[0], m.Outputs()[0]
	if in.Type != Int8 || in.Scale != 0.05 || in.ZeroPoint != -1 || in.Name != "in_0" {
		t.Errorf("input is %+v", in)
	}
	x, y := make([]int8, in.Len()), make([]int8, out.Len())
	for i := range x {
		x[i] = -1 // real 0: only the bias is left, and it rounds to nothing
	}
	if err := m.Run([]Buffer{Data(x)}, []Buffer{Data(y)}); err != nil {
		t.Fatal(err)
	}
	for i, got := range y {
		if got != -1 {
			t.Fatalf("output %d is %d, want the zero point", i, got)
		}
	}
}

func TestRunChecksBuffers(t *testing.T) {
	m := loadModel(t, openRuntime(t, nil), convNetwork().encode(), Options{})
	in, out := make([]float32, 192), make([]float32, 64)
	for _, c := range []struct {
		name    string
		in, out []Buffer
		want    error
		text    string
	}{
		{"NoInput", nil, []Buffer{Data(out)}, ErrShape, "0 inputs given, the model has 1"},
		{"TwoOutputs", []Buffer{Data(in)}, []Buffer{Data(out), Data(out)}, ErrShape, "2 outputs given, the model has 1"},
		{"ShortInput", []Buffer{Data(in[:191])}, []Buffer{Data(out)}, ErrShape, "191 elements given for t0 float32[1 8 8 3], which has 192"},
		{"LongOutput", []Buffer{Data(in)}, []Buffer{Data(make([]float32, 65))}, ErrShape, "65 elements"},
		{"InputType", []Buffer{Data(make([]int8, 192))}, []Buffer{Data(out)}, ErrType, "int8 given for t0 float32[1 8 8 3]"},
		{"OutputType", []Buffer{Data(in)}, []Buffer{Data(make([]int32, 64))}, ErrType, "int32 given"},
		{"ZeroBuffer", []Buffer{{}}, []Buffer{Data(out)}, ErrType, "dtype(0) given"},
		{"NilSlice", []Buffer{Data([]float32(nil))}, []Buffer{Data(out)}, ErrShape, "0 elements"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := m.Run(c.in, c.out)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("Run gave %v, want %v: %q", err, c.want, c.text)
			}
		})
	}
	if err := m.Run([]Buffer{Data(in)}, []Buffer{Data(out)}); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	r := openRuntime(t, nil)
	for _, n := range []int{-1, maxThreads + 1} {
		if _, err := r.Load(convNetwork().encode(), Options{Threads: n}); err == nil {
			t.Errorf("%d threads were accepted", n)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	before := Live()
	r, err := Open(libraryPath(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Load(convNetwork().encode(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if Live() <= before {
		t.Errorf("Live is %d with an open model, was %d", Live(), before)
	}
	if err := errors.Join(m.Close(), m.Close(), r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if Live() != before {
		t.Errorf("Live is %d after closing, was %d", Live(), before)
	}
}

func TestUseAfterClose(t *testing.T) {
	r := openRuntime(t, nil)
	m := loadModel(t, r, convNetwork().encode(), Options{})
	in, out := buffers(m.Inputs()), buffers(m.Outputs())
	m.Close()
	if err := m.Run(in, out); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close gave %v", err)
	}
	r.Close()
	if _, err := r.Load(convNetwork().encode(), Options{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Load after Close gave %v", err)
	}
}

// TestModelOutlivesRuntime: children keep their parents.
func TestModelOutlivesRuntime(t *testing.T) {
	r := openRuntime(t, nil)
	m := loadModel(t, r, convNetwork().encode(), Options{})
	r.Close()
	if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
		t.Fatal(err)
	}
}

// TestLoadCopies: the caller may reuse the bytes.
func TestLoadCopies(t *testing.T) {
	data := convNetwork().encode()
	m := loadModel(t, openRuntime(t, nil), data, Options{})
	clear(data)
	x := make([]float32, 192)
	x[0] = 1
	y := make([]float32, 64)
	if err := m.Run([]Buffer{Data(x)}, []Buffer{Data(y)}); err != nil {
		t.Fatal(err)
	}
	if y[1] == 0 && y[2] == 0 && y[3] == 0 && y[0] == 0 {
		t.Error("the weights were not copied")
	}
}

func TestTensorsAreCopies(t *testing.T) {
	m := loadModel(t, openRuntime(t, nil), convNetwork().encode(), Options{})
	m.Inputs()[0].Shape[1] = 99
	if got := m.Inputs()[0].Shape[1]; got != 8 {
		t.Errorf("a caller changed the model's shape to %d", got)
	}
}

// TestOutputsAreCheckedAgain goes around Verify with a file that declares too small
// an output: what LiteRT computes must not be written into a buffer of that size.
func TestOutputsAreCheckedAgain(t *testing.T) {
	n := convNetwork()
	n.tensors[3][tensorShape] = []int32{1, 4, 2, 4}
	m, err := buildUnverified(openRuntime(t, nil), n.encode())
	m.Close()
	if !errors.Is(err, ErrBadModel) {
		t.Fatalf("got %v, want ErrBadModel", err)
	}
	t.Log(err)
}

// TestParallel runs several models, and one from several goroutines, while others
// open and close.
func TestParallel(t *testing.T) {
	r := openRuntime(t, nil)
	data := floatNetwork().sign().encode()
	shared := loadModel(t, r, data, Options{Threads: 2})
	want := outputs(t, shared)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := r.Load(data, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer m.Close()
			for range 50 {
				if got := outputs(t, m); got != want {
					t.Errorf("own model gave %v, want %v", got, want)
				}
				if got := outputs(t, shared); got != want {
					t.Errorf("shared model gave %v, want %v", got, want)
				}
			}
		})
	}
	wg.Wait()
}

func outputs(t *testing.T, m *Model) [2]float32 {
	x := make([]float32, 192)
	for i := range x {
		x[i] = float32(i%13) / 13
	}
	var y [2]float32
	if err := m.Run([]Buffer{Data(x)}, []Buffer{Data(y[:]), Data(make([]float32, 64))}); err != nil {
		t.Error(err)
	}
	return y
}

// TestCloseDuringRun: Close waits for a Run, later Runs are refused.
func TestCloseDuringRun(t *testing.T) {
	m := loadModel(t, openRuntime(t, nil), convNetwork().encode(), Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			in, out := buffers(m.Inputs()), buffers(m.Outputs())
			for range 200 {
				if err := m.Run(in, out); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	m.Close()
	wg.Wait()
}

// TestThreads: a Model asked for n threads starts n-1 and ends them in Close. The
// Go runtime may start threads at any time but does not end them, so the threads
// that Close ends are the Model's.
func TestThreads(t *testing.T) {
	r := openRuntime(t, nil)
	data := shippedModel(t, "blazeface-short")
	for _, n := range []int{0, 1, 2, 4} {
		m := loadModel(t, r, data, Options{Threads: n})
		if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
			t.Fatal(err)
		}
		with := threads(t)
		m.Close()
		want, ended := max(0, n-1), 0
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			left := threads(t) // a joined thread stays listed for a moment
			if ended = missing(with, left); ended >= want {
				break
			}
		}
		if ended != want {
			t.Errorf("%d threads asked for: the model had %d of its own, want %d", n, ended, want)
		}
	}
}

// threads lists the threads of this process.
func threads(t *testing.T) []string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatal("cannot list threads: ", err)
	}
	return tasks
}

// missing counts what is in a but not in b.
func missing(a, b []string) int {
	n := 0
	for _, s := range a {
		if !slices.Contains(b, s) {
			n++
		}
	}
	return n
}

func TestNativeLog(t *testing.T) {
	log, text := newLog(slog.LevelDebug)
	r := openRuntime(t, log)
	loadModel(t, r, convNetwork().encode(), Options{})
	if got := text.String(); !strings.Contains(got, "level=DEBUG") || !strings.Contains(got, "accelerator registered") {
		t.Errorf("what LiteRT says on start did not reach the log: %q", got)
	}
}

// TestStderrIsQuiet: nothing of the library reaches the process's stderr.
func TestStderrIsQuiet(t *testing.T) {
	if os.Getenv("LITERT_QUIET") != "" {
		loadModel(t, openRuntime(t, nil), convNetwork().encode(), Options{})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestStderrIsQuiet$")
	cmd.Env = append(os.Environ(), "LITERT_QUIET=1", "TEST_LITERT="+libraryPath(t))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Errorf("on stderr: %s", &stderr)
	}
}

// TestMemoryIsFreed loads and closes a network often. Live counts handles; this
// looks at what the process really holds.
func TestMemoryIsFreed(t *testing.T) {
	r := openRuntime(t, nil)
	data := shippedModel(t, "facemesh-468") // 2.4 MB, more when compiled
	cycle := func(n int) {
		for range n {
			m, err := r.Load(data, Options{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
				t.Fatal(err)
			}
			m.Close()
		}
	}
	// The allocator keeps some of what is freed, in one arena a thread, so what is
	// held settles only after a while. A model lost each time would be 300 MB.
	cycle(40)
	before := resident(t)
	cycle(60)
	if grown := resident(t) - before; grown > 60<<20 {
		t.Errorf("60 loads left %d MB behind", grown>>20)
	}
}

// resident is the memory of this process in bytes, without what Go has not yet
// given back.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
