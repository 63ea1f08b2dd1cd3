package store

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

func auditedStore(t *testing.T) (*Store, Options) {
	t.Helper()
	o := testOptions(t)
	o.Witness, o.Actor = filepath.Join(t.TempDir(), "witness"), "tester"
	s := mustOpen(t, o)
	enrolMany(t, s, 4)
	_, _, err := s.Erase("s1", "officer 7")
	must(t, err)
	must(t, s.Audit(agent.AuditEvent{Action: agent.AuditConfigure, Detail: map[string]string{"setting": "match.review"}}))
	return s, o
}

func TestAuditLog(t *testing.T) {
	s, _ := auditedStore(t)
	es, err := s.AuditLog(AuditQuery{})
	must(t, err)
	var got []string
	for _, e := range es {
		got = append(got, fmt.Sprint(e.Seq, " ", e.Action, " ", e.Actor, " ", e.Subject))
	}
	want := "6 configure tester |5 erase officer 7 |4 enrol tester s3|3 enrol tester s2|2 enrol tester |1 enrol tester s0"
	if strings.Join(got, "|") != want {
		t.Errorf("log %q, want %q", got, want)
	}
	es, err = s.AuditLog(AuditQuery{Subject: "s1"}) // who knows the id finds what was done
	must(t, err)
	if len(es) != 2 || es[0].Tag == "" || es[0].Action != agent.AuditErase {
		t.Errorf("of an erased subject: %+v", es)
	}
	es, err = s.AuditLog(AuditQuery{Action: agent.AuditEnrol, Limit: 2})
	if err != nil || len(es) != 2 {
		t.Errorf("%d entries: %v", len(es), err)
	}
}

// TestAuditKeepsNoNames: once a person is erased the log does not name them, even
// to who has all keys.
func TestAuditKeepsNoNames(t *testing.T) {
	s, _ := auditedStore(t)
	must(t, s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketAudit).ForEach(func(k, v []byte) error {
			_, payload, err := s.openAudit(tx, s.templates, k, v)
			if bytes.Contains(payload, []byte(`"s1"`)) {
				t.Errorf("entry %x names the subject: %s", k, payload)
			}
			return err
		})
	}))
}

func TestAuditVerifies(t *testing.T) {
	s, o := auditedStore(t)
	r, err := s.VerifyAudit()
	must(t, err)
	if len(r.Problems) > 0 || r.Files[0].Entries != 6 || r.Kept != 1 {
		t.Fatalf("%+v", r)
	}
	s = mustReopen(t, s)
	r, err = s.VerifyAudit()
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("%+v %v", r, err)
	}
	mustClose(t, s)
	o.Witness = ""
	s = mustOpen(t, o)
	r, err = s.VerifyAudit()
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "cut off cannot be seen") {
		t.Fatalf("without a witness: %+v %v", r, err)
	}
}

