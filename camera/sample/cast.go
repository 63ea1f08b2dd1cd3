package sample

import (
	"errors"
	"fmt"
	"path/filepath"

	"postern/agent"
	"postern/agent/photo"
)

// Person is a picture of somebody and where in it they are.
type Person struct {
	Picture *agent.Frame
	// Outline runs around the person, in pixels of the picture. Without one an
	// oval in the middle of the picture is cut out.
	Outline []agent.Point
	// Head is the box from hair to chin in pixels of the picture.
	Head agent.Box
}

// Cast are the people of the film.
type Cast struct {
	Enrolled Person // walks up
	Again    Person // the same person in another picture
	Print    Person // the same person, shown as a print with its background
	Stranger Person
}

// EnrolFrom is the picture in the folder of faces that the enrolled person is
// to be enrolled from. In the film it appears only as the print.
const EnrolFrom = "obama.jpg"

// LoadCast reads the portraits of the PyPI package face_recognition 1.3.0
// (folder tests/test_images; official portraits, public domain) from dir.
func LoadCast(dir string) (Cast, error) {
	var c Cast
	var errs []error
	for name, p := range map[string]*Person{
		"obama3.jpg": &c.Enrolled, "obama2.jpg": &c.Again, EnrolFrom: &c.Print, "biden.jpg": &c.Stranger,
	} {
		f, err := photo.Load(filepath.Join(dir, name))
		errs = append(errs, err)
		*p = person(f, portraits[name])
	}
	return c, errors.Join(errs...)
}

// portrait is what is known about a picture: its size, and outline and head as
// drawn by hand at a scale of it.
type portrait struct {
	width, height int
	scale         float64 // of the numbers below
	head          [4]float32
	outline       []float32 // x, y, x, y, ...
}

// person applies what is known about a picture, unless it is another picture
// of that name.
func person(f *agent.Frame, k portrait) Person {
	p := Person{Picture: f}
	if f == nil || f.Width != k.width || f.Height != k.height {
		return p
	}
	s := float32(1 / k.scale)
	for i := 0; i+1 < len(k.outline); i += 2 {
		p.Outline = append(p.Outline, agent.Point{X: k.outline[i] * s, Y: k.outline[i+1] * s})
	}
	p.Head = agent.Box{X: k.head[0] * s, Y: k.head[1] * s, W: k.head[2] * s, H: k.head[3] * s}
	return p
}

// complete checks a person and fills in the oval and the head when they are
// not known.
func (p Person) complete(who Who) (Person, error) {
	if err := p.Picture.Check(); err != nil {
		return p, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("the sample film has no picture for the role %q", who), Err: err}
	}
	w, h := float32(p.Picture.Width), float32(p.Picture.Height)
	if len(p.Outline) < 3 {
		p.Outline = oval(w/2, h/2, w/2, h/2)
	}
	if p.Head.W <= 0 || p.Head.H <= 0 {
		p.Head = agent.Box{X: w / 4, Y: h / 8, W: w / 2, H: h * 3 / 4}
	}
	return p, nil
}
