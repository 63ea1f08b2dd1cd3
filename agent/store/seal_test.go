package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

func sealedStore(t *testing.T) *Store {
	t.Helper()
	o := testOptions(t)
	s := mustOpen(t, o)
	for _, id := range []string{"a", "b"} {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id, Name: "Margarete"}, Templates: testTemplates(2)})
		must(t, err)
		_, err = s.AppendResult(testResult(id, agent.Approved))
		must(t, err)
	}
	return s
}

func TestSealerSeesEverything(t *testing.T) {
	s := sealedStore(t)
	s = mustReopen(t, s)
	if ts, err := s.Templates("a"); err != nil || len(ts) != 2 {
		t.Fatalf("%d templates: %v", len(ts), err)
	}
	mustClose(t, s)
	for _, name := range []string{TemplatesFile, ResultsFile} {
		b, err := os.ReadFile(filepath.Join(s.opts.Dir, name))
		must(t, err)
		for _, secret := range []string{"Margarete", "camera-1", "Approved", "model_id"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s shows %q", name, secret)
			}
		}
	}
}

// TestSealerBinds swaps two sealed values: each is good, but not in that place.
func TestSealerBinds(t *testing.T) {
	s := sealedStore(t)
	swap := func(d *dbFile, name string, first, second []byte) {
		t.Helper()
		must(t, d.db.Update(func(tx *bolt.Tx) error {
			b := bucket(tx, name)
			x, y := bytes.Clone(b.Get(first)), bytes.Clone(b.Get(second))
			must(t, b.Put(first, y))
			return b.Put(second, x)
		}))
	}
	ts, err := s.Templates("a")
	must(t, err)
	k0, k1 := templateKey("a", ts[0].ID), templateKey("a", ts[1].ID)
	swap(s.templates, bucketTemplates, k0, k1)
	_, err = s.Templates("a")
	wantCode(t, err, agent.CodeStorage, "cannot be read")
	wantCode(t, s.Check(), agent.CodeStorage, ts[0].ID)
	swap(s.templates, bucketTemplates, k0, k1)

	swap(s.results, bucketResults, seqKey(1), seqKey(2))
	_, err = s.Results(ResultQuery{})
	wantCode(t, err, agent.CodeStorage, "stored result 2")
	swap(s.results, bucketResults, seqKey(1), seqKey(2))
}

func TestBinding(t *testing.T) {
	full := Binding{Kind: "k", Tenant: "t", Device: "d", Subject: "s", Record: "r", Model: "m", Version: 2}
	for name, change := range map[string]func(*Binding){
		"kind": func(b *Binding) { b.Kind = "x" }, "tenant": func(b *Binding) { b.Tenant = "x" },
		"device": func(b *Binding) { b.Device = "x" }, "subject": func(b *Binding) { b.Subject = "x" },
		"record": func(b *Binding) { b.Record = "x" }, "model": func(b *Binding) { b.Model = "x" },
		"version": func(b *Binding) { b.Version = 3 },
	} {
		other := full
		change(&other)
		if bytes.Equal(full.Bytes(), other.Bytes()) {
			t.Errorf("the %s is not bound", name)
		}
	}
	if bytes.Equal(Binding{Kind: "a", Tenant: "bc"}.Bytes(), Binding{Kind: "ab", Tenant: "c"}.Bytes()) {
		t.Error("two bindings look alike")
	}
}
