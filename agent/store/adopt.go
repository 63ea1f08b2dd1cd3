package store

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// staleFunc tells whether a sealed value must be sealed anew.
type staleFunc func(b Binding, sealed []byte) bool

// rewriteBatch is how many rows a transaction rewrites when keys change.
const rewriteBatch = 256

// sealedRows is a bucket whose values are sealed. Every such bucket is listed in
// its file's schema: what changes keys finds the records to rewrite there.
type sealedRows struct {
	bucket string
	// bind says what a value is bound to, and how many bytes stand before it in the
	// open.
	bind func(s *Store, k, v []byte) (b Binding, head int, err error)
}

// attach gives a file its keys: it makes the first ones, wraps anew what a
// replaced root key wrapped, and encrypts what is of a time before there were keys.
func (s *Store) attach(d *dbFile, root Root) error {
	d.vault = s.vaultOf(d)
	sealed, rows := false, false
	err := s.view(d, func(tx *bolt.Tx) error {
		sealed = bucket(tx, bucketMeta).Get([]byte(keySealed)) != nil
		rows = d.schema.hasRows(tx)
		return s.sameTenant(tx, d)
	})
	switch {
	case err != nil:
		return err
	case sealed:
		return nil
	case rows && !root.Adopting() && !s.opts.AdoptPlain:
		return &agent.Error{Code: agent.CodeStorage,
			Message: d.name() + " holds records that are not encrypted, although there has been a root key before",
			Fix:     "if you know why, set keys.adopt_plain once; otherwise somebody has changed the file: restore a backup"}
	}
	return s.adopt(d, rows)
}

// vaultOf makes the vault of a file under the store's root key.
func (s *Store) vaultOf(d *dbFile) *vault {
	return &vault{root: s.root, rand: s.opts.Rand, store: map[string]cipher.AEAD{},
		scope: []string{s.opts.Tenant, s.opts.Device, d.schema.kind, d.epoch}}
}

// sameTenant refuses another tenant's file, which no key would open.
func (s *Store) sameTenant(tx *bolt.Tx, d *dbFile) error {
	v := bucket(tx, bucketMeta).Get([]byte(keyTenant))
	if v == nil || string(v) == s.opts.Tenant {
		return nil
	}
	return &agent.Error{Code: agent.CodeConflict,
		Message: fmt.Sprintf("%s belongs to tenant %.140q, not %q", d.name(), v, s.opts.Tenant),
		Fix:     "set the tenant back or choose another data folder"}
}

func (sc schema) hasRows(tx *bolt.Tx) bool {
	for _, r := range sc.sealed {
		if k, _ := bucket(tx, r.bucket).Cursor().First(); k != nil {
			return true
		}
	}
	return false
}

// adopt makes the first keys, encrypts all records in small transactions, rewrites the
// file without the pages that held them in the clear, and only then marks it as
// encrypted. Killed in between it goes on at the next opening.
func (s *Store) adopt(d *dbFile, rows bool) error {
	d.vault.adopting.Store(true)
	defer d.vault.adopting.Store(false)
	if err := s.update(d, s.firstKeys(d)); err != nil {
		return err
	}
	n, err := s.rewriteRows(d, func(_ Binding, sealed []byte) bool { return sealed[0] == plainVersion })
	if err != nil {
		return err
	}
	if n > 0 {
		s.opts.Log.Info("encrypted the records of a data file", "file", d.path, "records", n)
	}
	if rows { // also those that an opening that was killed has encrypted
		if err := s.compactOnline(d); err != nil {
			return err
		}
	}
	return s.update(d, func(tx *bolt.Tx) error {
		meta := bucket(tx, bucketMeta)
		if err := meta.Put([]byte(keyTenant), []byte(s.opts.Tenant)); err != nil {
			return err
		}
		return meta.Put([]byte(keySealed), []byte{sealedVersion})
	})
}

func (s *Store) firstKeys(d *dbFile) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		for _, c := range classes {
			if storeKeyVersion(tx, c) > 0 {
				continue
			}
			if err := d.vault.addStoreKey(tx, c, 1, s.now()); err != nil {
				return err
			}
		}
		if generation(tx, "") > 0 {
			return nil
		}
		return d.vault.addOwner(tx, "", 1)
	}
}

// rewriteRows seals anew, under the newest keys, every value that stale picks by
// its sealed part, and returns how many there were.
func (s *Store) rewriteRows(d *dbFile, stale staleFunc) (int, error) {
	total := 0
	for _, r := range d.schema.sealed {
		n, err := s.rewriteBucket(d, r, stale)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (s *Store) rewriteBucket(d *dbFile, r sealedRows, stale staleFunc) (total int, err error) {
	for after := []byte(nil); ; {
		var batch [][]byte
		err := s.view(d, func(tx *bolt.Tx) (err error) {
			batch, after, err = s.staleKeys(tx, r, after, stale)
			return err
		})
		if err != nil {
			return total, err
		}
		if len(batch) > 0 {
			if err := s.update(d, func(tx *bolt.Tx) error { return s.rewriteSome(tx, r, batch, stale) }); err != nil {
				return total, err
			}
			total += len(batch)
		}
		if after == nil {
			return total, nil
		}
	}
}

// staleScan bounds how many rows one transaction looks at.
const staleScan = 4096

// staleKeys collects keys of stale values. next is where to go on, nil at the end.
func (s *Store) staleKeys(tx *bolt.Tx, r sealedRows, after []byte, stale staleFunc) (batch [][]byte, next []byte, err error) {
	c, scanned := bucket(tx, r.bucket).Cursor(), 0
	for k, v := seekAfter(c, after); k != nil; k, v = c.Next() {
		is, err := s.stale(r, k, v, stale)
		if err != nil {
			return nil, nil, err
		}
		if is {
			batch = append(batch, bytes.Clone(k))
		}
		if scanned++; scanned == staleScan || len(batch) == rewriteBatch {
			return batch, bytes.Clone(k), nil
		}
	}
	return batch, nil, nil
}

func (s *Store) stale(r sealedRows, k, v []byte, stale staleFunc) (bool, error) {
	b, head, err := r.bind(s, k, v)
	if err == nil && head >= len(v) {
		err = errors.New("value is empty")
	}
	if err != nil {
		return false, badRecord(r.bucket, k, err)
	}
	return stale(b, v[head:]), nil
}

// rewriteSome rewrites those of the rows that are still there and still stale.
func (s *Store) rewriteSome(tx *bolt.Tx, r sealedRows, batch [][]byte, stale staleFunc) error {
	rows := bucket(tx, r.bucket)
	for _, k := range batch {
		v := rows.Get(k)
		if v == nil {
			continue
		}
		is, err := s.stale(r, k, v, stale)
		if err == nil && is {
			err = s.rewriteOne(tx, r, k, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) rewriteOne(tx *bolt.Tx, r sealedRows, k, v []byte) error {
	b, head, err := r.bind(s, k, v)
	if err != nil {
		return badRecord(r.bucket, k, err)
	}
	payload, err := s.unseal(tx, v[head:], b)
	if err != nil {
		return badRecord(b.Kind, k, err)
	}
	defer clear(payload)
	if b.Kind == KindTemplate {
		t, err := decodeTemplate(payload)
		if err != nil {
			return badRecord(b.Kind, k, err)
		}
		b.Model = t.ModelID
		clear(t.Embedding)
	}
	value, err := s.seal(tx, payload, b)
	if err != nil {
		return err
	}
	return bucket(tx, r.bucket).Put(k, append(bytes.Clone(v[:head]), value...))
}
