package sample

import (
	"image"
	"image/color"
	"math"
	"slices"

	"golang.org/x/image/draw"

	"postern/agent"
)

// sprite is a cut-out with premultiplied alpha, at falling sizes so that a
// small one is sampled from a picture near its size and does not shimmer.
type sprite struct {
	levels []level
	head   agent.Box // in pixels of the original picture
	bottom float64   // where the cut-out ends below, in pixels of the original picture
}

// level is the cut-out at scale of the original.
type level struct {
	img   *image.RGBA
	scale float64
}

// newSprite cuts a person out, no larger than top, the largest scale shown.
func newSprite(p Person, top float64) *sprite {
	scale := min(1, top)
	img := shrink(toRGBA(p.Picture), scale)
	outline := make([]agent.Point, len(p.Outline))
	for i, pt := range p.Outline {
		outline[i] = agent.Point{X: pt.X * float32(scale), Y: pt.Y * float32(scale)}
	}
	cut(img, soften(mask(outline, img.Rect.Dx(), img.Rect.Dy()), 3))
	s := &sprite{head: p.Head, levels: []level{{img, scale}}}
	for range 3 {
		img, scale = shrink(img, 0.7), scale*0.7
		s.levels = append(s.levels, level{img, scale})
	}
	for _, pt := range p.Outline {
		s.bottom = max(s.bottom, float64(pt.Y))
	}
	return s
}

// at returns the smallest level that is not smaller than scale.
func (s *sprite) at(scale float64) level {
	best := s.levels[0]
	for _, l := range s.levels[1:] {
		if l.scale >= scale {
			best = l
		}
	}
	return best
}

func toRGBA(f *agent.Frame) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	for i, j := 0, 0; i < len(f.Pix); i, j = i+3, j+4 {
		img.Pix[j], img.Pix[j+1], img.Pix[j+2], img.Pix[j+3] = f.Pix[i], f.Pix[i+1], f.Pix[i+2], 255
	}
	return img
}

func shrink(src *image.RGBA, scale float64) *image.RGBA {
	w, h := int(float64(src.Rect.Dx())*scale), int(float64(src.Rect.Dy())*scale)
	dst := image.NewRGBA(image.Rect(0, 0, max(1, w), max(1, h)))
	// The approximate scaler needs no buffer of 32 bytes a pixel, and steps of
	// 0.6 and more do not alias.
	draw.ApproxBiLinear.Scale(dst, dst.Rect, src, src.Rect, draw.Src, nil)
	return dst
}

// mask fills a polygon (even-odd rule) with 255.
func mask(outline []agent.Point, w, h int) []byte {
	m := make([]byte, w*h)
	var xs []float64
	for y := range h {
		xs = crossings(outline, float64(y)+0.5, xs[:0])
		for i := 0; i+1 < len(xs); i += 2 {
			from, to := max(0, int(math.Round(xs[i]))), min(w, int(math.Round(xs[i+1])))
			for x := from; x < to; x++ {
				m[y*w+x] = 255
			}
		}
	}
	return m
}

// crossings appends where a polygon's sides cross the line at y, from the left.
func crossings(outline []agent.Point, y float64, xs []float64) []float64 {
	for i, a := range outline {
		b := outline[(i+1)%len(outline)]
		ay, by := float64(a.Y), float64(b.Y)
		if (ay <= y) != (by <= y) {
			xs = append(xs, mix(float64(a.X), float64(b.X), (y-ay)/(by-ay)))
		}
	}
	slices.Sort(xs)
	return xs
}

// soften blurs a mask and then keeps its inner half: a soft edge that lies
// within the outline, so that no fringe of the old background shows.
func soften(m []byte, r int) func(w int) []byte {
	return func(w int) []byte {
		h := len(m) / w
		for range 2 {
			m = blur(blur(m, w, h, 1, w, r), h, w, w, 1, r)
		}
		for i, v := range m {
			m[i] = byte(255 * ease((float64(v)-110)/145))
		}
		return m
	}
}

// blur averages over 2r+1 values along lines of n values, step apart; there
// are lines lines, stride apart.
func blur(m []byte, n, lines, step, stride, r int) []byte {
	out := make([]byte, len(m))
	for l := range lines {
		base, sum := l*stride, 0
		get := func(i int) int { return int(m[base+min(n-1, max(0, i))*step]) }
		for i := -r; i <= r; i++ {
			sum += get(i)
		}
		for i := range n {
			out[base+i*step] = byte(sum / (2*r + 1))
			sum += get(i+r+1) - get(i-r)
		}
	}
	return out
}

// cut multiplies a picture with a mask.
func cut(img *image.RGBA, alpha func(w int) []byte) {
	for i, a := range alpha(img.Rect.Dx()) {
		p := img.Pix[i*4 : i*4+4 : i*4+4]
		for c := range p {
			p[c] = byte(int(p[c]) * int(a) / 255)
		}
	}
}

// paper makes the print: a portrait with its own background on white paper, a
// little flat as ink is.
func paper(p Person) *image.RGBA {
	const w, h, margin = 420, 540, 26
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(dst, dst.Rect, image.NewUniform(color.RGBA{236, 234, 228, 255}), image.Point{}, draw.Src)
	draw.ApproxBiLinear.Scale(dst, image.Rect(margin, margin, w-margin, h-margin), toRGBA(p.Picture), printed(p), draw.Src, nil)
	for i := range dst.Pix {
		if i%4 != 3 {
			dst.Pix[i] = byte(22 + int(dst.Pix[i])*205/255)
		}
	}
	return dst
}

// printed is the part of a portrait that goes on paper: head and shoulders, in
// the paper's shape.
func printed(p Person) image.Rectangle {
	const aspect = float32(420-52) / (540 - 52)
	h := min(p.Head.H*2.1, float32(p.Picture.Height), float32(p.Picture.Width)/aspect)
	w := h * aspect
	x := clamp(p.Head.X+p.Head.W/2-w/2, float32(p.Picture.Width)-w)
	y := clamp(p.Head.Y-0.25*p.Head.H, float32(p.Picture.Height)-h)
	return image.Rect(int(x), int(y), int(x+w), int(y+h))
}

func clamp(v, most float32) float32 { return max(0, min(v, most)) }
