package models

import (
	"errors"
	"fmt"
	"math"
)

// KnownAnswer is what a network must answer to one of the pictures of Draw.
type KnownAnswer struct {
	Picture string        `json:"picture"`
	Outputs []KnownOutput `json:"outputs"`
}

// KnownOutput is the answer at one output: every Step-th value in row-major order.
type KnownOutput struct {
	Name      string    `json:"name"`
	Step      int       `json:"step"`
	Tolerance float64   `json:"tolerance"` // greatest root mean square of the differences
	Values    []float64 `json:"values"`
}

// The pictures that Draw draws.
const (
	PictureFace     = "face"     // a crude face on the embedder's template
	PictureNegative = "negative" // the same with every grey level v as 255-v
)

// Draw returns a picture of side x side pixels, RGB, the same on every machine: it is
// drawn with integers alone. models/build/known.py draws it too.
func Draw(picture string, side int) ([]byte, error) {
	if picture != PictureFace && picture != PictureNegative {
		return nil, fmt.Errorf("picture %q is not %s or %s", picture, PictureFace, PictureNegative)
	}
	pix := make([]byte, 0, side*side*3)
	for y := range side {
		for x := range side {
			u, v := 256*x/side-128, 256*y/side-128
			for _, c := range faceColour(u, v) {
				c = max(0, min(255, c-(u+v)>>3))
				if picture == PictureNegative {
					c = 255 - c
				}
				pix = append(pix, byte(c))
			}
		}
	}
	return pix, nil
}

// faceColour is the unshaded colour at u, v, each from -128 to 127.
func faceColour(u, v int) [3]int {
	head := 2*u*u + (v-28)*(v-28)
	eye, brow := abs(u)-40, v+10
	switch {
	case u*u+9*(v-83)*(v-83) < 1200:
		return [3]int{150, 60, 60} // mouth
	case abs(eye) < 24 && abs(brow+22) < 5:
		return [3]int{80, 60, 45} // eyebrow
	case eye*eye+4*brow*brow < 260:
		return [3]int{40, 30, 25} // eye
	case abs(u) < 12 && v > -4 && v < 40:
		return [3]int{190, 140, 118} // nose
	case head < 19500 && v < -70:
		return [3]int{60, 45, 35} // hair
	case head < 18432:
		return [3]int{205, 160, 135} // skin
	}
	return [3]int{90, 100, 110}
}

func abs(v int) int { return max(v, -v) }

// Distance is the root mean square of the differences between what the network gave at
// this output and what it must give; infinite where they cannot be compared.
func (k KnownOutput) Distance(got []float32) float64 {
	if k.Step < 1 || len(k.Values) == 0 || (len(got)+k.Step-1)/k.Step != len(k.Values) {
		return math.Inf(1)
	}
	sum := 0.0
	for i, want := range k.Values {
		d := float64(got[i*k.Step]) - want
		sum += d * d
	}
	if math.IsNaN(sum) {
		return math.Inf(1)
	}
	return math.Sqrt(sum / float64(len(k.Values)))
}

// validateKnown wants both pictures, and every output at each: one picture alone would
// not tell a network that answers everything alike.
func (m *Manifest) validateKnown() error {
	seen := map[string]bool{}
	for _, k := range m.KnownAnswers {
		if k.Picture != PictureFace && k.Picture != PictureNegative || seen[k.Picture] {
			return fmt.Errorf("picture %q is unknown or there twice", k.Picture)
		}
		seen[k.Picture] = true
		if err := m.validateKnownOutputs(k.Outputs); err != nil {
			return fmt.Errorf("%s: %w", k.Picture, err)
		}
	}
	if len(seen) != 2 {
		return fmt.Errorf("there are %d pictures, want %s and %s", len(seen), PictureFace, PictureNegative)
	}
	return nil
}

func (m *Manifest) validateKnownOutputs(known []KnownOutput) error {
	if len(known) != len(m.Outputs) {
		return fmt.Errorf("%d outputs, the network has %d", len(known), len(m.Outputs))
	}
	seen := map[string]bool{}
	for _, k := range known {
		o, ok := m.Output(k.Name)
		if !ok || seen[k.Name] {
			return fmt.Errorf("output %q is not the network's or is there twice", k.Name)
		}
		seen[k.Name] = true
		if err := k.validate(o); err != nil {
			return fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	return nil
}

func (k KnownOutput) validate(o Output) error {
	size, ok := o.size()
	if !ok || k.Step < 1 || k.Step > size || len(k.Values) != (size+k.Step-1)/k.Step {
		return fmt.Errorf("%d values in steps of %d are not those of shape %v", len(k.Values), k.Step, o.Shape)
	}
	if o.Role == "embedding" && k.Step != 1 {
		return errors.New("an embedding must be known whole")
	}
	sum := 0.0
	for _, v := range k.Values {
		sum += v * v
	}
	// A tolerance as large as the answer itself would let everything pass.
	if size := math.Sqrt(sum / float64(len(k.Values))); !(k.Tolerance > 0 && k.Tolerance <= size/2) {
		return fmt.Errorf("tolerance %v is not above 0 and at most half of the values' root mean square %.4g", k.Tolerance, size)
	}
	return nil
}
