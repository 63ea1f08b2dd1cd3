package decide_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/decide"
)

var (
	nan = math.NaN()
	inf = math.Inf(1)
)

// identity maps cosine 0..1 to score 0..100.
func identity(tb testing.TB) *decide.Curve {
	tb.Helper()
	return mustCurve(tb, []decide.Point{{0, 0}, {1, 100}})
}

func mustCurve(tb testing.TB, ps []decide.Point) *decide.Curve {
	tb.Helper()
	c, err := decide.NewCurve("test-1", ps)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestNewCurve(t *testing.T) {
	ok := []decide.Point{{-1, 0}, {0.3, 50}, {1, 100}}
	for _, c := range []struct {
		name   string
		id     string
		points []decide.Point
		ok     bool
	}{
		{"good", "x", ok, true},
		{"two points", "x", []decide.Point{{0, 0}, {0.5, 100}}, true},
		{"no id", "", ok, false},
		{"none", "x", nil, false},
		{"one", "x", []decide.Point{{0, 0}}, false},
		{"score 0 missing", "x", []decide.Point{{-1, 1}, {1, 100}}, false},
		{"score 100 missing", "x", []decide.Point{{-1, 0}, {1, 99}}, false},
		{"score falls", "x", []decide.Point{{-1, 0}, {0, 60}, {0.5, 50}, {1, 100}}, false},
		{"score rests", "x", []decide.Point{{-1, 0}, {0, 60}, {0.5, 60}, {1, 100}}, false},
		{"cosine falls", "x", []decide.Point{{0, 0}, {-0.5, 50}, {1, 100}}, false},
		{"cosine rests", "x", []decide.Point{{0, 0}, {0, 50}, {1, 100}}, false},
		{"cosine below", "x", []decide.Point{{-1.1, 0}, {1, 100}}, false},
		{"cosine above", "x", []decide.Point{{-1, 0}, {1.1, 100}}, false},
		{"score above", "x", []decide.Point{{-1, 0}, {1, 101}}, false},
		{"NaN cosine", "x", []decide.Point{{-1, 0}, {nan, 50}, {1, 100}}, false},
		{"NaN score", "x", []decide.Point{{-1, 0}, {0, nan}, {1, 100}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := decide.NewCurve(c.id, c.points); (err == nil) != c.ok {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("keeps its own points", func(t *testing.T) {
		ps := slices.Clone(ok)
		c := mustCurve(t, ps)
		ps[1].Score = 99
		if got := c.Score(0.3); got != 50 {
			t.Errorf("score %v after the caller changed its slice", got)
		}
		if c.ID() != "test-1" {
			t.Errorf("id %q", c.ID())
		}
	})
}

func TestScore(t *testing.T) {
	c := mustCurve(t, []decide.Point{{0, 0}, {0.4, 50}, {0.8, 100}})
	for _, k := range []struct {
		cosine float32
		want   float64
	}{
		{-1, 0}, {0, 0}, {0.2, 25}, {0.4, 50}, {0.6, 75}, {0.8, 100}, {1, 100},
		{float32(nan), 0}, {float32(inf), 0}, {float32(-inf), 0}, {1.5, 0}, {-2, 0},
	} {
		if got := c.Score(k.cosine); math.Abs(got-k.want) > 0.005 {
			t.Errorf("Score(%v) = %v, want %v", k.cosine, got, k.want)
		}
	}
	if got := c.Cosine(-5); got != 0 {
		t.Errorf("Cosine(-5) = %v", got)
	}
	if got := c.Cosine(nan); got != 0.8 {
		t.Errorf("Cosine(NaN) = %v, want the strictest", got)
	}
}

// randomCurve is any valid curve.
func randomCurve(tb testing.TB, r *rand.Rand) *decide.Curve {
	tb.Helper()
	n := 2 + r.IntN(8)
	distinct := func(lo, hi float64) []float64 {
		var xs []float64
		for len(xs) < n {
			x := lo + math.Round(r.Float64()*1e4)/1e4*(hi-lo)
			if !slices.Contains(xs, x) {
				xs = append(xs, x)
			}
		}
		slices.Sort(xs)
		return xs
	}
	cs, ss := distinct(-1, 1), distinct(0, 100)
	ss[0], ss[n-1] = 0, 100
	ps := make([]decide.Point, n)
	for i := range ps {
		ps[i] = decide.Point{Cosine: cs[i], Score: ss[i]}
	}
	return mustCurve(tb, ps)
}

func TestScoreIsMonotone(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		c := randomCurve(t, r)
		for range 50 {
			x, y := float32(r.Float64()*2.2-1.1), float32(r.Float64()*2.2-1.1)
			if x > y {
				x, y = y, x
			}
			a, b := c.Score(x), c.Score(y)
			if y <= 1 && a > b {
				t.Fatalf("Score(%v) = %v > Score(%v) = %v", x, a, y, b)
			}
			if !(a >= 0 && a <= 100) {
				t.Fatalf("Score(%v) = %v is out of range", x, a)
			}
		}
		// Back and forth: the score of the cosine of a score is that score, up to
		// the rounding of both. Steep curves turn a float32 step into more.
		s := r.Float64() * 100
		cos := c.Cosine(s)
		lo, hi := c.Score(math.Nextafter32(cos, -2)), c.Score(min(1, math.Nextafter32(cos, 2)))
		if s < lo-0.011 || s > hi+0.011 {
			t.Fatalf("Cosine(%v) = %v, whose score is %v to %v", s, cos, lo, hi)
		}
	}
}

func TestValidateThresholds(t *testing.T) {
	for _, c := range []struct {
		review, decline float64
		ok              bool
	}{
		{70, 50, true}, {70, 70, true}, {0, 0, true}, {99.99, 0, true},
		{100, 50, false}, {101, 50, false}, {50, 70, false}, {70, -1, false},
		{nan, 50, false}, {70, nan, false}, {nan, nan, false}, {inf, 50, false}, {70, -inf, false},
	} {
		err := decide.ValidateThresholds(agent.Thresholds{Review: c.review, Decline: c.decline})
		if (err == nil) != c.ok || (err != nil && agent.ErrorCode(err) != agent.CodeInvalid) {
			t.Errorf("review %v decline %v: %v", c.review, c.decline, err)
		}
	}
}

func TestDecideStatus(t *testing.T) {
	c := identity(t)
	usual := agent.Thresholds{Review: 70, Decline: 50}
	for _, k := range []struct {
		name   string
		cosine float32
		th     agent.Thresholds
		want   agent.Status
		risk   agent.Risk // "" for none
	}{
		{"nothing alike", 0, usual, agent.Declined, agent.RiskLowSimilarity},
		{"just below decline", 0.4999, usual, agent.Declined, agent.RiskLowSimilarity},
		{"at decline", 0.5, usual, agent.Declined, agent.RiskLowSimilarity},
		{"rounds to decline", 0.50004, usual, agent.Declined, agent.RiskLowSimilarity},
		{"just above decline", 0.5001, usual, agent.InReview, agent.RiskLowSimilarity},
		{"just below review", 0.6999, usual, agent.InReview, agent.RiskLowSimilarity},
		{"at review", 0.7, usual, agent.InReview, agent.RiskLowSimilarity},
		{"just above review", 0.7001, usual, agent.Approved, ""},
		{"the same", 1, usual, agent.Approved, ""},
		{"no review band, at", 0.7, agent.Thresholds{Review: 70, Decline: 70}, agent.Declined, agent.RiskLowSimilarity},
		{"no review band, above", 0.7001, agent.Thresholds{Review: 70, Decline: 70}, agent.Approved, ""},
		{"zero thresholds, zero score", 0, agent.Thresholds{}, agent.Declined, agent.RiskLowSimilarity},
		{"NaN", float32(nan), usual, agent.Declined, agent.RiskNotComputed},
		{"infinite", float32(inf), usual, agent.Declined, agent.RiskNotComputed},
		{"above 1", 1.01, usual, agent.Declined, agent.RiskNotComputed},
		{"thresholds swapped", 1, agent.Thresholds{Review: 50, Decline: 70}, agent.Declined, agent.RiskNotComputed},
		{"negative thresholds", 1, agent.Thresholds{Review: -1, Decline: -2}, agent.Declined, agent.RiskNotComputed},
		{"NaN thresholds", 1, agent.Thresholds{Review: nan, Decline: nan}, agent.Declined, agent.RiskNotComputed},
		{"review out of reach", 1, agent.Thresholds{Review: 100, Decline: 50}, agent.Declined, agent.RiskNotComputed},
	} {
		t.Run(k.name, func(t *testing.T) {
			d := decide.Decide(c, k.th, decide.Evidence{Cosine: k.cosine, Scored: true, ModelID: "m", Frames: 3})
			if d.Status != k.want {
				t.Errorf("status %s at score %v, want %s", d.Status, d.Score, k.want)
			}
			if d.Warnings == nil || (k.risk == "") != (len(d.Warnings) == 0) || (k.risk != "" && d.Warnings[0].Risk != k.risk) {
				t.Errorf("warnings %+v, want %q", d.Warnings, k.risk)
			}
			if d.ModelID != "m" || d.Calibration != "test-1" || d.Frames != 3 {
				t.Errorf("lost something: %+v", d)
			}
		})
	}
}

func TestDecideWithoutAScore(t *testing.T) {
	c, th := identity(t), agent.Thresholds{Review: 70, Decline: 50}
	for _, k := range []struct {
		name string
		e    decide.Evidence
		want agent.Risk
	}{
		{"zero value", decide.Evidence{}, agent.RiskNoReference},
		{"a cosine that was not scored", decide.Evidence{Cosine: 1}, agent.RiskNoReference},
		{"a reason", decide.Evidence{Cosine: 1, Missing: agent.RiskLowQuality}, agent.RiskLowQuality},
	} {
		t.Run(k.name, func(t *testing.T) {
			d := decide.Decide(c, th, k.e)
			if d.Status != agent.Declined || d.Scored || d.Score != 0 || d.Cosine != 0 {
				t.Errorf("decision %+v", d)
			}
			if len(d.Warnings) != 1 || d.Warnings[0].Risk != k.want || d.Warnings[0].LogType != agent.LogError {
				t.Errorf("warnings %+v", d.Warnings)
			}
		})
	}
}

func TestWarningsNeverRaiseTheStatus(t *testing.T) {
	rank := map[agent.Status]int{agent.Declined: 0, agent.InReview: 1, agent.Approved: 2}
	codes := []agent.FindingCode{agent.FindingNoFace, agent.FindingSeveralFaces, agent.FindingFaceCut, agent.FindingTooSmall,
		agent.FindingTooDark, agent.FindingTooBright, agent.FindingBlurred, agent.FindingTurnedAway, "SOMETHING_NEW"}
	r := rand.New(rand.NewPCG(3, 4))
	c := identity(t)
	for range 2000 {
		th := agent.Thresholds{Review: r.Float64() * 110, Decline: r.Float64() * 110}
		plain := decide.Evidence{Cosine: float32(r.Float64()), Scored: r.IntN(4) > 0}
		with := plain
		with.Ambiguous = r.IntN(2) == 0
		for range r.IntN(4) {
			with.Findings = append(with.Findings, agent.Finding{Code: codes[r.IntN(len(codes))], Value: 1, Limit: 2, Unit: "u"})
		}
		a, b := decide.Decide(c, th, plain), decide.Decide(c, th, with)
		if rank[b.Status] > rank[a.Status] {
			t.Fatalf("%+v raised %s to %s", with, a.Status, b.Status)
		}
		if b.Status == agent.Approved && (with.Ambiguous || !with.Scored || decide.ValidateThresholds(th) != nil) {
			t.Fatalf("approved %+v with %+v", with, th)
		}
		if b.Warnings == nil {
			t.Fatal("warnings are nil")
		}
	}
}

func TestDecideAmbiguous(t *testing.T) {
	d := decide.Decide(identity(t), agent.Thresholds{Review: 70, Decline: 50}, decide.Evidence{Cosine: 1, Scored: true, Ambiguous: true})
	if d.Status != agent.InReview || len(d.Warnings) != 1 || d.Warnings[0].Risk != agent.RiskAmbiguous {
		t.Errorf("decision %+v", d)
	}
}

func TestFindingsExplain(t *testing.T) {
	want := map[agent.FindingCode]agent.Risk{
		agent.FindingNoFace: agent.RiskLowQuality, agent.FindingSeveralFaces: agent.RiskSeveralFaces,
		agent.FindingFaceCut: agent.RiskLowQuality, agent.FindingTooSmall: agent.RiskLowQuality,
		agent.FindingTooDark: agent.RiskDarkFace, agent.FindingTooBright: agent.RiskBrightFace,
		agent.FindingBlurred: agent.RiskLowQuality, agent.FindingTurnedAway: agent.RiskLowQuality,
		agent.FindingFlat: agent.RiskLowQuality, agent.FindingEyesClosed: agent.RiskLowQuality, agent.FindingMouthCovered: agent.RiskLowQuality,
		agent.FindingEyesCovered: agent.RiskLowQuality, agent.FindingLowScore: agent.RiskLowQuality,
	}
	for code, risk := range want {
		t.Run(string(code), func(t *testing.T) {
			f := agent.Finding{Code: code, Value: 12.345, Limit: 40, Unit: "units"}
			d := decide.Decide(identity(t), agent.Thresholds{}, decide.Evidence{Cosine: 1, Scored: true, Findings: []agent.Finding{f}})
			if d.Status != agent.Approved || len(d.Warnings) != 1 {
				t.Fatalf("decision %+v", d)
			}
			w := d.Warnings[0]
			if w.Risk != risk || w.LogType != agent.LogInformation || w.Feature != "FACEMATCH" || w.Short == "" {
				t.Errorf("warning %+v", w)
			}
			if code != agent.FindingNoFace && (!strings.Contains(w.Long, "12.35 units") || !strings.Contains(w.Long, "40")) {
				t.Errorf("text %q lacks the measured value or its limit", w.Long)
			}
			if text := decide.Describe(f); text == "" || strings.HasPrefix(text, " ") {
				t.Errorf("description %q", text)
			}
		})
	}
}

// Every decision must reach the store, so none may hold what JSON cannot say.
func TestDecisionsAreJSON(t *testing.T) {
	for _, cos := range []float64{nan, inf, -inf, 2, -2, 0, 1} {
		d := decide.Decide(identity(t), agent.Thresholds{Review: 70, Decline: 50}, decide.Evidence{Cosine: float32(cos), Scored: true})
		raw, err := json.Marshal(d)
		if err != nil || !strings.Contains(string(raw), `"warnings":[`) {
			t.Errorf("cosine %v: %s, %v", cos, raw, err)
		}
	}
}

func ExampleDecide() {
	curve, _ := decide.NewCurve("example-1", []decide.Point{{Cosine: 0, Score: 0}, {Cosine: 1, Score: 100}})
	limits := agent.Thresholds{Review: 70, Decline: 50}
	for _, cosine := range []float32{0.8, 0.6, 0.3} {
		d := decide.Decide(curve, limits, decide.Evidence{Cosine: cosine, Scored: true})
		fmt.Println(d.Score, d.Status)
	}
	// Output:
	// 80 Approved
	// 60 In Review
	// 30 Declined
}

func TestDecideStale(t *testing.T) {
	for cosine, want := range map[float32]agent.Status{1: agent.InReview, 0: agent.Declined} {
		d := decide.Decide(identity(t), agent.Thresholds{Review: 70, Decline: 50}, decide.Evidence{Cosine: cosine, Scored: true, Stale: true})
		if d.Status != want || d.Warnings[len(d.Warnings)-1].Risk != agent.RiskOffline {
			t.Errorf("cosine %g: %+v", cosine, d)
		}
	}
}
