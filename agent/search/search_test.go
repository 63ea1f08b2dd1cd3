package search

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"postern/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func random(r *rand.Rand, dim int) agent.Embedding {
	e := make(agent.Embedding, dim)
	for i := range e {
		e[i] = float32(r.NormFloat64())
	}
	e.Normalise()
	return e
}

// near is e with some noise.
func near(r *rand.Rand, e agent.Embedding, noise float64) agent.Embedding {
	out := slices.Clone(e)
	for i := range out {
		out[i] += float32(noise * r.NormFloat64() / math.Sqrt(float64(len(e))))
	}
	out.Normalise()
	return out
}

func filled(r *rand.Rand, rows, dim int) *Matrix {
	m := New(dim)
	for range rows {
		m.Set(m.Append(), random(r, dim))
	}
	return m
}

// brute is the answer by definition.
func brute(m *Matrix, q agent.Embedding) (best, second Hit) {
	p := part{best: none, second: none}
	for i := range m.Len() {
		if e := m.At(i); e != nil {
			p.add(Hit{i, e.Cosine(q)})
		}
	}
	return p.best, p.second
}

// fataler is what testing.TB and rapid.T have in common here.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func check(t fataler, m *Matrix, q agent.Embedding) {
	t.Helper()
	best, second := m.Best(q)
	wantBest, wantSecond := brute(m, q)
	if best != wantBest || second != wantSecond {
		t.Fatalf("found %+v, %+v; want %+v, %+v", best, second, wantBest, wantSecond)
	}
}

// The vector kernel and plain Go give the same integers, extremes included.
func TestKernelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, stride := range []int{16, 32, 48, 192, 512, 4096} {
		for _, rows := range []int{4, 8, 20, 256} {
			for _, extreme := range []bool{false, true} {
				data, query := make([]int8, rows*stride), make([]int8, stride)
				for _, s := range [][]int8{data, query} {
					for i := range s {
						s[i] = int8(r.IntN(255) - 127)
						if extreme {
							s[i] = []int8{-127, 127}[r.IntN(2)]
						}
					}
				}
				if extreme {
					copy(data, query) // the largest sum there is
				}
				got, want := make([]int32, rows), make([]int32, rows)
				dots(got, data, query)
				dotsPortable(want, data, query)
				if !slices.Equal(got, want) {
					t.Fatalf("%s, stride %d, %d rows: %v, want %v", vector, stride, rows, got, want)
				}
			}
		}
	}
}

func FuzzKernel(f *testing.F) {
	f.Add([]byte{1, 2, 3, 255, 127, 129})
	f.Fuzz(func(t *testing.T, raw []byte) {
		const stride = 2 * lane
		data := make([]int8, 5*stride)
		for i, b := range raw {
			data[i%len(data)] ^= int8(b)
		}
		for i, v := range data {
			data[i] = max(-127, v)
		}
		var got, want [4]int32
		dots(got[:], data[stride:], data[:stride])
		dotsPortable(want[:], data[stride:], data[:stride])
		if got != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestBestIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, dim := range []int{2, 16, 17, 192, 512} {
		for _, rows := range []int{0, 1, 2, 3, 5, 300, 3 * share / 2} {
			m := filled(r, rows, dim)
			for k := range 5 {
				q := random(r, dim)
				if rows > 0 && k > 1 {
					q = near(r, m.At(r.IntN(rows)), []float64{0, 1e-7, 0.3}[k-2])
				}
				check(t, m, q)
			}
			m.Close()
		}
	}
}

// A crowd of near twins, closer to each other than the int8 rows can tell: the bound
// must let all of them through to the exact comparison.
func TestTwinsWithinTheQuantisationError(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	m := New(512)
	centre := random(r, 512)
	for range 2000 {
		m.Set(m.Append(), near(r, centre, 0.002))
	}
	for range 50 {
		check(t, m, near(r, centre, 0.002))
	}
}

// Whatever the vectors, the bound lets nothing slip that is among the two best.
func TestBoundHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dim := rapid.IntRange(1, 70).Draw(t, "dim")
		value := rapid.Float32Range(-1, 1)
		vector := func(name string) agent.Embedding {
			e := agent.Embedding(rapid.SliceOfN(value, dim, dim).Draw(t, name))
			if !e.Normalise() {
				e[0] = 1
				e.Normalise()
			}
			return e
		}
		m := New(dim)
		rows := rapid.IntRange(1, 12).Draw(t, "rows")
		for range rows {
			m.Set(m.Append(), vector("row"))
		}
		check(t, m, vector("query"))
	})
}

