package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"postern/agent/keys"
)

// Rows of bucket keys of templates.db besides the store keys, wrapped by the root
// key like those.
const (
	rowSigner = "s/sign"   // seed of the device's Ed25519 key
	rowPepper = "s/pepper" // key of the hashes of personal ids
)

// identityFile keeps the device's secrets in the witness folder as well, wrapped by the
// root key. Without it a templates.db that is made anew, because the old one was lost,
// could not read the erasures that the witness knows.
const identityFile = "identity"

// identity reads the device's secrets, and makes them when the folder is new.
func (s *Store) identity() error {
	if err := s.recallIdentity(); err != nil {
		return err
	}
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

func (s *Store) bindIdentity(row string) []byte {
	return keys.Bind("postern identity 1", row, s.opts.Tenant, s.opts.Device)
}

// recallIdentity gives a templates.db without secrets those that the witness kept. What
// the file has itself is never replaced.
func (s *Store) recallIdentity() error {
	if s.opts.Witness == "" {
		return nil
	}
	has := false
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		has = bucket(tx, bucketKeys).Get([]byte(rowSigner)) != nil
		return nil
	})
	if err != nil || has {
		return err
	}
	kept, _, err := s.keptIdentity()
	if err != nil {
		s.note(err) // a new identity is made; that of another root key is of no use
		return nil
	}
	return s.update(s.templates, func(tx *bolt.Tx) error {
		for row, secret := range kept {
			err := s.templates.vault.wrapSecret(tx, []byte(row), secret, s.now())
			clear(secret)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// keptIdentity reads the witness's copy; none is no error. current is false when a
// replaced root key wrapped it, or there is none.
func (s *Store) keptIdentity() (secrets map[string][]byte, current bool, err error) {
	b, err := readSome(filepath.Join(s.opts.Witness, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	var wrapped map[string][]byte
	if err == nil {
		err = json.Unmarshal(b, &wrapped)
	}
	secrets, current = map[string][]byte{}, true
	for _, row := range []string{rowSigner, rowPepper} {
		if err != nil {
			return nil, false, fmt.Errorf("kept identity: %w", err)
		}
		var now bool
		secrets[row], now, err = s.root.Unwrap(wrapped[row], s.bindIdentity(row))
		current = current && now
	}
	return secrets, current, err
}

// keepIdentity brings the witness's copy up to date.
func (s *Store) keepIdentity() error {
	if s.opts.Witness == "" {
		return nil
	}
	mine := map[string][]byte{rowSigner: s.signer.Seed(), rowPepper: s.pepper}
	defer clear(mine[rowSigner])
	kept, current, err := s.keptIdentity()
	same := err == nil && current && bytes.Equal(kept[rowSigner], mine[rowSigner]) && bytes.Equal(kept[rowPepper], mine[rowPepper])
	for _, secret := range kept {
		clear(secret)
	}
	if same {
		return nil
	}
	wrapped := map[string][]byte{}
	for row, secret := range mine {
		if wrapped[row], err = s.root.Wrap(secret, s.bindIdentity(row)); err != nil {
			return err
		}
	}
	b, err := json.Marshal(wrapped)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.opts.Witness, identityFile), append(b, '\n'))
}

// PublicKey is the device's Ed25519 key, in hex, by which audit checkpoints and
// tombstones can be verified elsewhere.
func (s *Store) PublicKey() string {
	return hex.EncodeToString(s.signer.Public().(ed25519.PublicKey))
}
