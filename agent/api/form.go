package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"postern/agent"
	"postern/agent/photo"
)

// The limits of a form.
const (
	MaxImage      = 5 << 20 // bytes of one picture
	MaxPixels     = 25_000_000
	MaxVendorData = 1024     // characters
	MaxMetadata   = 16 << 10 // bytes of JSON
	maxForm       = 16 << 20 // bytes of the whole body
	maxParts      = 16
	maxField      = 64 << 10 // bytes of one text field
)

// Upload is one picture of a form, not decoded yet.
type Upload struct {
	Name string // of the file, without folders; for errors
	Data []byte
}

// Form is a multipart body held in memory.
type Form struct {
	texts  map[string]string
	files  map[string]Upload
	Fields Fields
}

// formSpec says which fields a form may have.
type formSpec struct {
	files, texts []string
}

// readForm reads the body within its limits. A body that is no form is an error; what
// is wrong with single fields is noted in Fields.
func readForm(r *http.Request, spec formSpec) (*Form, error) {
	mr, err := r.MultipartReader()
	if err != nil {
		if errors.Is(err, http.ErrNotMultipart) {
			return nil, Detail(http.StatusUnsupportedMediaType, "Unsupported media type \""+short(r.Header.Get("Content-Type"))+"\" in request.")
		}
		return nil, Detail(http.StatusBadRequest, "Multipart form parse error - the boundary is missing or invalid.")
	}
	f := &Form{texts: map[string]string{}, files: map[string]Upload{}, Fields: Fields{}}
	for n := 0; ; n++ {
		p, err := mr.NextRawPart()
		switch {
		case errors.Is(err, io.EOF):
			return f, nil
		case err != nil:
			return nil, formError(err)
		case n == maxParts:
			return nil, Detail(http.StatusBadRequest, fmt.Sprintf("Multipart form parse error - more than %d fields.", maxParts))
		}
		if err := f.part(p, spec); err != nil {
			return nil, formError(err)
		}
	}
}

func formError(err error) error {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return err
	}
	return Detail(http.StatusBadRequest, "Multipart form parse error - the body is cut short or malformed.")
}

// part takes one field. Everything is read, also what is refused, so that the sender
// gets to see the answer.
func (f *Form) part(p *multipart.Part, spec formSpec) error {
	name := p.FormName()
	isFile := slices.Contains(spec.files, name)
	limit := int64(maxField)
	if isFile {
		limit = MaxImage
	}
	data, err := io.ReadAll(io.LimitReader(p, limit+1))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, p); err != nil {
		return err
	}
	_, textBefore := f.texts[name]
	_, fileBefore := f.files[name]
	switch {
	case !isFile && !slices.Contains(spec.texts, name):
		f.Fields.Add(short(name), msgUnknown)
	case textBefore || fileBefore:
		f.Fields.Add(name, msgTwice)
	case isFile:
		f.file(name, p.FileName(), data)
	case p.FileName() != "":
		f.Fields.Add(name, msgString)
	default:
		f.texts[name] = string(data)
		if int64(len(data)) > limit {
			f.Fields.Add(name, fmt.Sprintf("Ensure this value has no more than %d bytes.", maxField))
		}
	}
	return nil
}

// extensions are what a picture's name may end in, in the order of the message.
var extensions = []string{"tiff", "jpg", "jpeg", "png", "webp"}

// file checks a picture's name and size; its content is judged by what decodes it.
func (f *Form) file(field, name string, data []byte) {
	f.files[field] = Upload{Name: path.Base(name), Data: data}
	ext := strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))
	switch {
	case name == "":
		f.Fields.Add(field, "The submitted data was not a file. Check the encoding type on the form.")
	case ext != "" && ext != "tif" && !slices.Contains(extensions, ext):
		f.Fields.Add(field, fmt.Sprintf("File extension “%s” is not allowed. Allowed extensions are: %s.", short(ext), strings.Join(extensions, ", ")))
	case len(data) == 0:
		f.Fields.Add(field, "The submitted file is empty.")
	case len(data) > MaxImage:
		f.Fields.Add(field, "File size should not exceed 5 MB")
	}
}

// has reports whether the field was sent in any form.
func (f *Form) has(name string) bool {
	_, text := f.texts[name]
	_, file := f.files[name]
	return text || file || len(f.Fields[name]) > 0
}

// upload returns a picture that must be there.
func (f *Form) upload(name string) Upload {
	if !f.has(name) {
		f.Fields.Add(name, "No file was submitted.")
	}
	return f.files[name]
}

// text reads a text field.
func (f *Form) text(name string, maxRunes int) (string, bool) {
	s, ok := f.texts[name]
	if ok {
		checkText(f.Fields, name, s, maxRunes)
	}
	return s, ok
}

// boolean reads a flag in any of the spellings that forms use; an empty one counts as
// not sent.
func (f *Form) boolean(name string, def bool) bool {
	s, ok := f.texts[name]
	switch strings.ToLower(s) {
	case "":
		return def
	case "true", "1", "t", "yes", "y", "on":
		return true
	case "false", "0", "f", "no", "n", "off":
		return false
	}
	if ok {
		f.Fields.Add(name, msgBool)
	}
	return def
}

// number reads a finite number within bounds.
func (f *Form) number(name string, def, lo, hi float64) float64 {
	s, ok := f.texts[name]
	if !ok {
		return def
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !decimal(s) {
		f.Fields.Add(name, msgNumber)
		return def
	}
	checkNumber(f.Fields, name, v, lo, hi)
	return v
}

// decimal excludes what only Go takes for a number: hexadecimal, underscores, words.
func decimal(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789+-.eE", r) })
}

// choice reads a text of a list; def when it is not sent.
func (f *Form) choice(name, def string, choices ...string) string {
	s, ok := f.texts[name]
	switch {
	case !ok:
		return def
	case !slices.Contains(choices, s):
		f.Fields.Add(name, notAChoice(s))
	}
	return s
}

// metadata reads JSON text; nil when it is not sent or null.
func (f *Form) metadata(name string) json.RawMessage {
	s, ok := f.texts[name]
	switch {
	case !ok || s == "" || s == "null":
		return nil
	case len(s) > MaxMetadata:
		f.Fields.Add(name, fmt.Sprintf("Ensure this value has no more than %d bytes.", MaxMetadata))
	case !utf8.ValidString(s) || checkJSON([]byte(s)) != nil:
		f.Fields.Add(name, msgJSON)
	default:
		return json.RawMessage(s)
	}
	return nil
}

// decode turns an upload into a picture; its fault is that of the field.
func decode(field string, u Upload) (*agent.Frame, error) {
	f, err := photo.Decode(bytes.NewReader(u.Data), u.Name, photo.Limits{MaxBytes: MaxImage, MaxPixels: MaxPixels})
	if err != nil {
		faults := Fields{}
		faults.Add(field, "Upload a valid image. "+sentence(err))
		return nil, faults.Err()
	}
	return f, nil
}

// sentence is the message of an error of the domain without its cause.
func sentence(err error) string {
	var e *agent.Error
	if errors.As(err, &e) {
		return strings.ToUpper(e.Message[:1]) + e.Message[1:] + "."
	}
	return "It cannot be decoded."
}

// contentType names a picture's format by its first bytes; only formats that decode
// accepts get here.
func contentType(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG")):
		return "image/png"
	case bytes.HasPrefix(data, []byte("RIFF")):
		return "image/webp"
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
		return "image/jpeg"
	}
	return "image/tiff"
}
