package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/keys"
)

// unencrypted turns a folder back into one of a time before there were keys.
func unencrypted(t *testing.T, o Options) {
	t.Helper()
	s, err := Open(o)
	must(t, err)
	for _, d := range s.files() {
		must(t, s.update(d, func(tx *bolt.Tx) error {
			for _, r := range d.schema.sealed {
				must(t, decryptBucket(s, tx, r))
			}
			for _, name := range []string{bucketKeys, bucketOwners} {
				must(t, tx.DeleteBucket([]byte(name)))
				must(t, createBuckets(name)(tx))
			}
			meta := bucket(tx, bucketMeta)
			must(t, meta.Delete([]byte(keySealed)))
			return meta.Delete([]byte(keyTenant))
		}))
	}
	must(t, s.Close())
}

func decryptBucket(s *Store, tx *bolt.Tx, r sealedRows) error {
	b := bucket(tx, r.bucket)
	plain := map[string][]byte{}
	err := b.ForEach(func(k, v []byte) error {
		bind, head, err := r.bind(s, k, v)
		if err != nil {
			return err
		}
		p, err := s.unseal(tx, v[head:], bind)
		plain[string(k)] = append(append(bytes.Clone(v[:head]), plainVersion), p...)
		return err
	})
	for k, v := range plain {
		if err := b.Put([]byte(k), v); err != nil {
			return err
		}
	}
	return err
}

func enrolMany(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		id := fmt.Sprint("s", i)
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id, Name: "Margarete"}, Templates: testTemplates(3)})
		must(t, err)
		_, err = s.AppendResult(testResult(id, agent.Approved))
		must(t, err)
	}
}

func wantMany(t *testing.T, s *Store, n int) {
	t.Helper()
	must(t, s.Check())
	for i := range n {
		if ts, err := s.Templates(fmt.Sprint("s", i)); err != nil || len(ts) != 3 {
			t.Fatalf("subject %d has %d templates: %v", i, len(ts), err)
		}
	}
	if rs, err := s.Results(ResultQuery{Limit: 1000}); err != nil || len(rs) != n {
		t.Fatalf("%d results: %v", len(rs), err)
	}
}

// filesHold tells whether any file of the folder holds the bytes.
func filesHold(t *testing.T, dir string, secret []byte) bool {
	t.Helper()
	for _, name := range []string{TemplatesFile, ResultsFile, CasesFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if bytes.Contains(b, secret) {
			return true
		}
	}
	return false
}

func TestAdoptsPlainFolder(t *testing.T) {
	o := testOptions(t)
	const n = 300 // more than one batch
	s := mustOpen(t, o)
	enrolMany(t, s, n)
	mustClose(t, s)
	unencrypted(t, o)
	if !filesHold(t, o.Dir, []byte("Margarete")) {
		t.Fatal("the test's folder is not plain")
	}

	_, err := Open(o) // its root key has been settled
	wantCode(t, err, agent.CodeStorage, "not encrypted")
	fresh := o
	fresh.Root = memoryRoot()
	s = mustOpen(t, fresh)
	wantMany(t, s, n)
	s = mustReopen(t, s)
	wantMany(t, s, n)
	if filesHold(t, o.Dir, []byte("Margarete")) {
		t.Error("pages in the clear are left in the files")
	}
}

// TestAdoptAllowed takes over a plain folder under a root key that was there before.
func TestAdoptAllowed(t *testing.T) {
	o := testOptions(t)
	s := mustOpen(t, o)
	enrolMany(t, s, 5)
	mustClose(t, s)
	unencrypted(t, o)
	o.AdoptPlain = true
	wantMany(t, mustOpen(t, o), 5)
}

// TestAdoptResumes stops taking over after each transaction in turn.
func TestAdoptResumes(t *testing.T) {
	plain := testOptions(t)
	const n = 200
	s := mustOpen(t, plain)
	enrolMany(t, s, n)
	mustClose(t, s)
	unencrypted(t, plain)
	for stop := 0; ; stop++ {
		o := testOptions(t)
		must(t, os.CopyFS(o.Dir, os.DirFS(plain.Dir)))
		left := stop
		failpoint = func(string) error {
			if left--; left < 0 {
				return fmt.Errorf("stopped at transaction %d", stop)
			}
			return nil
		}
		s, err := Open(o)
		failpoint = nil
		if err == nil {
			must(t, s.Close())
			t.Logf("taking over needs %d transactions", stop)
			return
		}
		wantMany(t, mustOpen(t, o), n)
	}
}

