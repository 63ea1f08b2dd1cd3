package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"postern/agent"
)

// A payload, which vault.go seals, is
//
//	uint32  length of the header, big-endian
//	[]byte  header, JSON
//	uint32  number of floats, big-endian; 0 for anything but a template
//	[]byte  floats, IEEE 754 single precision, little-endian

const (
	maxHeader = 64 << 10
	maxDim    = 4096
)

// encodePayload packs a header and an embedding.
func encodePayload(header any, floats []float32) ([]byte, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	if len(h) > maxHeader {
		return nil, fmt.Errorf("header of %d bytes is longer than %d", len(h), maxHeader)
	}
	out := make([]byte, 0, 8+len(h)+4*len(floats))
	out = binary.BigEndian.AppendUint32(out, uint32(len(h)))
	out = append(out, h...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(floats)))
	for _, f := range floats {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(f))
	}
	return out, nil
}

// decodePayload is the inverse of encodePayload. It copies the floats.
func decodePayload(p []byte, header any) ([]float32, error) {
	h, raw, err := splitPayload(p)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(h, header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return decodeFloats(raw)
}

// splitPayload finds the header and the floats.
func splitPayload(p []byte) (header, floats []byte, err error) {
	header, p, err = cut(p, maxHeader, 1)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	floats, p, err = cut(p, maxDim, 4)
	if err != nil {
		return nil, nil, fmt.Errorf("floats: %w", err)
	}
	if len(p) > 0 {
		return nil, nil, fmt.Errorf("%d trailing bytes", len(p))
	}
	return header, floats, nil
}

// cut takes a counted field of items of the given size off the front of p.
func cut(p []byte, most uint32, size int) (field, rest []byte, err error) {
	if len(p) < 4 {
		return nil, nil, errors.New("cut short before its length")
	}
	n, p := binary.BigEndian.Uint32(p), p[4:]
	if n > most {
		return nil, nil, fmt.Errorf("length %d is over %d", n, most)
	}
	if want := int(n) * size; want <= len(p) {
		return p[:want], p[want:], nil
	}
	return nil, nil, errors.New("cut short")
}

func decodeFloats(raw []byte) ([]float32, error) {
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	if err := checkFinite(out); err != nil {
		return nil, err
	}
	return out, nil
}

func checkFinite(fs []float32) error {
	for i, f := range fs {
		if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
			return fmt.Errorf("value %d is not a number", i)
		}
	}
	return nil
}

func decodeSubject(p []byte) (agent.Subject, error) {
	var s agent.Subject
	floats, err := decodePayload(p, &s)
	switch {
	case err != nil:
		return agent.Subject{}, err
	case len(floats) > 0:
		return agent.Subject{}, errors.New("a subject with floats")
	}
	return s, agent.ValidateSubject(s.ID, s.Name)
}

func decodeTemplate(p []byte) (agent.Template, error) {
	var t agent.Template
	floats, err := decodePayload(p, &t)
	if err != nil {
		return agent.Template{}, err
	}
	t.Embedding = floats
	return t, checkTemplate(&t)
}

// decodeResult returns the result without its position (Device, Epoch, Seq),
// which its place in the file gives.
func decodeResult(p []byte) (agent.Result, error) {
	var r agent.Result
	floats, err := decodePayload(p, &r)
	switch {
	case err != nil:
		return agent.Result{}, err
	case len(floats) > 0:
		return agent.Result{}, errors.New("a result with floats")
	}
	r.Device, r.Epoch, r.Seq = "", "", 0
	if r.Decision.Warnings == nil {
		r.Decision.Warnings = []agent.Warning{}
	}
	return r, checkResult(&r)
}
