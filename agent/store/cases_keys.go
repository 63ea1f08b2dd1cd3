package store

import (
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// CreateAPIKey stores a new API key. An id that is taken is agent.CodeConflict.
func (s *Store) CreateAPIKey(k agent.APIKey) (agent.APIKey, error) {
	if err := checkID("API key", k.ID); err != nil {
		return k, err
	}
	if len(k.Digest) != 32 {
		return k, invalid("API key %q has no digest of its token", k.ID)
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if has(bucket(tx, caseKeys), []byte(k.ID)) {
			return coded(agent.CodeConflict, "there is an API key %q already", k.ID)
		}
		k.CreatedAt = s.now()
		if err := s.putKey(tx, &k); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditConfigure, Detail: map[string]string{"api_key": k.ID, "change": "created"}})
	})
	return k, err
}

func (s *Store) putKey(tx *bolt.Tx, k *agent.APIKey) error {
	return s.putCase(tx, caseKeys, []byte(k.ID), k, caseBinding(KindKey, "", k.ID))
}

func (s *Store) openKey(tx *bolt.Tx, id, v []byte) (agent.APIKey, error) {
	var k agent.APIKey
	err := s.openCase(tx, id, v, &k, caseBinding(KindKey, "", string(id)))
	if err == nil && k.ID != string(id) {
		err = badRecord(KindKey, id, fmt.Errorf("it belongs to another key"))
	}
	return k, err
}

// APIKey returns the key with this id, revoked and expired ones too, or
// agent.CodeNotFound.
func (s *Store) APIKey(id string) (agent.APIKey, error) {
	var k agent.APIKey
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		v := bucket(tx, caseKeys).Get([]byte(id))
		if id == "" || v == nil {
			return noCase("API key", id)
		}
		k, err = s.openKey(tx, []byte(id), v)
		return err
	})
	return k, err
}

// APIKeys lists all API keys by their ids.
func (s *Store) APIKeys() ([]agent.APIKey, error) {
	out := []agent.APIKey{}
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		return bucket(tx, caseKeys).ForEach(func(id, v []byte) error {
			k, err := s.openKey(tx, id, v)
			out = append(out, k)
			return err
		})
	})
	return out, err
}

// RevokeAPIKey marks a key as revoked; repeating it keeps the first time.
func (s *Store) RevokeAPIKey(id string) (agent.APIKey, error) {
	var k agent.APIKey
	err := s.update(s.cases, func(tx *bolt.Tx) (err error) {
		v := bucket(tx, caseKeys).Get([]byte(id))
		if id == "" || v == nil {
			return noCase("API key", id)
		}
		if k, err = s.openKey(tx, []byte(id), v); err != nil || !k.RevokedAt.IsZero() {
			return err
		}
		k.RevokedAt = s.now()
		if err := s.putKey(tx, &k); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditConfigure, Detail: map[string]string{"api_key": k.ID, "change": "revoked"}})
	})
	return k, err
}

const secretBytes = 32

// MediaKey returns the secret that signs the links to pictures.
func (s *Store) MediaKey() ([]byte, error) { return s.caseSecret(KindLinkKey) }

// ShareKey returns the secret that signs the tokens with which sessions are shared.
func (s *Store) ShareKey() ([]byte, error) { return s.caseSecret(KindShareKey) }

// caseSecret returns a random secret that is made when it is first asked for, and stays.
func (s *Store) caseSecret(name string) ([]byte, error) {
	var key []byte
	read := func(tx *bolt.Tx) (err error) {
		if v := bucket(tx, caseSecrets).Get([]byte(name)); v != nil {
			if key, err = s.unseal(tx, v, caseBinding(name, "", "")); err != nil {
				return badRecord(name, nil, err)
			}
		}
		return nil
	}
	if err := s.view(s.cases, read); err != nil || key != nil {
		return key, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if err := read(tx); err != nil || key != nil {
			return err
		}
		key = make([]byte, secretBytes)
		s.randMu.Lock()
		_, err := io.ReadFull(s.opts.Rand, key)
		s.randMu.Unlock()
		if err != nil {
			return err
		}
		v, err := s.seal(tx, key, caseBinding(name, "", ""))
		if err != nil {
			return err
		}
		return bucket(tx, caseSecrets).Put([]byte(name), v)
	})
	return key, err
}
