package photo

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"

	"golang.org/x/image/draw"

	"postern/agent"
)

// Encode writes a frame as JPEG, scaled down so that no side is longer than maxSide.
// Nothing of the original file but what can be seen survives: no place, no device,
// no thumbnail.
func Encode(f *agent.Frame, maxSide int) ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	return encode(toImage(f), maxSide)
}

// EncodeFace is Encode for the part around a face: its box with a margin of half
// its size on each side, as far as the picture reaches.
func EncodeFace(f *agent.Frame, box agent.Box, maxSide int) ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	r := image.Rect(int(box.X-box.W/2), int(box.Y-box.H/2), int(box.X+box.W*1.5), int(box.Y+box.H*1.5)).Intersect(image.Rect(0, 0, f.Width, f.Height))
	if r.Empty() {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the face lies outside the picture"}
	}
	return encode(toImage(f).SubImage(r), maxSide)
}

func toImage(f *agent.Frame) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, f.Width, f.Height))
	for i, j := 0, 0; i < len(f.Pix); i, j = i+3, j+4 {
		img.Pix[j], img.Pix[j+1], img.Pix[j+2], img.Pix[j+3] = f.Pix[i], f.Pix[i+1], f.Pix[i+2], 255
	}
	return img
}

func encode(img image.Image, maxSide int) ([]byte, error) {
	b := img.Bounds()
	if long := max(b.Dx(), b.Dy()); long > maxSide {
		small := image.NewRGBA(image.Rect(0, 0, max(1, b.Dx()*maxSide/long), max(1, b.Dy()*maxSide/long)))
		draw.BiLinear.Scale(small, small.Bounds(), img, b, draw.Src, nil)
		img = small
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 85}); err != nil {
		return nil, fmt.Errorf("encode a picture: %w", err)
	}
	return out.Bytes(), nil
}
