package photo_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/image/tiff"

	"postern/agent"
	"postern/agent/photo"
)

const width, height = 40, 24

var red, green, blue, white = rgb{220, 30, 30}, rgb{30, 200, 30}, rgb{30, 30, 220}, rgb{230, 230, 230}

type rgb [3]int

// quarters is the test picture: red and green above blue and white.
func quarters() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i, c := range []rgb{red, green, blue, white} {
		x, y := i%2*width/2, i/2*height/2
		draw.Draw(img, image.Rect(x, y, x+width/2, y+height/2),
			image.NewUniform(color.RGBA{uint8(c[0]), uint8(c[1]), uint8(c[2]), 255}), image.Point{}, draw.Src)
	}
	return img
}

// as converts the test picture to another kind of image.
func as(dst draw.Image) image.Image {
	draw.Draw(dst, dst.Bounds(), quarters(), image.Point{}, draw.Src)
	return dst
}

func encode(tb testing.TB, fn func(io.Writer) error) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := fn(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(tb testing.TB, img image.Image) []byte {
	tb.Helper()
	return encode(tb, func(w io.Writer) error { return png.Encode(w, img) })
}

func jpegOf(tb testing.TB, img image.Image) []byte {
	tb.Helper()
	return encode(tb, func(w io.Writer) error { return jpeg.Encode(w, img, &jpeg.Options{Quality: 95}) })
}

func tiffOf(tb testing.TB, img image.Image) []byte {
	tb.Helper()
	return encode(tb, func(w io.Writer) error { return tiff.Encode(w, img, &tiff.Options{Compression: tiff.Deflate}) })
}

func sample(tb testing.TB, text string) []byte {
	tb.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// clear is the test picture with its first quarter see-through.
func clearQuarter() *image.NRGBA {
	img := as(image.NewNRGBA(quarters().Bounds())).(*image.NRGBA)
	draw.Draw(img, image.Rect(0, 0, width/2, height/2), image.NewUniform(color.NRGBA{255, 0, 0, 0}), image.Point{}, draw.Src)
	return img
}

func bounds() image.Rectangle { return image.Rect(0, 0, width, height) }

func gray(c rgb) rgb {
	v := (299*c[0] + 587*c[1] + 114*c[2]) / 1000
	return rgb{v, v, v}
}

// corners are the colours in the middle of the quarters.
type corners [4]rgb

var upright = corners{red, green, blue, white}

// checkCorners compares with room for what lossy formats do.
func checkCorners(tb testing.TB, f *agent.Frame, want corners, tolerance int) {
	tb.Helper()
	if err := f.Check(); err != nil {
		tb.Fatal(err)
	}
	for i, c := range want {
		x, y := f.Width/4+i%2*f.Width/2, f.Height/4+i/2*f.Height/2
		p := f.Pix[(y*f.Width+x)*3:]
		for k := range 3 {
			if d := int(p[k]) - c[k]; d > tolerance || d < -tolerance {
				tb.Errorf("quarter %d is %v, want %v", i, p[:3], c)
				break
			}
		}
	}
}

func decode(data []byte) (*agent.Frame, error) {
	return photo.Decode(bytes.NewReader(data), "face.jpg", photo.DefaultLimits)
}

func TestFormats(t *testing.T) {
	palette := color.Palette{}
	for _, c := range []rgb{red, green, blue, white} {
		palette = append(palette, color.RGBA{uint8(c[0]), uint8(c[1]), uint8(c[2]), 255})
	}
	grey := corners{gray(red), gray(green), gray(blue), gray(white)}
	onWhite := corners{{255, 255, 255}, green, blue, white}
	for _, c := range []struct {
		name      string
		data      []byte
		want      corners
		tolerance int
	}{
		{"JPEG", jpegOf(t, quarters()), upright, 12},
		{"grey JPEG", jpegOf(t, as(image.NewGray(bounds()))), grey, 4},
		{"CMYK JPEG", sample(t, cmykJPEG), upright, 16},
		{"progressive JPEG", sample(t, progressiveJPEG), upright, 24},
		{"PNG", pngOf(t, quarters()), upright, 0},
		{"16-bit PNG", pngOf(t, as(image.NewRGBA64(bounds()))), upright, 0},
		{"grey PNG", pngOf(t, as(image.NewGray(bounds()))), grey, 2},
		{"16-bit grey PNG", pngOf(t, as(image.NewGray16(bounds()))), grey, 2},
		{"palette PNG", pngOf(t, as(image.NewPaletted(bounds(), palette))), upright, 0},
		{"PNG with alpha", pngOf(t, clearQuarter()), onWhite, 0},
		{"TIFF", tiffOf(t, quarters()), upright, 0},
		{"16-bit grey TIFF", tiffOf(t, as(image.NewGray16(bounds()))), grey, 2},
		{"TIFF with alpha", tiffOf(t, clearQuarter()), onWhite, 0},
		{"lossy WebP", sample(t, lossyWebP), upright, 24},
		{"lossless WebP", sample(t, losslessWebP), upright, 0},
		{"WebP with alpha", sample(t, alphaWebP), onWhite, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := decode(c.data)
			if err != nil {
				t.Fatal(err)
			}
			if f.Width != width || f.Height != height || f.Source != "face.jpg" {
				t.Errorf("%dx%d from %q", f.Width, f.Height, f.Source)
			}
			checkCorners(t, f, c.want, c.tolerance)
		})
	}
}

// withEXIF puts an orientation into a JPEG, as a camera does.
func withEXIF(jpg []byte, orientation uint16, order binary.AppendByteOrder, mark string) []byte {
	ifd := append([]byte("Exif\x00\x00"), mark...)
	ifd = order.AppendUint16(ifd, 42)
	ifd = order.AppendUint32(ifd, 8)
	ifd = order.AppendUint16(ifd, 1)      // entries
	ifd = order.AppendUint16(ifd, 0x0112) // Orientation
	ifd = order.AppendUint16(ifd, 3)      // SHORT
	ifd = order.AppendUint32(ifd, 1)
	ifd = order.AppendUint16(ifd, orientation)
	ifd = order.AppendUint16(ifd, 0)
	ifd = order.AppendUint32(ifd, 0)
	out := append([]byte{}, jpg[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(ifd)+2))
	return append(append(out, ifd...), jpg[2:]...)
}

// turned says where the quarters end for each EXIF orientation.
var turned = map[uint16]corners{
	1: {red, green, blue, white},
	2: {green, red, white, blue},
	3: {white, blue, green, red},
	4: {blue, white, red, green},
	5: {red, blue, green, white},
	6: {blue, red, white, green},
	7: {white, green, blue, red},
	8: {green, white, red, blue},
}

func TestOrientation(t *testing.T) {
	jpg := jpegOf(t, quarters())
	for o := range uint16(11) {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			want, ok := turned[o]
			if !ok {
				want = upright // nonsense is taken as upright
			}
			for mark, order := range map[string]binary.AppendByteOrder{"II": binary.LittleEndian, "MM": binary.BigEndian} {
				f, err := decode(withEXIF(jpg, o, order, mark))
				if err != nil {
					t.Fatal(err)
				}
				if (f.Width == height) != (o >= 5 && o <= 8) {
					t.Errorf("%s: %dx%d", mark, f.Width, f.Height)
				}
				checkCorners(t, f, want, 12)
			}
		})
	}
	for name, text := range map[string]string{"PNG": rotatedPNG, "WebP": rotatedWebP, "TIFF": rotatedTIFF} {
		t.Run(name, func(t *testing.T) {
			f, err := decode(sample(t, text))
			if err != nil {
				t.Fatal(err)
			}
			checkCorners(t, f, turned[6], 24)
		})
	}
	t.Run("broken metadata", func(t *testing.T) {
		data := withEXIF(jpg, 6, binary.LittleEndian, "II")
		copy(data[12:], "XX\xff\xff\xff\xff\xff\xff")
		f, err := decode(data)
		if err != nil {
			t.Fatal(err)
		}
		checkCorners(t, f, upright, 12)
	})
}

