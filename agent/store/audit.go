package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/keys"
)

// The audit log is one chain a file, so that a deed and its entry share a
// transaction. A row of bucket audit is
//
//	[32]byte  hash: SHA-256 of the previous hash, the file's epoch, the number, the entry
//	[64]byte  Ed25519 signature of epoch, number and hash by the device
//	[]byte    the entry, sealed under the file's general key
//
// Hash and signature are over what is sealed, so they outlive a rotation of keys.
// Each row's signature is a checkpoint of all before it. What a chain cannot show,
// that its end was cut off, the last checkpoint kept elsewhere does: see witness.go.
const auditHead = sha256.Size + ed25519.SignatureSize

// maxAudit bounds one entry.
const maxAudit = 8 << 10

// auditEntry is what is sealed.
type auditEntry struct {
	At     int64             `json:"at"` // microseconds
	Action agent.AuditAction `json:"action"`
	Actor  string            `json:"actor"`
	Tag    string            `json:"tag,omitempty"` // keyed hash of the subject
	Detail map[string]string `json:"detail,omitempty"`
}

func bindAudit(s *Store, k, v []byte) (Binding, int, error) {
	return Binding{Kind: KindAudit, Record: hex.EncodeToString(k)}, auditHead, nil
}

// Audit records a deed that is not a verb of the Store itself. Store verbs record
// theirs in their own transaction.
func (s *Store) Audit(e agent.AuditEvent) error {
	return s.update(s.templates, func(tx *bolt.Tx) error { return s.audit(tx, e) })
}

// audit adds an entry to the chain of the transaction's file.
func (s *Store) audit(tx *bolt.Tx, e agent.AuditEvent) error {
	d := s.fileOf(tx)
	payload, err := json.Marshal(s.auditEntry(e))
	if err != nil {
		return err
	}
	if len(payload) > maxAudit {
		return invalid("an audit entry of %d bytes is longer than %d", len(payload), maxAudit)
	}
	seq, last, err := auditEnd(tx)
	if err != nil {
		return err
	}
	return s.putAudit(tx, d, seq+1, last, payload)
}

func (s *Store) putAudit(tx *bolt.Tx, d *dbFile, seq uint64, last, payload []byte) error {
	key := seqKey(seq)
	b, _, _ := bindAudit(s, key, nil)
	sealed, err := s.seal(tx, payload, b)
	if err != nil {
		return err
	}
	hash := auditHash(last, d.epoch, seq, payload)
	row := append(bytes.Clone(hash), ed25519.Sign(s.signer, checkpointText(d.epoch, seq, hash))...)
	if err := appendBucket(tx, bucketAudit).Put(key, append(row, sealed...)); err != nil {
		return err
	}
	if err := bucket(tx, bucketMeta).Put([]byte(keyAuditEnd), append(key, hash...)); err != nil {
		return err
	}
	d.audited.Add(1)
	return nil
}

func (s *Store) auditEntry(e agent.AuditEvent) auditEntry {
	if e.Actor == "" {
		e.Actor = s.opts.Actor
	}
	out := auditEntry{At: s.now().UnixMicro(), Action: e.Action, Actor: e.Actor, Detail: e.Detail}
	if e.Subject != "" {
		out.Tag = hex.EncodeToString(s.tag(e.Subject))
	}
	return out
}

// tag is a keyed hash of a personal id: who does not have the key cannot try ids.
func (s *Store) tag(id string) []byte { return tagBy(s.pepper, id) }

func tagBy(pepper []byte, id string) []byte {
	m := hmac.New(sha256.New, pepper)
	m.Write([]byte(id))
	return m.Sum(nil)[:16]
}

func auditHash(last []byte, epoch string, seq uint64, payload []byte) []byte {
	h := sha256.New()
	h.Write(keys.Bind("postern audit 1", string(last), epoch, string(seqKey(seq)), string(payload)))
	return h.Sum(nil)
}

func checkpointText(epoch string, seq uint64, hash []byte) []byte {
	return keys.Bind("postern audit checkpoint 1", epoch, string(seqKey(seq)), string(hash))
}

// auditEnd is the number and hash of the newest entry.
func auditEnd(tx *bolt.Tx) (seq uint64, hash []byte, err error) {
	v := bucket(tx, bucketMeta).Get([]byte(keyAuditEnd))
	switch {
	case v == nil:
		return 0, nil, nil
	case len(v) != 8+sha256.Size:
		return 0, nil, errors.New("the end of the audit log is malformed")
	}
	return binary.BigEndian.Uint64(v), bytes.Clone(v[8:]), nil
}

// AuditQuery selects entries; the zero value selects the newest 100.
type AuditQuery struct {
	Action  agent.AuditAction
	Subject string // by its tag, so also one that has been erased
	Limit   int    // 1..1000; 0 means 100
}

// AuditLog lists entries of all files, newest first.
func (s *Store) AuditLog(q AuditQuery) ([]agent.AuditEvent, error) {
	q.Limit = clampLimit(q.Limit)
	out := []agent.AuditEvent{}
	for _, d := range s.files() {
		part, err := s.auditOf(d, q)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	if err := s.nameSubjects(out); err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b agent.AuditEvent) int { return b.At.Compare(a.At) })
	return out[:min(len(out), q.Limit)], nil
}

func (s *Store) auditOf(d *dbFile, q AuditQuery) (out []agent.AuditEvent, err error) {
	tag := ""
	if q.Subject != "" {
		tag = hex.EncodeToString(s.tag(q.Subject))
	}
	err = s.view(d, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketAudit).Cursor()
		for k, v := c.Last(); k != nil && len(out) < q.Limit; k, v = c.Prev() {
			e, _, err := s.openAudit(tx, d, k, v)
			if err != nil {
				return err
			}
			if (q.Action == "" || e.Action == q.Action) && (tag == "" || e.Tag == tag) {
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// nameSubjects fills in who is meant, of those that are still enrolled.
func (s *Store) nameSubjects(es []agent.AuditEvent) error {
	byTag := map[string]string{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketSubjects).ForEach(func(k, _ []byte) error {
			byTag[hex.EncodeToString(s.tag(string(k)))] = string(k)
			return nil
		})
	})
	for i := range es {
		es[i].Subject = byTag[es[i].Tag]
	}
	return err
}

// openAudit reads a row of the log and gives the bytes that its hash is over.
func (s *Store) openAudit(tx *bolt.Tx, d *dbFile, k, v []byte) (agent.AuditEvent, []byte, error) {
	seq, err := parseSeq(k)
	if err == nil && len(v) < auditHead {
		err = errors.New("cut short")
	}
	if err != nil {
		return agent.AuditEvent{}, nil, badRecord(KindAudit, k, err)
	}
	b, head, _ := bindAudit(s, k, v)
	payload, err := s.unseal(tx, v[head:], b)
	if err != nil {
		return agent.AuditEvent{}, nil, badRecord(KindAudit, k, err)
	}
	entry, err := decodeAudit(payload)
	if err != nil {
		return agent.AuditEvent{}, nil, badRecord(KindAudit, k, err)
	}
	return agent.AuditEvent{File: d.schema.kind, Seq: seq, At: time.UnixMicro(entry.At).UTC(), Action: entry.Action, Actor: entry.Actor,
		Tag: entry.Tag, Detail: entry.Detail}, payload, nil
}

func decodeAudit(payload []byte) (auditEntry, error) {
	var e auditEntry
	if len(payload) > maxAudit {
		return e, fmt.Errorf("an entry of %d bytes", len(payload))
	}
	return e, json.Unmarshal(payload, &e)
}
