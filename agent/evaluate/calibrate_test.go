package evaluate

import (
	"math"
	"math/rand/v2"
	"testing"

	"postern/agent"
)

// synthetic is a finished run on people whose pictures scatter around a direction of
// their own.
func synthetic(people, pictures int, scatter float64) *Report {
	r := rand.New(rand.NewPCG(5, 5))
	d := &Dataset{}
	var faces []face
	for p := range people {
		centre := make([]float64, 24)
		for i := range centre {
			centre[i] = r.NormFloat64()
		}
		for range pictures {
			e := make(agent.Embedding, len(centre))
			for i, v := range centre {
				e[i] = float32(v + scatter*r.NormFloat64())
			}
			e.Normalise()
			d.Images = append(d.Images, Image{Person: string(rune('a'+p%26)) + string(rune('a'+p/26))})
			faces = append(faces, face{embedding: e, quality: 50})
		}
	}
	report := &Report{Images: len(d.Images)}
	report.compare(d, faces, Options{})
	return report
}

func TestFit(t *testing.T) {
	r := synthetic(120, 3, 0.5)
	c, err := r.Fit("x-1", "made up")
	if err != nil {
		t.Fatal(err)
	}
	if c.People != 120 || c.Genuine != 360 || c.Impostor != 360*359/2-360 {
		t.Errorf("%+v", c)
	}
	byScore := map[float64]int{}
	for i, p := range c.Points {
		byScore[p.Score] = i
		if i > 0 && p.Cosine <= c.Points[i-1].Cosine {
			t.Errorf("point %d does not rise", i)
		}
	}
	// 64,260 impostor pairs support 1e-3 and just 1e-4 not.
	for score, measured := range map[float64]bool{30: true, 50: true, 70: false, 90: false} {
		p := c.Points[byScore[score]]
		if (p.FMR > 0) != measured || p.FMRLimits == nil || p.FMRLimits[1] < p.FMR {
			t.Errorf("score %v: %+v", score, p)
		}
		if measured && (p.FMR > ScoreFMR(score) || p.FMR < 0.8*ScoreFMR(score)) {
			t.Errorf("score %v: FMR %v", score, p.FMR)
		}
	}
	again, err := synthetic(120, 3, 0.5).Fit("x-1", "made up")
	if err != nil || *again.Points[5].FMRLimits != *c.Points[5].FMRLimits {
		t.Error("the same data give another table")
	}
}

func TestFitNeedsData(t *testing.T) {
	for name, r := range map[string]*Report{
		"people": synthetic(10, 20, 0.5), "genuine": synthetic(120, 1, 0.5), "impostor": synthetic(30, 4, 0.5),
	} {
		if _, err := r.Fit("x", "y"); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("too few %s: %v", name, err)
		}
	}
}

// People who all look alike leave no cosine for the higher scores.
func TestFitRefusesAlikes(t *testing.T) {
	r := synthetic(120, 3, 0)
	for i := range r.faces {
		r.faces[i].embedding = r.faces[0].embedding
	}
	same := &Report{Images: r.Images}
	same.compare(r.dataset, r.faces, Options{})
	if _, err := same.Fit("x", "y"); err == nil {
		t.Error("a table that cannot rise was fitted")
	}
}

func TestScoreFMR(t *testing.T) {
	for score, want := range map[float64]float64{10: 1e-1, 30: 1e-2, 50: 1e-3, 70: 1e-4, 90: 1e-5, 98: 1e-6} {
		if got := ScoreFMR(score); math.Abs(got/want-1) > 1e-9 {
			t.Errorf("score %v is FMR %v, want %v", score, got, want)
		}
	}
}

// One person with all the misses: the interval over people must be far wider than the
// one over pairs.
func TestIntervalsArePeoples(t *testing.T) {
	r := synthetic(60, 4, 0.3)
	for i := range 4 { // the first person's pictures look like nobody, not even each other
		r.faces[i].embedding = r.faces[40+5*i].embedding
	}
	bad := &Report{Images: r.Images}
	bad.compare(r.dataset, r.faces, Options{})
	p := bad.Points[0]
	w := Wilson(p.Misses, bad.Genuine)
	if p.CI.Low > w.Low || p.CI.High < w.High {
		t.Errorf("interval %+v lies inside Wilson's %+v", p.CI, w)
	}
	if p.CI.Low > 0 {
		t.Errorf("without that person there is no miss, yet the interval starts at %v", p.CI.Low)
	}
}
