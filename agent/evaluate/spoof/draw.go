package spoof

import (
	"bytes"
	"image"
	imagedraw "image/draw"
	"image/jpeg"
	"math"
	"math/rand/v2"

	"postern/agent"
)

// draw makes a picture, pixel by pixel.
func draw(w, h int, colour func(x, y float64) [3]float64) *agent.Frame {
	f := &agent.Frame{Pix: make([]byte, w*h*3), Width: w, Height: h}
	for i, o := 0, 0; i < w*h; i, o = i+1, o+3 {
		c := colour(float64(i%w), float64(i/w))
		for k := range c {
			f.Pix[o+k] = byte(clamp(c[k]+0.5, 0, 255))
		}
	}
	return f
}

func at(f *agent.Frame, x, y int) [3]float64 {
	p := f.Pix[(y*f.Width+x)*3:]
	return [3]float64{float64(p[0]), float64(p[1]), float64(p[2])}
}

// bilinear reads between pixels; beyond the border lies the border.
func bilinear(f *agent.Frame, x, y float64) [3]float64 {
	x, y = clamp(x, 0, float64(f.Width-1)), clamp(y, 0, float64(f.Height-1))
	x0, y0 := min(int(x), f.Width-2), min(int(y), f.Height-2)
	fx, fy := x-float64(x0), y-float64(y0)
	a, b, c, d := at(f, x0, y0), at(f, x0+1, y0), at(f, x0, y0+1), at(f, x0+1, y0+1)
	for k := range a {
		a[k] = (a[k]*(1-fx)+b[k]*fx)*(1-fy) + (c[k]*(1-fx)+d[k]*fx)*fy
	}
	return a
}

// resample scales a square of a picture to Side x Side; where it shrinks it averages.
func resample(f *agent.Frame, x, y, side float64) *agent.Frame {
	k := side / Side
	n := max(1, int(math.Ceil(k)))
	return draw(Side, Side, func(px, py float64) [3]float64 {
		var sum [3]float64
		for j := range n * n {
			dx, dy := (float64(j%n)+0.5)/float64(n), (float64(j/n)+0.5)/float64(n)
			c := bilinear(f, x+(px+dx)*k-0.5, y+(py+dy)*k-0.5)
			for i := range sum {
				sum[i] += c[i] / float64(n*n)
			}
		}
		return sum
	})
}

// soften blurs with a kernel of three, of this standard deviation in pixels.
func soften(f *agent.Frame, sigma float64) *agent.Frame {
	side := math.Exp(-1 / (2 * sigma * sigma))
	w := [2]float64{1 / (1 + 2*side), side / (1 + 2*side)}
	pass := func(f *agent.Frame, dx, dy int) *agent.Frame {
		return draw(f.Width, f.Height, func(x, y float64) [3]float64 {
			px, py := int(x), int(y)
			c := at(f, px, py)
			a := at(f, max(0, px-dx), max(0, py-dy))
			b := at(f, min(f.Width-1, px+dx), min(f.Height-1, py+dy))
			for k := range c {
				c[k] = w[0]*c[k] + w[1]*(a[k]+b[k])
			}
			return c
		})
	}
	return pass(pass(f, 1, 0), 0, 1)
}

// recompress takes a picture through JPEG.
func recompress(f *agent.Frame, quality int) *agent.Frame {
	img := image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	for i, j := 0, 0; i < len(f.Pix); i, j = i+3, j+4 {
		img.Pix[j], img.Pix[j+1], img.Pix[j+2], img.Pix[j+3] = f.Pix[i], f.Pix[i+1], f.Pix[i+2], 255
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: quality}); err != nil {
		panic(err) // to memory, of a picture that was just made: it cannot fail
	}
	back, err := jpeg.Decode(&buf)
	if err != nil {
		panic(err)
	}
	imagedraw.Draw(img, img.Rect, back, image.Point{}, imagedraw.Src)
	out := &agent.Frame{Pix: make([]byte, len(f.Pix)), Width: f.Width, Height: f.Height}
	for i, j := 0, 0; i < len(out.Pix); i, j = i+3, j+4 {
		copy(out.Pix[i:i+3], img.Pix[j:j+3])
	}
	return out
}

// noiseAt is smooth noise, -1 to 1, at a point of the plane.
func noiseAt(x, y float64) float64 {
	x0, y0 := math.Floor(x), math.Floor(y)
	fx, fy := smooth(0, 1, x-x0), smooth(0, 1, y-y0)
	h := func(i, j float64) float64 {
		n := uint64(int64(i))*0x9e3779b97f4a7c15 ^ uint64(int64(j))*0xc2b2ae3d27d4eb4f
		n = (n ^ n>>29) * 0xbf58476d1ce4e5b9
		return float64(n>>40)/float64(1<<23) - 1
	}
	return (h(x0, y0)*(1-fx)+h(x0+1, y0)*fx)*(1-fy) + (h(x0, y0+1)*(1-fx)+h(x0+1, y0+1)*fx)*fy
}

// room is a background: a wall with a few things on it, a little out of focus.
func room(r *rand.Rand) *agent.Frame {
	base := [3]float64{90 + 110*r.Float64(), 90 + 110*r.Float64(), 90 + 110*r.Float64()}
	type thing struct{ x, y, w, h, r, g, b float64 }
	var things []thing
	for range 7 {
		things = append(things, thing{r.Float64() * Side, r.Float64() * Side, 30 + 120*r.Float64(), 30 + 160*r.Float64(),
			220 * r.Float64(), 220 * r.Float64(), 220 * r.Float64()})
	}
	seed := r.Float64() * 1000
	return soften(draw(Side, Side, func(x, y float64) [3]float64 {
		c := base
		for _, t := range things {
			if x > t.x && x < t.x+t.w && y > t.y && y < t.y+t.h {
				c = [3]float64{t.r, t.g, t.b}
			}
		}
		n := 8*noiseAt(x/9+seed, y/9) + 14*noiseAt(x/70, y/70+seed)
		for k := range c {
			c[k] += n - 25*(y/Side)
		}
		return c
	}), 1)
}
