package liveness

import (
	"hash/maphash"
	"math"
	"slices"

	"postern/agent"
)

// digestSeed is one for the process: digests are compared only within it, and nobody
// outside can make two frames of the same digest on purpose.
var digestSeed = maphash.MakeSeed()

// Observe reduces a frame and the face mesh in it to what the signals need.
func Observe(f *agent.Frame, mesh []agent.Point3) *agent.Trace {
	t := &agent.Trace{
		At: f.CapturedAt, Seq: f.Seq, Width: f.Width, Height: f.Height, Mesh: mesh,
		Digest: maphash.Bytes(digestSeed, f.Pix),
		Grid:   cells(f, agent.GridWidth, agent.GridHeight),
		Dots:   dots(f, 48, 27),
	}
	b := bounds(mesh)
	t.Face, t.Rest = split(t, b)
	t.Comb = comb(f, b)
	return t
}

// box is an area of the frame in pixels.
type box struct{ x0, y0, x1, y1 float64 }

func (b box) w() float64 { return b.x1 - b.x0 }
func (b box) h() float64 { return b.y1 - b.y0 }
func (b box) centre() (x, y float64) {
	return (b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2
}

// bounds is the box around a mesh.
func bounds(mesh []agent.Point3) box {
	b := box{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)}
	for _, p := range mesh {
		b.x0, b.x1 = min(b.x0, float64(p.X)), max(b.x1, float64(p.X))
		b.y0, b.y1 = min(b.y0, float64(p.Y)), max(b.y1, float64(p.Y))
	}
	return b
}

// luma is the brightness of pixel i (ITU-R BT.601), in integers.
func luma(pix []byte, i int) int {
	return (77*int(pix[i*3]) + 150*int(pix[i*3+1]) + 29*int(pix[i*3+2])) >> 8
}

// cells is the mean luma of w x h cells. Every second pixel of every second row is
// read: enough for a mean, at a quarter of the time.
func cells(f *agent.Frame, w, h int) []byte {
	out := make([]byte, w*h)
	sums, counts := make([]int, w), make([]int, w)
	for cy := range h {
		clear(sums)
		clear(counts)
		y0, y1 := cy*f.Height/h, max((cy+1)*f.Height/h, cy*f.Height/h+1)
		for y := y0; y < min(y1, f.Height); y += 2 {
			for x := 0; x < f.Width; x += 2 {
				cx := x * w / f.Width
				sums[cx] += luma(f.Pix, y*f.Width+x)
				counts[cx]++
			}
		}
		for cx := range w {
			if counts[cx] > 0 {
				out[cy*w+cx] = byte(sums[cx] / counts[cx])
			} else if cx > 0 { // a frame narrower than the grid
				out[cy*w+cx] = out[cy*w+cx-1]
			}
		}
	}
	return out
}

// dots is the luma of single pixels on a w x h grid.
func dots(f *agent.Frame, w, h int) []byte {
	out := make([]byte, 0, w*h)
	for j := range h {
		for i := range w {
			out = append(out, byte(luma(f.Pix, (j*f.Height/h)*f.Width+i*f.Width/w)))
		}
	}
	return out
}

// split is the mean luma of the grid inside and outside the box of the face.
func split(t *agent.Trace, b box) (face, rest float64) {
	kx, ky := float64(agent.GridWidth)/float64(t.Width), float64(agent.GridHeight)/float64(t.Height)
	var in, out, nIn, nOut float64
	for i, v := range t.Grid {
		x, y := (float64(i%agent.GridWidth)+0.5)/kx, (float64(i/agent.GridWidth)+0.5)/ky
		if x > b.x0 && x < b.x1 && y > b.y0 && y < b.y1 {
			in, nIn = in+float64(v), nIn+1
		} else {
			out, nOut = out+float64(v), nOut+1
		}
	}
	return in / max(1, nIn), out / max(1, nOut)
}

// patch is the side of the square of the face that comb looks at, in pixels.
const patch = 64

// comb looks for a regular pattern on the face, as the pixels of a screen or the dots
// of a print leave: the strongest line of the spectrum that is neither on an axis,
// where edges and the blocks of JPEG lie, nor of the low frequencies of a face,
// against the median of its surroundings, in decibels.
func comb(f *agent.Frame, b box) float64 {
	cx, cy := b.centre()
	x0, y0 := int(cx)-patch/2, int(cy)-patch/2
	if b.w() < patch || b.h() < patch || x0 < 0 || y0 < 0 || x0+patch > f.Width || y0+patch > f.Height {
		return 0
	}
	re, im := make([]float64, patch*patch), make([]float64, patch*patch)
	for y := range patch {
		for x := range patch {
			re[y*patch+x] = float64(luma(f.Pix, (y0+y)*f.Width+x0+x)) * hann(x) * hann(y)
		}
	}
	fft2(re, im)
	power := re
	for i := range power {
		power[i] = re[i]*re[i] + im[i]*im[i] + 1e-9
	}
	return strongest(power)
}

func hann(i int) float64 { return 0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/patch) }

// strongest compares each line with the lines at the same distance from the origin.
func strongest(power []float64) float64 {
	const lo, hi, axis = 10, 31, 3 // in cycles a patch
	rings := make([][]float64, hi+1)
	for y := -hi; y <= hi; y++ {
		for x := 0; x <= hi; x++ {
			if r := int(math.Hypot(float64(x), float64(y))); r >= lo && r <= hi && x >= axis && max(y, -y) >= axis {
				rings[r] = append(rings[r], power[(y+patch)%patch*patch+x])
			}
		}
	}
	best := 0.0
	for _, ring := range rings {
		if len(ring) > 0 {
			best = max(best, 10*math.Log10(slices.Max(ring)/middle(ring)))
		}
	}
	return best
}

// fft2 transforms a patch x patch picture in place.
func fft2(re, im []float64) {
	for y := range patch {
		fft(re[y*patch:][:patch], im[y*patch:][:patch])
	}
	var r, i [patch]float64
	for x := range patch {
		for y := range patch {
			r[y], i[y] = re[y*patch+x], im[y*patch+x]
		}
		fft(r[:], i[:])
		for y := range patch {
			re[y*patch+x], im[y*patch+x] = r[y], i[y]
		}
	}
}

// fft is the radix-2 transform of Cooley and Tukey, in place.
func fft(re, im []float64) {
	n := len(re)
	for i, j := 1, 0; i < n; i++ {
		bit := n >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		if j |= bit; i < j {
			re[i], re[j] = re[j], re[i]
			im[i], im[j] = im[j], im[i]
		}
	}
	for size := 2; size <= n; size *= 2 {
		for k := range size / 2 {
			s, c := math.Sincos(-2 * math.Pi * float64(k) / float64(size))
			for a := k; a < n; a += size {
				b := a + size/2
				tr, ti := re[b]*c-im[b]*s, re[b]*s+im[b]*c
				re[b], im[b] = re[a]-tr, im[a]-ti
				re[a], im[a] = re[a]+tr, im[a]+ti
			}
		}
	}
}
