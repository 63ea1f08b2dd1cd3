package evaluate

import (
	"math"
	"testing"
)

func TestMcNemar(t *testing.T) {
	for _, c := range []struct {
		k, n int
		want float64
	}{{0, 0, 1}, {5, 5, 1}, {0, 5, 0.0625}, {1, 9, 0.021484375}, {9, 1, 0.021484375}, {0, 1, 1}} {
		if got := mcNemar(c.k, c.n); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d to %d: p = %v, want %v", c.k, c.n, got, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	good, bad := synthetic(120, 3, 0.3), synthetic(120, 3, 0.8)
	good.right, bad.right = []bool{true, true, true, false}, []bool{true, false, false, true}
	same := Compare(good, good)
	for _, d := range same.FNMR {
		if d.Value != 0 || d.Significant || d.CI != (Interval{}) {
			t.Errorf("a model differs from itself: %+v", d)
		}
	}
	c := Compare(good, bad)
	if c.OnlyA != 2 || c.OnlyB != 1 || c.McNemar != 1 {
		t.Errorf("%+v", c)
	}
	d := c.FNMR[1]
	if !d.Significant || d.Value <= 0 || d.CI.Low > d.Value || d.CI.High < d.Value {
		t.Errorf("scattered pictures are not worse: %+v", d)
	}
	if back := Compare(bad, good).FNMR[1]; back.Value != -d.Value || !back.Significant {
		t.Errorf("the other way round: %+v", back)
	}
}
