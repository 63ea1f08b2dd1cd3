package inference

import (
	"math"

	"postern/agent"
)

// quality measures the face that align left, found as l and d in f.
func (b *embedder) quality(l landmarks, d detection, f *agent.Frame) agent.Quality {
	q := measure(b.pix, b.size, l, d, f)
	s := sampler{b.pix, b.size, b.toCrop, l.mesh}
	q.EyesOpen, q.MouthCovered, q.EyesCovered = eyesOpen(l.mesh), s.mouthCovered(), s.eyesCovered()
	q.Score = q.Rate(d.score)
	return q
}

// measure fills what needs no mesh: pix is the aligned picture, size x size RGB, and l,
// d and f say where it came from.
func measure(pix []byte, size int, l landmarks, d detection, f *agent.Frame) agent.Quality {
	luma := make([]float32, size*size)
	var sum, sq float64
	for i := range luma {
		p := pix[i*3 : i*3+3]
		// ITU-R BT.601 luma.
		v := 0.299*float32(p[0]) + 0.587*float32(p[1]) + 0.114*float32(p[2])
		luma[i] = v
		sum += float64(v)
		sq += float64(v) * float64(v)
	}
	n := float64(len(luma))
	mean := sum / n
	return agent.Quality{
		EyeDistance: float32(math.Hypot(float64(l.points[1].X-l.points[0].X), float64(l.points[1].Y-l.points[0].Y))),
		Luminance:   float32(mean / 2.55),
		Contrast:    float32(math.Sqrt(max(0, sq/n-mean*mean)) / 2.55),
		Sharpness:   laplacianVariance(luma, size),
		Yaw:         l.yaw,
		Pitch:       l.pitch,
		Roll:        l.roll,
		Inside:      inside(d.box, f),
	}
}

// laplacianVariance is the usual focus measure: the variance of the 4-neighbour
// Laplacian (Pech-Pacheco et al. 2000).
func laplacianVariance(g []float32, size int) float32 {
	var sum, sq float64
	for y := 1; y < size-1; y++ {
		for x := 1; x < size-1; x++ {
			i := y*size + x
			v := float64(g[i-1] + g[i+1] + g[i-size] + g[i+size] - 4*g[i])
			sum += v
			sq += v * v
		}
	}
	n := float64((size - 2) * (size - 2))
	return float32(sq/n - sum/n*sum/n)
}

// inside is the share of the box that lies in the frame.
func inside(b agent.Box, f *agent.Frame) float32 {
	w := min(b.X+b.W, float32(f.Width)) - max(b.X, 0)
	h := min(b.Y+b.H, float32(f.Height)) - max(b.Y, 0)
	if w <= 0 || h <= 0 || b.Area() <= 0 {
		return 0
	}
	return w * h / b.Area()
}
