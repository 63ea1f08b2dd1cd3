package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// AuditReport is what VerifyAudit found.
type AuditReport struct {
	PublicKey string        `json:"public_key"` // of the device, in hex
	Files     []AuditExtent `json:"files"`
	Kept      int           `json:"checkpoints"` // checkpoints from outside the chain that were compared
	Problems  []string      `json:"problems"`    // empty: no change, gap, reorder or truncation
}

// AuditExtent says how long the log of a file is.
type AuditExtent struct {
	File    string `json:"file"`
	Epoch   string `json:"epoch"`
	Entries uint64 `json:"entries"`
	Hash    string `json:"hash"`
}

// VerifyAudit reads the whole audit log and finds any change, gap, reorder or
// truncation. The end of a chain is compared with the witness's checkpoints and
// with those given; without any, the report says that truncation cannot be seen.
func (s *Store) VerifyAudit(kept ...Checkpoint) (AuditReport, error) {
	r := AuditReport{PublicKey: s.PublicKey(), Files: []AuditExtent{}, Problems: []string{}}
	s.note(s.tellWitness())
	own, err := s.witnessed()
	if err != nil {
		r.Problems = append(r.Problems, fmt.Sprintf("the kept checkpoints cannot be read: %v", err))
	}
	kept = append(own, kept...)
	for _, d := range s.files() {
		v := chainVerifier{s: s, d: d, report: &r, want: map[uint64][]Checkpoint{}}
		for _, c := range kept {
			if c.File == d.schema.kind {
				v.expect(c)
			}
		}
		if err := s.view(d, v.run); err != nil {
			return AuditReport{}, err
		}
	}
	if len(kept) == 0 {
		for _, f := range r.Files {
			if f.Entries > 0 {
				r.Problems = append(r.Problems, "no checkpoint is kept outside of the log, so whether its end was cut off cannot be seen")
				break
			}
		}
	}
	return r, nil
}

// chainVerifier walks one file's chain.
type chainVerifier struct {
	s      *Store
	d      *dbFile
	report *AuditReport
	want   map[uint64][]Checkpoint
	last   []byte
	seq    uint64
}

func (v *chainVerifier) problem(format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, v.d.schema.kind+": "+fmt.Sprintf(format, args...))
	}
}

// expect notes a checkpoint that the chain must pass through.
func (v *chainVerifier) expect(c Checkpoint) {
	switch {
	case c.Verify(v.report.PublicKey) != nil:
		v.problem("a kept checkpoint at entry %d is not signed by this device", c.Seq)
	case c.Epoch != v.d.epoch:
		v.problem("a checkpoint of %d entries is kept of another file in its place: it was replaced", c.Seq)
	default:
		v.report.Kept++
		v.want[c.Seq] = append(v.want[c.Seq], c)
	}
}

func (v *chainVerifier) run(tx *bolt.Tx) error {
	c := bucket(tx, bucketAudit).Cursor()
	for k, row := c.First(); k != nil; k, row = c.Next() {
		v.seq++
		if !bytes.Equal(k, seqKey(v.seq)) {
			v.problem("entry %d is missing: entry %s stands in its place", v.seq, quoteKey(k))
			return nil
		}
		if !v.entry(tx, k, row) {
			return nil
		}
	}
	seq, hash, err := auditEnd(tx)
	if err != nil || seq != v.seq || !bytes.Equal(hash, v.last) {
		v.problem("the log ends at entry %d, and should at %d", v.seq, seq)
	}
	for at := range v.want {
		if at > v.seq {
			v.problem("the log ends at entry %d, and a checkpoint says that there were %d", v.seq, at)
		}
	}
	v.report.Files = append(v.report.Files, AuditExtent{File: v.d.schema.kind, Epoch: v.d.epoch, Entries: v.seq, Hash: hex.EncodeToString(v.last)})
	return nil
}

// entry verifies one row; false ends the walk, for all after it would differ too.
func (v *chainVerifier) entry(tx *bolt.Tx, k, row []byte) bool {
	_, payload, err := v.s.openAudit(tx, v.d, k, row)
	if err != nil {
		v.problem("entry %d was changed: %v", v.seq, err)
		return false
	}
	hash := auditHash(v.last, v.d.epoch, v.seq, payload)
	pub := v.s.signer.Public().(ed25519.PublicKey)
	switch {
	case !bytes.Equal(hash, row[:len(hash)]):
		v.problem("entry %d does not follow the one before it", v.seq)
	case !ed25519.Verify(pub, checkpointText(v.d.epoch, v.seq, hash), row[len(hash):auditHead]):
		v.problem("entry %d is not signed by this device", v.seq)
	default:
		for _, c := range v.want[v.seq] {
			if c.Hash != hex.EncodeToString(hash) {
				v.problem("entry %d is another one than a checkpoint has signed", v.seq)
			}
		}
		v.last = hash
		return true
	}
	return false
}
