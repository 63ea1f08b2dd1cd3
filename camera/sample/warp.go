package sample

import (
	"image"
	"math"
)

// mat is a plane projective map, row by row; it takes (x, y) to
// ((m0 x + m1 y + m2)/w, (m3 x + m4 y + m5)/w), w = m6 x + m7 y + m8.
type mat [9]float64

func (m mat) apply(x, y float64) (float64, float64) {
	w := m[6]*x + m[7]*y + m[8]
	return (m[0]*x + m[1]*y + m[2]) / w, (m[3]*x + m[4]*y + m[5]) / w
}

// inverse is exact up to a factor, which does not matter for such a map.
func (m mat) inverse() mat {
	return mat{
		m[4]*m[8] - m[5]*m[7], m[2]*m[7] - m[1]*m[8], m[1]*m[5] - m[2]*m[4],
		m[5]*m[6] - m[3]*m[8], m[0]*m[8] - m[2]*m[6], m[2]*m[3] - m[0]*m[5],
		m[3]*m[7] - m[4]*m[6], m[1]*m[6] - m[0]*m[7], m[0]*m[4] - m[1]*m[3],
	}
}

// similarity scales, turns (radians, clockwise) and moves so that the point
// (px, py) comes to (x, y).
func similarity(scale, turn, px, py, x, y float64) mat {
	s, c := math.Sincos(turn)
	s, c = s*scale, c*scale
	return mat{c, -s, x - c*px + s*py, s, c, y - s*px - c*py, 0, 0, 1}
}

// tilted shows a w x h sheet, centred at (x, y), turned in space by yaw and
// pitch and in the plane by roll (radians), seen from depth pixels away.
func tilted(w, h, yaw, pitch, roll, x, y, depth float64) mat {
	sy, cy := math.Sincos(yaw)
	sp, cp := math.Sincos(pitch)
	sr, cr := math.Sincos(roll)
	// The sheet's axes in space after roll, pitch and yaw.
	ux, uy, uz := cr*cy+sr*sp*sy, sr*cp, -cr*sy+sr*sp*cy
	vx, vy, vz := -sr*cy+cr*sp*sy, cr*cp, sr*sy+cr*sp*cy
	centre := mat{1, 0, -w / 2, 0, 1, -h / 2, 0, 0, 1}
	project := mat{
		ux*depth + x*uz, vx*depth + x*vz, x * depth,
		uy*depth + y*uz, vy*depth + y*vz, y * depth,
		uz, vz, depth,
	}
	return project.times(centre)
}

func (m mat) times(o mat) (p mat) {
	for r := range 3 {
		for c := range 3 {
			for k := range 3 {
				p[r*3+c] += m[r*3+k] * o[k*3+c]
			}
		}
	}
	return p
}

// bounds returns the pixels of dst that a w x h picture can reach through m.
func (m mat) bounds(w, h int, dst image.Rectangle) image.Rectangle {
	x0, y0, x1, y1 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, c := range [][2]int{{0, 0}, {w, 0}, {0, h}, {w, h}} {
		x, y := m.apply(float64(c[0]), float64(c[1]))
		x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
	}
	return image.Rect(int(x0)-1, int(y0)-1, int(x1)+2, int(y1)+2).Intersect(dst)
}

// paint draws src (premultiplied) over dst through m, with bilinear sampling.
func paint(dst, src *image.RGBA, m mat) {
	sw, sh := src.Rect.Dx(), src.Rect.Dy()
	inv := m.inverse()
	b := m.bounds(sw, sh, dst.Rect)
	var px [4]int
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			fx, fy := inv.apply(float64(x)+0.5, float64(y)+0.5)
			if !sample(src, sw, sh, fx-0.5, fy-0.5, &px) {
				continue
			}
			d := dst.Pix[y*dst.Stride+x*4:][:4:4]
			keep := 255 - px[3]
			for c := range 3 {
				d[c] = byte(px[c] + int(d[c])*keep/255)
			}
		}
	}
}

// sample reads src at (x, y) between pixels. Outside it is transparent, so
// edges come out smooth.
func sample(src *image.RGBA, w, h int, x, y float64, px *[4]int) bool {
	if !(x > -1 && y > -1 && x < float64(w) && y < float64(h)) {
		return false
	}
	x0, y0 := int(math.Floor(x)), int(math.Floor(y))
	fx, fy := int((x-float64(x0))*256), int((y-float64(y0))*256)
	*px = [4]int{}
	for k, wt := range [4]int{(256 - fx) * (256 - fy), fx * (256 - fy), (256 - fx) * fy, fx * fy} {
		xx, yy := x0+k&1, y0+k>>1
		if wt == 0 || xx < 0 || yy < 0 || xx >= w || yy >= h {
			continue
		}
		s := src.Pix[yy*src.Stride+xx*4:][:4:4]
		for c := range px {
			px[c] += int(s[c]) * wt
		}
	}
	for c := range px {
		px[c] >>= 16
	}
	return px[3] > 0
}