// pngHeader is the start of a PNG that promises a size.
func pngHeader(w, h uint32) []byte {
	chunk := []byte("IHDR")
	chunk = binary.BigEndian.AppendUint32(chunk, w)
	chunk = binary.BigEndian.AppendUint32(chunk, h)
	chunk = append(chunk, 8, 2, 0, 0, 0)
	out := binary.BigEndian.AppendUint32([]byte("\x89PNG\r\n\x1a\n"), uint32(len(chunk)-4))
	out = append(out, chunk...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
}

func tiny(w, h int) image.Image { return image.NewRGBA(image.Rect(0, 0, w, h)) }

func TestRefused(t *testing.T) {
	jpg := jpegOf(t, quarters())
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "is empty"},
		{"text renamed", []byte("This is not a picture at all.\n"), "is not a JPEG, PNG, WebP or TIFF"},
		{"HTML renamed", []byte("<html><img src=x></html>"), "is not a JPEG"},
		{"GIF", encode(t, func(w io.Writer) error { return gif.Encode(w, quarters(), nil) }), "is not a JPEG"},
		{"SVG", []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), "is not a JPEG"},
		{"HEIC", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"), "HEIC"},
		{"AVIF", []byte("\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif"), "AVIF"},
		{"animated WebP", sample(t, animatedWebP), "animated WebP"},
		{"1x1", pngOf(t, tiny(1, 1)), "1x1 pixels, too small"},
		{"narrow", pngOf(t, tiny(15, 400)), "15x400 pixels, too small"},
		{"20000x20000", pngHeader(20000, 20000), "20000x20000 pixels, more than the limit of 25 megapixels"},
		{"largest PNG header", pngHeader(1<<31-1, 1<<31-1), ""},
		{"0x0", pngHeader(0, 0), "damaged PNG"},
		{"only a JPEG mark", jpg[:3], "damaged JPEG"},
		{"JPEG header only", jpg[:200], "damaged JPEG"},
		{"truncated JPEG", jpg[:len(jpg)-40], "damaged JPEG"},
		{"truncated PNG", pngOf(t, quarters())[:80], "damaged PNG"},
		{"truncated WebP", sample(t, lossyWebP)[:60], "damaged WebP"},
		{"truncated TIFF", tiffOf(t, quarters())[:60], "damaged TIFF"},
		{"RIFF that is no picture", []byte("RIFF\x10\x00\x00\x00WAVEfmt \x00\x00\x00\x00"), "is not a JPEG"},
		{"short RIFF", []byte("RIFF"), "is not a JPEG"},
		{"PNG with a wrong checksum", flip(pngOf(t, quarters()), 31), "damaged PNG"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(c.data)
			checkError(t, err, agent.CodeInvalid, `"face.jpg"`, c.want)
		})
	}
}