// TestPlantedPlainRecord: a record without encryption in an encrypted folder is
// refused, however it got there.
func TestPlantedPlainRecord(t *testing.T) {
	s, err := Open(testOptions(t))
	must(t, err)
	defer s.Close()
	enrolMany(t, s, 1)
	tp := goldenTemplate()
	tp.SubjectID = "s0"
	must(t, s.templates.db.Update(func(tx *bolt.Tx) error {
		return bucket(tx, bucketTemplates).Put(templateKey("s0", "t1"), append([]byte{plainVersion}, templatePayload(t, tp)...))
	}))
	_, err = s.Templates("s0")
	wantCode(t, err, agent.CodeStorage, "not encrypted")
	wantCode(t, s.Check(), agent.CodeStorage)
}

func TestMissingRootKey(t *testing.T) {
	o := testOptions(t)
	dir := filepath.Join(t.TempDir(), "keys")
	o.Root = func(existing bool) (Root, error) { return keys.Options{Kind: keys.File, Dir: dir}.Open(existing) }
	s := mustOpen(t, o)
	enrolMany(t, s, 2)
	mustClose(t, s)
	path := filepath.Join(dir, keys.FileName)
	must(t, os.Rename(path, path+".away"))
	_, err := Open(o)
	wantCode(t, err, agent.CodeUnavailable, "root key is missing", path)
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a new root key was made over old data")
	}
	must(t, os.Rename(path+".away", path))
	wantMany(t, mustOpen(t, o), 2)
}

func TestWrongRootKey(t *testing.T) {
	o := testOptions(t)
	s := mustOpen(t, o)
	enrolMany(t, s, 1)
	mustClose(t, s)
	other := &keys.Memory{}
	_, err := other.Open(false)
	must(t, err)
	o.Root = func(existing bool) (Root, error) { return other.Open(existing) }
	_, err = Open(o)
	wantCode(t, err, agent.CodeUnavailable, "is not here")
}

func TestOtherTenant(t *testing.T) {
	o := testOptions(t)
	o.Tenant = "acme"
	mustClose(t, mustOpen(t, o))
	o.Tenant = "initech"
	_, err := Open(o)
	wantCode(t, err, agent.CodeConflict, "acme", "initech")
}

// TestRotatedRoot: what a replaced root key wrapped is wrapped anew at opening,
// and then the old one is gone.
func TestRotatedRoot(t *testing.T) {
	o := testOptions(t)
	m := &keys.Memory{}
	o.Root = func(existing bool) (Root, error) { return m.Open(existing) }
	s := mustOpen(t, o)
	enrolMany(t, s, 3)
	mustClose(t, s)
	r, err := m.Open(true)
	must(t, err)
	must(t, r.Rotate())
	if !r.Pending() {
		t.Error("the old root key is gone too soon")
	}
	r.Close()
	wantMany(t, mustOpen(t, o), 3)
	r, err = m.Open(true)
	must(t, err)
	if r.Pending() {
		t.Error("the old root key is still there")
	}
}

// TestDeletingDestroysKeys: with a copy of the record and all remaining keys
// nothing can be opened.
func TestDeletingDestroysKeys(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	enrolMany(t, s, 2)
	ts, err := s.Templates("s0")
	must(t, err)
	key := templateKey("s0", ts[0].ID)
	var kept []byte
	must(t, s.view(s.templates, func(tx *bolt.Tx) error {
		kept = bytes.Clone(bucket(tx, bucketTemplates).Get(key))
		return nil
	}))
	_, err = s.DeleteSubject("s0")
	must(t, err)
	must(t, s.view(s.templates, func(tx *bolt.Tx) error {
		if _, err := s.openTemplate(tx, key, kept); err == nil {
			t.Error("a copy of a deleted template can be opened")
		}
		if generation(tx, "s0") != 0 || generation(tx, "s1") == 0 {
			t.Error("the wrong keys are gone")
		}
		return nil
	}))
}

func TestBiometricNeedsOwner(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	must(t, s.update(s.templates, func(tx *bolt.Tx) error {
		if _, err := s.seal(tx, []byte("face"), Binding{Kind: KindMedia}); err == nil {
			t.Error("a picture was sealed under the general key")
		}
		return nil
	}))
}

func FuzzSplitSealed(f *testing.F) {
	f.Add([]byte{sealedVersion, 1, 2, 'm', '1', 0, 0})
	f.Add([]byte{plainVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, v []byte) {
		gen, model, sealed, err := splitSealed(v)
		if err == nil && (gen == 0 || len(model) > maxModel || len(model)+len(sealed) >= len(v)) {
			t.Fatalf("%d %q %d of %x", gen, model, len(sealed), v)
		}
	})
}

func FuzzSplitOwnerRow(f *testing.F) {
	f.Add(ownerRow("a", 1))
	f.Add(ownerRow("", 7))
	f.Fuzz(func(t *testing.T, k []byte) {
		owner, gen, err := splitOwnerRow(k)
		if err == nil && !bytes.Equal(ownerRow(owner, gen), k) {
			t.Fatalf("%x became %q %d", k, owner, gen)
		}
	})
}
