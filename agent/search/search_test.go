package search

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"go.uber.org/goleak"
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

func TestCloseWipes(t *testing.T) {
	m := filled(rand.New(rand.NewPCG(7, 7)), 10, 32)
	ints, floats := m.ints, m.floats
	m.Close()
	if slices.ContainsFunc(ints, func(v int8) bool { return v != 0 }) || slices.ContainsFunc(floats, func(v float32) bool { return v != 0 }) {
		t.Error("an embedding is left in memory")
	}
	if best, _ := m.Best(nil); m.Len() != 0 || best != none {
		t.Error("not empty")
	}
	m.Set(m.Append(), random(rand.New(rand.NewPCG(7, 7)), 32))
	m.Close()
	m.Close()
}

func TestRemoveAndGrowthWipe(t *testing.T) {
	m := filled(rand.New(rand.NewPCG(8, 8)), 16, 32)
	old := m.floats
	m.Append() // outgrows the first piece of memory
	if slices.ContainsFunc(old, func(v float32) bool { return v != 0 }) {
		t.Error("growing left embeddings behind")
	}
	m.Remove(16)
	m.Remove(15)
	if slices.ContainsFunc(m.floats[15*32:], func(v float32) bool { return v != 0 }) ||
		slices.ContainsFunc(m.ints[15*32:], func(v int8) bool { return v != 0 }) {
		t.Error("removing left an embedding behind")
	}
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
