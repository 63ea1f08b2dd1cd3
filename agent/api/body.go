package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// What the fields of a request are told, in the words that clients know.
const (
	msgRequired  = "This field is required."
	msgNull      = "This field may not be null."
	msgBlank     = "This field may not be blank."
	msgString    = "Not a valid string."
	msgBool      = "Must be a valid boolean."
	msgNumber    = "A valid number is required."
	msgInteger   = "A valid integer is required."
	msgUUID      = "Must be a valid UUID."
	msgURL       = "Enter a valid URL."
	msgList      = "Expected a list of items."
	msgObject    = "Expected an object."
	msgJSON      = "Value must be valid JSON."
	msgTwice     = "This field was sent more than once."
	msgUnknown   = "Unknown field."
	msgNUL       = "Null characters are not allowed."
	maxJSONDepth = 32
)

// Object is the JSON object of a request body. The typed getters note what is wrong
// in Fields; Err tells all of it. A field that is absent is its zero value.
type Object struct {
	raw    map[string]json.RawMessage
	asked  map[string]bool
	Fields Fields
}

// ReadObject reads the body as one JSON object. An empty body is an empty object.
// Duplicate names, invalid UTF-8, nesting beyond 32 and anything after the object are
// refused.
func ReadObject(r *http.Request) (*Object, error) {
	o := &Object{raw: map[string]json.RawMessage{}, asked: map[string]bool{}, Fields: Fields{}}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return o, nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, Detail(http.StatusUnsupportedMediaType, "Unsupported media type \""+short(r.Header.Get("Content-Type"))+"\" in request.")
	}
	if err := checkJSON(data); err != nil {
		return nil, Detail(http.StatusBadRequest, "JSON parse error - "+err.Error())
	}
	if json.Unmarshal(data, &o.raw) != nil || o.raw == nil { // null is no object either
		return nil, Detail(http.StatusBadRequest, "Invalid data. Expected a dictionary.")
	}
	return o, nil
}

// checkJSON holds data against what encoding/json would let pass.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("the text is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxJSONDepth {
		return fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return jsonError(err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			k, err := dec.Token()
			if err != nil {
				return jsonError(err)
			}
			name, _ := k.(string)
			if seen[name] {
				return fmt.Errorf("name %q appears twice", short(name))
			}
			seen[name] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing bracket
	return jsonError(err)
}

func jsonError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the text ends too early")
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("invalid character near byte %d", syntax.Offset)
	}
	return err
}

// Has reports whether the object has the field, be it null.
func (o *Object) Has(name string) bool {
	o.asked[name] = true
	_, ok := o.raw[name]
	return ok
}

// get returns the field's raw value, nil when it is absent. null is a fault unless
// nullable.
func (o *Object) get(name string, required, nullable bool) json.RawMessage {
	o.asked[name] = true
	v, ok := o.raw[name]
	switch {
	case !ok && required:
		o.Fields.Add(name, msgRequired)
	case ok && string(v) == "null":
		if !nullable {
			o.Fields.Add(name, msgNull)
		}
		return nil
	}
	return v
}

// Required reads a string that must be there and not empty.
func (o *Object) Required(name string, maxRunes int) string {
	s := o.text(name, o.get(name, true, false), maxRunes)
	if o.Has(name) && s == "" && len(o.Fields[name]) == 0 {
		o.Fields.Add(name, msgBlank)
	}
	return s
}

// String reads a string, or null, that may be missing.
func (o *Object) String(name string, maxRunes int) string {
	return o.text(name, o.get(name, false, true), maxRunes)
}

func (o *Object) text(name string, v json.RawMessage, maxRunes int) string {
	if v == nil {
		return ""
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		o.Fields.Add(name, msgString)
		return ""
	}
	checkText(o.Fields, name, s, maxRunes)
	return s
}

// checkText notes what is wrong with a text: too long, a NUL, or not UTF-8.
func checkText(f Fields, name, s string, maxRunes int) {
	switch {
	case !utf8.ValidString(s):
		f.Add(name, msgString)
	case strings.ContainsRune(s, 0):
		f.Add(name, msgNUL)
	case utf8.RuneCountInString(s) > maxRunes:
		f.Add(name, tooLong(maxRunes))
	}
}

func tooLong(maxRunes int) string {
	return fmt.Sprintf("Ensure this field has no more than %d characters.", maxRunes)
}

// Choice reads a string of a list.
func (o *Object) Choice(name string, required bool, choices ...string) string {
	var s string
	if required {
		s = o.Required(name, 64)
	} else {
		s = o.String(name, 64)
	}
	if s != "" && !slices.Contains(choices, s) {
		o.Fields.Add(name, notAChoice(s))
		return ""
	}
	return s
}

func notAChoice(s string) string { return fmt.Sprintf("%q is not a valid choice.", short(s)) }

