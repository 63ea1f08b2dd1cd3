// Package photo turns untrusted picture files into frames.
//
// Only Go decoders touch the bytes; size and pixel limits are checked on the
// header before a pixel is decoded; what the file is comes from its content,
// never from its name. EXIF orientation is applied, so a Frame is upright.
package photo

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"

	"postern/agent"
)

// Limits bound what one picture may cost.
type Limits struct {
	MaxBytes  int64 // of the file
	MaxPixels int   // width times height
}

// DefaultLimits fit a photograph from a phone (up to 25 megapixels, 20 MiB).
var DefaultLimits = Limits{MaxBytes: 20 << 20, MaxPixels: 25_000_000}

// MinSide is the smallest side, in pixels, of a picture worth looking at.
const MinSide = 16

// format is one kind of file, known by its first bytes.
type format struct {
	name   string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var (
	formatJPEG = format{"JPEG", jpeg.DecodeConfig, jpeg.Decode}
	formatPNG  = format{"PNG", png.DecodeConfig, png.Decode}
	formatWebP = format{"WebP", webp.DecodeConfig, webp.Decode}
	formatTIFF = format{"TIFF", tiff.DecodeConfig, tiff.Decode}
)

// Load reads and decodes the file at path with DefaultLimits.
func Load(path string) (*agent.Frame, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("picture %q does not exist", path)}
	case err != nil:
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("cannot open picture %q", path), Err: errors.Unwrap(err)}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, invalid(path, "is a folder, not a picture")
	}
	return Decode(f, filepath.Base(path), DefaultLimits)
}

// Decode reads one picture of at most l.MaxBytes from r. The name appears in
// errors and as the frame's Source. Every error is an *agent.Error with
// CodeInvalid that names the picture.
func Decode(r io.Reader, name string, l Limits) (*agent.Frame, error) {
	data, err := io.ReadAll(io.LimitReader(r, l.MaxBytes+1))
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("cannot read picture %q", name), Err: err}
	}
	f, err := check(data, name, l)
	if err != nil {
		return nil, err
	}
	img, err := f.decode(bytes.NewReader(data))
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("picture %q is a damaged %s file", name, f.name), Err: err}
	}
	frame := upright(flatten(img), orientation(data, f))
	frame.Source = name
	return frame, nil
}

// check finds the format and holds the header against the limits.
func check(data []byte, name string, l Limits) (format, error) {
	switch {
	case len(data) == 0:
		return format{}, invalid(name, "is empty")
	case int64(len(data)) > l.MaxBytes:
		return format{}, invalid(name, fmt.Sprintf("is larger than %.0f MB", float64(l.MaxBytes)/(1<<20)))
	}
	f, err := sniff(data, name)
	if err != nil {
		return f, err
	}
	cfg, err := f.config(bytes.NewReader(data))
	switch {
	case err != nil:
		return f, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("picture %q is a damaged %s file", name, f.name), Err: err}
	case cfg.Width < MinSide || cfg.Height < MinSide:
		return f, invalid(name, fmt.Sprintf("is %dx%d pixels, too small to hold a face (at least %dx%d)", cfg.Width, cfg.Height, MinSide, MinSide))
	case cfg.Width > l.MaxPixels/cfg.Height:
		return f, invalid(name, fmt.Sprintf("is %dx%d pixels, more than the limit of %d megapixels", cfg.Width, cfg.Height, l.MaxPixels/1_000_000))
	}
	return f, nil
}

func sniff(data []byte, name string) (format, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return formatJPEG, nil
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return formatPNG, nil
	case bytes.HasPrefix(data, []byte("II*\x00")), bytes.HasPrefix(data, []byte("MM\x00*")):
		return formatTIFF, nil
	case len(data) >= 16 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		if animatedWebP(data) {
			return format{}, invalid(name, "is an animated WebP; send a still picture")
		}
		return formatWebP, nil
	case len(data) >= 12 && string(data[4:8]) == "ftyp":
		return format{}, invalid(name, "is a HEIC, AVIF or video file; convert it to JPEG")
	}
	return format{}, invalid(name, "is not a JPEG, PNG, WebP or TIFF file, whatever its name says")
}

// animatedWebP reads the animation bit of the extended header (RFC 9649 §2.7).
func animatedWebP(data []byte) bool {
	return len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&0x02 != 0
}

func invalid(name, what string) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("picture %q %s", name, what)}
}

// flatten converts any colour model to 8-bit RGBA; what is transparent becomes white.
func flatten(img image.Image) *image.RGBA {
	b := img.Bounds()
	if rgba, ok := img.(*image.RGBA); ok && rgba.Opaque() && b.Min == (image.Point{}) {
		return rgba
	}
	dst := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	op := draw.Src
	if o, ok := img.(interface{ Opaque() bool }); !ok || !o.Opaque() {
		draw.Draw(dst, dst.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
		op = draw.Over
	}
	draw.Draw(dst, dst.Bounds(), img, b.Min, op)
	return dst
}
