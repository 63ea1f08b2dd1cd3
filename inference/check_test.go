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
			clear(out[0].Float32)
			if first := in[0]; len(first.Int8) > 0 && first.Int8[0] == first.Int8[1] || len(first.Float32) > 0 && first.Float32[0] == first.Float32[1] {
				out[0].Float32[0] = 1
			} else {
				out[0].Float32[1] = 1
			}
			return nil
		}, ""},
		"always the same": {func(_, out []Data) error {
			for i := range out[0].Float32 {
				out[0].Float32[i] = 1
			}
			return nil
		}, "answers two different pictures alike"},
		"nothing": {func(_, out []Data) error { clear(out[0].Float32); return nil }, "no direction"},
		"fails":   {func(_, _ []Data) error { return errors.New("broken") }, "broken"},
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
