package wire

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"postern/agent"
)

// Collections of desired state.
const (
	// CollPeople: an item is a Person, sealed to the device; its key is the person's tag.
	// Deleted means that the person is no longer for this device.
	CollPeople = "people"
	// CollErased: an item is an Erasure; its key is the tag.
	CollErased = "erased"
	// CollFleet has one item, FleetKey: the key that tags are made with, sealed.
	CollFleet = "fleet"
	FleetKey  = "key"
)

// Sizes of what desired state consists of, in bytes.
const (
	TagSize   = 16
	StampSize = 8
	sealSize  = 32 // an X25519 public key
)

// Position is a version of desired state. Stamp is random for each version: of a hub
// that was restored from a copy the same number has another one.
type Position struct {
	Version uint64 `cbor:"1,keyasint"`
	Stamp   []byte `cbor:"2,keyasint,omitempty"`
}

func (p Position) check() error {
	return errors.Join(checkSeq(p.Version), atMost("stamp", len(p.Stamp), StampSize))
}

// Applied tells how far a device has followed, and what it could not take over.
type Applied struct {
	At      Position      `cbor:"1,keyasint"`
	Refused []RefusedItem `cbor:"2,keyasint,omitempty"`
}

// RefusedItem is one item that a device could not take over.
type RefusedItem struct {
	Collection string `cbor:"1,keyasint"`
	Key        string `cbor:"2,keyasint"`
	Code       string `cbor:"3,keyasint"`
	Text       string `cbor:"4,keyasint,omitempty"`
}

// Erased tells of erasures: a device those that were made on it, until the hub has said
// the same back, when it has them on disk.
type Erased struct {
	Erasures []Erasure `cbor:"1,keyasint"`
}

// Erasure voids the enrolments, up to a version, of whom the tag stands for.
type Erasure struct {
	Tag     []byte `cbor:"1,keyasint"`
	Version uint64 `cbor:"2,keyasint"`
	At      int64  `cbor:"3,keyasint"` // when it was made, microseconds since 1970 UTC
}

// Type implements Message, as the method below does.
func (*Applied) Type() Type { return TypeApplied }
func (*Erased) Type() Type  { return TypeErased } // Type implements Message.

func (a *Applied) check() error {
	if err := errors.Join(a.At.check(), atMost("refusals", len(a.Refused), maxItems)); err != nil {
		return err
	}
	for _, r := range a.Refused {
		if err := errors.Join(checkName("collection", r.Collection), atMost("key", len(r.Key), 2*maxName),
			checkName("code", r.Code), atMost("text", len(r.Text), maxText)); err != nil {
			return err
		}
	}
	return nil
}

func (e *Erased) check() error {
	if len(e.Erasures) == 0 {
		return errors.New("no erasures")
	}
	for _, x := range e.Erasures {
		if err := x.check(); err != nil {
			return err
		}
	}
	return atMost("erasures", len(e.Erasures), maxItems)
}

func (e *Erasure) check() error {
	if len(e.Tag) != TagSize || e.Version == 0 || e.At < 0 {
		return fmt.Errorf("erasure of a tag of %d bytes, version %d", len(e.Tag), e.Version)
	}
	return checkSeq(e.Version)
}

// EncodeErasure makes the body of an item of CollErased.
func EncodeErasure(e Erasure) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, wrong("erasure cannot be sent: %v", err)
	}
	return encoder.Marshal(e)
}

// DecodeErasure reads the body of an item of CollErased.
func DecodeErasure(p []byte) (Erasure, error) {
	var e Erasure
	err := decoder.Unmarshal(p, &e)
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return Erasure{}, wrong("erasure is not valid: %v", err)
	}
	return e, nil
}

// Person is the body of an item of CollPeople.
type Person struct {
	Subject   agent.Subject
	Templates []agent.Template
}

// person is a Person as it travels: records by the names of their JSON fields.
type person struct {
	Subject   agent.Subject `cbor:"1,keyasint"`
	Templates []template    `cbor:"2,keyasint,omitempty"`
}

type template struct {
	Record    agent.Template `cbor:"1,keyasint"`
	Embedding []byte         `cbor:"2,keyasint"` // 32-bit floats, little-endian
}

// MaxPersonTemplates bounds the templates of a person in a message.
const MaxPersonTemplates = 32

