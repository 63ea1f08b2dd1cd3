// Package storetest opens stores for tests of the packages that use them.
package storetest

import (
	"testing"

	"postern/agent/keys"
	"postern/agent/store"
)

// Open opens a store in a temporary folder, changed by the given functions, and
// when the test ends checks its integrity and closes it.
func Open(tb testing.TB, change ...func(*store.Options)) *store.Store {
	tb.Helper()
	m := &keys.Memory{}
	o := store.Options{Dir: tb.TempDir(), Device: "device-under-test",
		Root: func(existing bool) (store.Root, error) { return m.Open(existing) }}
	for _, c := range change {
		c(&o)
	}
	s, err := store.Open(o)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Check(); err != nil {
			tb.Errorf("check store: %v", err)
		}
		if err := s.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	return s
}
