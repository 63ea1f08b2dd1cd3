package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// gcm is a Sealer that seals, so that tests see what depends on it.
type gcm struct{ cipher.AEAD }

func newGCM(tb testing.TB) gcm {
	tb.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	must(tb, err)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	must(tb, err)
	return gcm{aead}
}

func (g gcm) Seal(plain, ad []byte) ([]byte, error)  { return g.AEAD.Seal(nil, nil, plain, ad), nil }
func (g gcm) Open(sealed, ad []byte) ([]byte, error) { return g.AEAD.Open(nil, nil, sealed, ad) }

func sealedStore(t *testing.T) *Store {
	t.Helper()
	o := testOptions(t)
	o.Sealer = newGCM(t)
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
	b := Binding{Kind: KindTemplate, Device: "d", Subject: "", Record: "x|y", Version: 3}
	got, err := ParseBinding(b.Bytes())
	if err != nil || got != b {
		t.Errorf("%+v, %v", got, err)
	}
	for _, ad := range [][]byte{nil, {1}, {1, 5, 'a'}, append(b.Bytes(), 0)} {
		if _, err := ParseBinding(ad); err == nil {
			t.Errorf("%v was accepted", ad)
		}
	}
	if bytes.Equal(Binding{Kind: "a", Device: "bc"}.Bytes(), Binding{Kind: "ab", Device: "c"}.Bytes()) {
		t.Error("two bindings look alike")
	}
}