// EncodePerson makes the body of a person, before it is sealed.
func EncodePerson(p Person) ([]byte, error) {
	if len(p.Templates) > MaxPersonTemplates {
		return nil, wrong("%d templates are more than %d", len(p.Templates), MaxPersonTemplates)
	}
	out := person{Subject: p.Subject}
	for _, t := range p.Templates {
		b := make([]byte, 0, 4*len(t.Embedding))
		for _, v := range t.Embedding {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		t.Embedding = nil
		out.Templates = append(out.Templates, template{t, b})
	}
	raw, err := encoder.Marshal(out)
	for _, t := range out.Templates {
		clear(t.Embedding)
	}
	return raw, err
}

// DecodePerson is the inverse of EncodePerson. What the records say is the caller's to
// check.
func DecodePerson(raw []byte) (Person, error) {
	var in person
	if len(raw) > MaxMessage {
		return Person{}, wrong("person of %d bytes is over %d", len(raw), MaxMessage)
	}
	if err := decoder.Unmarshal(raw, &in); err != nil {
		return Person{}, wrong("person is not valid: %v", err)
	}
	if len(in.Templates) > MaxPersonTemplates {
		return Person{}, wrong("%d templates are more than %d", len(in.Templates), MaxPersonTemplates)
	}
	out := Person{Subject: in.Subject}
	for _, t := range in.Templates {
		if len(t.Embedding)%4 != 0 {
			return Person{}, wrong("an embedding of %d bytes is not of whole floats", len(t.Embedding))
		}
		t.Record.Embedding = make(agent.Embedding, len(t.Embedding)/4)
		for i := range t.Record.Embedding {
			t.Record.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Embedding[4*i:]))
		}
		clear(t.Embedding)
		out.Templates = append(out.Templates, t.Record)
	}
	return out, nil
}

// SignedContext stands, with a zero byte, in front of Delta.Changes in what is signed.
const SignedContext = "postern delta 1"

// Verify checks the signature against the hub's keys, before anything is decoded.
func (d *Delta) Verify(hubKeys ...ed25519.PublicKey) error {
	for _, k := range hubKeys {
		if len(k) == ed25519.PublicKeySize && hex.EncodeToString(k) == d.Key {
			if ed25519.Verify(k, append([]byte(SignedContext+"\x00"), d.Changes...), d.Sig) {
				return nil
			}
			return wrong("the changes are not signed by the key that they name")
		}
	}
	return &agent.Error{Code: agent.CodeInvalid, Message: "the changes are signed by a key that this device does not trust: " + quote(d.Key),
		Fix: "set sync.hub_keys to the key that \"postern hub key\" prints at the hub"}
}

// The suite of HPKE (RFC 9180), mode base.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.AES256GCM()
}

const sealInfo = "postern item 1"

// Sealer seals the bodies of one Changes, in their order.
type Sealer struct {
	Enc    []byte // for Changes.Enc
	device string
	s      *hpke.Sender
}

// NewSealer seals to a device's X25519 public key.
func NewSealer(device string, public []byte) (*Sealer, error) {
	kem, kdf, aead := suite()
	pk, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, wrong("the key of device %q to seal to is not valid: %v", device, err)
	}
	enc, s, err := hpke.NewSender(pk, kdf, aead, []byte(sealInfo))
	if err != nil {
		return nil, wrong("cannot seal to device %q: %v", device, err)
	}
	return &Sealer{enc, device, s}, nil
}

// Seal puts the body into an item.
func (s *Sealer) Seal(it *Item, body []byte) (err error) {
	it.Body, err = s.s.Seal(itemAD(s.device, *it), body)
	return err
}

// Opener opens the sealed bodies of one Changes, in their order.
type Opener struct {
	device string
	r      *hpke.Recipient
}

// NewOpener opens with a device's X25519 private key what came with enc.
func NewOpener(device string, private, enc []byte) (*Opener, error) {
	kem, kdf, aead := suite()
	sk, err := kem.NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	r, err := hpke.NewRecipient(enc, sk, kdf, aead, []byte(sealInfo))
	if err != nil {
		return nil, wrong("what is sealed cannot be opened: %v", err)
	}
	return &Opener{device, r}, nil
}

// Open gives the body of an item.
func (o *Opener) Open(it Item) ([]byte, error) {
	body, err := o.r.Open(itemAD(o.device, it), it.Body)
	if err != nil {
		return nil, wrong("the body of item %s is not sealed to this device, or was changed", quote(it.Key))
	}
	return body, nil
}

// SealPublic is the public half of a device's X25519 key.
func SealPublic(private []byte) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// itemAD binds a body to its place: the CBOR array of device, collection, key, version.
func itemAD(device string, it Item) []byte {
	return must(encoder.Marshal([]any{device, it.Collection, it.Key, it.Version})) // texts and a number
}
