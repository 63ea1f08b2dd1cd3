package registry_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/sync/registry"
)

var at = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func open(t *testing.T) registry.Registry {
	t.Helper()
	return registry.Registry{Dir: filepath.Join(t.TempDir(), "devices"), Now: func() time.Time { return at }}
}

func add(t *testing.T, r registry.Registry, name string) string {
	t.Helper()
	token, err := r.Add(name, "lobby")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestLife(t *testing.T) {
	r := open(t)
	if list, err := r.List(); err != nil || len(list) != 0 {
		t.Errorf("at first: %v, %v", list, err)
	}
	b, a := add(t, r, "door-b"), add(t, r, "door-a")
	if a == b || len(a) != 43 {
		t.Errorf("secrets %q and %q", a, b)
	}
	if err := r.Check("door-a", a); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		device, token string
		code          agent.Code
	}{
		"another's secret": {"door-a", b, agent.CodeInvalid},
		"no secret":        {"door-a", "", agent.CodeInvalid},
		"unknown":          {"door-c", a, agent.CodeNotFound},
		"a path":           {"../devices/door-a", a, agent.CodeInvalid},
		"no name":          {"", a, agent.CodeInvalid},
	} {
		if err := r.Check(c.device, c.token); agent.ErrorCode(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	again := add(t, r, "door-a")
	if r.Check("door-a", a) == nil || r.Check("door-a", again) != nil {
		t.Error("a new secret does not void the old one")
	}
	if err := r.Revoke("door-a"); err != nil {
		t.Fatal(err)
	}
	if err := r.Check("door-a", again); err == nil || !strings.Contains(err.Error(), "revoked at 2026-11-24T09:00:00Z") {
		t.Errorf("revoked: %v", err)
	}
	list, err := r.List()
	if err != nil || len(list) != 2 || list[0].Name != "door-a" || list[0].RevokedAt == nil || list[1].RevokedAt != nil || list[1].Group != "lobby" {
		t.Errorf("list %+v, %v", list, err)
	}
	if err := r.Revoke("door-c"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("revoke of nobody: %v", err)
	}
}

// The files hold no secret, and nobody else may read them.
func TestFiles(t *testing.T) {
	r := open(t)
	token := add(t, r, "door")
	raw, err := os.ReadFile(filepath.Join(r.Dir, "door.json"))
	if err != nil || strings.Contains(string(raw), token) {
		t.Errorf("the file tells the secret, or %v: %s", err, raw)
	}
	st, err := os.Stat(filepath.Join(r.Dir, "door.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(r.Dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A damaged entry lets nobody in.
func TestDamaged(t *testing.T) {
	r := open(t)
	token := add(t, r, "door")
	for _, text := range []string{"", "{", `{"name":"door"}`, `{"name":"other","token_sha256":"` + strings.Repeat("0", 64) + `"}`, "null"} {
		if err := os.WriteFile(filepath.Join(r.Dir, "door.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Check("door", token); agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("entry %q: %v", text, err)
		}
	}
}

func TestRefusedNames(t *testing.T) {
	r := open(t)
	for _, name := range []string{"", "Door", "a/b", "..", "a b"} {
		if _, err := r.Add(name, ""); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := r.Add("door", "The Lobby"); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("group: %v", err)
	}
}
