package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// Size is the length of every symmetric key, in bytes: AES-256.
const Size = 32

// Overhead is what sealing adds to a message, in bytes: nonce and tag.
const Overhead = 12 + 16

// AEAD returns AES-256-GCM that draws a random nonce for each message and puts it
// in front. A random 96-bit nonce is safe for 2^32 messages under one key; keys
// here belong to one person, or to one file, and are rotated.
func AEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != Size {
		return nil, errors.New("a key of the wrong length")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Bind joins fields into associated data, each behind its length, so that no two
// lists of fields look alike.
func Bind(fields ...string) []byte {
	n := 0
	for _, f := range fields {
		n += len(f) + 2
	}
	out := make([]byte, 0, n)
	for _, f := range fields {
		out = binary.AppendUvarint(out, uint64(len(f)))
		out = append(out, f...)
	}
	return out
}
