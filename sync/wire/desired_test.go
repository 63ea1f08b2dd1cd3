package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"postern/agent"
	"postern/sync/wire"
)

func ada() wire.Person {
	at := time.Date(2026, 11, 24, 8, 30, 0, 0, time.UTC)
	return wire.Person{
		Subject: agent.Subject{ID: "4711", Name: "Ada", CreatedAt: at, UpdatedAt: at, Version: 7,
			Consent: agent.Consent{GivenBy: "Ada", Purpose: "door 3", Basis: agent.Bases[0], At: at}},
		Templates: []agent.Template{{ID: "t1", SubjectID: "4711", ModelID: "m1", Space: "s1", CreatedAt: at, Embedding: agent.Embedding{0.6, -0.8}}},
	}
}

func TestPersonSurvives(t *testing.T) {
	for _, p := range []wire.Person{ada(), {Subject: agent.Subject{ID: "1"}}} {
		raw, err := wire.EncodePerson(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := wire.DecodePerson(raw)
		if err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("decoded %+v (%v), want %+v", back, err, p)
		}
		if back.Subject.Consent.Given() != p.Subject.Consent.Given() {
			t.Error("the consent has changed")
		}
	}
}

// What is sealed to a device is opened by it, in the order and the place that it was
// sealed for, and by nobody else.
func TestSeal(t *testing.T) {
	private, other := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	public, err := wire.SealPublic(private)
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.NewSealer("door-7", public)
	if err != nil {
		t.Fatal(err)
	}
	items := []wire.Item{{Collection: wire.CollPeople, Key: "k1", Version: 4}, {Collection: wire.CollPeople, Key: "k2", Version: 5}}
	for i := range items {
		if err := s.Seal(&items[i], []byte(items[i].Key+" in the clear")); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(items[i].Body, []byte("clear")) {
			t.Error("not sealed")
		}
	}
	open := func(device string, key []byte, items ...wire.Item) (out []string) {
		o, err := wire.NewOpener(device, key, s.Enc)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			body, err := o.Open(it)
			if err != nil {
				return nil
			}
			out = append(out, string(body))
		}
		return out
	}
	if got := open("door-7", private, items...); !reflect.DeepEqual(got, []string{"k1 in the clear", "k2 in the clear"}) {
		t.Errorf("%q", got)
	}
	moved := items[0]
	moved.Key = "k9"
	for name, got := range map[string][]string{
		"another key": open("door-7", other, items...), "another device": open("door-8", private, items...),
		"another order": open("door-7", private, items[1], items[0]), "another place": open("door-7", private, moved),
	} {
		if got != nil {
			t.Errorf("%s opens it", name)
		}
	}
	if _, err := wire.NewSealer("door-7", make([]byte, 32)); err == nil {
		t.Error("sealed to a key that is none")
	}
}

func TestVerify(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := wire.Delta{Changes: []byte("changes"), Key: hex.EncodeToString(public)}
	d.Sig = ed25519.Sign(private, []byte(wire.SignedContext+"\x00changes"))
	if err := d.Verify(other, public); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"no key": d.Verify(), "another key": d.Verify(other),
		"changed":    (&wire.Delta{Changes: []byte("changed"), Key: d.Key, Sig: d.Sig}).Verify(public),
		"no context": (&wire.Delta{Changes: d.Changes, Key: d.Key, Sig: ed25519.Sign(private, d.Changes)}).Verify(public),
	} {
		if agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPerson(f *testing.F) {
	raw, err := wire.EncodePerson(ada())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	erasure, err := wire.EncodeErasure(wire.Erasure{Tag: make([]byte, wire.TagSize), Version: 1, At: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(erasure)
	f.Fuzz(func(t *testing.T, p []byte) {
		if e, err := wire.DecodeErasure(p); err == nil {
			if again, err := wire.EncodeErasure(e); err != nil || len(again) > len(p) {
				t.Fatalf("%+v: %v", e, err)
			}
		}
		person, err := wire.DecodePerson(p)
		if err != nil {
			if agent.ErrorCode(err) != agent.CodeInvalid {
				t.Fatal(err)
			}
			return
		}
		again, err := wire.EncodePerson(person)
		if err != nil {
			return // an odd time or text
		}
		back, err := wire.DecodePerson(again)
		if err != nil {
			t.Fatalf("%+v: %v", person, err)
		}
		if third, err := wire.EncodePerson(back); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%x became %x (%v)", again, third, err)
		}
	})
}