// UUID reads a canonical lower-case UUID.
func (o *Object) UUID(name string, required bool) string {
	v := o.get(name, required, !required)
	s := o.text(name, v, 64)
	if v != nil && len(o.Fields[name]) == 0 && !IsUUID(s) {
		o.Fields.Add(name, msgUUID)
		return ""
	}
	return s
}

// IsUUID reports whether s is a canonical lower-case UUID.
func IsUUID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s
}

// URL reads an absolute http or https address.
func (o *Object) URL(name string, required bool) string {
	v := o.get(name, required, !required)
	s := o.text(name, v, 2048)
	if v == nil || len(o.Fields[name]) > 0 || s == "" && !required {
		return s
	}
	if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsAny(s, " \t\r\n") {
		o.Fields.Add(name, msgURL)
	}
	return s
}

// Bool reads true or false; def when it is missing.
func (o *Object) Bool(name string, def bool) bool {
	v := o.get(name, false, false)
	if v == nil {
		return def
	}
	var b bool
	if json.Unmarshal(v, &b) != nil {
		o.Fields.Add(name, msgBool)
	}
	return b
}

// Number reads a finite number within bounds; def when it is missing or null.
func (o *Object) Number(name string, def, lo, hi float64) float64 {
	v := o.get(name, false, true)
	if v == nil {
		return def
	}
	var n float64
	if json.Unmarshal(v, &n) != nil {
		o.Fields.Add(name, msgNumber)
		return def
	}
	checkNumber(o.Fields, name, n, lo, hi)
	return n
}

func checkNumber(f Fields, name string, n, lo, hi float64) {
	switch {
	case math.IsNaN(n) || math.IsInf(n, 0):
		f.Add(name, msgNumber)
	case n > hi:
		f.Add(name, "Ensure this value is less than or equal to "+number(hi)+".")
	case n < lo:
		f.Add(name, "Ensure this value is greater than or equal to "+number(lo)+".")
	}
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// Int reads a whole number within bounds; def when it is missing or null.
func (o *Object) Int(name string, def, lo, hi int) int {
	v := o.get(name, false, true)
	if v == nil {
		return def
	}
	var n int
	if json.Unmarshal(v, &n) != nil {
		o.Fields.Add(name, msgInteger)
		return def
	}
	checkNumber(o.Fields, name, float64(n), float64(lo), float64(hi))
	return n
}

// Raw reads any JSON of at most maxBytes as it stands; nil when missing or null.
func (o *Object) Raw(name string, maxBytes int) json.RawMessage {
	v := o.get(name, false, true)
	if len(v) > maxBytes {
		o.Fields.Add(name, fmt.Sprintf("Ensure this value has no more than %d bytes.", maxBytes))
		return nil
	}
	return v
}

// Strings reads a list of strings; nil when missing or null.
func (o *Object) Strings(name string, maxItems, maxRunes int) []string {
	v := o.get(name, false, true)
	if v == nil {
		return nil
	}
	var items []json.RawMessage
	if json.Unmarshal(v, &items) != nil {
		o.Fields.Add(name, msgList)
		return nil
	}
	if len(items) > maxItems {
		o.Fields.Add(name, fmt.Sprintf("Ensure this field has no more than %d elements.", maxItems))
		return nil
	}
	out := make([]string, 0, len(items))
	for _, it := range items {
		out = append(out, o.text(name, it, maxRunes))
	}
	return out
}

// Sub reads a nested object; nil when missing or null. Its faults are told under
// name.field.
func (o *Object) Sub(name string) *Object {
	v := o.get(name, false, true)
	if v == nil {
		return nil
	}
	sub := &Object{asked: map[string]bool{}, Fields: Fields{}}
	if json.Unmarshal(v, &sub.raw) != nil {
		o.Fields.Add(name, msgObject)
		return nil
	}
	return sub
}

// Join takes over the faults of a nested object.
func (o *Object) Join(name string, sub *Object) {
	if sub == nil {
		return
	}
	for k, msgs := range sub.Fields {
		for _, m := range msgs {
			o.Fields.Add(name+"."+k, m)
		}
	}
}

// Objects reads a list of objects; nil when missing or null.
func (o *Object) Objects(name string, required bool, maxItems int) []*Object {
	v := o.get(name, required, !required)
	if v == nil {
		return nil
	}
	var items []map[string]json.RawMessage
	if json.Unmarshal(v, &items) != nil {
		o.Fields.Add(name, msgList)
		return nil
	}
	if len(items) > maxItems {
		o.Fields.Add(name, fmt.Sprintf("Ensure this field has no more than %d elements.", maxItems))
		return nil
	}
	var out []*Object
	for _, it := range items {
		out = append(out, &Object{raw: it, asked: map[string]bool{}, Fields: Fields{}})
	}
	return out
}

// RefuseUnknown notes every field that no getter has asked for.
func (o *Object) RefuseUnknown() {
	for name := range o.raw {
		if !o.asked[name] {
			o.Fields.Add(short(name), msgUnknown)
		}
	}
}

// Err is the 400 that names every fault, nil when there is none.
func (o *Object) Err() error { return o.Fields.Err() }
