package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"

	bolt "go.etcd.io/bbolt"

	"postern/agent/keys"
)

// Rows of bucket keys of templates.db besides the store keys, wrapped by the root
// key like those.
const (
	rowSigner = "s/sign"   // seed of the device's Ed25519 key
	rowPepper = "s/pepper" // key of the hashes of personal ids
)

// identity reads the device's secrets, and makes them when the folder is new.
func (s *Store) identity() error {
	seed, err := s.secret(rowSigner, ed25519.SeedSize)
	if err != nil {
		return err
	}
	s.signer = ed25519.NewKeyFromSeed(seed)
	clear(seed)
	if s.pepper, err = s.secret(rowPepper, keys.Size); err != nil {
		return err
	}
	return s.readFleetKey()
}

func (s *Store) secret(row string, size int) ([]byte, error) {
	var value []byte
	read := func(tx *bolt.Tx) error {
		value = bytes.Clone(bucket(tx, bucketKeys).Get([]byte(row)))
		return nil
	}
	err := s.view(s.templates, read)
	if err == nil && value == nil {
		err = s.update(s.templates, func(tx *bolt.Tx) error {
			if err := s.templates.vault.addSecret(tx, []byte(row), size, s.now()); err != nil {
				return err
			}
			return read(tx)
		})
	}
	if err != nil {
		return nil, err
	}
	secret, _, err := s.templates.vault.unwrapStoreKey([]byte(row), value)
	if err != nil {
		return nil, openError(s.templates.name(), err)
	}
	if len(secret) != size {
		return nil, damaged(s.templates.name(), errSecret)
	}
	return secret, nil
}

// PublicKey is the device's Ed25519 key, in hex, by which audit checkpoints and
// tombstones can be verified elsewhere.
func (s *Store) PublicKey() string {
	return hex.EncodeToString(s.signer.Public().(ed25519.PublicKey))
}