func flip(data []byte, i int) []byte {
	data[i] ^= 0xff
	return data
}

func checkError(tb testing.TB, err error, code agent.Code, words ...string) {
	tb.Helper()
	var known *agent.Error
	if !errors.As(err, &known) || known.Code != code {
		tb.Fatalf("error %v has code %q, want %q", err, agent.ErrorCode(err), code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			tb.Errorf("%q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		tb.Errorf("%q has more than one line", err)
	}
}

func TestLimits(t *testing.T) {
	data := pngOf(t, quarters())
	for _, c := range []struct {
		name   string
		limits photo.Limits
		want   string // "" for a picture
	}{
		{"exactly", photo.Limits{MaxBytes: int64(len(data)), MaxPixels: width * height}, ""},
		{"a byte too long", photo.Limits{MaxBytes: int64(len(data)) - 1, MaxPixels: width * height}, "larger than"},
		{"a pixel too many", photo.Limits{MaxBytes: int64(len(data)), MaxPixels: width*height - 1}, "more than the limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := photo.Decode(bytes.NewReader(data), "face.jpg", c.limits)
			if c.want == "" && err == nil {
				return
			}
			checkError(t, err, agent.CodeInvalid, "face.jpg", c.want)
		})
	}
}

// The size is judged before a pixel is decoded, for every format.
func TestHugePicturesCostNothing(t *testing.T) {
	for name, data := range map[string][]byte{
		"PNG":  pngHeader(20000, 20000),
		"JPEG": jpegOfSize(t, 20000, 20000),
		"WebP": []byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x1f\x4e\x00\x1f\x4e\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decode(data)
			runtime.ReadMemStats(&after)
			checkError(t, err, agent.CodeInvalid, "20000x20000")
			if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
				t.Errorf("%d bytes allocated to refuse %d", used, len(data))
			}
		})
	}
}

