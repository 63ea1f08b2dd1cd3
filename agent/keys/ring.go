package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The text form of a ring, in a key file or a credential:
//
//	postern root keys 1
//	<id> <time made, RFC 3339> <secret, base64>
//	…
//	adopting
//
// The first key is the one in use; those below it were in use before and are
// still needed until all that they wrapped is wrapped anew. "adopting" says that
// the store may still hold records of a time before there were keys.
const ringHeader = "postern root keys 1"

const (
	idSize      = 8
	maxRing     = 16 << 10 // bytes of text
	maxRingKeys = 8
)

// entry is one root key. blob is what stands in the ring's text: the secret, or
// what a source has made of it.
type entry struct {
	id     [idSize]byte
	made   time.Time
	blob   []byte
	secret []byte
}

// ring is the root keys of a device, the one in use first.
type ring struct {
	entries  []entry
	adopting bool
}

// idOf names a secret. The secret is random, so its digest tells nothing.
func idOf(secret []byte) (id [idSize]byte) {
	sum := sha256.Sum256(append([]byte("postern root key id\x00"), secret...))
	copy(id[:], sum[:])
	return id
}

func (r ring) text() []byte {
	var b bytes.Buffer
	b.WriteString(ringHeader + "\n")
	for _, e := range r.entries {
		fmt.Fprintf(&b, "%x %s %s\n", e.id, e.made.UTC().Format(time.RFC3339), base64.StdEncoding.EncodeToString(e.blob))
	}
	if r.adopting {
		b.WriteString("adopting\n")
	}
	return b.Bytes()
}

// parseRing is the inverse of ring.text. It leaves the secrets empty.
func parseRing(text []byte) (ring, error) {
	if len(text) > maxRing {
		return ring{}, fmt.Errorf("%d bytes are too many", len(text))
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if lines[0] != ringHeader {
		return ring{}, errors.New("the first line is not " + ringHeader)
	}
	var r ring
	for i, line := range lines[1:] {
		if line == "adopting" && i == len(lines)-2 {
			r.adopting = true
			continue
		}
		e, err := parseEntry(line)
		if err != nil {
			return ring{}, fmt.Errorf("line %d: %w", i+2, err)
		}
		r.entries = append(r.entries, e)
	}
	if n := len(r.entries); n == 0 || n > maxRingKeys {
		return ring{}, fmt.Errorf("%d keys, want 1 to %d", n, maxRingKeys)
	}
	return r, nil
}

// parseEntry never puts a part of the line into an error: it may be a secret.
func parseEntry(line string) (e entry, err error) {
	f := strings.Split(line, " ")
	if len(f) != 3 {
		return entry{}, errors.New("not an id, a time and a key")
	}
	id, err := hex.DecodeString(f[0])
	if err != nil || len(id) != idSize || hex.EncodeToString(id) != f[0] {
		return entry{}, errors.New("the id is malformed")
	}
	copy(e.id[:], id)
	if e.made, err = time.Parse(time.RFC3339, f[1]); err != nil {
		return entry{}, errors.New("the time is malformed")
	}
	e.blob, err = base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(e.blob) == 0 {
		return entry{}, errors.New("the key is malformed")
	}
	return e, nil
}

// unlock fills in the secrets and checks them against their ids.
func (r ring) unlock(open func(blob []byte) ([]byte, error)) error {
	for i := range r.entries {
		e := &r.entries[i]
		secret, err := open(e.blob)
		if err != nil {
			return fmt.Errorf("key %x: %w", e.id, err)
		}
		if len(secret) != Size || idOf(secret) != e.id {
			return fmt.Errorf("key %x is damaged", e.id)
		}
		e.secret = secret
	}
	return nil
}

// wipe zeroes the secrets.
func (r ring) wipe() {
	for _, e := range r.entries {
		clear(e.secret)
	}
}

// clone copies the secrets too, so that wiping one does not wipe the other.
func (r ring) clone() ring {
	out := ring{adopting: r.adopting}
	for _, e := range r.entries {
		e.blob, e.secret = bytes.Clone(e.blob), bytes.Clone(e.secret)
		out.entries = append(out.entries, e)
	}
	return out
}