// Writes in any order leave what a plain slice would hold.
func TestMatrixModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		r := rand.New(rand.NewPCG(seed, 4))
		m, model := New(20), []agent.Embedding{}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				if got := m.Append(); got != len(model) {
					t.Fatalf("row %d", got)
				}
				model = append(model, nil)
			},
			"set": func(t *rapid.T) {
				if len(model) > 0 {
					i := r.IntN(len(model))
					model[i] = random(r, 20)
					m.Set(i, model[i])
				}
			},
			"spoil": func(t *rapid.T) {
				if len(model) > 0 {
					i := r.IntN(len(model))
					model[i] = nil
					m.Set(i, agent.Embedding{1, 2, 3})
				}
			},
			"remove": func(t *rapid.T) {
				if last := len(model) - 1; last >= 0 {
					i := r.IntN(len(model))
					model[i] = model[last]
					model = model[:last]
					m.Remove(i)
				}
			},
			"": func(t *rapid.T) {
				if m.Len() != len(model) {
					t.Fatalf("%d rows, want %d", m.Len(), len(model))
				}
				for i, e := range model {
					if !slices.Equal(m.At(i), e) {
						t.Fatalf("row %d differs", i)
					}
				}
				check(t, m, random(r, 20))
			},
		})
	})
}

func TestQueriesThatCannotBeCompared(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	m := filled(r, 3, 32)
	long := random(r, 32)
	long[0] = 9
	nan := random(r, 32)
	nan[3] = float32(math.NaN())
	for name, q := range map[string]agent.Embedding{"nil": nil, "short": random(r, 16), "long": long, "zero": make(agent.Embedding, 32), "NaN": nan} {
		best, second := m.Best(q)
		if best != (Hit{0, -1}) || second != (Hit{1, -1}) {
			t.Errorf("%s: %+v, %+v", name, best, second)
		}
	}
}

// Rows that hold no embedding are never found, not even by nothing.
func TestAbsentRows(t *testing.T) {
	m := New(16)
	m.Append()
	m.Set(m.Append(), make(agent.Embedding, 16))
	if best, second := m.Best(random(rand.New(rand.NewPCG(6, 6)), 16)); best != none || second != none {
		t.Errorf("%+v, %+v", best, second)
	}
}

// bytesOf is how an embedding lies in memory.
func bytesOf(e agent.Embedding) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&e[0])), 4*len(e))
}

// holds tells whether a good part of the embedding lies in the memory, as float32 or
// quantised.
func holds(mem []byte, e agent.Embedding) bool {
	q := make([]int8, len(e))
	quantise(q, e)
	return bytes.Contains(mem, bytesOf(e[:4])) || bytes.Contains(mem, unsafe.Slice((*byte)(unsafe.Pointer(&q[0])), len(q)/2))
}

// keep makes the arena's memory stay when it is freed, so that a test can look at it.
func keep(a *arena) []byte {
	a.heap = true
	return a.mem
}

func blank(mem []byte) bool {
	return !slices.ContainsFunc(mem, func(b byte) bool { return b != 0 })
}

