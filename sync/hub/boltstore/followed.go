package boltstore

import (
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/sync/hub"
	"postern/sync/wire"
)

// followedRecord is a value of bucketFollow.
type followedRecord struct {
	At      wire.Position      `cbor:"1,keyasint"`
	When    time.Time          `cbor:"2,keyasint"`
	Group   string             `cbor:"3,keyasint,omitempty"`
	SealTo  []byte             `cbor:"4,keyasint,omitempty"`
	KeyAt   time.Time          `cbor:"5,keyasint"`
	Refused []wire.RefusedItem `cbor:"6,keyasint,omitempty"`
	Relist  bool               `cbor:"7,keyasint,omitempty"`
	FullTo  []byte             `cbor:"8,keyasint,omitempty"`
}

func (r followedRecord) followed(device string) hub.Followed {
	return hub.Followed{Device: device, At: r.At, When: r.When, Group: r.Group, SealTo: r.SealTo, KeyAt: r.KeyAt, Refused: r.Refused,
		Relist: r.Relist, FullTo: r.FullTo}
}

// PutFollowed implements hub.Store.
func (s *Store) PutFollowed(f hub.Followed) error {
	v, err := wire.Marshal(followedRecord{f.At, stamp(f.When), f.Group, f.SealTo, stamp(f.KeyAt), f.Refused, f.Relist, f.FullTo})
	if err == nil {
		err = s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketFollow).Put([]byte(f.Device), v) })
	}
	if err != nil {
		return unusable(s.db.Path(), err)
	}
	return nil
}

// Followed implements hub.Store.
func (s *Store) Followed(device string) (f hub.Followed, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketFollow).Get([]byte(device))
		if v == nil {
			return nil
		}
		var r followedRecord
		if err := wire.Unmarshal(v, &r); err != nil {
			return err
		}
		f = r.followed(device)
		return nil
	})
	if err != nil {
		return f, unusable(s.db.Path(), err)
	}
	return f, nil
}

// Followeds implements hub.Store.
func (s *Store) Followeds() ([]hub.Followed, error) {
	out := []hub.Followed{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketFollow).ForEach(func(k, v []byte) error {
			var r followedRecord
			if err := wire.Unmarshal(v, &r); err != nil {
				return err
			}
			out = append(out, r.followed(string(k)))
			return nil
		})
	})
	if err != nil {
		return nil, unusable(s.db.Path(), err)
	}
	return out, nil
}
