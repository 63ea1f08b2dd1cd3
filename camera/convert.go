package camera

import (
	"fmt"

	"postern/agent"
)

// toFrame copies a lent picture into Go memory of its own: red first, turned,
// mirrored and cropped as the options say.
func toFrame(p Picture, o Options) (*agent.Frame, error) {
	if p.Width <= 0 || p.Height <= 0 || p.Width > maxSide || p.Height > maxSide || len(p.Pix) != p.Width*p.Height*3 {
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf(
			"camera %q sent %d bytes for a %dx%d picture", o.ID, len(p.Pix), p.Width, p.Height)}
	}
	w, h := p.Width, p.Height
	if o.Rotate == 90 || o.Rotate == 270 {
		w, h = h, w
	}
	x0, y0, x1, y1, err := o.Crop.in(w, h)
	if err != nil {
		return nil, err
	}
	start, dx, dy := walk(p.Width, p.Height, o.Rotate, o.Mirror)
	start += x0*dx + y0*dy
	f := &agent.Frame{Width: x1 - x0, Height: y1 - y0}
	f.Pix = make([]byte, f.Width*f.Height*3)
	if p.BGR {
		copyBGR(f, p.Pix, start, dx, dy)
	} else {
		copyRGB(f, p.Pix, start, dx, dy)
	}
	return f, nil
}

// walk describes a turned and mirrored view of a w x h picture: the pixel that
// a person sees at (x, y) starts at byte start + x*dx + y*dy.
func walk(w, h, rotate int, mirror bool) (start, dx, dy int) {
	const px = 3
	row := w * px
	seenW := w
	switch rotate {
	case 90:
		start, dx, dy, seenW = (h-1)*row, -row, px, h
	case 180:
		start, dx, dy = (h-1)*row+(w-1)*px, -px, -row
	case 270:
		start, dx, dy, seenW = (w-1)*px, row, -px, h
	default:
		start, dx, dy = 0, px, row
	}
	if mirror {
		start, dx = start+(seenW-1)*dx, -dx
	}
	return start, dx, dy
}

// copyBGR and copyRGB differ only in the order of bytes; they are the hot loop
// of every frame, so the test is not inside.
func copyBGR(f *agent.Frame, src []byte, start, dx, dy int) {
	for y := range f.Height {
		dst := f.Pix[y*f.Width*3 : (y+1)*f.Width*3]
		s := start + y*dy
		for i := 0; i+2 < len(dst); i += 3 {
			p := src[s : s+3 : s+3]
			dst[i], dst[i+1], dst[i+2] = p[2], p[1], p[0]
			s += dx
		}
	}
}

func copyRGB(f *agent.Frame, src []byte, start, dx, dy int) {
	for y := range f.Height {
		dst := f.Pix[y*f.Width*3 : (y+1)*f.Width*3]
		s := start + y*dy
		if dx == 3 {
			copy(dst, src[s:s+len(dst)])
			continue
		}
		for i := 0; i+2 < len(dst); i += 3 {
			copy(dst[i:i+3], src[s:s+3])
			s += dx
		}
	}
}
