package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Type says what a message's body is. Numbers are never reused.
type Type uint16

// The types.
const (
	TypeResults Type = iota + 1
	TypeAck
	TypeHealth
	TypeTelemetry
	TypeCheckpoint
	TypeHint
	TypePull
	TypeDelta
	TypeCommand
	TypeResponse
	TypeJoin
	TypeCertificate

	TypeApplied Type = 16
	TypeErased  Type = 17
)

var typeNames = [...]string{TypeResults: "results", TypeAck: "ack", TypeHealth: "health", TypeTelemetry: "telemetry",
	TypeCheckpoint: "checkpoint", TypeHint: "hint", TypePull: "pull", TypeDelta: "delta", TypeCommand: "command", TypeResponse: "response",
	TypeJoin: "join", TypeCertificate: "certificate", TypeApplied: "applied", TypeErased: "erased"}

// String names the type for logs.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return strconv.Itoa(int(t))
}

// empty is a message to decode into, or nil for a type that is not known.
func (t Type) empty() Message {
	switch t {
	case TypeResults:
		return &Results{}
	case TypeAck:
		return &Ack{}
	case TypeHealth:
		return &Health{}
	case TypeTelemetry:
		return &Telemetry{}
	case TypeCheckpoint:
		return &Checkpoint{}
	case TypeHint:
		return &Hint{}
	case TypePull:
		return &Pull{}
	case TypeDelta:
		return &Delta{}
	case TypeCommand:
		return &Command{}
	case TypeResponse:
		return &Response{}
	case TypeJoin:
		return &Join{}
	case TypeCertificate:
		return &Certificate{}
	case TypeApplied:
		return &Applied{}
	case TypeErased:
		return &Erased{}
	}
	return nil
}

// Message is the body of a payload: a pointer to one of the types below.
type Message interface {
	Type() Type
	check() error // holds for what is sent and for what is received
}

// Limits on parts of messages.
const (
	maxEpoch  = 64
	maxName   = 64
	maxValues = 256
	maxText   = 512
	maxItems  = 1024
	maxSeq    = math.MaxInt64 // what every language's integers hold
)

// Ack says that the hub has committed every row of the epoch up to and including
// Seq. Only then may the device forget them. It is cumulative and may be repeated.
type Ack struct {
	Epoch string `cbor:"1,keyasint"`
	Seq   uint64 `cbor:"2,keyasint"`
	// Resend asks for the rows from Seq+1 on: the hub has seen later ones, or was
	// restored and has lost some.
	Resend bool `cbor:"3,keyasint,omitempty"`
	// Refused names rows that were committed as they came but could not be read.
	Refused []Refusal `cbor:"4,keyasint,omitempty"`
}

// Refusal is one row that the hub keeps aside.
type Refusal struct {
	Seq    uint64 `cbor:"1,keyasint"`
	Reason string `cbor:"2,keyasint"`
}

// Health is a device's retained state; the broker publishes the last will, which is
// a Health that is not online, when the device's connection ends without a word.
type Health struct {
	Online  bool   `cbor:"1,keyasint"`
	Version string `cbor:"2,keyasint,omitempty"` // of the program
	Session string `cbor:"3,keyasint,omitempty"` // of the connection, so that an old will does not hide a new session
	Epoch   string `cbor:"4,keyasint,omitempty"` // of the device's results
	Last    uint64 `cbor:"5,keyasint,omitempty"` // newest Seq that the device has stored
	// Process is random for each start of the program. One that comes back after another
	// was seen means that two devices go by the same name.
	Process string `cbor:"6,keyasint,omitempty"`
}

// Telemetry is a set of measurements. Names are lower case with underscores and end
// in their unit, as Prometheus has it.
type Telemetry struct {
	Values map[string]float64 `cbor:"1,keyasint,omitempty"`
	Labels map[string]string  `cbor:"2,keyasint,omitempty"` // versions and the like
	// Epoch and Seq number what the device keeps until the hub has it: the hub answers on
	// ChanTelemetryAck. Without an epoch nothing is kept.
	Epoch string `cbor:"3,keyasint,omitempty"`
	Seq   uint64 `cbor:"4,keyasint,omitempty"`
	Taken int64  `cbor:"5,keyasint,omitempty"` // when it was measured, microseconds since 1970; 0: when it was sent
}

// Checkpoint is the head of a device's audit chain, so that a later change of the
// device's own log is noticed at the hub.
type Checkpoint struct {
	Epoch string `cbor:"1,keyasint"`
	Seq   uint64 `cbor:"2,keyasint"` // number of the newest entry
	Hash  []byte `cbor:"3,keyasint"` // of the chain up to it
	Key   string `cbor:"4,keyasint,omitempty"`
	Sig   []byte `cbor:"5,keyasint,omitempty"`
	File  string `cbor:"6,keyasint,omitempty"` // which of the device's chains, where it has several
}

