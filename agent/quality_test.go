package agent_test

import (
	"encoding/json"
	"math"
	"testing"

	"postern/agent"
)

// fine is a face of which nothing can be said against.
var fine = agent.Quality{EyeDistance: 60, Luminance: 50, Contrast: 20, Sharpness: 200, Inside: 1, EyesOpen: 0.3, Score: 90}

func TestRate(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name       string
		change     func(*agent.Quality)
		confidence float32
		want       float64
	}{
		{"good", func(*agent.Quality) {}, 1, 100},
		{"better than asked", func(q *agent.Quality) { q.EyeDistance, q.Sharpness, q.EyesOpen = 1e6, 1e6, 1 }, 1, 100},
		{"doubtful", func(*agent.Quality) {}, 0.725, 25},
		{"very doubtful", func(*agent.Quality) {}, 0.1, 0},
		{"looking down", func(q *agent.Quality) { q.Pitch = -22.5 }, 1, 100 * math.Pow(0.5, 0.3)},
		{"turned", func(q *agent.Quality) { q.Yaw = 30 }, 1, 100 * math.Pow(0.5, 0.15)},
		{"turned too far", func(q *agent.Quality) { q.Yaw = 90 }, 1, 0},
		{"blurred", func(q *agent.Quality) { q.Sharpness = 36 }, 1, 100 * math.Pow(0.5, 0.15)},
		{"small", func(q *agent.Quality) { q.EyeDistance = 30 }, 1, 100 * math.Pow(0.5, 0.15)},
		{"eyes closed", func(q *agent.Quality) { q.EyesOpen = 0.05 }, 1, 0},
		{"cut", func(q *agent.Quality) { q.Inside = 0.75 }, 1, 50},
		{"negative", func(q *agent.Quality) { q.Sharpness = -5 }, 1, 0},
		{"not a number", func(q *agent.Quality) { q.Pitch = nan }, 1, 0},
		{"dark and flat, which have limits only", func(q *agent.Quality) { q.Luminance, q.Contrast = 1, 1 }, 1, 100},
	} {
		q := fine
		c.change(&q)
		if got := float64(q.Rate(c.confidence)); math.Abs(got-c.want) > 1e-3 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNewFindings(t *testing.T) {
	limits := agent.QualityLimits{MinContrast: 8, MaxRoll: 30, MaxYaw: 25, MaxPitch: 25, MinEyesOpen: 0.18, MaxMouthHidden: 0.8, MaxEyesHidden: 0.95, MinScore: 30}
	for _, c := range []struct {
		name   string
		change func(*agent.Quality)
		want   agent.FindingCode
	}{
		{"nothing", func(*agent.Quality) {}, ""},
		{"at the limits", func(q *agent.Quality) {
			q.Contrast, q.Roll, q.EyesOpen, q.MouthCovered, q.EyesCovered, q.Score = 8, -30, 0.18, 0.8, 0.95, 30
		}, ""},
		{"flat", func(q *agent.Quality) { q.Contrast = 7 }, agent.FindingFlat},
		{"tilted", func(q *agent.Quality) { q.Roll = -31 }, agent.FindingTurnedAway},
		{"tilted and turned", func(q *agent.Quality) { q.Roll, q.Yaw = -31, 40 }, agent.FindingTurnedAway},
		{"asleep", func(q *agent.Quality) { q.EyesOpen = 0.1 }, agent.FindingEyesClosed},
		{"masked", func(q *agent.Quality) { q.MouthCovered = 0.9 }, agent.FindingMouthCovered},
		{"sunglasses", func(q *agent.Quality) { q.EyesCovered = 0.99 }, agent.FindingEyesCovered},
		{"poor", func(q *agent.Quality) { q.Score = 29 }, agent.FindingLowScore},
		{"not a number", func(q *agent.Quality) { q.MouthCovered = float32(math.NaN()) }, agent.FindingMouthCovered},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := fine
			c.change(&q)
			p := agent.Probe{Face: &agent.Face{}, Quality: q}
			got := limits.Findings(&p)
			if c.want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || got[0].Code != c.want || got[0].Unit == "" {
				t.Errorf("%+v, want %s", got, c.want)
			}
		})
	}
}

// A template of before the new measures reads with zeros in their place.
func TestOldQualityReads(t *testing.T) {
	var q agent.Quality
	err := json.Unmarshal([]byte(`{"eye_distance":41,"luminance":50,"contrast":20,"sharpness":120,"yaw":1,"pitch":2,"roll":3,"inside":1}`), &q)
	if err != nil || q != (agent.Quality{EyeDistance: 41, Luminance: 50, Contrast: 20, Sharpness: 120, Yaw: 1, Pitch: 2, Roll: 3, Inside: 1}) {
		t.Errorf("%+v, %v", q, err)
	}
}
