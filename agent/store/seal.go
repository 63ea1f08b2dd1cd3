package store

import (
	"encoding/binary"
	"errors"
)

// Sealer protects the value of every record before it reaches a file. ad is the
// record's Binding: it is not stored, and Open must fail when it differs from
// the one given to Seal, so that records cannot be swapped inside a file.
// Neither method may keep or change its arguments. Both are called from several
// goroutines at once, and Seal within a write transaction: they must be quick
// and must not call the Store.
type Sealer interface {
	Seal(plain, ad []byte) ([]byte, error)
	Open(sealed, ad []byte) ([]byte, error)
}

// Plain is the Sealer that does not seal: values are stored readable and the
// binding is not checked.
type Plain struct{}

// Seal returns a copy of plain.
func (Plain) Seal(plain, _ []byte) ([]byte, error) { return append([]byte(nil), plain...), nil }

// Open returns a copy of sealed.
func (Plain) Open(sealed, _ []byte) ([]byte, error) { return append([]byte(nil), sealed...), nil }

// Binding says which record a sealed value belongs to. A Sealer that keeps a key
// for each subject finds the subject here, through ParseBinding.
type Binding struct {
	Kind    string // one of the kinds below
	Device  string
	Subject string // owner of the data: a subject, "session/" or "entry/" and an id; empty where it is nobody's face
	Record  string // id of the record; for results epoch, a slash and the decimal Seq
	Version byte   // of the record's encoding
}

// The kinds of records.
const (
	KindSubject  = "subject"
	KindTemplate = "template"
	KindResult   = "result"

	KindWorkflow    = "workflow"
	KindSession     = "session"
	KindMedia       = "picture"
	KindFace        = "face"
	KindList        = "list"
	KindEntry       = "list entry"
	KindDestination = "webhook destination"
	KindEvent       = "event"
	KindDelivery    = "delivery"
	KindKey         = "API key"
	KindLinkKey     = "key of picture links"
)

// Bytes is the associated data: the version, then each field behind its length,
// so that no two bindings look alike.
func (b Binding) Bytes() []byte {
	out := []byte{b.Version}
	for _, f := range []string{b.Kind, b.Device, b.Subject, b.Record} {
		out = binary.AppendUvarint(out, uint64(len(f)))
		out = append(out, f...)
	}
	return out
}

// ParseBinding is the inverse of Binding.Bytes.
func ParseBinding(ad []byte) (Binding, error) {
	if len(ad) == 0 {
		return Binding{}, errors.New("binding is empty")
	}
	b, rest := Binding{Version: ad[0]}, ad[1:]
	for _, f := range []*string{&b.Kind, &b.Device, &b.Subject, &b.Record} {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			return Binding{}, errors.New("binding is cut short")
		}
		*f, rest = string(rest[w:w+int(n)]), rest[w+int(n):]
	}
	if len(rest) > 0 {
		return Binding{}, errors.New("binding has trailing bytes")
	}
	return b, nil
}
