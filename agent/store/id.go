package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
)

// newID makes a UUIDv7 from the given clock and randomness.
func newID(now time.Time, rand io.Reader) (string, error) {
	id, err := uuid.NewRandomFromReader(rand)
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = 0x70 | id[6]&0x0f // version 7 instead of 4
	return id.String(), nil
}

const maxID = 64

// checkID accepts what fits into a key: a UUID, or any short printable name.
func checkID(what, id string) error {
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, notPrintable) {
		return invalid("%s id %.80q is not 1 to %d printable characters without spaces", what, id, maxID)
	}
	return nil
}

// fillID gives a record without an id a new one.
func (s *Store) fillID(id *string) error {
	if *id != "" {
		return nil
	}
	s.randMu.Lock()
	defer s.randMu.Unlock()
	var err error
	*id, err = newID(s.opts.Now(), s.opts.Rand)
	return err
}

// stamp is a time as it is stored: UTC, whole microseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func (s *Store) now() time.Time { return stamp(s.opts.Now()) }
