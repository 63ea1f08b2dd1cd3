package liveness

import (
	"math"

	"postern/agent"
)

// The names of the signals on motion.
const (
	BackgroundMoves agent.SignalName = "background_moves_with_face"
	SheetMotion     agent.SignalName = "non_rigid_motion"
	BlinkCount      agent.SignalName = "blinks"
	MicroMotion     agent.SignalName = "micro_motion"
)

// Limits of Parallax.
const (
	maxTogether = 0.6 // share of votes
	minVotes    = 12
	minFaceMove = 1.5 // grid cells between the two frames of a pair
	block       = 6   // side of a block in grid cells
	minTexture  = 4   // grey levels of standard deviation that a block needs
	maxMismatch = 10  // grey levels a cell: beyond, the block was covered
)

// Parallax asks what lies beside the head whether it moves with the face. A living
// head moves before a room that stays; a sheet or a screen takes its own background
// along. Where the far parts of the frame move with the face too, it is the camera
// that moves, and nothing is said.
func Parallax(ts []agent.Trace) agent.Signal {
	var p parallax
	for i := range ts {
		p.add(&ts[i])
	}
	return p.signal()
}

// parallax is Parallax, a frame at a time.
type parallax struct {
	from      *agent.Trace // the frame to compare the next ones with
	near, far [2]int       // blocks that stayed, and that moved with the face
}

func (p *parallax) add(t *agent.Trace) {
	if p.from == nil {
		p.from = t
		return
	}
	dx, dy := faceMove(p.from, t)
	if math.Hypot(dx, dy) >= minFaceMove {
		p.vote(p.from, t, int(math.Round(dx)), int(math.Round(dy)))
		p.from = t
	}
}

func (p *parallax) signal() agent.Signal {
	votes := p.near[0] + p.near[1]
	share := float64(p.near[1]) / math.Max(1, float64(votes))
	cameraMoves := p.far[1] > p.far[0]
	return graded(BackgroundMoves, share, maxTogether, "share of its blocks", votes >= minVotes && !cameraMoves, share > maxTogether, agent.GradeSuspicious)
}

// faceMove is the motion of the face from a to b in grid cells.
func faceMove(a, b *agent.Trace) (dx, dy float64) {
	ax, ay := centroid(a.Mesh)
	bx, by := centroid(b.Mesh)
	return (bx - ax) * agent.GridWidth / float64(a.Width), (by - ay) * agent.GridHeight / float64(a.Height)
}

func centroid(mesh []agent.Point3) (x, y float64) {
	for _, p := range mesh {
		x, y = x+float64(p.X), y+float64(p.Y)
	}
	n := math.Max(1, float64(len(mesh)))
	return x / n, y / n
}

// vote asks each textured block of a whether it is found in b where it was, or where
// the face's motion takes it. A block that fits both as well, or neither, has no vote.
func (p *parallax) vote(a, b *agent.Trace, dx, dy int) {
	kx, ky := agent.GridWidth/float64(a.Width), agent.GridHeight/float64(a.Height)
	f := bounds(a.Mesh)
	cx, cy := f.centre()
	for y := 1; y+block < agent.GridHeight; y += block / 2 {
		for x := 1; x+block < agent.GridWidth; x += block / 2 {
			count := &p.near
			switch zone((float64(x)+block/2)/kx-cx, (float64(y)+block/2)/ky-cy, f) {
			case 0:
				continue
			case 2:
				count = &p.far
			}
			if texture(a.Grid, x, y) < minTexture {
				continue
			}
			stay, move := mismatch(a.Grid, b.Grid, x, y, 0, 0), mismatch(a.Grid, b.Grid, x, y, dx, dy)
			switch {
			case min(stay, move) > maxMismatch*block*block:
			case stay < move/2:
				count[0]++
			case move < stay/2:
				count[1]++
			}
		}
	}
}

// mismatch is how badly the block of a at x, y fits b, moved by dx, dy or a cell beside.
func mismatch(a, b []byte, x, y, dx, dy int) int {
	best := math.MaxInt
	for v := y + dy - 1; v <= y+dy+1; v++ {
		for u := x + dx - 1; u <= x+dx+1; u++ {
			if u >= 0 && v >= 0 && u+block <= agent.GridWidth && v+block <= agent.GridHeight {
				best = min(best, difference(a, b, x, y, u, v))
			}
		}
	}
	return best
}

// zone says where a point lies, given from the face's centre: 1 beside or above the
// head, where a person's own hair and shoulders do not reach, 2 far away, 0 elsewhere.
func zone(x, y float64, f box) int {
	ax, ay := math.Abs(x)/f.w(), y/f.h()
	switch {
	case ax > 2.2 || ay < -2.2:
		return 2
	case ax > 0.75 && ax < 1.35 && ay > -0.8 && ay < 0.5, ax < 1.35 && ay > -1.4 && ay < -0.95:
		return 1
	}
	return 0
}

