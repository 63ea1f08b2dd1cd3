package store

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// bucketUnreadable keeps records that could not be read: bucket, 0, key -> value. It is
// made when it is needed, and nothing here ever empties it.
const bucketUnreadable = "unreadable"

// setAside moves subjects and templates that cannot be read out of the way, so that one
// bad sector does not keep the agent from starting, and asks the hub for them again.
// Where nothing at all can be read it is the key that is wrong: then it does nothing.
func (s *Store) setAside() error {
	bad, good, err := s.unreadable()
	if err != nil || len(bad) == 0 {
		return err
	}
	if good == 0 {
		return damaged(s.templates.name(), errors.New("none of its records can be read: is it the right root key?"))
	}
	s.opts.Log.Error("records cannot be read and were set aside", "file", s.templates.path, "records", len(bad))
	return s.update(s.templates, func(tx *bolt.Tx) error {
		aside, err := tx.CreateBucketIfNotExists([]byte(bucketUnreadable))
		if err != nil {
			return err
		}
		for _, r := range bad {
			if err := r.move(tx, aside); err != nil {
				return err
			}
		}
		return errors.Join(bucket(tx, bucketMeta).Put([]byte(keyResync), []byte("records were set aside")),
			s.audit(tx, agent.AuditEvent{Action: agent.AuditSystem, Detail: map[string]string{"set aside": "unreadable subjects and templates"}}))
	})
}

// badRow is a record that cannot be read.
type badRow struct {
	bucket, counter string
	key             []byte
}

func (r badRow) move(tx *bolt.Tx, aside *bolt.Bucket) error {
	b := bucket(tx, r.bucket)
	v := bytes.Clone(b.Get(r.key))
	if v == nil {
		return nil
	}
	return errors.Join(aside.Put(append([]byte(r.bucket+"\x00"), r.key...), v), b.Delete(r.key),
		addNumber(bucket(tx, bucketMeta), r.counter, -1))
}

// unreadable finds them. A template whose subject cannot be read goes with it.
func (s *Store) unreadable() (bad []badRow, good int, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		lost := map[string]bool{}
		c := bucket(tx, bucketSubjects).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if _, err := s.openSubject(tx, k, v); err == nil {
				good++
				continue
			}
			lost[string(k)] = true
			bad = append(bad, badRow{bucketSubjects, keySubjects, bytes.Clone(k)})
		}
		c = bucket(tx, bucketTemplates).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			owner, _, _ := bytes.Cut(k, []byte{0})
			if _, err := s.openTemplate(tx, k, v); err == nil && !lost[string(owner)] {
				good++
				continue
			}
			bad = append(bad, badRow{bucketTemplates, keyTemplates, bytes.Clone(k)})
		}
		return nil
	})
	return bad, good, err
}
