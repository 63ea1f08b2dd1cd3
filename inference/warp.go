package inference

import (
	"math"

	"postern/agent"
)

// affine maps target pixel centres to source pixel centres:
// sx = a*x + b*y + c, sy = d*x + e*y + f.
type affine struct{ a, b, c, d, e, f float64 }

func (m affine) apply(x, y float64) (float64, float64) {
	return m.a*x + m.b*y + m.c, m.d*x + m.e*y + m.f
}

// scale is how many source pixels one target pixel spans along a row.
func (m affine) scale() float64 { return math.Hypot(m.a, m.d) }

// invert returns the inverse map; it reports false when m is degenerate.
func (m affine) invert() (affine, bool) {
	det := m.a*m.e - m.b*m.d
	if math.Abs(det) < 1e-12 || math.IsNaN(det) {
		return affine{}, false
	}
	r := affine{a: m.e / det, b: -m.b / det, d: -m.d / det, e: m.a / det}
	r.c = -(r.a*m.c + r.b*m.f)
	r.f = -(r.d*m.c + r.e*m.f)
	return r, true
}

// warper samples frames; its scratch picture is reused. The zero value is ready.
type warper struct{ scratch agent.Frame }

// warp fills dst, w*h RGB pixels, with src seen through m, by bilinear
// interpolation. Outside the source is black. Where a target pixel spans k or more
// source pixels, k > 1, the part of the source that is seen is first averaged over
// k x k blocks: bilinear interpolation alone would alias.
func (p *warper) warp(dst []byte, w, h int, src *agent.Frame, m affine) {
	if k := int(m.scale() + 1e-9); k > 1 {
		m = p.shrink(w, h, src, m, k)
		src = &p.scratch
	}
	warpBilinear(dst, w, h, src, m)
}

// shrink averages the part of src that the target sees into p.scratch and returns
// the map to it.
func (p *warper) shrink(w, h int, src *agent.Frame, m affine, k int) affine {
	x0, y0, x1, y1 := m.bounds(w, h)
	// Blocks lie on a grid from the source's corner, with a margin for neighbours.
	bx, by := clampBlock(x0, k, src.Width), clampBlock(y0, k, src.Height)
	ex, ey := min(src.Width, bx*k+blockSpan(x0, x1, k)), min(src.Height, by*k+blockSpan(y0, y1, k))
	p.scratch.Width, p.scratch.Height = (ex-bx*k+k-1)/k, (ey-by*k+k-1)/k
	if n := p.scratch.Width * p.scratch.Height * 3; cap(p.scratch.Pix) < n {
		p.scratch.Pix = make([]byte, n)
	} else {
		p.scratch.Pix = p.scratch.Pix[:n]
	}
	blockMeans(&p.scratch, src, bx*k, by*k, ex, ey, k)
	// Block i covers source pixels i*k to i*k+k-1, centred on i*k+(k-1)/2.
	f := float64(k)
	mid := (f - 1) / 2
	return affine{a: m.a / f, b: m.b / f, c: (m.c-mid)/f - float64(bx), d: m.d / f, e: m.e / f, f: (m.f-mid)/f - float64(by)}
}

// bounds is the source rectangle that a w x h target sees.
func (m affine) bounds(w, h int) (x0, y0, x1, y1 float64) {
	x0, y0 = m.apply(0, 0)
	x1, y1 = x0, y0
	for _, c := range [3][2]float64{{float64(w - 1), 0}, {0, float64(h - 1)}, {float64(w - 1), float64(h - 1)}} {
		x, y := m.apply(c[0], c[1])
		x0, x1 = min(x0, x), max(x1, x)
		y0, y1 = min(y0, y), max(y1, y)
	}
	return x0, y0, x1, y1
}

// clampBlock is the block left of v, less one for the neighbour, inside the source.
func clampBlock(v float64, k, size int) int {
	return max(0, min(int(math.Floor(v/float64(k)))-1, (size-1)/k))
}

// blockSpan is the length in pixels of the blocks from x0 to x1 with neighbours.
func blockSpan(x0, x1 float64, k int) int {
	return (int(math.Ceil((x1-x0)/float64(k))) + 4) * k
}

