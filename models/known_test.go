package models_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"testing"

	"postern/models"
)

// The pictures are part of what the answers mean: models/build/known.py draws the same.
func TestDraw(t *testing.T) {
	for picture, want := range map[string]string{
		models.PictureFace:     "ae3d7023d8d67749d4e4babb6fd374d4973cc5a061d847f2fdb616ce5bc497b9",
		models.PictureNegative: "de3faf940c308f25ed7dd2b3127e4cbb28193b2db16c699fe742171b08812c10",
	} {
		pix, err := models.Draw(picture, 112)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(pix)); len(pix) != 112*112*3 || got != want {
			t.Errorf("%s: %d bytes, SHA-256 %s, want %s", picture, len(pix), got, want)
		}
	}
	if _, err := models.Draw("landscape", 112); err == nil || !strings.Contains(err.Error(), "landscape") {
		t.Errorf("an unknown picture: %v", err)
	}
}

func TestDistance(t *testing.T) {
	nan := float32(math.NaN())
	k := models.KnownOutput{Name: "x", Step: 3, Values: []float64{1, -2}}
	for _, c := range []struct {
		got  []float32
		want float64
	}{
		{[]float32{1, 9, 9, -2}, 0},
		{[]float32{1, 9, 9, -2, 9, 9}, 0},
		{[]float32{4, 9, 9, 2}, math.Sqrt(12.5)},
		{[]float32{1, 9, 9}, math.Inf(1)},
		{[]float32{1, 9, 9, -2, 9, 9, 9}, math.Inf(1)},
		{[]float32{1, 9, 9, nan}, math.Inf(1)},
		{nil, math.Inf(1)},
	} {
		if got := k.Distance(c.got); math.Abs(got-c.want) > 1e-9 && got != c.want {
			t.Errorf("%v: %v, want %v", c.got, got, c.want)
		}
	}
	if got := (models.KnownOutput{}).Distance(nil); !math.IsInf(got, 1) {
		t.Errorf("nothing known: %v", got)
	}
}
