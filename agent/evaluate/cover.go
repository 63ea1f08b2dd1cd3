package evaluate

import (
	"math/rand/v2"

	"postern/agent"
)

// Outlines on the face mesh (points of MediaPipe's canonical face).
var (
	maskOutline = []int{227, 117, 118, 100, 126, 196, 197, 419, 355, 329, 347, 346, 447, 361, 288, 397, 365, 379, 378,
		400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93}
	glassesOutlines = [][]int{
		{46, 53, 52, 65, 55, 193, 233, 232, 231, 230, 229, 228, 31, 226},
		{276, 283, 282, 295, 285, 417, 453, 452, 451, 450, 449, 448, 261, 446},
		{55, 285, 417, 193}, {226, 31, 234, 127}, {446, 261, 454, 356},
	}
)

// Colours of masks and sunglasses; the picture's seed picks one.
var (
	maskColours    = [][3]float64{{226, 228, 230}, {128, 178, 214}, {38, 38, 42}, {196, 150, 134}, {90, 110, 90}}
	glassesColours = [][3]float64{{22, 22, 24}, {52, 36, 26}, {40, 48, 60}}
)

// wear draws something over the outlines in one of the colours, shaded from side to
// side and grainy, as cloth and lenses are. Without a mesh it draws nothing.
func wear(f *agent.Frame, face *agent.Face, seed uint64, outlines [][]int, colours [][3]float64) *agent.Frame {
	if len(face.Mesh) == 0 {
		return f
	}
	r := rand.New(rand.NewPCG(seed, 0x51ab1e))
	colour := colours[r.IntN(len(colours))]
	slope := (r.Float64() - 0.5) * 0.4 / max(1, float64(face.Box.W)) // of light, a pixel
	middle := float64(face.Box.X + face.Box.W/2)
	polygons := make([][]agent.Point, len(outlines))
	for i, o := range outlines {
		for _, k := range o {
			polygons[i] = append(polygons[i], agent.Point{X: face.Mesh[k].X, Y: face.Mesh[k].Y})
		}
	}
	return mapPixels(f, func(i int, v byte) byte {
		x, y := float64(i/3%f.Width)+0.5, float64(i/3/f.Width)+0.5
		for _, p := range polygons {
			if within(p, x, y) {
				return clamp(colour[i%3]*(1+slope*(x-middle)) + 2*r.NormFloat64())
			}
		}
		return v
	})
}

// within tells whether a point lies in a polygon, by the even-odd rule.
func within(p []agent.Point, x, y float64) bool {
	in := false
	for i, j := 0, len(p)-1; i < len(p); j, i = i, i+1 {
		ax, ay, bx, by := float64(p[i].X), float64(p[i].Y), float64(p[j].X), float64(p[j].Y)
		if (ay > y) != (by > y) && x < ax+(bx-ax)*(y-ay)/(by-ay) {
			in = !in
		}
	}
	return in
}

func mask(f *agent.Frame, face *agent.Face, seed uint64) *agent.Frame {
	return wear(f, face, seed, [][]int{maskOutline}, maskColours)
}

func sunglasses(f *agent.Frame, face *agent.Face, seed uint64) *agent.Frame {
	return wear(f, face, seed, glassesOutlines, glassesColours)
}
