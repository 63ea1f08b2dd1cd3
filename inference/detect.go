package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"postern/agent"
	"postern/models"
)

// detection is one face as the detector sees it, in frame pixels. keys are eye
// on the left of the picture, eye on the right, nose, mouth, ear left, ear right.
type detection struct {
	box   agent.Box
	score float32
	keys  [6]agent.Point
}

// detector runs one BlazeFace network.
type detector struct {
	*net
	spec    models.Detector
	anchors [][2]float32 // centre of each anchor, in units of the input size
}

// regressors per anchor: box centre, box size, six key points.
const regressorLen = 16

func newDetector(e Engine, m *models.Model, threads int) (*detector, error) {
	n, err := load(e, m, threads)
	if err != nil {
		return nil, err
	}
	d := &detector{net: n, spec: *m.Manifest.Detector, anchors: anchors(n.size, m.Manifest.Detector.Anchors)}
	if r, s := n.output("regressors", nil), n.output("scores", nil); len(r) != len(d.anchors)*regressorLen || len(s) != len(d.anchors) {
		n.close()
		return nil, fmt.Errorf("load model %s: %d anchors do not fit %d regressors and %d scores", m.Manifest.ID, len(d.anchors), len(r), len(s))
	}
	return d, nil
}

// anchors lists the anchor centres in the order of the network's rows: layer by
// layer, row by row, PerCell anchors at each cell centre.
func anchors(size int, layers []models.AnchorLayer) [][2]float32 {
	var out [][2]float32
	for _, l := range layers {
		cells := (size + l.Stride - 1) / l.Stride
		for y := range cells {
			for x := range cells {
				c := [2]float32{(float32(x) + 0.5) / float32(cells), (float32(y) + 0.5) / float32(cells)}
				for range l.PerCell {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

// detect returns the faces in the frame, the one that the picture is about first.
func (d *detector) detect(f *agent.Frame) ([]detection, error) {
	m := letterbox(f, d.size)
	if err := d.run(f, m); err != nil {
		return nil, err
	}
	raw := d.decode(m)
	found := weightedNMS(raw, float32(d.spec.NMSIoU))
	slices.SortStableFunc(found, func(a, b detection) int {
		return cmp.Compare(prominence(b.box, f), prominence(a.box, f))
	})
	return found, nil
}

// prominence ranks faces: the box's area less the squared distance of its centre
// from the frame's. The largest face wins unless it stands at the border and one
// of nearly its size in the middle.
func prominence(b agent.Box, f *agent.Frame) float32 {
	dx, dy := b.X+b.W/2-float32(f.Width)/2, b.Y+b.H/2-float32(f.Height)/2
	return b.Area() - dx*dx - dy*dy
}

// letterbox fits the whole frame into a size x size square, centred.
func letterbox(f *agent.Frame, size int) affine {
	s := float64(max(f.Width, f.Height)) / float64(size)
	half := float64(size) / 2
	return affine{
		a: s, c: (0.5-half)*s + float64(f.Width)/2 - 0.5,
		e: s, f: (0.5-half)*s + float64(f.Height)/2 - 0.5,
	}
}

// decode turns the rows above the score threshold into frame coordinates.
func (d *detector) decode(m affine) []detection {
	reg, scores := d.output("regressors", nil), d.output("scores", nil)
	limit := logit(d.spec.ScoreThreshold)
	size := float32(d.size)
	at := func(x, y float32) agent.Point {
		// Network coordinates count from the corner, the map from pixel centres.
		px, py := m.apply(float64(x*size)-0.5, float64(y*size)-0.5)
		return agent.Point{X: float32(px + 0.5), Y: float32(py + 0.5)}
	}
	var out []detection
	for i, s := range scores {
		if !(s >= limit) { // also drops NaN
			continue
		}
		r, c := reg[i*regressorLen:(i+1)*regressorLen], d.anchors[i]
		cx, cy, w, h := r[0]/size+c[0], r[1]/size+c[1], r[2]/size, r[3]/size
		if !(w > 0 && h > 0 && w < 4 && h < 4) {
			continue
		}
		p0, p1 := at(cx-w/2, cy-h/2), at(cx+w/2, cy+h/2)
		det := detection{box: agent.Box{X: p0.X, Y: p0.Y, W: p1.X - p0.X, H: p1.Y - p0.Y}, score: sigmoid(s)}
		for k := range det.keys {
			det.keys[k] = at(r[4+2*k]/size+c[0], r[5+2*k]/size+c[1])
		}
		if det.finite() {
			out = append(out, det)
		}
	}
	return out
}

// finite reports whether every number of the detection is one.
func (d detection) finite() bool {
	ok := finite(d.box.X, d.box.Y, d.box.W, d.box.H)
	for _, k := range d.keys {
		ok = ok && finite(k.X, k.Y)
	}
	return ok
}

func logit(p float64) float32   { return float32(math.Log(p / (1 - p))) }
func sigmoid(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }

// weightedNMS merges overlapping detections: each group becomes the mean of its
// members weighted by score, with the best member's score (BlazeFace paper, §4).
func weightedNMS(in []detection, iouLimit float32) []detection {
	slices.SortStableFunc(in, func(a, b detection) int { return cmp.Compare(b.score, a.score) })
	var out []detection
	for len(in) > 0 {
		best := in[0]
		var group, rest []detection
		for _, d := range in {
			if iou(best.box, d.box) > iouLimit {
				group = append(group, d)
			} else {
				rest = append(rest, d)
			}
		}
		if len(group) == 0 { // a degenerate box does not even overlap itself
			group, rest = in[:1], in[1:]
		}
		out = append(out, merge(group))
		in = rest
	}
	return out
}

func merge(group []detection) detection {
	m := detection{score: group[0].score}
	var total float32
	for _, d := range group {
		total += d.score
	}
	for _, d := range group {
		w := d.score / total
		m.box.X += w * d.box.X
		m.box.Y += w * d.box.Y
		m.box.W += w * d.box.W
		m.box.H += w * d.box.H
		for k := range m.keys {
			m.keys[k].X += w * d.keys[k].X
			m.keys[k].Y += w * d.keys[k].Y
		}
	}
	return m
}

func iou(a, b agent.Box) float32 {
	w := min(a.X+a.W, b.X+b.W) - max(a.X, b.X)
	h := min(a.Y+a.H, b.Y+b.H) - max(a.Y, b.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a.Area() + b.Area() - w*h)
}
