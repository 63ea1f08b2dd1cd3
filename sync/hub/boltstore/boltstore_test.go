package boltstore_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/hub/hubtest"
	"postern/sync/wire"
)

func TestMain(m *testing.M) {
	// Each step of the model syncs the disk several times; -rapid.checks overrules.
	if err := flag.Set("rapid.checks", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	hubtest.Run(t, func(dir string) (hub.Store, error) { return boltstore.Open(dir, boltstore.Sealing{}) })
}

// sealing is of a hub whose key is k.
func sealing(k byte) boltstore.Sealing {
	return boltstore.Sealing{Key: bytes.Repeat([]byte{k}, 32), Tag: tag}
}

func tag(subject string) []byte {
	sum := sha256.Sum256([]byte(subject))
	return sum[:16]
}

func TestSealedStore(t *testing.T) {
	hubtest.Run(t, func(dir string) (hub.Store, error) { return boltstore.Open(dir, sealing(1)) })
}

func mustOpen(t *testing.T, dir string, s boltstore.Sealing) *boltstore.Store {
	t.Helper()
	st, err := boltstore.Open(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// What rows say is not in the file, also when it was once; and nothing of somebody who
// was erased is left in it after the next start, nor comes back by a late row.
func TestErased(t *testing.T) {
	dir := t.TempDir()
	at := hubtest.At
	st := mustOpen(t, dir, boltstore.Sealing{})
	ingest := func(rows ...wire.Row) {
		t.Helper()
		if _, err := st.Ingest([]hub.Batch{{Device: "a", Epoch: "e", At: at, Rows: rows}}); err != nil {
			t.Fatal(err)
		}
	}
	inFile := func(text string) bool {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, boltstore.File))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(raw, []byte(text))
	}
	subjects := func() (out []string) {
		t.Helper()
		rows, err := st.Rows("a", "e", 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Erased {
				out = append(out, "erased")
				continue
			}
			res, err := wire.Row{Seq: r.Seq, Kind: r.Kind, Body: r.Body}.Result()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, res.SubjectID)
		}
		return out
	}
	reopen := func(s boltstore.Sealing) {
		t.Helper()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		st = mustOpen(t, dir, s)
	}
	ingest(hubtest.Result(1, "ada-lovelace", at), hubtest.Result(2, "bob-stranger", at))
	if !inFile("ada-lovelace") {
		t.Fatal("the file does not show that it was in the clear once, so this test shows nothing")
	}
	reopen(sealing(1))
	ingest(hubtest.Result(3, "ada-lovelace", at))
	if inFile("ada-lovelace") || inFile("bob-stranger") {
		t.Error("names are in the file in the clear")
	}
	if got := subjects(); !slices.Equal(got, []string{"ada-lovelace", "bob-stranger", "ada-lovelace"}) {
		t.Errorf("%q", got)
	}
	erasure := wire.Erasure{Tag: tag("ada-lovelace"), Version: 1, At: at.Add(time.Minute).UnixMicro()}
	if n, err := st.Erase([]wire.Erasure{erasure}); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := st.Erase([]wire.Erasure{erasure}); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
	ingest(hubtest.Result(4, "ada-lovelace", at), hubtest.Result(5, "ada-lovelace", at.Add(time.Hour)))
	want := []string{"erased", "bob-stranger", "erased", "erased", "ada-lovelace"} // the last one decided after a new enrolment
	if got := subjects(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	reopen(sealing(1))
	if got := subjects(); !slices.Equal(got, want) {
		t.Errorf("after a restart %q, want %q", got, want)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]boltstore.Sealing{"no key": {}, "half a sealing": {Key: make([]byte, 32)}} {
		if _, err := boltstore.Open(dir, s); agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("%s: %v", name, err)
		}
	}
	st = mustOpen(t, dir, sealing(2))
	defer st.Close()
	if _, err := st.Rows("a", "e", 0, 9); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("with another hub's key: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	s, err := boltstore.Open(dir, boltstore.Sealing{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boltstore.Open(dir, boltstore.Sealing{}); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("a second hub on one file: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := s.Ingest([]hub.Batch{hubtest.Batch("a", "e", 1)}); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("ingest after close: %v", err)
	}
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, boltstore.File), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := boltstore.Open(bad, boltstore.Sealing{}); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("a file of zeros: %v", err)
	}
}

// BenchmarkIngest commits batches of 64 rows of 100 devices, 16 in a transaction.
func BenchmarkIngest(b *testing.B) {
	s, err := boltstore.Open(b.TempDir(), boltstore.Sealing{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	next := [100]uint64{}
	rows := 0
	for i := 0; b.Loop(); i++ {
		var batches []hub.Batch
		for j := range 16 {
			d := (i*16 + j) % len(next)
			numbers := make([]uint64, 64)
			for k := range numbers {
				next[d]++
				numbers[k] = next[d]
			}
			batches = append(batches, hubtest.Batch("device-"+string(rune('a'+d%26))+string(rune('a'+d/26)), "epoch", numbers...))
		}
		if _, err := s.Ingest(batches); err != nil {
			b.Fatal(err)
		}
		rows += 16 * 64
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
