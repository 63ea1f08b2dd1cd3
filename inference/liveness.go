package inference

import (
	"errors"
	"fmt"
	"math"

	"postern/agent"
	"postern/models"
)

var errNoLiveness = errors.New("the model set has no liveness network")

// spoofing runs the presentation-attack network on its own crop of the frame, which
// shows more than the face: the edge of a sheet or a screen lies around it.
type spoofing struct {
	*net
	spec models.Liveness
	buf  []float32
}

func newSpoofing(e Engine, m *models.Model, threads int) (*spoofing, error) {
	if m == nil {
		return nil, errNoLiveness
	}
	n, err := load(e, m, threads)
	if err != nil {
		return nil, err
	}
	s := &spoofing{net: n, spec: *m.Manifest.Liveness, buf: make([]float32, 64)}
	if got := len(n.output("classes", s.buf)); got < 2 || s.spec.Live >= got {
		n.close()
		return nil, fmt.Errorf("load model %s: %d classes, of which number %d is to be the living", m.Manifest.ID, got, s.spec.Live)
	}
	return s, nil
}

// judge measures the liveness of the face with this mesh, from one frame.
func (s *spoofing) judge(f *agent.Frame, mesh []agent.Point3) (agent.Liveness, error) {
	if err := s.run(f, livenessCrop(f, mesh, s.spec.Scale, s.size)); err != nil {
		return agent.Liveness{}, err
	}
	odds := logOdds(s.output("classes", s.buf), s.spec.Live)
	if math.IsNaN(odds) {
		return agent.Liveness{}, errors.New("the network's output is not a number")
	}
	return agent.Liveness{
		Score: livenessScore(s.spec.Calibration, odds), Measured: true, Method: agent.LivenessPassive,
		ModelID: s.man.ID, Calibration: s.spec.Calibration.ID, Frames: 1,
	}, nil
}

// livenessCrop maps input pixels to the box around the mesh, grown by scale about
// its centre. Where that leaves the picture it is first made smaller until it fits,
// keeping its shape, then moved: the network was trained so.
func livenessCrop(f *agent.Frame, mesh []agent.Point3, scale float64, side int) affine {
	x0, y0 := math.Inf(1), math.Inf(1)
	x1, y1 := math.Inf(-1), math.Inf(-1)
	for _, p := range mesh {
		x0, x1 = min(x0, float64(p.X)), max(x1, float64(p.X))
		y0, y1 = min(y0, float64(p.Y)), max(y1, float64(p.Y))
	}
	w, h := max(1, x1-x0), max(1, y1-y0)
	scale = min(scale, float64(f.Width)/w, float64(f.Height)/h)
	w, h = w*scale, h*scale
	left := max(0, min((x0+x1-w)/2, float64(f.Width)-w))
	top := max(0, min((y0+y1-h)/2, float64(f.Height)-h))
	kx, ky := w/float64(side), h/float64(side)
	return affine{a: kx, e: ky, c: left + kx/2 - 0.5, f: top + ky/2 - 0.5}
}

// logOdds is ln(p/(1-p)) of one class under the softmax of logits.
func logOdds(logits []float32, class int) float64 {
	rest, most := 0.0, math.Inf(-1)
	for i, v := range logits {
		if i != class {
			most = max(most, float64(v))
		}
	}
	for i, v := range logits {
		if i != class {
			rest += math.Exp(float64(v) - most)
		}
	}
	return float64(logits[class]) - most - math.Log(rest)
}

// livenessScore interpolates between the knots of the map; its ends are flat.
func livenessScore(c models.LivenessCalibration, odds float64) float64 {
	ps := c.Points
	if odds <= ps[0].LogOdds {
		return ps[0].Score
	}
	for i := 1; i < len(ps); i++ {
		if a, b := ps[i-1], ps[i]; odds <= b.LogOdds {
			return a.Score + (b.Score-a.Score)*(odds-a.LogOdds)/(b.LogOdds-a.LogOdds)
		}
	}
	return ps[len(ps)-1].Score
}