// texture is the standard deviation of a block.
func texture(g []byte, x, y int) float64 {
	var s, ss float64
	for j := range block {
		for i := range block {
			v := float64(g[(y+j)*agent.GridWidth+x+i])
			s, ss = s+v, ss+v*v
		}
	}
	const n = block * block
	return math.Sqrt(math.Max(0, ss/n-s/n*s/n))
}

// difference is the sum of absolute differences of two blocks.
func difference(a, b []byte, ax, ay, bx, by int) int {
	sum := 0
	for j := range block {
		p, q := a[(ay+j)*agent.GridWidth+ax:][:block], b[(by+j)*agent.GridWidth+bx:][:block]
		for i := range p {
			d := int(p[i]) - int(q[i])
			sum += max(d, -d)
		}
	}
	return sum
}

// Limits of Sheet.
const (
	minSquash   = 8.0 // per cent by which the face must have been foreshortened
	minNonRigid = 1.5 // per cent of the face's width
)

// Sheet compares the two frames in which the face looks most differently foreshortened.
// A flat picture that is turned keeps its points on a plane: one projective map
// explains all of them. A head does not. Without such a turn nothing is said.
//
// It informs only. The mesh network has an idea of its own of what a head looks like,
// and bends a print's points towards it: a print that is tilted by 24 degrees leaves
// 2 per cent unexplained, more than a head's noise.
func Sheet(ts []agent.Trace) agent.Signal {
	a, b, squash := turned(ts)
	if squash < minSquash {
		return graded(SheetMotion, 0, minNonRigid, "per cent of the face's width", false, false, "")
	}
	r := planar(ts[a].Mesh, ts[b].Mesh)
	return graded(SheetMotion, r, minNonRigid, "per cent of the face's width", r >= minNonRigid, false, "")
}

// turned finds the pair of frames with the greatest difference in foreshortening, in
// per cent: how much more an affine map stretches the face one way than the other.
func turned(ts []agent.Trace) (a, b int, squash float64) {
	for i := 1; i < len(ts); i++ {
		for _, j := range []int{0, i / 2} {
			if s := anisotropy(ts[j].Mesh, ts[i].Mesh); s > squash {
				a, b, squash = j, i, s
			}
		}
	}
	return a, b, squash
}

// anisotropy is 100 (s1/s2 - 1) for the singular values of the affine map from one
// mesh to the other.
func anisotropy(p, q []agent.Point3) float64 {
	if len(p) != len(q) || len(p) < 8 {
		return 0
	}
	px, py := centroid(p)
	qx, qy := centroid(q)
	var xx, xy, yy, ux, uy, vx, vy float64
	for i := range p {
		x, y := float64(p[i].X)-px, float64(p[i].Y)-py
		u, v := float64(q[i].X)-qx, float64(q[i].Y)-qy
		xx, xy, yy = xx+x*x, xy+x*y, yy+y*y
		ux, uy, vx, vy = ux+u*x, uy+u*y, vx+v*x, vy+v*y
	}
	det := xx*yy - xy*xy
	if det < 1e-9 {
		return 0
	}
	a, b := (ux*yy-uy*xy)/det, (uy*xx-ux*xy)/det
	c, d := (vx*yy-vy*xy)/det, (vy*xx-vx*xy)/det
	e, f := math.Hypot(a+d, c-b), math.Hypot(a-d, b+c) // s1+s2 and s1-s2
	if e-f < 1e-9 {
		return 0
	}
	return 100 * ((e+f)/(e-f) - 1)
}

// planar is what the best projective map from one mesh to the other leaves
// unexplained: root mean square, in per cent of the face's width.
func planar(p, q []agent.Point3) float64 {
	h, ok := homography(p, q)
	w := bounds(q).w()
	if !ok || w <= 0 {
		return math.Inf(1)
	}
	var sum float64
	for i := range p {
		x, y := float64(p[i].X), float64(p[i].Y)
		k := h[6]*x + h[7]*y + 1
		dx := (h[0]*x+h[1]*y+h[2])/k - float64(q[i].X)
		dy := (h[3]*x+h[4]*y+h[5])/k - float64(q[i].Y)
		sum += dx*dx + dy*dy
	}
	return 100 * math.Sqrt(sum/float64(len(p))) / w
}

// homography is the least-squares projective map of p to q (direct linear transform
// with normalised points), its last entry 1.
func homography(p, q []agent.Point3) ([8]float64, bool) {
	px, py := centroid(p)
	qx, qy := centroid(q)
	k := math.Max(1, bounds(p).w())
	var m [8][9]float64
	add := func(r [8]float64, rhs float64) {
		for i := range 8 {
			for j := range 8 {
				m[i][j] += r[i] * r[j]
			}
			m[i][8] += r[i] * rhs
		}
	}
	for i := range p {
		x, y := (float64(p[i].X)-px)/k, (float64(p[i].Y)-py)/k
		u, v := (float64(q[i].X)-qx)/k, (float64(q[i].Y)-qy)/k
		add([8]float64{x, y, 1, 0, 0, 0, -u * x, -u * y}, u)
		add([8]float64{0, 0, 0, x, y, 1, -v * x, -v * y}, v)
	}
	n, ok := solve(&m)
	if !ok {
		return n, false
	}
	// Undo the normalisation: T(q)^-1 N T(p), then scale the last entry to 1.
	norm := [9]float64{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], 1}
	left := [9]float64{k, 0, qx, 0, k, qy, 0, 0, 1}
	right := [9]float64{1 / k, 0, -px / k, 0, 1 / k, -py / k, 0, 0, 1}
	full := times(times(left, norm), right)
	if math.Abs(full[8]) < 1e-12 {
		return n, false
	}
	var out [8]float64
	for i := range out {
		out[i] = full[i] / full[8]
	}
	return out, true
}

