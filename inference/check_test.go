package inference

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A network that gives every picture the same embedding would let everybody in; one
// that tells two pictures apart passes, and one that fails is an error too.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(in, out []Data) error
		want string // of the error; empty: none
	}{
		"tells apart": {func(in, out []Data) error {
			answer(out, first(in, 0) == first(in, 1))
			return nil
		}, ""},
		"always the same": {func(_, out []Data) error { answer(out, true); return nil }, "answers two different pictures alike"},
		"fails":           {func(_, _ []Data) error { return errors.New("broken") }, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.run[e.set.Embedder.Manifest.ID] = c.run
			p := mustPool(t, e, 1)
			err := p.Check(context.Background())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// first gives a value of the input.
func first(in []Data, i int) float32 {
	if in[0].Int8 != nil {
		return float32(in[0].Int8[i])
	}
	return in[0].Float32[i]
}

// answer fills the output with one of two embeddings that are not alike.
func answer(out []Data, even bool) {
	for i := range len(out[0].Int8) + len(out[0].Float32) {
		v := float32(100)
		if even && i%2 == 0 {
			v = -100
		}
		if out[0].Int8 != nil {
			out[0].Int8[i] = int8(v)
		} else {
			out[0].Float32[i] = v
		}
	}
}