// Hint says that the device's desired state has reached Version. It carries nothing
// else: what counts is pulled.
type Hint struct {
	Version uint64 `cbor:"1,keyasint"`
}

// Pull asks for what changed after Have. Have 0 asks for everything.
type Pull struct {
	Have     uint64 `cbor:"1,keyasint"`
	MaxBytes uint32 `cbor:"2,keyasint,omitempty"` // of an answer; 0: MaxMessage
	Stamp    []byte `cbor:"3,keyasint,omitempty"` // of the version Have
	Floor    uint64 `cbor:"4,keyasint,omitempty"` // the newest version that the device has heard of: it accepts no older head
	SealTo   []byte `cbor:"5,keyasint,omitempty"` // the device's X25519 public key, for what is about people
}

// Delta answers a Pull. Changes is the encoding of a Changes: it is signed as the
// bytes that travel.
type Delta struct {
	Changes []byte `cbor:"1,keyasint"`
	Key     string `cbor:"2,keyasint"` // id of the key that signed
	Sig     []byte `cbor:"3,keyasint"` // Ed25519 over Changes
}

// Changes are a part of a device's desired state.
type Changes struct {
	Device string `cbor:"1,keyasint"` // whom it is for: a delta for another device is refused
	From   uint64 `cbor:"2,keyasint"` // applies to a device that has this version
	To     uint64 `cbor:"3,keyasint"` // and takes it to this one
	Full   bool   `cbor:"4,keyasint,omitempty"`
	More   bool   `cbor:"5,keyasint,omitempty"` // newer changes exist: pull again
	Items  []Item `cbor:"6,keyasint,omitempty"`

	Enc       []byte `cbor:"7,keyasint,omitempty"`  // HPKE's encapsulated key, where bodies are sealed
	FromStamp []byte `cbor:"8,keyasint,omitempty"`  // of From
	ToStamp   []byte `cbor:"9,keyasint,omitempty"`  // of To
	Head      uint64 `cbor:"10,keyasint,omitempty"` // the newest version that the hub has
	Re        string `cbor:"11,keyasint,omitempty"` // the id of the pull that this answers, signed with the rest
}

// Item is one thing of the desired state.
type Item struct {
	Collection string `cbor:"1,keyasint"`
	Key        string `cbor:"2,keyasint"`
	Version    uint64 `cbor:"3,keyasint"`
	Deleted    bool   `cbor:"4,keyasint,omitempty"` // a tombstone
	Body       []byte `cbor:"5,keyasint,omitempty"` // sealed to the device where it is about a person
}

// Command asks a device to do something once. The header carries id and expiry.
type Command struct {
	Name string         `cbor:"1,keyasint"`
	Args map[string]Raw `cbor:"2,keyasint,omitempty"`
}

// Response answers a Command or tells how it went; the header carries the code.
type Response struct {
	Values map[string]Raw `cbor:"1,keyasint,omitempty"`
}

// Type implements Message, as the methods below do.
func (*Results) Type() Type    { return TypeResults }
func (*Ack) Type() Type        { return TypeAck }        // Type implements Message.
func (*Health) Type() Type     { return TypeHealth }     // Type implements Message.
func (*Telemetry) Type() Type  { return TypeTelemetry }  // Type implements Message.
func (*Checkpoint) Type() Type { return TypeCheckpoint } // Type implements Message.
func (*Hint) Type() Type       { return TypeHint }       // Type implements Message.
func (*Pull) Type() Type       { return TypePull }       // Type implements Message.
func (*Delta) Type() Type      { return TypeDelta }      // Type implements Message.
func (*Command) Type() Type    { return TypeCommand }    // Type implements Message.
func (*Response) Type() Type   { return TypeResponse }   // Type implements Message.

func (a *Ack) check() error {
	if err := errors.Join(checkEpoch(a.Epoch), checkSeq(a.Seq), atMost("refusals", len(a.Refused), maxItems)); err != nil {
		return err
	}
	for _, r := range a.Refused {
		if err := errors.Join(checkSeq(r.Seq), atMost("reason", len(r.Reason), maxText)); err != nil {
			return err
		}
	}
	return nil
}

func (h *Health) check() error {
	return errors.Join(atMost("version", len(h.Version), maxName), atMost("session", len(h.Session), maxName),
		atMost("epoch", len(h.Epoch), maxEpoch), atMost("process", len(h.Process), maxName), checkSeq(h.Last))
}

