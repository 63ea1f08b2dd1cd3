package boltstore_test

import (
	"strings"
	"testing"
	"time"

	"postern/sync/hub/boltstore"
	"postern/sync/wire"
)

func openFleet(t *testing.T) *boltstore.Fleet {
	t.Helper()
	f, err := boltstore.OpenFleet(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// The newest reports of each device are kept, once, and the oldest go.
func TestReports(t *testing.T) {
	f := openFleet(t)
	var rs []boltstore.Report
	for i := range boltstore.TelemetryKept + 10 {
		for _, d := range []string{"a", "ab", "b"} {
			if d == "a" || i < 3 {
				rs = append(rs, boltstore.Report{Device: d, At: noon, Taken: noon.Add(time.Duration(i) * time.Minute), Values: map[string]float64{"n": float64(i)}})
			}
		}
	}
	for range 2 {
		if err := f.PutReports(rs); err != nil {
			t.Fatal(err)
		}
	}
	for d, want := range map[string]int{"a": boltstore.TelemetryKept, "ab": 3, "b": 3, "c": 0} {
		got, err := f.Reports(d, 2000)
		if err != nil || len(got) != want {
			t.Errorf("%s: %d reports, %v; want %d", d, len(got), err, want)
		}
		if d == "a" && (got[0].Values["n"] != boltstore.TelemetryKept+9 || got[0].Device != "a" || !got[0].At.Equal(noon)) {
			t.Errorf("newest %+v", got[0])
		}
	}
	if got, err := f.Reports("a", 1); err != nil || len(got) != 1 {
		t.Errorf("one: %v, %v", got, err)
	}
}

// A log that is shorter, or other, than it was is noticed, and what was known stays.
func TestCheckpoints(t *testing.T) {
	f := openFleet(t)
	put := func(seq uint64, hash byte, key string) string {
		t.Helper()
		h := make([]byte, 32)
		h[0] = hash
		problem, err := f.PutCheckpoint(boltstore.Checkpoint{Device: "a", At: noon, Checkpoint: wire.Checkpoint{Epoch: "e", File: "results", Seq: seq, Hash: h, Key: key}})
		if err != nil {
			t.Fatal(err)
		}
		return problem
	}
	for _, c := range []struct {
		seq     uint64
		hash    byte
		key     string
		problem string
	}{{5, 1, "k", ""}, {5, 1, "k", ""}, {9, 2, "k", ""}, {7, 3, "k", "ends at 7, and was at 9"}, {9, 4, "k", "another one"}, {12, 5, "other", "another key"}, {10, 6, "k", ""}} {
		if got := put(c.seq, c.hash, c.key); (got == "") != (c.problem == "") || !strings.Contains(got, c.problem) {
			t.Errorf("%d: %q, want %q", c.seq, got, c.problem)
		}
	}
	got, err := f.Checkpoints("a")
	if err != nil || len(got) != 1 || got[0].Seq != 10 || got[0].File != "results" || !got[0].At.Equal(noon) {
		t.Errorf("kept %+v, %v", got, err)
	}
}
