package sample

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"

	"postern/agent"
)

// stage holds what all frames share; painters only read it.
type stage struct {
	o      Options
	room   *image.RGBA
	people map[Who]*sprite
	print  *image.RGBA
	thumb  *image.RGBA
	noise  []int8
}

// noiseSize is a prime, so that the noise does not repeat in step with rows.
const noiseSize = 1_000_003

func newStage(cast Cast, o Options) (*stage, error) {
	st := &stage{o: o, room: room(), people: map[Who]*sprite{}, thumb: thumb(), noise: make([]int8, noiseSize)}
	for who, p := range map[Who]Person{Enrolled: cast.Enrolled, Again: cast.Again, Stranger: cast.Stranger, Print: cast.Print} {
		p, err := p.complete(who)
		if err != nil {
			return nil, err
		}
		if who == Print {
			st.print = paper(p)
			continue
		}
		st.people[who] = newSprite(p, largest(who)/float64(p.Head.H))
	}
	rnd := rand.New(rand.NewPCG(o.Seed, 0x706f737465726e))
	for i := range st.noise {
		st.noise[i] = int8(math.Round(max(-7, min(7, rnd.NormFloat64()*1.7))))
	}
	return st, nil
}

// largest returns the height of who's head when nearest, in pixels of the film.
func largest(who Who) float64 {
	h := 1.0
	for _, k := range walks[who] {
		h = max(h, k.head)
	}
	return h
}

// painter makes frames, one at a time, in a buffer of its own.
type painter struct {
	st  *stage
	img *image.RGBA
	buf bytes.Buffer
}

func (st *stage) newPainter() *painter {
	return &painter{st: st, img: image.NewRGBA(image.Rect(0, 0, Width, Height))}
}

// frame renders frame i as a JPEG file.
func (p *painter) frame(i int) ([]byte, error) {
	t := p.st.at(i)
	sc, in := sceneAt(t)
	copy(p.img.Pix, p.st.room.Pix)
	k := pose(sc.Who, in)
	if s := p.st.people[sc.Who]; s != nil {
		p.person(s, k)
	}
	if sc.Who == Print {
		p.print(k)
	}
	p.expose(t.Seconds(), k.light, i)
	p.buf.Reset()
	if err := jpeg.Encode(&p.buf, p.img, &jpeg.Options{Quality: 82}); err != nil {
		return nil, err
	}
	return bytes.Clone(p.buf.Bytes()), nil
}

// person draws somebody so that the lower border of the picture hides where
// the cut-out ends. The steps show as a slight bob while the person walks.
func (p *painter) person(s *sprite, k key) {
	scale := k.head / float64(s.head.H)
	cx, cy := float64(s.head.X+s.head.W/2), float64(s.head.Y+s.head.H/2)
	bob := 3 * math.Sin(k.t*9) * (1 - scale/2)
	y := max(Height+14+bob-(s.bottom-cy)*scale, 90+k.head/2+bob)
	l := s.at(scale)
	f := l.scale
	paint(p.img, l.img, similarity(scale/f, k.tilt*math.Pi/180, cx*f, cy*f, k.x, y))
}

// print draws the sheet of paper and the thumbs that hold it. Here key.head
// says how far the sheet is below its place.
func (p *painter) print(k key) {
	const w, h = 420, 540
	yaw, pitch := 0.42*math.Sin(k.t*1.1), 0.22*math.Sin(k.t*0.8+1)
	m := tilted(w, h, yaw, pitch, k.tilt*math.Pi/180, k.x, 385+k.head, 1300)
	paint(p.img, p.st.print, m)
	for _, x := range []float64{46, w - 46} {
		tx, ty := m.apply(x, h-6)
		lean := 0.35
		if x > w/2 {
			lean = -lean
		}
		paint(p.img, p.st.thumb, similarity(1, lean+k.tilt*math.Pi/180, 36, 70, tx, ty))
	}
}