func (t *Telemetry) check() error {
	if err := errors.Join(atMost("values", len(t.Values)+len(t.Labels), maxValues), checkSeq(t.Seq)); err != nil {
		return err
	}
	if t.Epoch != "" {
		if err := checkEpoch(t.Epoch); err != nil {
			return err
		}
	}
	if t.Taken < 0 {
		return errors.New("a time before 1970")
	}
	for k, v := range t.Values {
		if err := checkName("value", k); err != nil {
			return err
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %s is not a number", quote(k))
		}
	}
	for k, v := range t.Labels {
		if err := errors.Join(checkName("label", k), atMost("label", len(v), maxText)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checkpoint) check() error {
	if len(c.Hash) != 32 {
		return fmt.Errorf("hash of %d bytes, not 32", len(c.Hash))
	}
	return errors.Join(checkEpoch(c.Epoch), checkSeq(c.Seq), atMost("key", len(c.Key), maxName), atMost("signature", len(c.Sig), maxText), atMost("file", len(c.File), maxName))
}

func (h *Hint) check() error { return checkSeq(h.Version) }

func (p *Pull) check() error {
	if n := len(p.SealTo); n != 0 && n != sealSize {
		return fmt.Errorf("a key of %d bytes to seal to", n)
	}
	return errors.Join(checkSeq(p.Have), checkSeq(p.Floor), atMost("stamp", len(p.Stamp), StampSize))
}

func (d *Delta) check() error {
	if len(d.Changes) == 0 || len(d.Sig) != 64 {
		return errors.New("delta without changes or without a signature of 64 bytes")
	}
	return checkName("key", d.Key)
}

func (c *Command) check() error {
	return errors.Join(checkName("command", c.Name), checkArgs(c.Args))
}

func (r *Response) check() error { return checkArgs(r.Values) }

// EncodeChanges makes the bytes that a Delta carries and that are signed.
func EncodeChanges(c Changes) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, wrong("changes cannot be sent: %v", err)
	}
	return encoder.Marshal(c)
}

// DecodeChanges reads Delta.Changes. The signature must have been verified before.
func DecodeChanges(p []byte) (Changes, error) {
	var c Changes
	if len(p) > MaxMessage {
		return Changes{}, wrong("changes of %d bytes are over %d", len(p), MaxMessage)
	}
	if err := decoder.Unmarshal(p, &c); err != nil {
		return Changes{}, wrong("changes are not valid: %v", err)
	}
	if err := c.check(); err != nil {
		return Changes{}, wrong("changes are not valid: %v", err)
	}
	return c, nil
}

func (c *Changes) check() error {
	switch {
	case !ValidDevice(c.Device):
		return fmt.Errorf("device name %s", quote(c.Device))
	case c.To < c.From && !c.Full || c.To > maxSeq || c.Head > maxSeq:
		return fmt.Errorf("versions %d to %d", c.From, c.To)
	case len(c.Enc) != 0 && len(c.Enc) != sealSize || len(c.FromStamp) > StampSize || len(c.ToStamp) > StampSize || len(c.Re) > 36:
		return errors.New("a key, a stamp or an id is too long")
	}
	for _, it := range c.Items {
		if err := errors.Join(checkName("collection", it.Collection), atMost("key", len(it.Key), 2*maxName)); err != nil {
			return err
		}
		if it.Key == "" || it.Version == 0 || it.Version > c.To || it.Deleted && len(it.Body) > 0 {
			return fmt.Errorf("item %s of version %d does not belong to changes up to %d", quote(it.Key), it.Version, c.To)
		}
	}
	return atMost("items", len(c.Items), maxItems)
}

func checkArgs(args map[string]Raw) error {
	for k := range args {
		if err := checkName("argument", k); err != nil {
			return err
		}
	}
	return atMost("arguments", len(args), maxValues)
}

func checkEpoch(e string) error {
	if e == "" || len(e) > maxEpoch || strings.ContainsFunc(e, notGraphic) {
		return fmt.Errorf("epoch %s is not 1 to %d visible ASCII characters", quote(e), maxEpoch)
	}
	return nil
}

func notGraphic(r rune) bool { return r <= ' ' || r > '~' }

func checkSeq(n uint64) error {
	if n > maxSeq {
		return fmt.Errorf("number %d is over %d", n, uint64(maxSeq))
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%s name %s is not 1 to %d bytes", what, quote(name), maxName)
	}
	return nil
}

func atMost(what string, n, most int) error {
	if n > most {
		return fmt.Errorf("%s: %d is over %d", what, n, most)
	}
	return nil
}