// TestAuditFinds tampers with the log in one way at a time.
func TestAuditFinds(t *testing.T) {
	row := func(tx *bolt.Tx, n uint64) []byte { return bytes.Clone(bucket(tx, bucketAudit).Get(seqKey(n))) }
	put := func(tx *bolt.Tx, n uint64, v []byte) error { return bucket(tx, bucketAudit).Put(seqKey(n), v) }
	cut := func(tx *bolt.Tx, to uint64) error {
		for n := uint64(6); n > to; n-- {
			must(t, bucket(tx, bucketAudit).Delete(seqKey(n)))
		}
		return bucket(tx, bucketMeta).Put([]byte(keyAuditEnd), append(seqKey(to), row(tx, to)[:32]...))
	}
	for name, c := range map[string]struct {
		tamper func(*Store, *bolt.Tx) error
		want   string
	}{
		"changed hash":      {func(_ *Store, tx *bolt.Tx) error { v := row(tx, 3); v[0] ^= 1; return put(tx, 3, v) }, "does not follow"},
		"changed signature": {func(_ *Store, tx *bolt.Tx) error { v := row(tx, 3); v[40] ^= 1; return put(tx, 3, v) }, "not signed"},
		"changed entry":     {func(_ *Store, tx *bolt.Tx) error { v := row(tx, 3); v[len(v)-1] ^= 1; return put(tx, 3, v) }, "entry 3 was changed"},
		"gap":               {func(_ *Store, tx *bolt.Tx) error { return bucket(tx, bucketAudit).Delete(seqKey(3)) }, "entry 3 is missing"},
		"reordered": {func(_ *Store, tx *bolt.Tx) error {
			a, b := row(tx, 3), row(tx, 4)
			must(t, put(tx, 3, b))
			return put(tx, 4, a)
		}, "entry 3 was changed"},
		"last one gone": {func(_ *Store, tx *bolt.Tx) error { return bucket(tx, bucketAudit).Delete(seqKey(6)) }, "should at 6"},
		"cut off":       {func(_ *Store, tx *bolt.Tx) error { return cut(tx, 4) }, "a checkpoint says that there were 6"},
		"all gone": {func(_ *Store, tx *bolt.Tx) error {
			must(t, tx.DeleteBucket([]byte(bucketAudit)))
			must(t, createBuckets(bucketAudit)(tx))
			return bucket(tx, bucketMeta).Delete([]byte(keyAuditEnd))
		}, "there were 6"},
		// By somebody who has all keys of the device, but did not reach the witness.
		"cut off and written anew": {func(s *Store, tx *bolt.Tx) error {
			must(t, cut(tx, 4))
			for range 3 {
				must(t, s.audit(tx, agent.AuditEvent{Action: agent.AuditSystem, Actor: "nobody"}))
			}
			return nil
		}, "another one than a checkpoint has signed"},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := auditedStore(t)
			mustClose(t, s)
			s, err := Open(o)
			must(t, err)
			defer s.Close()
			must(t, s.templates.db.Update(func(tx *bolt.Tx) error { return c.tamper(s, tx) }))
			s.templates.audited.Store(0) // the tamperer tells no witness
			r, err := s.VerifyAudit()
			must(t, err)
			if len(r.Problems) == 0 || !strings.Contains(strings.Join(r.Problems, "\n"), c.want) {
				t.Errorf("problems %q, want %q", r.Problems, c.want)
			}
		})
	}
}

// TestAuditFileReplaced: another file in the place of the one that was witnessed.
func TestAuditFileReplaced(t *testing.T) {
	s, o := auditedStore(t)
	kept, err := s.Checkpoints()
	must(t, err)
	pub := s.PublicKey()
	mustClose(t, s)
	for _, c := range kept {
		must(t, c.Verify(pub))
		if c.Verify(hex.EncodeToString(make([]byte, 32))) == nil {
			t.Error("anybody's key verifies")
		}
	}
	must(t, os.Remove(filepath.Join(o.Dir, TemplatesFile)))
	o.Witness = ""
	s = mustOpen(t, o)
	r, err := s.VerifyAudit(kept...)
	if err != nil || len(r.Problems) == 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestAuditIsOneWithTheDeed: a deed that fails leaves no entry.
func TestAuditIsOneWithTheDeed(t *testing.T) {
	s, _ := auditedStore(t)
	o := s.opts.MaxTemplates
	if _, err := s.AddTemplates("s0", testTemplates(o)...); err == nil {
		t.Fatal("too many templates were stored")
	}
	es, err := s.AuditLog(AuditQuery{})
	if err != nil || len(es) != 6 {
		t.Errorf("%d entries: %v", len(es), err)
	}
}

func FuzzDecodeAudit(f *testing.F) {
	f.Add([]byte(`{"at":1,"action":"enrol","actor":"a","tag":"00","detail":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) { decodeAudit(b) })
}

func FuzzDecodeCheckpoints(f *testing.F) {
	f.Add([]byte(`[{"file":"templates","epoch":"e","seq":1,"hash":"00","signature":"00","at":"2026-11-02T14:03:00Z"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, err := DecodeCheckpoints(b)
		if err != nil {
			return
		}
		for _, c := range cs {
			if c.Verify(strings.Repeat("00", 32)) == nil {
				t.Fatalf("verified %+v", c)
			}
		}
	})
}
