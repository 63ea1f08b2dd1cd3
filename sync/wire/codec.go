package wire

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"postern/agent"
)

// Version is the first byte of every payload.
const Version = 1

// Limits of what is sent and accepted, in bytes.
const (
	MaxMessage  = 64 << 10 // a payload
	MaxUnpacked = 96 << 10 // the rows of a batch when inflated
	MaxRow      = 48 << 10 // one row's body
)

// Raw is one encoded CBOR item, passed on as it came.
type Raw = cbor.RawMessage

var (
	encoder = must(cbor.EncOptions{
		ShortestFloat: cbor.ShortestFloat16, // only where no bit is lost
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		Sort:          cbor.SortCoreDeterministic, // the same message is the same bytes
		Time:          cbor.TimeRFC3339NanoUTC,
		TagsMd:        cbor.TagsForbidden,
		IndefLength:   cbor.IndefLengthForbidden,
	}.EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  16,
		MaxArrayElements: 4096,
		MaxMapPairs:      1024,
		UTF8:             cbor.UTF8RejectInvalid,
		NaN:              cbor.NaNDecodeForbidden,
		Inf:              cbor.InfDecodeForbidden,
	}.DecMode())
)

func must[T any](m T, err error) T {
	if err != nil {
		panic(err) // the options above contradict each other
	}
	return m
}

// Header goes with every message.
type Header struct {
	Type    Type   // what the body is
	ID      string // correlation id of a request, up to 36 bytes
	Re      string // the ID that this answers
	At      int64  // sender's clock, microseconds since 1970 UTC
	Expires int64  // after this the message must not be acted on, same clock; 0: never
	Code    string // reason code; "" is success (agent.Code and docs/mqtt.md)
	Text    string // what a person may read about Code
}

// envelope is Header and body as they travel.
type envelope struct {
	Type    Type   `cbor:"1,keyasint"`
	ID      string `cbor:"2,keyasint,omitempty"`
	Re      string `cbor:"3,keyasint,omitempty"`
	At      int64  `cbor:"4,keyasint,omitempty"`
	Expires int64  `cbor:"5,keyasint,omitempty"`
	Code    string `cbor:"6,keyasint,omitempty"`
	Text    string `cbor:"7,keyasint,omitempty"`
	Body    Raw    `cbor:"8,keyasint"`
}

// Expired tells whether the message must no longer be acted on.
func (h Header) Expired(nowMicros int64) bool { return h.Expires != 0 && nowMicros > h.Expires }

func (h Header) check() error {
	for _, f := range []struct {
		name, value string
		most        int
	}{{"id", h.ID, 36}, {"re", h.Re, 36}, {"code", h.Code, 64}, {"text", h.Text, 512}} {
		if len(f.value) > f.most {
			return fmt.Errorf("%s has %d bytes, over %d", f.name, len(f.value), f.most)
		}
	}
	if h.At < 0 || h.Expires < 0 {
		return errors.New("a time before 1970")
	}
	return nil
}

// Encode makes the payload of a message. h.Type is set from m.
func Encode(h Header, m Message) ([]byte, error) {
	h.Type = m.Type()
	if err := errors.Join(h.check(), m.check()); err != nil {
		return nil, wrong("message of type %s cannot be sent: %v", h.Type, err)
	}
	body, err := encoder.Marshal(m)
	if err != nil {
		return nil, wrong("message of type %s cannot be sent: %v", h.Type, err)
	}
	p, err := encoder.Marshal(envelope{h.Type, h.ID, h.Re, h.At, h.Expires, h.Code, h.Text, body})
	switch {
	case err != nil:
		return nil, wrong("message of type %s cannot be sent: %v", h.Type, err)
	case len(p)+1 > MaxMessage:
		return nil, wrong("message of type %s has %d bytes, over %d", h.Type, len(p)+1, MaxMessage)
	}
	return append([]byte{Version}, p...), nil
}

// ErrUnknownType is in the chain of Decode's error for a type that this version does
// not know: a newer peer's. The header is valid then; the message is to be passed over.
var ErrUnknownType = errors.New("unknown message type")

// Decode reads a payload. The error is an *agent.Error; nothing of p is kept.
func Decode(p []byte) (Header, Message, error) {
	h, body, err := open(p)
	if err != nil {
		return Header{}, nil, err
	}
	m := h.Type.empty()
	if m == nil {
		return h, nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("message of type %d is not known here", h.Type),
			Fix: "update this side", Err: ErrUnknownType}
	}
	err = decoder.Unmarshal(body, m)
	if r, ok := m.(*Results); ok && err == nil {
		err = r.unpack()
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return Header{}, nil, wrong("message of type %s is not valid: %v", h.Type, err)
	}
	return h, m, nil
}

// open checks version, size and envelope.
func open(p []byte) (Header, Raw, error) {
	switch {
	case len(p) < 2:
		return Header{}, nil, wrong("message of %d bytes is cut short", len(p))
	case p[0] != Version:
		return Header{}, nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("message of wire version %d, this side speaks %d", p[0], Version),
			Fix: "update the older side"}
	case len(p) > MaxMessage:
		return Header{}, nil, wrong("message of %d bytes is over %d", len(p), MaxMessage)
	}
	var e envelope
	if err := decoder.Unmarshal(p[1:], &e); err != nil {
		return Header{}, nil, wrong("message is not valid CBOR: %v", err)
	}
	h := Header{e.Type, e.ID, e.Re, e.At, e.Expires, e.Code, e.Text}
	if err := h.check(); err != nil {
		return Header{}, nil, wrong("message is not valid: %v", err)
	}
	if len(e.Body) == 0 {
		return Header{}, nil, wrong("message has no body")
	}
	return h, e.Body, nil
}

// Marshal encodes a record or an argument by the names of its JSON fields.
func Marshal(v any) (Raw, error) { return encoder.Marshal(v) }

// Unmarshal is the inverse of Marshal, within the limits of the wire. Fields that v
// does not have are passed over.
func Unmarshal(raw Raw, v any) error { return decoder.Unmarshal(raw, v) }

// deflaters are reused: one takes a megabyte.
var deflaters = sync.Pool{New: func() any { return must(flate.NewWriter(io.Discard, flate.BestSpeed)) }}

func deflate(p []byte) []byte {
	var out bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&out)
	// A bytes.Buffer takes everything.
	_, _ = w.Write(p)
	_ = w.Close()
	return out.Bytes()
}

// inflate stops at limit, whatever p promises.
func inflate(p []byte, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(p)), int64(limit)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("packed rows: %w", err)
	case len(out) > limit:
		return nil, fmt.Errorf("packed rows are over %d bytes", limit)
	}
	return out, nil
}

func wrong(format string, args ...any) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// quote shows at most 40 bytes of what somebody sent.
func quote(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%q…", s[:40])
	}
	return fmt.Sprintf("%q", s)
}
