package store

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/keys"
)

// The keys of a file, from the root down:
//
//	root key                        outside the data folder, see package keys
//	└ store key of a class          bucket keys: class, version -> when made, wrapped key
//	  └ owner's keys, a generation  bucket owners: owner, 0, generation -> class, version, wrapped keys
//	    └ record
//
// There are two classes of store keys: one wraps the keys of people and sessions,
// the other the file's general key, under which lies what belongs to nobody. An
// owner has two random keys: one for biometric records, one for the rest.
// Forgetting an owner's row is forgetting all that it opened.
//
// Rotation adds a version or generation beside the old one, moves what hangs
// below it in small transactions, and deletes the old one when nothing needs it,
// so a kill at any moment leaves a file that reads well and a rotation that can
// go on. See rotate.go.
type class byte

const (
	classGeneral   class = 'g'
	classBiometric class = 'b'
)

var errSecret = errors.New("a secret of the wrong length")

var classes = []class{classGeneral, classBiometric}

func classOf(owner string) class {
	if owner == "" {
		return classGeneral
	}
	return classBiometric
}

// Root wraps and unwraps the store keys; it is a *keys.Root. The Store closes it.
type Root interface {
	Wrap(key, ad []byte) ([]byte, error)
	Unwrap(wrapped, ad []byte) (key []byte, current bool, err error)
	// Adopting reports whether records without encryption may be taken over.
	Adopting() bool
	// Rotate puts a new root key beside the present one, which stays until Settle.
	Rotate() error
	// Settle says that everything is wrapped by the root key in use.
	Settle() error
	// Close zeroes the root key in memory.
	Close()
}

// vault is the keys of one file.
type vault struct {
	root Root
	rand io.Reader
	// scope is bound to every wrapped key: tenant, device, kind and epoch of the file.
	scope []string
	// adopting: records of a time before there were keys are being taken over.
	adopting atomic.Bool

	mu      sync.Mutex // guards the caches below
	store   map[string]cipher.AEAD
	general cachedKeys
}

// ownerKeys seal an owner's records.
type ownerKeys struct{ biometric, rest cipher.AEAD }

// cachedKeys are the keys of the row with this value.
type cachedKeys struct {
	row  []byte
	keys ownerKeys
}

// storeKeyRow is the key of a row of bucket keys.
func storeKeyRow(c class, version uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{'k', byte(c)}, version)
}

// ownerRow is the key of a row of bucket owners. Owners have no zero byte.
func ownerRow(owner string, generation uint32) []byte {
	return binary.BigEndian.AppendUint32(prefix(owner), generation)
}

func splitOwnerRow(k []byte) (owner string, generation uint32, err error) {
	if len(k) < 5 || k[len(k)-5] != 0 {
		return "", 0, errors.New("row of an owner's keys is malformed")
	}
	return string(k[:len(k)-5]), binary.BigEndian.Uint32(k[len(k)-4:]), nil
}

func (v *vault) bind(what string, row []byte) []byte {
	return keys.Bind(append([]string{what, string(row)}, v.scope...)...)
}

// addStoreKey makes a new version of a class's store key.
func (v *vault) addStoreKey(tx *bolt.Tx, c class, version uint32, now time.Time) error {
	return v.addSecret(tx, storeKeyRow(c, version), keys.Size, now)
}

// addSecret makes a random secret and puts it, wrapped by the root key, into
// bucket keys behind the time.
func (v *vault) addSecret(tx *bolt.Tx, row []byte, size int, now time.Time) error {
	key, err := v.random(size)
	if err != nil {
		return err
	}
	defer clear(key)
	return v.wrapSecret(tx, row, key, now)
}

// wrapSecret puts a secret there.
func (v *vault) wrapSecret(tx *bolt.Tx, row, key []byte, now time.Time) error {
	wrapped, err := v.root.Wrap(key, v.bind("store key", row))
	if err != nil {
		return err
	}
	return bucket(tx, bucketKeys).Put(row, append(seqKey(uint64(now.UnixMicro())), wrapped...))
}

func (v *vault) random(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(v.rand, b)
	return b, err
}

// storeKeyVersion is the newest version of a class; 0 when there is none.
func storeKeyVersion(tx *bolt.Tx, c class) uint32 {
	b := tx.Bucket([]byte(bucketKeys))
	if b == nil {
		return 0
	}
	p, newest := []byte{'k', byte(c)}, uint32(0)
	cur := b.Cursor()
	for k, _ := cur.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = cur.Next() {
		if len(k) == 6 {
			newest = binary.BigEndian.Uint32(k[2:])
		}
	}
	return newest
}

// storeKey returns a store key for use. The transaction's own view of the file
// says what the key is, so a reader that began before a rotation still reads.
func (v *vault) storeKey(tx *bolt.Tx, c class, version uint32) (cipher.AEAD, error) {
	row := storeKeyRow(c, version)
	value := bucket(tx, bucketKeys).Get(row)
	if len(value) < 8 {
		return nil, fmt.Errorf("store key %c%d is missing", c, version)
	}
	v.mu.Lock()
	a, ok := v.store[string(value)]
	v.mu.Unlock()
	if ok {
		return a, nil
	}
	key, _, err := v.unwrapStoreKey(row, value)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if a, err = keys.AEAD(key); err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.store[string(value)] = a
	v.mu.Unlock()
	return a, nil
}

