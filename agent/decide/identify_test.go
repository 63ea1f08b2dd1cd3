package decide_test

import (
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/decide"
)

// rated is identity with a table of one decade a step.
func rated(tb testing.TB) *decide.Curve {
	tb.Helper()
	c, err := identity(tb).WithRates([]decide.Rate{{30, 1e-2}, {50, 1e-3}, {70, 1e-4}, {90, 1e-5}})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestSearchThresholds(t *testing.T) {
	one := agent.Thresholds{Review: 70, Decline: 50}
	for _, c := range []struct {
		name string
		n    int
		s    decide.Search
		want agent.Thresholds // zero: refused
	}{
		{"one is as 1:1", 1, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, one},
		{"none counts as one", 0, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, one},
		{"ten", 10, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, one},
		{"eleven", 11, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, agent.Thresholds{Review: 90, Decline: 70}},
		{"hundred", 100, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, agent.Thresholds{Review: 90, Decline: 70}},
		{"one more", 101, decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}, agent.Thresholds{}},
		{"laxer", 101, decide.Search{FPIR: 1e-2, ReviewFPIR: 1e-2}, agent.Thresholds{Review: 90, Decline: 90}},
		{"a laxer review asked for than approval needs", 10, decide.Search{FPIR: 1e-2, ReviewFPIR: 1e-4}, agent.Thresholds{Review: 90, Decline: 90}},
		{"no target", 1, decide.Search{}, agent.Thresholds{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.s.Thresholds(rated(t), c.n, one)
			if got != c.want || (err == nil) != (c.want != agent.Thresholds{}) {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	_, err := decide.Search{FPIR: 1e-3, ReviewFPIR: 1e-2}.Thresholds(rated(t), 5000, one)
	if agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Fatal(err)
	}
	for _, word := range []string{"5000 subjects", "test-1", "at most 100 subjects"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
	if _, err := (decide.Search{FPIR: 1, ReviewFPIR: 1}).Thresholds(identity(t), 1, one); err == nil {
		t.Error("a curve without rates gave thresholds")
	}
}

// More subjects, or a lower target, never lower a threshold.
func TestSearchThresholdsAreMonotone(t *testing.T) {
	c, one := rated(t), agent.Thresholds{Review: 70, Decline: 50}
	for _, target := range []float64{1e-1, 1e-2, 1e-3, 1e-4} {
		last := agent.Thresholds{}
		for n := 1; n <= 20000; n = n*3/2 + 1 {
			got, err := decide.Search{FPIR: target, ReviewFPIR: target * 3}.Thresholds(c, n, one)
			most := decide.Search{FPIR: target, ReviewFPIR: target * 3}.Most(c)
			if (err == nil) != (n <= most) {
				t.Fatalf("%d subjects of at most %d: %v", n, most, err)
			}
			if err == nil && (got.Review < last.Review || got.Decline < last.Decline) {
				t.Fatalf("%d subjects: %+v after %+v", n, got, last)
			}
			last = got
		}
	}
}

func TestWithRates(t *testing.T) {
	for name, rates := range map[string][]decide.Rate{
		"score rests": {{50, 1e-3}, {50, 1e-4}}, "rate rises": {{50, 1e-3}, {70, 1e-2}},
		"zero": {{50, 0}}, "above one": {{50, 1.5}}, "NaN": {{50, nan}}, "NaN score": {{nan, 0.1}},
	} {
		if _, err := identity(t).WithRates(rates); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