func times(a, b [9]float64) (c [9]float64) {
	for i := range 3 {
		for j := range 3 {
			for k := range 3 {
				c[i*3+j] += a[i*3+k] * b[k*3+j]
			}
		}
	}
	return c
}

// solve is Gaussian elimination with pivoting.
func solve(m *[8][9]float64) (x [8]float64, ok bool) {
	for c := range 8 {
		best := c
		for r := c + 1; r < 8; r++ {
			if math.Abs(m[r][c]) > math.Abs(m[best][c]) {
				best = r
			}
		}
		m[c], m[best] = m[best], m[c]
		if math.Abs(m[c][c]) < 1e-12 {
			return x, false
		}
		for r := range 8 {
			if r == c {
				continue
			}
			f := m[r][c] / m[c][c]
			for j := c; j < 9; j++ {
				m[r][j] -= f * m[c][j]
			}
		}
	}
	for i := range x {
		x[i] = m[i][8] / m[i][i]
	}
	return x, true
}

// Vertices of the eyes in the mesh: corners, then upper and lower lid in two places.
var eyes = [2][6]int{{33, 133, 160, 144, 158, 153}, {362, 263, 385, 380, 387, 373}}

// meshPoints is the number of points that a face mesh has.
const meshPoints = 468

// Openness is the eye aspect ratio, the mean of both eyes: height of the opening over
// its width (Soukupova and Cech 2016). About 0.3 when open, below 0.15 when shut.
func Openness(mesh []agent.Point3) float64 {
	if len(mesh) < meshPoints {
		return 0
	}
	sum := 0.0
	for _, e := range eyes {
		w := apart(mesh[e[0]], mesh[e[1]])
		sum += (apart(mesh[e[2]], mesh[e[3]]) + apart(mesh[e[4]], mesh[e[5]])) / (2 * math.Max(w, 1e-6))
	}
	return sum / 2
}

func apart(a, b agent.Point3) float64 {
	return math.Hypot(float64(a.X-b.X), float64(a.Y-b.Y))
}

// shutShare is the openness, against the median of the presentation, that counts as shut.
const shutShare = 0.6

// Blinks counts how often the eyes were shut and open again. It informs only: nobody
// blinks on command within a second, and a video does.
func Blinks(ts []agent.Trace) agent.Signal {
	var open []float64
	for _, t := range ts {
		open = append(open, Openness(t.Mesh))
	}
	limit := shutShare * middle(open)
	n, shut := 0, false
	for _, v := range open {
		if shut && v >= limit {
			n++
		}
		shut = v < limit
	}
	return graded(BlinkCount, float64(n), 1, "blinks", n > 0, false, "")
}

// minMicro is in per cent of the face's width. Even a print gives more, by the noise of
// the sensor: what lies below is not a sensor's picture.
const minMicro = 0.01

// Motion is how much the mesh changes from frame to frame besides moving, turning and
// growing as a whole: root mean square, the median over the frames.
func Motion(ts []agent.Trace) agent.Signal {
	var v []float64
	for i := 1; i < len(ts); i++ {
		if ts[i].Digest != ts[i-1].Digest {
			v = append(v, similar(ts[i-1].Mesh, ts[i].Mesh))
		}
	}
	m := middle(v)
	return graded(MicroMotion, m, minMicro, "per cent of the face's width", len(v) >= 5, m < minMicro, agent.GradeSuspicious)
}

// similar is what the best similarity from p to q leaves unexplained, in per cent of
// the face's width.
func similar(p, q []agent.Point3) float64 {
	w := bounds(q).w()
	if len(p) != len(q) || len(p) == 0 || w <= 0 {
		return 0
	}
	px, py := centroid(p)
	qx, qy := centroid(q)
	var norm, dot, cross, qq float64
	for i := range p {
		x, y := float64(p[i].X)-px, float64(p[i].Y)-py
		u, v := float64(q[i].X)-qx, float64(q[i].Y)-qy
		norm, dot, cross, qq = norm+x*x+y*y, dot+x*u+y*v, cross+x*v-y*u, qq+u*u+v*v
	}
	rest := qq - (dot*dot+cross*cross)/math.Max(norm, 1e-9)
	return 100 * math.Sqrt(math.Max(0, rest)/float64(len(p))) / w
}