// unwrapStoreKey opens a row of bucket keys. current is false when a replaced
// root key wrapped it.
func (v *vault) unwrapStoreKey(row, value []byte) (key []byte, current bool, err error) {
	if len(value) < 8 {
		return nil, false, fmt.Errorf("store key %q is cut short", row)
	}
	key, current, err = v.root.Unwrap(value[8:], v.bind("store key", row))
	if err != nil {
		return nil, false, fmt.Errorf("store key %q: %w", row, err)
	}
	return key, current, nil
}

// rewrapStoreKey wraps a store key under the root key in use.
func (v *vault) rewrapStoreKey(b *bolt.Bucket, row []byte) error {
	value := bytes.Clone(b.Get(row))
	key, current, err := v.unwrapStoreKey(row, value)
	if err != nil || current {
		return err
	}
	defer clear(key)
	wrapped, err := v.root.Wrap(key, v.bind("store key", row))
	if err != nil {
		return err
	}
	return b.Put(row, append(value[:8:8], wrapped...))
}

// addOwner makes a new generation of an owner's keys.
func (v *vault) addOwner(tx *bolt.Tx, owner string, generation uint32) error {
	pair, err := v.random(2 * keys.Size)
	if err != nil {
		return err
	}
	defer clear(pair)
	return v.putOwner(tx, ownerRow(owner, generation), pair)
}

// putOwner wraps an owner's keys under the newest store key of its class.
func (v *vault) putOwner(tx *bolt.Tx, row, pair []byte) error {
	owner, _, err := splitOwnerRow(row)
	if err != nil {
		return err
	}
	c := classOf(owner)
	version := storeKeyVersion(tx, c)
	a, err := v.storeKey(tx, c, version)
	if err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint32([]byte{byte(c)}, version)
	return bucket(tx, bucketOwners).Put(row, a.Seal(value, nil, pair, v.bind("owner", row)))
}

// unwrapOwner opens a row of bucket owners.
func (v *vault) unwrapOwner(tx *bolt.Tx, row, value []byte) ([]byte, error) {
	if len(value) < 5 {
		return nil, errors.New("wrapped keys of an owner are cut short")
	}
	a, err := v.storeKey(tx, class(value[0]), binary.BigEndian.Uint32(value[1:]))
	if err != nil {
		return nil, err
	}
	pair, err := a.Open(nil, nil, value[5:], v.bind("owner", row))
	if err != nil || len(pair) != 2*keys.Size {
		return nil, errors.New("wrapped keys of an owner are damaged or belong elsewhere")
	}
	return pair, nil
}

// ownerKeys returns an owner's keys of a generation.
func (v *vault) ownerKeys(tx *bolt.Tx, owner string, generation uint32) (ownerKeys, error) {
	row := ownerRow(owner, generation)
	value := bucket(tx, bucketOwners).Get(row)
	if value == nil {
		return ownerKeys{}, errors.New("the key of this record has been destroyed or is missing")
	}
	if owner == "" {
		v.mu.Lock()
		cached := v.general
		v.mu.Unlock()
		if bytes.Equal(cached.row, value) {
			return cached.keys, nil
		}
	}
	pair, err := v.unwrapOwner(tx, row, value)
	if err != nil {
		return ownerKeys{}, err
	}
	defer clear(pair)
	var k ownerKeys
	if k.biometric, err = keys.AEAD(pair[:keys.Size]); err != nil {
		return ownerKeys{}, err
	}
	if k.rest, err = keys.AEAD(pair[keys.Size:]); err != nil {
		return ownerKeys{}, err
	}
	if owner == "" {
		v.mu.Lock()
		v.general = cachedKeys{bytes.Clone(value), k}
		v.mu.Unlock()
	}
	return k, nil
}

func (k ownerKeys) of(b Binding) cipher.AEAD {
	if b.biometric() {
		return k.biometric
	}
	return k.rest
}

// generation is the newest generation of an owner's keys; 0 when it has none.
func generation(tx *bolt.Tx, owner string) (newest uint32) {
	p := prefix(owner)
	c := bucket(tx, bucketOwners).Cursor()
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		if len(k) == len(p)+4 {
			newest = binary.BigEndian.Uint32(k[len(p):])
		}
	}
	return newest
}

// destroyOwner deletes an owner's keys. What they sealed cannot be opened from
// then on, wherever copies of it are.
func destroyOwner(tx *bolt.Tx, owner string) error {
	if owner == "" {
		return errors.New("the general key belongs to nobody and is not destroyed")
	}
	if err := dropAside(tx, owner); err != nil {
		return err
	}
	return dropPrefix(bucket(tx, bucketOwners), prefix(owner))
}

