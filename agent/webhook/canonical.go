// Package webhook tells other systems what happens to sessions: it encodes and signs
// an event, and delivers it until it has arrived or nothing more can be done.
package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Canonical encodes any JSON value in the one form that is signed: keys sorted by
// code point, no spaces, whole floats as integers, nothing escaped that need not be.
// It is what Python's json.dumps writes with sort_keys, separators (",", ":") and
// ensure_ascii=False, after whole floats have become ints.
func Canonical(v any) ([]byte, error) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return nil, err
		}
		raw = buf.Bytes()
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("text after the value")
	}
	return appendValue(nil, tree)
}

func appendValue(out []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return strconv.AppendBool(out, v), nil
	case string:
		return appendString(out, v)
	case json.Number:
		return appendNumber(out, string(v))
	case []any:
		return appendList(out, v)
	case map[string]any:
		return appendObject(out, v)
	}
	return nil, fmt.Errorf("a value of type %T is not JSON", v)
}

func appendList(out []byte, list []any) (_ []byte, err error) {
	out = append(out, '[')
	for i, v := range list {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = appendValue(out, v); err != nil {
			return nil, err
		}
	}
	return append(out, ']'), nil
}

// appendObject sorts keys by their bytes, which for UTF-8 is by code point.
func appendObject(out []byte, m map[string]any) (_ []byte, err error) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out = append(out, '{')
	for i, k := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = appendString(out, k); err != nil {
			return nil, err
		}
		out = append(out, ':')
		if out, err = appendValue(out, m[k]); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

// short escapes; other controls are \u00xx.
var short = map[byte]byte{'"': '"', '\\': '\\', '\b': 'b', '\t': 't', '\n': 'n', '\f': 'f', '\r': 'r'}

func appendString(out []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("a string that is not UTF-8 cannot be signed")
	}
	out = append(out, '"')
	for i := range len(s) {
		c := s[i]
		if e, ok := short[c]; ok {
			out = append(out, '\\', e)
		} else if c < 0x20 {
			out = append(out, fmt.Sprintf(`\u%04x`, c)...)
		} else {
			out = append(out, c)
		}
	}
	return append(out, '"'), nil
}

// appendNumber writes integers as they are and floats in their shortest form, whole
// ones as integers.
func appendNumber(out []byte, s string) ([]byte, error) {
	if !strings.ContainsAny(s, ".eE") {
		if s == "-0" {
			s = "0"
		}
		return append(out, s...), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, fmt.Errorf("the number %.40s is out of range", s)
	}
	if f == math.Trunc(f) {
		whole, _ := big.NewFloat(f).Int(nil)
		return whole.Append(out, 10), nil
	}
	if math.Abs(f) >= 1e-4 {
		return strconv.AppendFloat(out, f, 'f', -1, 64), nil
	}
	return strconv.AppendFloat(out, f, 'e', -1, 64), nil // two digits of exponent, as Python has it
}
