package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Calibration is the table score ↔ error rates of one network: what cosine has
// which 0..100 score, and how often strangers and the person himself lie on its
// other side. See agent/decide for its use.
type Calibration struct {
	ID string `json:"id"`
	// Model and SHA256 name the network that the table belongs to. They may be left
	// out inside that network's own manifest.
	Model  string `json:"model,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Data says what the rates were measured on, People to Impostor how much of it
	// there was: pairs of pictures of one person, and of two.
	Data     string             `json:"data,omitempty"`
	People   int                `json:"people,omitempty"`
	Images   int                `json:"images,omitempty"`
	Genuine  int                `json:"genuine,omitempty"`
	Impostor int                `json:"impostor,omitempty"`
	Points   []CalibrationPoint `json:"points"`
}

// CalibrationPoint is one row of the table: the rates when pairs above Cosine match.
// A rate of 0 with limits was not measured, for want of pairs: its upper limit is a
// bound. Without limits nothing is known.
type CalibrationPoint struct {
	Cosine     float64 `json:"cosine"`
	Score      float64 `json:"score"`
	FMR        float64 `json:"fmr,omitempty"`
	FMRLimits  *Limits `json:"fmr_ci95,omitempty"`
	FNMR       float64 `json:"fnmr,omitempty"`
	FNMRLimits *Limits `json:"fnmr_ci95,omitempty"`
}

// Limits are the ends of a 95 % interval of a rate, low first.
type Limits [2]float64

// ParseCalibration decodes a table that stands in a file of its own, strictly, and
// checks that it names the network it belongs to.
func ParseCalibration(raw []byte) (*Calibration, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var c *Calibration
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("calibration: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("calibration: text after the object")
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Model == "" || c.SHA256 == "" {
		return nil, errors.New("calibration: it names no model and sha256 that it belongs to")
	}
	return c, nil
}

// Recalibrate gives the manifest another table, which must be of exactly this
// network: scores of one say nothing about the cosines of another.
func (m *Manifest) Recalibrate(c *Calibration) error {
	if m.Role != RoleEmbedder {
		return fmt.Errorf("calibration %s: %s is no embedder", c.ID, m.ID)
	}
	if c.Model != m.ID || c.SHA256 != m.SHA256 {
		return fmt.Errorf("calibration %s is of model %s (%.12s…), this is %s (%.12s…)", c.ID, c.Model, c.SHA256, m.ID, m.SHA256)
	}
	m.Calibration = c
	return nil
}

// maxPoints bounds a table; the shipped ones have about twenty.
const maxPoints = 1000

func (c *Calibration) validate() error {
	if c == nil || c.ID == "" || len(c.Points) < 2 || len(c.Points) > maxPoints {
		return fmt.Errorf("calibration is missing, has no id or has not 2 to %d points", maxPoints)
	}
	for i, p := range c.Points {
		if err := p.validate(); err != nil {
			return fmt.Errorf("calibration point %d: %w", i, err)
		}
		if i == 0 {
			continue
		}
		if before := c.Points[i-1]; p.Cosine <= before.Cosine || p.Score <= before.Score {
			return fmt.Errorf("calibration point %d does not rise", i)
		} else if !falls(before.FMRLimits, p.FMRLimits) || !falls(p.FNMRLimits, before.FNMRLimits) {
			return fmt.Errorf("calibration point %d: its error rates run against its score", i)
		}
	}
	return nil
}

func (p CalibrationPoint) validate() error {
	if !(p.Score >= 0 && p.Score <= 100) || !(p.Cosine >= -1 && p.Cosine <= 1) {
		return errors.New("cosine or score is out of range")
	}
	for _, r := range []struct {
		name   string
		rate   float64
		limits *Limits
	}{{"fmr", p.FMR, p.FMRLimits}, {"fnmr", p.FNMR, p.FNMRLimits}} {
		if !(r.rate >= 0 && r.rate <= 1) {
			return fmt.Errorf("%s %v is not 0 to 1", r.name, r.rate)
		}
		if l := r.limits; l != nil && !(l[0] >= 0 && l[0] <= r.rate && r.rate <= l[1] && l[1] > 0 && l[1] <= 1) {
			return fmt.Errorf("%s %v with limits %v is not within 0 to 1 in order", r.name, r.rate, *l)
		}
	}
	return nil
}

// falls reports whether the upper limit does not grow from a to b. What is unknown
// is not held against a table.
func falls(a, b *Limits) bool {
	return a == nil || b == nil || b[1] <= a[1]
}
