//go:build !race

package search

import (
	"math/rand/v2"
	"testing"
)

// A search allocates nothing once the first has been made. Under the race detector
// pools forget at random, so it is not asked there.
func TestBestAllocatesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	m := filled(r, 3*share, 64)
	q := random(r, 64)
	if n := testing.AllocsPerRun(50, func() { m.Best(q) }); n != 0 {
		t.Errorf("%v allocations a search", n)
	}
}
