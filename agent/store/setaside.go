package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// bucketUnreadable keeps records that could not be read: bucket, 0, key -> value. It is
// made when it is needed, and nothing here ever empties it.
const bucketUnreadable = "unreadable"

// setAside moves records that cannot be read out of the way, with whatever would lead
// to them, so that one bad sector neither keeps the agent from starting nor makes a list
// fail for ever. The keys of the file are known to be right by then; see mendKeys. What
// was lost is asked of the hub again. What a missing record would open is closed
// instead: an unreadable hold still holds, an unreadable lock stays locked.
func (s *Store) setAside(d *dbFile) error {
	owners, err := s.unreadableOwners(d)
	if err == nil && len(owners) > 0 {
		err = s.moveAside(d, owners) // first: it decides which records can be read
	}
	if err != nil {
		return err
	}
	bad, err := s.unreadable(d)
	if err != nil || len(bad) == 0 && len(owners) == 0 {
		return err
	}
	if err := s.moveAside(d, bad); err != nil {
		return err
	}
	n := len(owners) + len(bad)
	s.opts.Log.Error("records cannot be read and were set aside", "file", d.path, "records", n)
	return s.update(d, func(tx *bolt.Tx) error {
		return errors.Join(bucket(tx, bucketMeta).Put([]byte(keyResync), []byte("records were set aside")),
			s.audit(tx, agent.AuditEvent{Action: agent.AuditSystem, Detail: map[string]string{"set_aside": fmt.Sprint(n), "file": d.schema.kind}}))
	})
}

// badRow is a record that cannot be read.
type badRow struct {
	bucket string
	key    []byte
}

