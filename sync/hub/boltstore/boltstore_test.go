package boltstore_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/hub/hubtest"
)

func TestMain(m *testing.M) {
	// Each step of the model syncs the disk several times; -rapid.checks overrules.
	if err := flag.Set("rapid.checks", "15"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	hubtest.Run(t, func(dir string) (hub.Store, error) { return boltstore.Open(dir) })
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	s, err := boltstore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boltstore.Open(dir); agent.ErrorCode(err) != agent.CodeStorage {
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
	if _, err := boltstore.Open(bad); agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("a file of zeros: %v", err)
	}
}

// BenchmarkIngest commits batches of 64 rows of 100 devices, 16 in a transaction.
func BenchmarkIngest(b *testing.B) {
	s, err := boltstore.Open(b.TempDir())
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