// dropPrefix deletes all keys that begin with p. They are collected first:
// deleting under a cursor makes it skip.
func dropPrefix(b *bolt.Bucket, p []byte) error {
	var all [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		all = append(all, bytes.Clone(k))
	}
	for _, k := range all {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// A sealed value is
//
//	byte     sealedVersion
//	uvarint  generation of the owner's keys
//	uvarint  length of the model's id, and the id: it is associated data
//	[]byte   nonce, ciphertext, tag
//
// Values of plainVersion, of a time before there were keys, have the bare payload
// behind the version. They are read only while a file is being taken over.
const (
	plainVersion  = 1
	sealedVersion = 2
)

// fileOf returns the file that a transaction is on.
func (s *Store) fileOf(tx *bolt.Tx) *dbFile {
	for _, d := range s.files() { // by path: another file's db may be swapped this moment
		if d.path == tx.DB().Path() {
			return d
		}
	}
	panic("a transaction of another store")
}

// seal makes the stored value of a payload under the key of the binding's owner,
// which it makes when this is the owner's first record.
func (s *Store) seal(tx *bolt.Tx, payload []byte, b Binding) ([]byte, error) {
	v, err := s.fileOf(tx).vault.seal(tx, payload, s.bound(b))
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeStorage, Message: "cannot seal a " + b.Kind, Err: err}
	}
	return v, nil
}

// bound fills in what the Store knows.
func (s *Store) bound(b Binding) Binding {
	b.Tenant, b.Device = s.opts.Tenant, s.opts.Device
	return b
}

func (v *vault) seal(tx *bolt.Tx, payload []byte, b Binding) ([]byte, error) {
	if b.Subject == "" && b.biometric() {
		return nil, errors.New("biometric data without an owner")
	}
	gen := generation(tx, b.Subject)
	if gen == 0 {
		var err error
		if gen, err = round(tx); err != nil {
			return nil, err
		}
		if err := v.addOwner(tx, b.Subject, gen); err != nil {
			return nil, err
		}
	}
	k, err := v.ownerKeys(tx, b.Subject, gen)
	if err != nil {
		return nil, err
	}
	b.Version = sealedVersion
	out := make([]byte, 0, 16+len(b.Model)+len(payload)+keys.Overhead)
	out = append(out, sealedVersion)
	out = binary.AppendUvarint(out, uint64(gen))
	out = binary.AppendUvarint(out, uint64(len(b.Model)))
	out = append(out, b.Model...)
	return k.of(b).Seal(out, nil, payload, b.Bytes()), nil
}

// unseal returns the payload of a stored value, in memory of its own.
func (s *Store) unseal(tx *bolt.Tx, value []byte, b Binding) ([]byte, error) {
	return s.fileOf(tx).vault.unseal(tx, value, s.bound(b))
}

func (v *vault) unseal(tx *bolt.Tx, value []byte, b Binding) ([]byte, error) {
	return v.unsealTo(nil, &keyring{vault: v, tx: tx}, value, b)
}

// unsealTo appends the payload to dst.
func (v *vault) unsealTo(dst []byte, ring *keyring, value []byte, b Binding) ([]byte, error) {
	if len(value) > 0 && value[0] == plainVersion && v.adopting.Load() {
		return append(dst, value[1:]...), nil
	}
	gen, model, sealed, err := splitSealed(value)
	if err != nil {
		return nil, err
	}
	k, err := ring.of(b.Subject, gen)
	if err != nil {
		return nil, err
	}
	b.Model, b.Version = model, sealedVersion
	payload, err := k.of(b).Open(dst, nil, sealed, b.Bytes())
	if err != nil {
		return nil, errors.New("it is damaged, or belongs elsewhere")
	}
	return payload, nil
}

// keyring remembers the owner's keys that it unwrapped last. It lives as long as its
// transaction, in which they cannot change.
type keyring struct {
	vault *vault
	tx    *bolt.Tx
	owner string
	gen   uint32 // 0: none yet
	keys  ownerKeys
}

func (r *keyring) of(owner string, gen uint32) (ownerKeys, error) {
	if r.gen == gen && r.owner == owner {
		return r.keys, nil
	}
	k, err := r.vault.ownerKeys(r.tx, owner, gen)
	if err == nil {
		r.owner, r.gen, r.keys = owner, gen, k
	}
	return k, err
}

// maxModel bounds the model's id in a sealed value.
const maxModel = 256

func splitSealed(value []byte) (generation uint32, model string, sealed []byte, err error) {
	switch {
	case len(value) == 0:
		return 0, "", nil, errors.New("value is empty")
	case value[0] == plainVersion:
		return 0, "", nil, errors.New("it is not encrypted, and this data folder is")
	case value[0] != sealedVersion:
		return 0, "", nil, fmt.Errorf("unknown record version %d", value[0])
	}
	gen, n := binary.Uvarint(value[1:])
	if n <= 0 || gen == 0 || gen > 1<<32-1 {
		return 0, "", nil, errors.New("its key's generation is malformed")
	}
	rest := value[1+n:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > maxModel || size > uint64(len(rest)-n) {
		return 0, "", nil, errors.New("its model is malformed")
	}
	rest = rest[n:]
	return uint32(gen), string(rest[:size]), rest[size:], nil
}
