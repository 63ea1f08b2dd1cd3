package store

import (
	"bytes"
	"os"
	"testing"
)

// FuzzVerifyTree reads files that may hold anything: it must find a reason or none, and
// never run away or fall over. What it passes, bbolt has to be able to check.
func FuzzVerifyTree(f *testing.F) {
	s := mustOpen(f, testOptions(f))
	for range 40 {
		_, err := s.AppendResult(testResult("a", "Approved"))
		must(f, err)
	}
	whole, err := os.ReadFile(s.results.path)
	must(f, err)
	f.Add(uint32(0), uint16(0), byte(0))
	f.Add(uint32(2*4096+10), uint16(1), byte(7))
	f.Fuzz(func(t *testing.T, at uint32, n uint16, x byte) {
		b := bytes.Clone(whole)
		for i := range int(n%64) + 1 {
			b[(int(at)+i*97)%len(b)] ^= x
		}
		ms, err := readMetas(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			err := verifyTree(bytes.NewReader(b), m.txid)
			if x == 0 && err != nil {
				t.Errorf("a sound file: %v", err)
			}
		}
		if _, err := readMetas(bytes.NewReader(b[:int(at)%len(b)])); err != nil && int(at)%len(b) > 1<<17 {
			t.Error(err)
		}
	})
}