// moveAside keeps the rows in bucketUnreadable, takes them out of their places, and
// settles what depends on them, a few at a time.
func (s *Store) moveAside(d *dbFile, rows []badRow) error {
	for len(rows) > 0 {
		n := min(len(rows), rewriteBatch)
		err := s.update(d, func(tx *bolt.Tx) error {
			aside, err := tx.CreateBucketIfNotExists([]byte(bucketUnreadable))
			if err != nil {
				return err
			}
			for _, r := range rows[:n] {
				if err := s.moveRow(tx, aside, r); err != nil {
					return fmt.Errorf("set aside %s %s: %w", r.bucket, quoteKey(r.key), err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func (s *Store) moveRow(tx *bolt.Tx, aside *bolt.Bucket, r badRow) error {
	b := bucket(tx, r.bucket)
	v := bytes.Clone(b.Get(r.key))
	if v == nil {
		return nil // it went with another one
	}
	if err := aside.Put(join(r.bucket, string(r.key)), v); err != nil {
		return err
	}
	if err := b.Delete(r.key); err != nil {
		return err
	}
	if after := afterLosing(r.bucket); after != nil {
		return after(s, tx, r.key, v)
	}
	return nil
}

// unreadableOwners finds keys of people and sessions that do not open.
func (s *Store) unreadableOwners(d *dbFile) (bad []badRow, err error) {
	err = s.view(d, func(tx *bolt.Tx) error {
		return bucket(tx, bucketOwners).ForEach(func(k, v []byte) error {
			pair, err := d.vault.unwrapOwner(tx, k, v)
			clear(pair)
			if owner, _, bent := splitOwnerRow(k); bent != nil || err != nil && owner != "" {
				bad = append(bad, badRow{bucketOwners, bytes.Clone(k)})
			}
			return nil
		})
	})
	return bad, err
}

// unreadable finds records that do not open. The audit log is left as it is: VerifyAudit
// tells about it, and an entry in another place would look like a forgery.
func (s *Store) unreadable(d *dbFile) (bad []badRow, err error) {
	var plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	err = s.view(d, func(tx *bolt.Tx) error {
		ring := &keyring{vault: d.vault, tx: tx}
		for _, r := range d.schema.sealed {
			if r.bucket == bucketAudit {
				continue
			}
			eachRow(bucket(tx, r.bucket), &problems{}, func(k, v []byte) error {
				if cap(plain) < len(v) {
					clear(plain[:cap(plain)])
					plain = make([]byte, 0, 2*len(v))
				}
				if err := s.opens(ring, r, k, v, plain[:0]); err != nil {
					bad = append(bad, badRow{r.bucket, bytes.Clone(k)})
				}
				return nil
			})
		}
		return nil
	})
	slices.SortStableFunc(bad, func(a, b badRow) int {
		return cmp.Compare(slices.Index(lastly, a.bucket), slices.Index(lastly, b.bucket))
	})
	return bad, err
}

// lastly are the buckets whose loss takes other records along: these have to be readable,
// or out of the way, by then.
var lastly = []string{caseEntries, caseLists, caseDests, caseSessions}

// dropAside deletes what was set aside of an owner who is erased.
func dropAside(tx *bolt.Tx, owner string) error {
	b := tx.Bucket([]byte(bucketUnreadable))
	if b == nil {
		return nil
	}
	for _, name := range []string{bucketOwners, bucketTemplates, caseFaces} {
		if err := dropPrefix(b, join(name, owner, "")); err != nil {
			return err
		}
	}
	return b.Delete(join(bucketSubjects, owner))
}

// isAside tells whether anything of a subject was set aside.
func isAside(tx *bolt.Tx, id string) bool {
	b := tx.Bucket([]byte(bucketUnreadable))
	return b != nil && (has(b, join(bucketSubjects, id)) || countPrefix(b, join(bucketTemplates, id, "")) > 0)
}

// opens tells whether a sealed value can be opened. room is for what it holds.
func (s *Store) opens(ring *keyring, r sealedRows, k, v, room []byte) error {
	b, head, err := r.bind(s, k, v)
	if err == nil && head >= len(v) {
		err = errors.New("value is empty")
	}
	if err == nil {
		_, err = ring.vault.unsealTo(room, ring, v[head:], s.bound(b))
	}
	return err
}

// mendKeys takes a file up the ladder in which the keys of everything cannot be read,
// while those of another file show that it is not the root key that is wrong.
func (s *Store) mendKeys() error {
	causes, right := map[**dbFile]error{}, false
	for _, at := range []**dbFile{&s.templates, &s.results, &s.cases} {
		sealed, err := s.keysOpen(*at)
		switch {
		case err != nil:
			causes[at] = err
		case sealed:
			right = true
		}
	}
	if !right {
		return nil // what follows says that the key is wrong
	}
	for at, cause := range causes {
		if err := s.mend(at, cause); err != nil {
			return err
		}
	}
	return nil
}

// keysOpen verifies that the store keys, the secrets and the general key of a file open.
// sealed is false for a file that has none yet.
func (s *Store) keysOpen(d *dbFile) (sealed bool, err error) {
	v := s.vaultOf(d)
	err = guarded(func() error {
		return d.db.View(func(tx *bolt.Tx) error {
			if sealed = bucket(tx, bucketMeta).Get([]byte(keySealed)) != nil; !sealed {
				return nil
			}
			if storeKeyVersion(tx, classGeneral) == 0 || storeKeyVersion(tx, classBiometric) == 0 {
				return errors.New("a store key is missing")
			}
			err := bucket(tx, bucketKeys).ForEach(func(k, value []byte) error {
				key, _, err := v.unwrapStoreKey(k, value)
				clear(key)
				return err
			})
			if err != nil {
				return err
			}
			_, err = v.ownerKeys(tx, "", generation(tx, ""))
			return err
		})
	})
	d.noteStuck(err)
	return sealed, err
}

// mend replaces an open file whose keys cannot be read.
func (s *Store) mend(at **dbFile, cause error) error {
	d := *at
	if err := d.close(); err != nil {
		return diskError(d.name(), err)
	}
	o := s.opts
	o.provenBy = func(try *dbFile) error {
		_, err := s.keysOpen(try)
		return err
	}
	r, err := climb(fileNames[d.schema.kind], d.schema, o, damaged(d.name(), cause))
	if err != nil {
		return err
	}
	s.recovered = append(s.recovered, *r)
	again, err := openFile(fileNames[d.schema.kind], d.schema, s.opts)
	if err != nil {
		return err
	}
	*at = again
	return nil
}

var fileNames = map[string]string{"templates": TemplatesFile, "results": ResultsFile, "cases": CasesFile}