// jpegOfSize rewrites the size in a JPEG's frame header.
func jpegOfSize(tb testing.TB, w, h uint16) []byte {
	tb.Helper()
	data := jpegOf(tb, quarters())
	i := bytes.Index(data, []byte{0xff, 0xc0})
	if i < 0 {
		tb.Fatal("no frame header")
	}
	binary.BigEndian.PutUint16(data[i+5:], h)
	binary.BigEndian.PutUint16(data[i+7:], w)
	return data
}

func TestReadError(t *testing.T) {
	r := io.MultiReader(bytes.NewReader([]byte("\xff\xd8\xff")), failing{})
	_, err := photo.Decode(r, "face.jpg", photo.DefaultLimits)
	checkError(t, err, agent.CodeInvalid, `"face.jpg"`, "cannot read")
	if !errors.Is(err, fs.ErrClosed) {
		t.Error("the cause got lost")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fs.ErrClosed }

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("OK", func(t *testing.T) {
		// What the file is comes from its content.
		f, err := photo.Load(write("really-a-png.jpg", pngOf(t, quarters())))
		if err != nil {
			t.Fatal(err)
		}
		if f.Source != "really-a-png.jpg" {
			t.Errorf("source %q", f.Source)
		}
		checkCorners(t, f, upright, 0)
	})
	t.Run("missing", func(t *testing.T) {
		_, err := photo.Load(filepath.Join(dir, "none.jpg"))
		checkError(t, err, agent.CodeNotFound, "none.jpg", "does not exist")
	})
	t.Run("folder", func(t *testing.T) {
		_, err := photo.Load(dir)
		checkError(t, err, agent.CodeInvalid, dir, "folder")
	})
	t.Run("below a file", func(t *testing.T) {
		_, err := photo.Load(filepath.Join(write("file.jpg", nil), "x.jpg"))
		checkError(t, err, agent.CodeInvalid, "x.jpg", "cannot open")
	})
	t.Run("empty", func(t *testing.T) {
		_, err := photo.Load(write("empty.jpg", nil))
		checkError(t, err, agent.CodeInvalid, "empty.jpg", "is empty")
	})
	t.Run("a name with a line break", func(t *testing.T) {
		_, err := photo.Load(write("a\nb.jpg", []byte("x")))
		checkError(t, err, agent.CodeInvalid, `a\nb.jpg`)
	})
	t.Run("too large", func(t *testing.T) {
		path := write("large.jpg", nil)
		if err := os.Truncate(path, photo.DefaultLimits.MaxBytes+1); err != nil { // sparse
			t.Fatal(err)
		}
		_, err := photo.Load(path)
		checkError(t, err, agent.CodeInvalid, "large.jpg", "20 MB")
	})
}

func FuzzDecode(f *testing.F) {
	jpg := jpegOf(f, quarters())
	f.Add(jpg)
	f.Add(withEXIF(jpg, 6, binary.BigEndian, "MM"))
	f.Add(pngOf(f, clearQuarter()))
	f.Add(tiffOf(f, quarters()))
	for _, s := range []string{cmykJPEG, progressiveJPEG, lossyWebP, losslessWebP, alphaWebP, animatedWebP, rotatedWebP, rotatedTIFF, rotatedPNG} {
		f.Add(sample(f, s))
	}
	f.Add(pngHeader(20000, 20000))
	limits := photo.Limits{MaxBytes: 1 << 16, MaxPixels: 1 << 14}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := photo.Decode(bytes.NewReader(data), "face.jpg", limits)
		if err != nil {
			checkError(t, err, agent.CodeInvalid, "face.jpg")
			return
		}
		if err := frame.Check(); err != nil {
			t.Fatal(err)
		}
		if frame.Width*frame.Height > limits.MaxPixels || min(frame.Width, frame.Height) < photo.MinSide {
			t.Fatalf("%dx%d passed the limits", frame.Width, frame.Height)
		}
	})
}
