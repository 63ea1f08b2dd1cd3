package evaluate

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"

	"postern/agent"
)

// degradation makes a picture worse in one way. The face is that of the good
// picture; the seed is the picture's.
type degradation struct {
	name  string
	apply func(f *agent.Frame, face *agent.Face, seed uint64) (*agent.Frame, error)
}

// degradations are what a door camera meets, in the order of the table.
func degradations() []degradation {
	var ds []degradation
	add := func(name string, do func(f *agent.Frame, face *agent.Face, seed uint64) *agent.Frame) {
		ds = append(ds, degradation{name, func(f *agent.Frame, face *agent.Face, seed uint64) (*agent.Frame, error) {
			return do(f, face, seed), nil
		}})
	}
	for _, s := range []float64{1, 2, 3} {
		add(fmt.Sprintf("gaussian blur, sigma %g px", s), func(f *agent.Frame, _ *agent.Face, _ uint64) *agent.Frame { return blur(f, s) })
	}
	for _, s := range []float64{5, 15, 30} {
		add(fmt.Sprintf("gaussian noise, sigma %g of 255", s), func(f *agent.Frame, _ *agent.Face, seed uint64) *agent.Frame { return noise(f, s, seed) })
	}
	for _, q := range []int{50, 20, 10} {
		ds = append(ds, degradation{fmt.Sprintf("JPEG, quality %d", q), func(f *agent.Frame, _ *agent.Face, _ uint64) (*agent.Frame, error) {
			return recompress(f, q)
		}})
	}
	for _, k := range []float64{0.5, 0.25, 1.5} {
		add(fmt.Sprintf("brightness x%g", k), func(f *agent.Frame, _ *agent.Face, _ uint64) *agent.Frame { return brighten(f, k) })
	}
	for _, n := range []int{2, 3, 4} {
		add(fmt.Sprintf("down-scaled to 1/%d and back", n), func(f *agent.Frame, _ *agent.Face, _ uint64) *agent.Frame { return rescale(f, n) })
	}
	for _, d := range []float64{15, 30} {
		add(fmt.Sprintf("rotated %g degrees", d), func(f *agent.Frame, _ *agent.Face, _ uint64) *agent.Frame { return rotate(f, d) })
	}
	add("low light: brightness x0.2, noise sigma 6", func(f *agent.Frame, _ *agent.Face, seed uint64) *agent.Frame {
		return noise(brighten(f, 0.2), 6, seed)
	})
	add("wearing a mask", mask)
	add("wearing sunglasses", sunglasses)
	return ds
}

// mapPixels makes a frame of what do says for each channel of each pixel.
func mapPixels(f *agent.Frame, do func(i int, v byte) byte) *agent.Frame {
	out := *f
	out.Pix = make([]byte, len(f.Pix))
	for i, v := range f.Pix {
		out.Pix[i] = do(i, v)
	}
	return &out
}

func clamp(v float64) byte { return byte(min(255, max(0, math.Round(v)))) }

// brighten multiplies the values as stored, gamma included.
func brighten(f *agent.Frame, k float64) *agent.Frame {
	return mapPixels(f, func(_ int, v byte) byte { return clamp(k * float64(v)) })
}

// noise adds independent normal noise to each channel.
func noise(f *agent.Frame, sigma float64, seed uint64) *agent.Frame {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	return mapPixels(f, func(_ int, v byte) byte { return clamp(float64(v) + sigma*r.NormFloat64()) })
}

// blur convolves with a Gaussian cut at three sigma, one direction after the other;
// the border repeats.
func blur(f *agent.Frame, sigma float64) *agent.Frame {
	half := int(math.Ceil(3 * sigma))
	kernel := make([]float64, 2*half+1)
	sum := 0.0
	for i := range kernel {
		kernel[i] = math.Exp(-float64((i-half)*(i-half)) / (2 * sigma * sigma))
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	along := func(f *agent.Frame, dx, dy int) *agent.Frame {
		return mapPixels(f, func(i int, _ byte) byte {
			x, y, c := i/3%f.Width, i/3/f.Width, i%3
			v := 0.0
			for k, w := range kernel {
				v += w * float64(channel(f, x+(k-half)*dx, y+(k-half)*dy, c))
			}
			return clamp(v)
		})
	}
	return along(along(f, 1, 0), 0, 1)
}

// channel reads a pixel; beyond the border lies the border's.
func channel(f *agent.Frame, x, y, c int) byte {
	x, y = min(f.Width-1, max(0, x)), min(f.Height-1, max(0, y))
	return f.Pix[(y*f.Width+x)*3+c]
}

// bilinear reads between pixels. Positions are of pixel centres.
func bilinear(f *agent.Frame, x, y float64, c int) float64 {
	x0, y0 := math.Floor(x), math.Floor(y)
	fx, fy := x-x0, y-y0
	at := func(dx, dy int) float64 { return float64(channel(f, int(x0)+dx, int(y0)+dy, c)) }
	return (1-fy)*((1-fx)*at(0, 0)+fx*at(1, 0)) + fy*((1-fx)*at(0, 1)+fx*at(1, 1))
}

// rescale averages n x n pixels and interpolates back to the old size.
func rescale(f *agent.Frame, n int) *agent.Frame {
	small := &agent.Frame{Width: (f.Width + n - 1) / n, Height: (f.Height + n - 1) / n}
	small.Pix = make([]byte, small.Width*small.Height*3)
	for i := range small.Pix {
		x, y, c := i/3%small.Width*n, i/3/small.Width*n, i%3
		sum := 0
		for k := range n * n {
			sum += int(channel(f, x+k%n, y+k/n, c))
		}
		small.Pix[i] = clamp(float64(sum) / float64(n*n))
	}
	s := float64(n)
	return mapPixels(f, func(i int, _ byte) byte {
		x, y := float64(i/3%f.Width), float64(i/3/f.Width)
		return clamp(bilinear(small, (x+0.5)/s-0.5, (y+0.5)/s-0.5, i%3))
	})
}

// rotate turns the picture about its middle, clockwise; corners repeat the border.
func rotate(f *agent.Frame, degrees float64) *agent.Frame {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	cx, cy := float64(f.Width-1)/2, float64(f.Height-1)/2
	return mapPixels(f, func(i int, _ byte) byte {
		x, y := float64(i/3%f.Width)-cx, float64(i/3/f.Width)-cy
		return clamp(bilinear(f, cx+cos*x+sin*y, cy-sin*x+cos*y, i%3))
	})
}

// recompress writes and reads the picture as JPEG (4:2:0, as Go's encoder does).
func recompress(f *agent.Frame, quality int) (*agent.Frame, error) {
	img := image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	for i := range f.Width * f.Height {
		copy(img.Pix[4*i:], f.Pix[3*i:3*i+3])
		img.Pix[4*i+3] = 255
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	back, err := jpeg.Decode(&buf)
	if err != nil {
		return nil, err
	}
	out := *f
	out.Pix = make([]byte, 0, len(f.Pix))
	for y := range f.Height {
		for x := range f.Width {
			r, g, b, _ := back.At(x, y).RGBA()
			out.Pix = append(out.Pix, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return &out, nil
}
