package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// rewrap wraps under the root key in use what a replaced one wrapped.
func (s *Store) rewrap(d *dbFile) error {
	var stale [][]byte
	err := s.view(d, func(tx *bolt.Tx) error {
		return bucket(tx, bucketKeys).ForEach(func(k, v []byte) error {
			key, current, err := d.vault.unwrapStoreKey(k, v)
			clear(key)
			if err == nil && !current {
				stale = append(stale, bytes.Clone(k))
			}
			return err
		})
	})
	if err != nil || len(stale) == 0 {
		return err
	}
	return s.update(d, func(tx *bolt.Tx) error {
		b := bucket(tx, bucketKeys)
		for _, k := range stale {
			if err := d.vault.rewrapStoreKey(b, k); err != nil {
				return err
			}
		}
		return nil
	})
}
