package store

import (
	"math"
	"reflect"
	"testing"

	"postern/agent"
)

// TestResultWithLiveness: the verdict on liveness is kept with the result. Records from
// before it existed are those of TestGolden.
func TestResultWithLiveness(t *testing.T) {
	r := goldenResult()
	r.Decision.Liveness = &agent.LivenessCheck{
		Status: agent.InReview, Thresholds: agent.Thresholds{Review: 70, Decline: 50},
		Liveness: agent.Liveness{Score: 61.5, Measured: true, Method: agent.LivenessActive3D, ModelID: "pad-1", Calibration: "pad-1/x",
			Frames: 9, Challenge: "met", Signals: []agent.Signal{{Name: "face_flicker", Value: 1.5, Limit: 4, Unit: "per cent", Grade: agent.GradeNormal}}},
	}
	p, err := encodePayload(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeResult(p)
	if err != nil || !reflect.DeepEqual(got.Decision.Liveness, r.Decision.Liveness) {
		t.Errorf("%v: %+v, want %+v", err, got.Decision.Liveness, r.Decision.Liveness)
	}
	for _, bad := range []float64{-1, 100.5, math.NaN()} {
		r.Decision.Liveness.Score = bad
		if checkResult(&r) == nil {
			t.Errorf("a liveness score of %v is accepted", bad)
		}
	}
}