func TestCloseWipes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	m := filled(r, 10, 32)
	e := slices.Clone(m.At(3))
	mem := keep(m.arena)
	defer unix.Munmap(mem)
	if !holds(mem, e) {
		t.Fatal("the arena does not hold the embedding: the test looks in the wrong place")
	}
	m.Close()
	if holds(mem, e) || !blank(mem) {
		t.Error("an embedding is left in memory")
	}
	if best, _ := m.Best(nil); m.Len() != 0 || best != none {
		t.Error("not empty")
	}
	m.Set(m.Append(), random(r, 32))
	m.Close()
	m.Close()
}

func TestGrowthWipes(t *testing.T) {
	m := filled(rand.New(rand.NewPCG(8, 8)), 16, 32)
	defer m.Close()
	e, old := slices.Clone(m.At(5)), keep(m.arena)
	defer unix.Munmap(old)
	m.Append() // outgrows the first arena
	if holds(old, e) || !blank(old) {
		t.Error("growing left embeddings behind")
	}
	if !holds(m.arena.mem, e) || !slices.Equal(m.At(5), e) {
		t.Error("growing lost an embedding")
	}
}

// Removing a row leaves nothing of it in the arena, wherever it stood, nor a second copy
// of the row that took its place.
func TestRemoveWipes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	m := filled(r, 40, 48)
	defer m.Close()
	for m.Len() > 0 {
		row := r.IntN(m.Len())
		gone, last := slices.Clone(m.At(row)), slices.Clone(m.At(m.Len()-1))
		m.Remove(row)
		if holds(m.arena.mem, gone) {
			t.Fatalf("row %d is still in memory", row)
		}
		if n := bytes.Count(m.arena.mem, bytesOf(last)); n > 1 {
			t.Fatalf("%d copies of one embedding", n)
		}
	}
	if !blank(m.arena.mem[:len(m.ints)+4*len(m.floats)]) {
		t.Error("something is left of rows that are gone")
	}
}

// A replaced embedding is gone too.
func TestSetWipes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 10))
	m := filled(r, 3, 48)
	defer m.Close()
	old := slices.Clone(m.At(1))
	m.Set(1, random(r, 48))
	if holds(m.arena.mem, old) {
		t.Error("the replaced embedding is still in memory")
	}
}

// The arena is a mapping that core dumps leave out ("dd"), and that is locked ("lo")
// unless Unlocked says why not.
func TestArenaIsProtected(t *testing.T) {
	m := filled(rand.New(rand.NewPCG(12, 12)), 4, 32)
	defer m.Close()
	flags := flagsOf(t, m.arena.mem)
	if !slices.Contains(flags, "dd") {
		t.Errorf("core dumps would have it: %v", flags)
	}
	if locked := slices.Contains(flags, "lo"); locked != (m.Unlocked() == nil) {
		t.Errorf("locked: %v, but Unlocked says %v", flags, m.Unlocked())
	}
}

// flagsOf are the flags of a mapping, see proc(5).
func flagsOf(t *testing.T, mem []byte) []string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at, inside := uint64(uintptr(unsafe.Pointer(&mem[0]))), false
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatal("the arena is no mapping")
	return nil
}

func TestSearchesOverlap(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	m := filled(r, 2*share, 32)
	done := make(chan bool)
	for k := range 4 {
		go func() {
			r := rand.New(rand.NewPCG(9, uint64(k)))
			ok := true
			for range 20 {
				q := random(r, 32)
				best, second := m.Best(q)
				wantBest, wantSecond := brute(m, q)
				ok = ok && best == wantBest && second == wantSecond
			}
			done <- ok
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("a search among searches found another row")
		}
	}
}

func BenchmarkBest(b *testing.B) {
	r := rand.New(rand.NewPCG(10, 10))
	m := filled(r, 100_000, 512)
	q := random(r, 512)
	b.SetBytes(int64(m.Bytes()))
	b.ReportAllocs()
	for b.Loop() {
		m.Best(q)
	}
}