// expose applies light and sensor: brightness and warmth drift slowly, a scene
// may dim, and every pixel gets noise.
func (p *painter) expose(t, light float64, i int) {
	light *= 1 + 0.05*math.Sin(t*0.31) + 0.02*math.Sin(t*1.7)
	warm := 0.02 * math.Sin(t*0.23+1)
	var lut [3][256]int16
	for v := range 256 {
		for c, g := range [3]float64{1 + warm, 1, 1 - warm} {
			lut[c][v] = int16(float64(v) * light * g)
		}
	}
	n := int(uint64(i) * 2654435761 % noiseSize) // a new part of the noise each frame
	noise := p.st.noise
	for j := 0; j < len(p.img.Pix); j += 4 {
		px := p.img.Pix[j : j+4 : j+4]
		if n += 2; n >= noiseSize-1 {
			n -= noiseSize - 1
		}
		a, b := int16(noise[n]), int16(noise[n+1])/2
		px[0] = byte(min(255, max(0, lut[0][px[0]]+a+b)))
		px[1] = byte(min(255, max(0, lut[1][px[1]]+a)))
		px[2] = byte(min(255, max(0, lut[2][px[2]]+a-b)))
	}
}

// room paints the empty entrance, out of focus as behind a person.
func room() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, Width, Height))
	for y := range Height {
		for x := range Width {
			img.SetRGBA(x, y, shade(wall(x, y), x, y))
		}
	}
	defocus(img, 5)
	return img
}

// wall returns the colour of the room at (x, y) in even light.
func wall(x, y int) color.RGBA {
	switch {
	case y >= 610: // floor, tiles that widen towards the camera
		col := int(math.Floor(float64(x-640) / (60 + 0.9*float64(y-610))))
		row := int(math.Sqrt(float64(y-610)) / 3)
		if (col+row)&1 == 0 {
			return color.RGBA{128, 118, 106, 255}
		}
		return color.RGBA{138, 128, 115, 255}
	case y >= 594:
		return color.RGBA{96, 84, 74, 255} // skirting
	case x >= 90 && x < 330 && y >= 110:
		return door(x, y)
	case x >= 1010 && x < 1180 && y >= 150 && y < 400: // notice board
		if x < 1020 || x >= 1170 || y < 160 || y >= 390 {
			return color.RGBA{110, 82, 58, 255}
		}
		if (x-1020)/52 != (x-1026)/52 || (y-160)/76 != (y-168)/76 {
			return color.RGBA{182, 146, 104, 255}
		}
		return color.RGBA{214, 212, 200, 255}
	}
	return color.RGBA{176, 178, 172, 255}
}

// door is the entrance on the left, with a glazed upper half.
func door(x, y int) color.RGBA {
	switch {
	case x < 102 || x >= 318 || y < 122:
		return color.RGBA{88, 92, 96, 255} // frame
	case x >= 136 && x < 284 && y >= 160 && y < 370:
		return color.RGBA{206, 220, 226, 255} // glass
	case x >= 288 && x < 304 && y >= 400 && y < 412:
		return color.RGBA{206, 204, 196, 255} // handle
	}
	return color.RGBA{112, 126, 134, 255}
}

// shade lights a colour from above left and darkens the corners.
func shade(c color.RGBA, x, y int) color.RGBA {
	dx, dy := float64(x-520)/900, float64(y-220)/620
	g := 1.08 - 0.34*(dx*dx+dy*dy)
	return color.RGBA{scale8(c.R, g), scale8(c.G, g), scale8(c.B, g), 255}
}

func scale8(v uint8, g float64) uint8 { return uint8(min(255, max(0, float64(v)*g))) }

// defocus blurs every colour channel.
func defocus(img *image.RGBA, r int) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	plane := make([]byte, w*h)
	for c := range 3 {
		for i := range plane {
			plane[i] = img.Pix[i*4+c]
		}
		for range 2 {
			plane = blur(blur(plane, w, h, 1, w, r), h, w, w, 1, r)
		}
		for i, v := range plane {
			img.Pix[i*4+c] = v
		}
	}
}

// thumb is a thumb with a sleeve, pointing up.
func thumb() *image.RGBA {
	const w, h = 72, 420
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c, g := color.RGBA{198, 150, 124, 255}, 1.05-math.Abs(float64(x-34))/70
			if y > 190 {
				c = color.RGBA{58, 62, 74, 255}
			}
			img.SetRGBA(x, y, color.RGBA{scale8(c.R, g), scale8(c.G, g), scale8(c.B, g), 255})
		}
	}
	shape := append(oval(36, 34, 19, 30)[24:], // the tip
		agent.Point{X: 57, Y: 90}, agent.Point{X: 66, Y: 190}, agent.Point{X: 72, Y: h},
		agent.Point{X: 0, Y: h}, agent.Point{X: 6, Y: 190}, agent.Point{X: 15, Y: 90})
	cut(img, soften(mask(shape, w, h), 2))
	return img
}
