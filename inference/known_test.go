package inference

import (
	"errors"
	"math"
	"testing"

	"postern/models"
)

// knows makes an engine whose embedder answers the pictures in turn as its manifest
// says; spoil may change an answer.
func knows(t *testing.T, spoil func(picture int, v []float64)) *fakeEngine {
	e := newEngine(t)
	shipped, err := models.Default()
	if err != nil {
		t.Fatal(err)
	}
	man := &e.set.Embedder.Manifest
	man.KnownAnswers = shipped.Embedder.Manifest.KnownAnswers
	asked := 0
	e.run[man.ID] = func(_, out []Data) error {
		values := append([]float64(nil), man.KnownAnswers[asked].Outputs[0].Values...)
		spoil(asked, values)
		asked++
		for i, v := range values {
			out[0].Int8[i] = int8(max(-128, min(127, math.Round(v/man.Outputs[0].Scale))))
		}
		return nil
	}
	return e
}

// A network that gives every picture the same embedding would let everybody in, and so
// may one that computes wrongly in any other way: neither gets into a pipeline.
func TestKnownAnswers(t *testing.T) {
	first := []float64(nil)
	for name, c := range map[string]struct {
		spoil func(picture int, v []float64)
		right bool
	}{
		"right":            {func(int, []float64) {}, true},
		"rounded a little": {func(_ int, v []float64) { v[7] += 0.02 }, true},
		"always the same": {func(i int, v []float64) {
			if i == 0 {
				first = append(first, v...)
			}
			copy(v, first)
		}, false},
		"turned round":   {func(_ int, v []float64) { scale(v, -1) }, false},
		"nothing":        {func(_ int, v []float64) { clear(v) }, false},
		"half the lanes": {func(_ int, v []float64) { clear(v[:256]) }, false},
		"too long":       {func(_ int, v []float64) { scale(v, 2) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := knows(t, c.spoil)
			err := Verify(e, e.set.Embedder)
			if c.right != (err == nil) || !c.right && !errors.Is(err, ErrWrongAnswer) {
				t.Errorf("Verify: %v", err)
			}
			e = knows(t, c.spoil)
			p, err := NewPool(e, e.set, Options{}, 1)
			if c.right != (err == nil) || !c.right && !errors.Is(err, ErrWrongAnswer) {
				t.Errorf("NewPool: %v", err)
			}
			if p != nil {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func scale(v []float64, by float64) {
	for i := range v {
		v[i] *= by
	}
}

func TestKnownAnswersFail(t *testing.T) {
	e := knows(t, nil)
	e.run[models.DefaultEmbedder] = fails
	if err := Verify(e, e.set.Embedder); !errors.Is(err, errBroken) {
		t.Errorf("a network that fails: %v", err)
	}
	e = knows(t, func(int, []float64) {})
	e.set.Embedder.Manifest.KnownAnswers[0].Picture = "landscape"
	if err := Verify(e, e.set.Embedder); err == nil {
		t.Error("an unknown picture")
	}
}
