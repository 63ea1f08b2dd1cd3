package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/photo"
)

// head is the test portrait as a picture.
func head(t *testing.T, name string) picture {
	t.Helper()
	f, err := photo.Load(face(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return picture{f}
}

// encoded is a picture as a JPEG.
func encoded(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// turned is a picture after a turn to the left.
func turned(p picture) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, p.f.Height, p.f.Width))
	for y := range p.f.Height {
		for x := range p.f.Width {
			out.Set(y, p.f.Width-1-x, p.At(x, y))
		}
	}
	return out
}

// withOrientation puts an EXIF segment with this orientation behind the start of a JPEG.
func withOrientation(jpg []byte, o uint16) []byte {
	tiff := []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00")
	tiff = binary.LittleEndian.AppendUint16(tiff, o)
	tiff = append(tiff, 0, 0, 0, 0, 0, 0)
	segment := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{0xff, 0xd8, 0xff, 0xe1}, binary.BigEndian.AppendUint16(nil, uint16(len(segment)+2))...)
	return append(append(out, segment...), jpg[2:]...)
}

// gray16 is a picture in grey of 16 bits.
func gray16(p picture) image.Image {
	out := image.NewGray16(p.Bounds())
	for y := range p.f.Height {
		for x := range p.f.Width {
			out.Set(x, y, p.At(x, y))
		}
	}
	return out
}

// cmyk is a picture as a CMYK JPEG as Adobe's programs write it, inverted: four scans of
// one component each, which the encoder for grey pictures has made.
func cmyk(t *testing.T, p picture) []byte {
	t.Helper()
	planes := [4]*image.Gray{}
	for c := range planes {
		planes[c] = image.NewGray(p.Bounds())
		for y := range p.f.Height {
			for x := range p.f.Width {
				v := byte(255) // no black
				if c < 3 {
					v = p.f.Pix[(y*p.f.Width+x)*3+c]
				}
				planes[c].SetGray(x, y, color.Gray{Y: v})
			}
		}
	}
	out := []byte("\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00")
	for c, plane := range planes {
		marks := segments(encoded(t, plane))
		if c == 0 {
			frame := marks[0xc0]
			frame = append(frame[:9:9], 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0)
			binary.BigEndian.PutUint16(frame[2:], uint16(len(frame)-2))
			out = append(append(append(out, marks[0xdb]...), frame...), marks[0xc4]...)
		}
		scan := marks[0xda]
		scan[5] = byte(c + 1)
		out = append(out, scan...)
	}
	return append(out, 0xff, 0xd9)
}

// segments takes a JPEG apart by its markers; that of the scan goes to the end.
func segments(jpg []byte) map[byte][]byte {
	out := map[byte][]byte{}
	for i := 2; i+4 <= len(jpg); {
		mark, n := jpg[i+1], int(binary.BigEndian.Uint16(jpg[i+2:]))+2
		if mark == 0xda {
			out[mark] = jpg[i : len(jpg)-2]
			return out
		}
		out[mark] = append(out[mark], jpg[i:i+n]...)
		i += n
	}
	return out
}

// TestUnusualPictures: what cameras, scanners and programs write is understood.
func TestUnusualPictures(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	grey := filepath.Join(dir, "grey16.png")
	writePNG(t, grey, gray16(head(t, "obama.jpg")))
	lying := encoded(t, turned(head(t, "obama.jpg")))
	for _, c := range []struct {
		name, path string
		rolled     bool // the face is seen to lie on its side
	}{
		{"Grey16", grey, false},
		{"CMYK", write("cmyk.jpg", cmyk(t, head(t, "obama.jpg"))), false},
		{"LyingOnItsSide", write("side.jpg", lying), true},
		{"TurnedUprightByEXIF", write("exif.jpg", withOrientation(lying, 6)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := postern(t, "match", face(t, "obama2.jpg"), c.path)
			if a.code != exitApproved || strings.Contains(a.out, "roll") != c.rolled {
				t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
			}
		})
	}
}

// TestBadPlaces: folders and cameras that cannot be used. Each is one sentence that names
// the thing, and nothing that was stored is lost.
func TestBadPlaces(t *testing.T) {
	data := enrolled(t)
	camera := cameraOf(t, "obama.jpg")
	s := start(t, append(camera, "--data", data)...)
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"SecondAgent", append([]string{"run", "--data", data}, camera...), exitLocked, []string{data, "in use by"}},
		{"NoSuchCamera", []string{"run", "--data", filepath.Join(t.TempDir(), "a"), "--set", "camera.source=97"}, exitUnavailable, []string{"97"}},
		{"NoSuchCameraForAPicture", []string{"camera", "snapshot", filepath.Join(t.TempDir(), "me.jpg"), "--set", "camera.source=97"}, exitUnavailable, []string{"97"}},
		{"NoSuchFilm", []string{"run", "--data", filepath.Join(t.TempDir(), "b"), "--set", "camera.source=/nowhere/film.avi"}, exitNotFound, []string{"/nowhere/film.avi"}},
		// Nobody, not even root, can make a folder there.
		{"ReadOnlyFolder", append([]string{"run", "--data", "/proc/postern"}, camera...), exitStorage, []string{"/proc/postern"}},
		{"DataIsAFile", append([]string{"run", "--data", face(t, "obama.jpg")}, camera...), exitStorage, []string{"obama.jpg"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := postern(t, append(c.args, "--set", "http.listen=127.0.0.1:0")...)
			last := strings.TrimSpace(a.err)
			last = last[strings.LastIndex(last, "\n")+1:] // before it the agent logs
			if a.code != c.code {
				t.Errorf("exit %d, want %d: %s%s", a.code, c.code, a.out, a.err)
			}
			for _, want := range c.says {
				if !strings.Contains(last, want) {
					t.Errorf("%q does not name %q", last, want)
				}
			}
		})
	}
	if code := s.stop(); code != 0 {
		t.Errorf("the first agent stopped with %d:\n%s", code, s.out)
	}
	var list []agent.Subject
	if list = decode[[]agent.Subject](t, postern(t, "subjects", "list", "--json", "--data", data)); len(list) != 1 || list[0].ID != "b44" {
		t.Errorf("stored are %+v", list)
	}
}