// blockMeans averages k x k blocks of src, from x0, y0 up to x1, y1, into dst; the
// last blocks may be partial.
func blockMeans(dst, src *agent.Frame, x0, y0, x1, y1, k int) {
	sums := make([]uint32, dst.Width*3)
	for j := range dst.Height {
		clear(sums)
		top := y0 + j*k
		rows := min(k, y1-top)
		for y := top; y < top+rows; y++ {
			addRow(sums, src.Pix[(y*src.Width+x0)*3:(y*src.Width+x1)*3], k)
		}
		out := dst.Pix[j*dst.Width*3 : (j+1)*dst.Width*3]
		full := uint32(rows * k)
		last := uint32(rows * (x1 - x0 - (dst.Width-1)*k))
		for i := range out {
			n := full
			if i >= len(out)-3 {
				n = last
			}
			out[i] = byte((sums[i] + n/2) / n)
		}
	}
}

// addRow adds each k pixels of row to one entry of sums.
func addRow(sums []uint32, row []byte, k int) {
	for i := 0; i+2 < len(sums); i += 3 {
		part := row[:min(k*3, len(row))]
		row = row[len(part):]
		var r, g, b uint32
		for len(part) >= 3 {
			r += uint32(part[0])
			g += uint32(part[1])
			b += uint32(part[2])
			part = part[3:]
		}
		sums[i] += r
		sums[i+1] += g
		sums[i+2] += b
	}
}

// Fixed point with 16 fractional bits for positions and 8 for weights: the
// rounding is below one grey level and the loop runs on integers.
const (
	fixBits = 16
	fixOne  = 1 << fixBits
)

func toFix(v float64) int { return int(math.Round(v * fixOne)) }

func warpBilinear(dst []byte, w, h int, src *agent.Frame, m affine) {
	dx, dy := toFix(m.a), toFix(m.d)
	stride := src.Width * 3
	pix := src.Pix
	i := 0
	for y := range h {
		fx, fy := m.apply(0, float64(y))
		sx, sy := toFix(fx), toFix(fy)
		for range w {
			x0, y0 := sx>>fixBits, sy>>fixBits
			wx, wy := (sx>>8)&0xff, (sy>>8)&0xff
			if uint(x0) < uint(src.Width-1) && uint(y0) < uint(src.Height-1) {
				o := y0*stride + x0*3
				p := pix[o : o+6 : o+6]
				q := pix[o+stride : o+stride+6 : o+stride+6]
				w11 := wx * wy
				w10 := wx<<8 - w11
				w01 := wy<<8 - w11
				w00 := 1<<16 - wx<<8 - w01
				d := dst[i : i+3 : i+3]
				d[0] = byte((int(p[0])*w00 + int(p[3])*w10 + int(q[0])*w01 + int(q[3])*w11 + 1<<15) >> 16)
				d[1] = byte((int(p[1])*w00 + int(p[4])*w10 + int(q[1])*w01 + int(q[4])*w11 + 1<<15) >> 16)
				d[2] = byte((int(p[2])*w00 + int(p[5])*w10 + int(q[2])*w01 + int(q[5])*w11 + 1<<15) >> 16)
			} else {
				borderPixel(dst[i:i+3], src, x0, y0, wx, wy)
			}
			i += 3
			sx += dx
			sy += dy
		}
	}
}

// borderPixel interpolates where at least one of the four neighbours lies outside.
func borderPixel(dst []byte, src *agent.Frame, x0, y0, wx, wy int) {
	var sum [3]int
	for k := range 4 {
		x, y := x0+k&1, y0+k>>1
		if uint(x) >= uint(src.Width) || uint(y) >= uint(src.Height) {
			continue
		}
		wt := []int{256 - wx, wx}[k&1] * []int{256 - wy, wy}[k>>1]
		o := (y*src.Width + x) * 3
		for c := range 3 {
			sum[c] += int(src.Pix[o+c]) * wt
		}
	}
	for c := range 3 {
		dst[c] = byte((sum[c] + 1<<15) >> 16)
	}
}
