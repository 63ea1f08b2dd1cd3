package photo

import (
	"bytes"
	"image"

	"github.com/bep/imagemeta"

	"postern/agent"
)

// orientation returns the EXIF orientation, 1 (upright) to 8 (EXIF 2.3 §4.6.4.A).
// A picture whose metadata is missing or broken is taken as upright: the pixels
// are what counts, and a face lying on its side is refused later.
func orientation(data []byte, f format) int {
	formats := map[string]imagemeta.ImageFormat{
		"JPEG": imagemeta.JPEG, "PNG": imagemeta.PNG, "WebP": imagemeta.WebP, "TIFF": imagemeta.TIFF,
	}
	o := 1
	_, err := imagemeta.Decode(imagemeta.Options{
		R:               bytes.NewReader(data),
		ImageFormat:     formats[f.name],
		Sources:         imagemeta.EXIF,
		ShouldHandleTag: func(t imagemeta.TagInfo) bool { return t.Tag == "Orientation" && t.Namespace == "IFD0" },
		HandleTag: func(t imagemeta.TagInfo) error {
			if v, ok := t.Value.(uint16); ok && v >= 1 && v <= 8 {
				o = int(v)
			}
			return imagemeta.ErrStopWalking
		},
	})
	if err != nil {
		return 1
	}
	return o
}

// upright packs the picture to RGB, turned and mirrored so that orientation o
// becomes 1.
func upright(src *image.RGBA, o int) *agent.Frame {
	w, h := src.Rect.Dx(), src.Rect.Dy()
	dw, dh := w, h
	if o >= 5 {
		dw, dh = h, w
	}
	// The source position of target (x, y) is start + x*dx + y*dy, in bytes.
	px, row := 4, src.Stride
	last := (w-1)*px + (h-1)*row
	var start, dx, dy int
	switch o {
	case 2:
		start, dx, dy = (w-1)*px, -px, row
	case 3:
		start, dx, dy = last, -px, -row
	case 4:
		start, dx, dy = (h-1)*row, px, -row
	case 5:
		start, dx, dy = 0, row, px
	case 6:
		start, dx, dy = (h-1)*row, -row, px
	case 7:
		start, dx, dy = last, -row, -px
	case 8:
		start, dx, dy = (w-1)*px, row, -px
	default:
		start, dx, dy = 0, px, row
	}
	out := make([]byte, dw*dh*3)
	i := 0
	for y := range dh {
		s := start + y*dy
		for range dw {
			out[i], out[i+1], out[i+2] = src.Pix[s], src.Pix[s+1], src.Pix[s+2]
			i += 3
			s += dx
		}
	}
	return &agent.Frame{Pix: out, Width: dw, Height: dh}
}
