package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent/store"
)

// TestRecover damages a data folder and repairs it from the command line.
func TestRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	data := "--data=" + dir
	if a := postern(t, "enroll", "barack", face(t, "obama.jpg"), data); a.code != 0 {
		t.Fatal(a.err)
	}
	if a := postern(t, "recover", data); a.code != 0 || !strings.Contains(a.out, "sound") {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	path := filepath.Join(dir, store.TemplatesFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, len(raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := postern(t, "subjects", "list", data); a.code != exitStorage || !strings.Contains(a.err, "postern recover") {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	rs := decode[[]store.Recovery](t, postern(t, "recover", data, "--json"))
	if len(rs) != 1 || rs[0].File != store.TemplatesFile || rs[0].Rung != store.RungNew {
		t.Errorf("recovered %+v", rs)
	}
	if kept, err := os.Stat(rs[0].Quarantined); err != nil || kept.Size() != int64(len(raw)) {
		t.Errorf("the damaged file is not kept: %v", err)
	}
	if a := postern(t, "subjects", "list", data); a.code != 0 {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "doctor", data); !strings.Contains(a.out, "recoveries") || !strings.Contains(a.out, rs[0].Quarantined) {
		t.Errorf("doctor does not say it:\n%s", a.out)
	}
}
