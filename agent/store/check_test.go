package store

import (
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// TestCheckFinds breaks one thing at a time behind the store's back.
func TestCheckFinds(t *testing.T) {
	put := func(name string, k, v []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return bucket(tx, name).Put(k, v) }
	}
	del := func(name string, k []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return bucket(tx, name).Delete(k) }
	}
	for name, breakIt := range map[string]func(*bolt.Tx) error{
		"subject gone":      del(bucketSubjects, []byte("a")),
		"subject counter":   put(bucketMeta, []byte(keySubjects), seqKey(9)),
		"template counter":  put(bucketMeta, []byte(keyTemplates), seqKey(9)),
		"template garbled":  put(bucketTemplates, templateKey("a", "x"), []byte{1, 2, 3}),
		"template key":      put(bucketTemplates, []byte("x"), []byte{1}),
		"dimension":         put(bucketSpaces, []byte("s1"), seqKey(9)),
		"result gone":       del(bucketResults, seqKey(2)),
		"last result gone":  del(bucketResults, seqKey(3)),
		"id elsewhere":      put(bucketIDs, []byte("r1"), seqKey(2)),
		"id without result": put(bucketIDs, []byte("r9"), seqKey(9)),
		"index gone":        del(bucketBySubject, bySubjectKey("a", 1)),
		"index too much":    put(bucketBySubject, bySubjectKey("b", 1), []byte{}),
		"outbox gap":        del(bucketOutbox, seqKey(2)),
		"outbox end":        del(bucketOutbox, seqKey(3)),
		"outbox value":      put(bucketOutbox, seqKey(3), []byte{7}),
		"outbox too much":   put(bucketOutbox, seqKey(4), []byte{outboxResult}),
		"acked":             put(bucketMeta, []byte(keyAcked), seqKey(2)),
		"counter malformed": put(bucketMeta, []byte(keyAcked), []byte{1}),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(testOptions(t)) // broken on purpose: no check at the end
			must(t, err)
			defer s.Close()
			_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(2)})
			must(t, err)
			for _, id := range []string{"r1", "r2", "r3"} {
				r := testResult("a", agent.Approved)
				r.ID = id
				_, err := s.AppendResult(r)
				must(t, err)
			}
			_, err = s.Ack(s.Epoch(), 1)
			must(t, err)
			must(t, s.Check())
			for _, d := range []*dbFile{s.templates, s.results} {
				// Only one of the files has the bucket.
				guarded(func() error { return d.db.Update(breakIt) })
			}
			wantCode(t, s.Check(), agent.CodeStorage)
		})
	}
}
