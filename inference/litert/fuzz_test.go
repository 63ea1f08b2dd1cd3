//go:build cgo

package litert

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// fuzzBases are the models that the fuzzers mutate: small ones made here, which
// use every operator, and a shipped one of each kind.
func fuzzBases(tb testing.TB) [][]byte {
	bases := [][]byte{
		floatNetwork().sign().encode(), int8Network().sign().encode(), halfNetwork().encode(),
	}
	for _, id := range []string{"blazeface-short", "fr-feature-512-int8"} {
		bases = append(bases, shippedModel(tb, id))
	}
	return bases
}

// structure lists the bytes of a model that are not weights: random changes
// elsewhere only change numbers.
func structure(model []byte) []int {
	const weights = 256 // a longer buffer holds weights
	skip := make([]bool, len(model))
	v := &verifier{r: &reader{b: model}}
	v.model = v.r.table(v.r.follow(0))
	list, _ := v.tables(v.model, modelBuffers, maxGraph, "buffers")
	for _, t := range list {
		pos, n := int(t.u64(bufferOffset)), int(t.u64(bufferSize))
		if data := t.vector(bufferData, 1); data.n > 0 {
			pos, n = data.pos, data.n
		}
		for i := pos; i < pos+n && n > weights; i++ {
			skip[i] = true
		}
	}
	var out []int
	for i, s := range skip {
		if !s {
			out = append(out, i)
		}
	}
	return out
}

// mutate changes model as script says: each five bytes are a position among the
// structural bytes, a kind of change and its value.
func mutate(model []byte, where []int, script []byte) []byte {
	out := slices.Clone(model)
	for len(script) >= 5 {
		pos := int(script[0]) | int(script[1])<<8 | int(script[2])<<16
		at := where[pos%len(where)]
		change(out, at, script[3], script[4])
		script = script[5:]
	}
	return out
}

func change(b []byte, at int, kind, value byte) {
	word := at &^ 3
	switch kind % 6 {
	case 0:
		b[at] = value
	case 1:
		b[at] ^= 1 << (value % 8)
	case 2:
		b[at] += byte(int8(value) % 4)
	case 3:
		copyWord(b, word, uint32(int32(int8(value))))
	case 4:
		copyWord(b, word, 1<<(value%32))
	case 5:
		copyWord(b, word, ^uint32(0)>>(value%32))
	}
}

func copyWord(b []byte, at int, v uint32) {
	if at+4 <= len(b) {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
}

// tryModel loads and runs a model that may be anything. It must not crash; what
// is refused must be refused as a bad model.
func tryModel(t *testing.T, r *Runtime, data []byte) bool {
	m, err := r.Load(data, Options{})
	if err != nil {
		if !errors.Is(err, ErrBadModel) {
			t.Fatalf("Load gave %v, want ErrBadModel", err)
		}
		return false
	}
	defer m.Close()
	if err := m.Run(buffers(m.Inputs()), buffers(m.Outputs())); err != nil {
		t.Logf("accepted, but cannot run: %v", err)
	}
	return true
}

// FuzzVerify feeds arbitrary bytes to the checks written in Go.
func FuzzVerify(f *testing.F) {
	for _, b := range fuzzBases(f)[:3] {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x00TFL3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Verify(data); err != nil && !errors.Is(err, ErrBadModel) {
			t.Fatalf("Verify gave %v, want ErrBadModel", err)
		}
	})
}

// FuzzLoad feeds mutated models to LiteRT. A crash there ends the fuzzing worker,
// and the tool reports and keeps the input.
func FuzzLoad(f *testing.F) {
	bases := fuzzBases(f)
	where := make([][]int, len(bases))
	for i, b := range bases {
		where[i] = structure(b)
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{1, 0, 7, 2, 1, 9, 3, 0, 3, 255})
	}
	r := openRuntime(f, nil)
	f.Fuzz(func(t *testing.T, base uint8, script []byte) {
		i := int(base) % len(bases)
		tryModel(t, r, mutate(bases[i], where[i], script))
	})
}

// TestMutations is a fixed dose of FuzzLoad for every run of the tests.
func TestMutations(t *testing.T) {
	r := openRuntime(t, nil)
	for i, base := range fuzzBases(t) {
		where := structure(base)
		rounds := 400
		if testing.Short() || len(base) > 1<<16 {
			rounds = 50 // big files take their time
		}
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		accepted := 0
		for range rounds {
			script := make([]byte, 5*(1+rng.IntN(3)))
			for k := range script {
				script[k] = byte(rng.Uint32())
			}
			if tryModel(t, r, mutate(base, where, script)) {
				accepted++
			}
		}
		t.Logf("model %d (%d bytes, %d of structure): %d of %d mutants accepted", i, len(base), len(where), accepted, rounds)
	}
}
