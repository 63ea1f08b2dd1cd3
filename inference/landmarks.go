package inference

import (
	"fmt"
	"math"

	"postern/agent"
	"postern/models"
)

// mesh runs the 468-point face mesh.
type mesh struct{ *net }

// meshPoints is the number of points; each has x, y, z in input pixels.
const meshPoints = 468

// Indices of the mesh points used here (MediaPipe canonical face model). Left
// and right are those of the picture.
const (
	eyeLeftOuter   = 33
	eyeLeftInner   = 133
	eyeRightInner  = 362
	eyeRightOuter  = 263
	noseTip        = 1
	mouthLeft      = 61
	mouthRight     = 291
	foreheadCentre = 10
	chin           = 152
)

// roiScale widens the detector's box to the region that the mesh was trained on.
const roiScale = 1.5

// landmarks is what the mesh yields for one face, in frame pixels.
type landmarks struct {
	points   [5]agent.Point // as in agent.Face
	presence float32        // 0..1: is there a face in the region
	yaw      float32        // degrees, see agent.Quality
	pitch    float32
	roll     float32
	mesh     []agent.Point3 // all points, depth in the same pixels; smaller is nearer
}

func newMesh(e Engine, m *models.Model, threads int) (*mesh, error) {
	n, err := load(e, m, threads)
	if err != nil {
		return nil, err
	}
	if l, p := len(n.output("landmarks", nil)), len(n.output("presence", nil)); l != meshPoints*3 || p != 1 {
		n.close()
		return nil, fmt.Errorf("load model %s: %d landmark and %d presence values, want %d and 1", m.Manifest.ID, l, p, meshPoints*3)
	}
	return &mesh{n}, nil
}

// region maps mesh input pixels to the square around a detection, turned so that
// the eyes lie level.
func region(d detection, size int) affine {
	dx, dy := float64(d.keys[1].X-d.keys[0].X), float64(d.keys[1].Y-d.keys[0].Y)
	angle := math.Atan2(dy, dx)
	side := roiScale * float64(max(d.box.W, d.box.H))
	s := side / float64(size)
	sin, cos := math.Sincos(angle)
	m := affine{a: cos * s, b: -sin * s, d: sin * s, e: cos * s}
	cx, cy := float64(d.box.X+d.box.W/2), float64(d.box.Y+d.box.H/2)
	h := (float64(size) - 1) / 2 // the centre of the input, in pixel centres
	m.c = cx - 0.5 - m.a*h - m.b*h
	m.f = cy - 0.5 - m.d*h - m.e*h
	return m
}

// find runs the mesh on one detection.
func (n *mesh) find(f *agent.Frame, d detection) (landmarks, error) {
	m := region(d, n.size)
	if err := n.run(f, m); err != nil {
		return landmarks{}, err
	}
	p := n.output("landmarks", nil)
	l := landmarks{presence: sigmoid(n.output("presence", nil)[0])}
	at := func(i int) (x, y, z float64) {
		return float64(p[i*3]), float64(p[i*3+1]), float64(p[i*3+2])
	}
	put := func(i int, idx ...int) {
		var x, y float64
		for _, k := range idx {
			px, py, _ := at(k)
			x, y = x+px/float64(len(idx)), y+py/float64(len(idx))
		}
		sx, sy := m.apply(x-0.5, y-0.5)
		l.points[i] = agent.Point{X: float32(sx + 0.5), Y: float32(sy + 0.5)}
	}
	put(0, eyeLeftOuter, eyeLeftInner)
	put(1, eyeRightInner, eyeRightOuter)
	put(2, noseTip)
	put(3, mouthLeft)
	put(4, mouthRight)
	l.mesh = make([]agent.Point3, meshPoints)
	for i := range l.mesh {
		x, y, z := at(i)
		sx, sy := m.apply(x-0.5, y-0.5)
		l.mesh[i] = agent.Point3{X: float32(sx + 0.5), Y: float32(sy + 0.5), Z: float32(z * m.scale())}
	}
	l.yaw, l.pitch = pose(at)
	l.roll = degrees(math.Atan2(float64(l.points[1].Y-l.points[0].Y), float64(l.points[1].X-l.points[0].X)))
	return l, l.check()
}

// pose reads the turn of the head from the mesh's own depth: the line through
// the outer eye corners for yaw, forehead to chin for pitch.
func pose(at func(int) (x, y, z float64)) (yaw, pitch float32) {
	lx, _, lz := at(eyeLeftOuter)
	rx, _, rz := at(eyeRightOuter)
	_, ty, tz := at(foreheadCentre)
	_, by, bz := at(chin)
	return degrees(math.Atan2(rz-lz, rx-lx)), degrees(math.Atan2(tz-bz, by-ty))
}

// Lids of either eye: outer and inner corner, then three pairs of upper and lower lid.
var eyelids = [2][8]int{{33, 133, 160, 144, 159, 145, 158, 153}, {263, 362, 387, 373, 386, 374, 385, 380}}

// eyesOpen is the eye aspect ratio (Soukupova and Cech 2016), the opening of the lids
// over the width of the eye, as a mean of both eyes.
func eyesOpen(mesh []agent.Point3) float32 {
	var sum float64
	for _, e := range eyelids {
		apart := func(a, b int) float64 {
			p, q := mesh[e[a]], mesh[e[b]]
			return math.Hypot(float64(p.X-q.X), float64(p.Y-q.Y))
		}
		sum += (apart(2, 3) + apart(4, 5) + apart(6, 7)) / (3 * max(1e-6, apart(0, 1)))
	}
	return float32(sum / 2)
}

func degrees(rad float64) float32 { return float32(rad * 180 / math.Pi) }

// check refuses landmarks that are not numbers: they would poison the alignment.
func (l landmarks) check() error {
	ok := finite(l.yaw, l.pitch, l.roll)
	for _, p := range l.points {
		ok = ok && finite(p.X, p.Y)
	}
	for _, p := range l.mesh {
		ok = ok && finite(p.X, p.Y, p.Z)
	}
	if !ok {
		return fmt.Errorf("face mesh returned a point that is not a number")
	}
	return nil
}

func finite(vs ...float32) bool {
	for _, v := range vs {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}
