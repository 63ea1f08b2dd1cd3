package store

import (
	"fmt"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// TestSetAside garbles single records: the agent starts with the rest, nothing is thrown
// away, and the hub is asked for what is missing.
func TestSetAside(t *testing.T) {
	garble := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for name, c := range map[string]struct {
		bucket    string
		key       []byte
		subjects  int
		templates int
	}{
		"a subject":  {bucketSubjects, []byte("s3"), 4, 8},
		"a template": {bucketTemplates, templateKey("s3", "t0"), 5, 9},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(testOptions(t)) // broken on purpose: no check at the end
			must(t, err)
			for i := range 5 {
				ts := testTemplates(2)
				ts[0].ID, ts[1].ID = "t0", "t1"
				_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: ts})
				must(t, err)
			}
			must(t, s.templates.db.Update(func(tx *bolt.Tx) error {
				b := bucket(tx, c.bucket)
				return b.Put(c.key, garble(append([]byte{}, b.Get(c.key)...)))
			}))
			wantCode(t, s.EachTemplate("", func(agent.Template) error { return nil }), agent.CodeStorage)
			must(t, s.Close())
			s.opts.Recover = true
			s = mustOpen(t, s.opts)
			n := 0
			must(t, s.EachTemplate("", func(agent.Template) error { n++; return nil }))
			st, err := s.Stats()
			must(t, err)
			if n != c.templates || st.Templates != c.templates || st.Subjects != c.subjects {
				t.Errorf("%d templates, %+v", n, st)
			}
			if need, err := s.NeedsResync(); err != nil || !need {
				t.Errorf("resync is not asked for: %v", err)
			}
			must(t, s.view(s.templates, func(tx *bolt.Tx) error {
				if kept := tx.Bucket([]byte(bucketUnreadable)); kept == nil || !has(kept, append([]byte(c.bucket+"\x00"), c.key...)) {
					t.Error("the record was not kept")
				}
				return nil
			}))
		})
	}
}
