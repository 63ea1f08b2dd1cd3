package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Buckets. Every file has meta, keys and owners.
const (
	bucketMeta   = "meta"
	bucketKeys   = "keys"   // see vault.go
	bucketOwners = "owners" // see vault.go
	bucketAudit  = "audit"  // number -> entry; see audit.go

	// templates.db
	bucketSubjects  = "subjects"  // subject id -> subject
	bucketTemplates = "templates" // subject id, 0, template id -> template
	bucketSpaces    = "spaces"    // embedding space -> dimension, uint64
	bucketErased    = "erased"    // tag of a subject -> tombstone; see erase.go

	// templates.db, for a fleet; see fleet.go, feed.go and desired.go
	bucketFleetErased = "fleet_erased" // tag by the fleet's key -> Erasure
	bucketManaged     = "managed"      // device: the same -> listed or not, id of the subject
	bucketChanges     = "changes"      // hub: version -> what changed then, and not since
	bucketChanged     = "changed"      // hub: the same -> version
	bucketStamps      = "stamps"       // hub: version -> random mark
	bucketAccess      = "access"       // hub: subject id -> Access

	// results.db
	bucketResults   = "results"    // seq -> result
	bucketIDs       = "result_ids" // result id -> seq
	bucketBySubject = "by_subject" // subject id, 0, seq -> nothing
	bucketOutbox    = "outbox"     // seq -> outboxResult
	bucketThrottle  = "throttle"   // 0, subject id (none: the device) -> failed attempts
	bucketHolds     = "holds"      // kind, 0, id -> Hold
	bucketPolicies  = "retention"  // application -> Retention
	bucketTelemetry = "telemetry"  // number -> Telemetry
)

// Keys of meta. Numbers are uint64, big-endian.
const (
	keySchema      = "schema"
	keyKind        = "kind" // which of the two files this is
	keyDevice      = "device"
	keyCreated     = "created"
	keyEpoch       = "epoch" // random; bound to the file's keys and, in results.db, to Seq
	keyTenant      = "tenant"
	keySealed      = "sealed"      // the version of sealed values; set when no other is left
	keyAuditEnd    = "audit_end"   // number and hash of the newest audit entry
	keyUnconfirmed = "unconfirmed" // templates.db: restored where erasures may be unknown
	keyRound       = "round"       // the newest generation of owners' keys
	keySubjects    = "subjects"    // templates.db: how many
	keyTemplates   = "templates"   // templates.db: how many
	keyLast        = "last_seq"    // results.db: the newest result
	keyAcked       = "acked_seq"   // results.db: the newest result that the hub has
	keyBurying     = "burying"     // a deletion whose second commit is still to come; see Store.bury
	keyRecovered   = "recovered"   // the Rung of a recovery that has not been settled yet
	keyResync      = "resync"      // records were lost; the Rung

	keyFeed    = "feed"          // templates.db of a hub: the newest version of desired state
	keyDesired = "desired"       // templates.db of a device: the version that it has, and its stamp
	keyFloor   = "desired_floor" // templates.db of a device: the newest version that a hub has told it of
	keyHub     = "hub_key"       // templates.db of a device: the Ed25519 key of its hub
	keyHeard   = "hub_heard"     // templates.db of a device: when the hub answered last
	keySweep   = "desired_sweep" // templates.db of a device: a full listing is under way

	keyResults = "results" // results.db: how many there are
	keyPending = "pending" // results.db: how many of them the hub has not acknowledged
	keyAnchor  = "clock"   // results.db: when the clock was believed the last time

	keyTelemetry        = "telemetry"         // results.db: how many rows
	keyTelemetryLast    = "telemetry_last"    // results.db: the newest
	keyTelemetryDropped = "telemetry_dropped" // results.db: how many gave way
)

// outboxResult says that an outbox row stands for the result of the same seq.
const outboxResult = 1

// appendFill packs pages of buckets that only grow at the end.
const appendFill = 0.9

// bucket returns a bucket that the schema promises. Its absence is damage, which
// the caller's guard reports.
func bucket(tx *bolt.Tx, name string) *bolt.Bucket {
	b := tx.Bucket([]byte(name))
	if b == nil {
		panic("bucket " + name + " is missing")
	}
	return b
}

func appendBucket(tx *bolt.Tx, name string) *bolt.Bucket {
	b := bucket(tx, name)
	b.FillPercent = appendFill
	return b
}

func createBuckets(names ...string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		for _, n := range names {
			if _, err := tx.CreateBucket([]byte(n)); err != nil {
				return fmt.Errorf("create bucket %s: %w", n, err)
			}
		}
		return nil
	}
}

func seqKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func parseSeq(k []byte) (uint64, error) {
	if len(k) != 8 {
		return 0, fmt.Errorf("number of %d bytes", len(k))
	}
	return binary.BigEndian.Uint64(k), nil
}

// number reads a uint64; a missing one is 0.
func number(b *bolt.Bucket, key string) (uint64, error) {
	v := b.Get([]byte(key))
	if v == nil {
		return 0, nil
	}
	n, err := parseSeq(v)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key, err)
	}
	return n, nil
}

func setNumber(b *bolt.Bucket, key string, n uint64) error { return b.Put([]byte(key), seqKey(n)) }

// addNumber changes a counter and refuses to take it below zero.
func addNumber(b *bolt.Bucket, key string, d int) error {
	n, err := number(b, key)
	if err != nil {
		return err
	}
	if d < 0 && uint64(-d) > n {
		return fmt.Errorf("counter %s would fall below zero", key)
	}
	return setNumber(b, key, n+uint64(d))
}

// prefix is the start of all keys that belong to a subject. Subject ids have no
// zero byte.
func prefix(subject string) []byte { return append([]byte(subject), 0) }

func templateKey(subject, template string) []byte { return append(prefix(subject), template...) }

func splitTemplateKey(k []byte) (subject, template string, err error) {
	s, t, ok := bytes.Cut(k, []byte{0})
	if !ok || len(s) == 0 || len(t) == 0 {
		return "", "", errors.New("template key is malformed")
	}
	return string(s), string(t), nil
}

func bySubjectKey(subject string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(prefix(subject), seq)
}

// countPrefix counts keys without reading their values.
func countPrefix(b *bolt.Bucket, p []byte) (n int) {
	c := b.Cursor()
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		n++
	}
	return n
}
