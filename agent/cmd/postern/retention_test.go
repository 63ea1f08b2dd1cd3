package main

import (
	"path/filepath"
	"strings"
	"testing"

	"postern/agent/store"
)

// TestRetentionCommands sets a policy and a hold, and sweeps.
func TestRetentionCommands(t *testing.T) {
	data := "--data=" + filepath.Join(t.TempDir(), "data")
	if a := postern(t, "enroll", "barack", face(t, "obama.jpg"), data); a.code != 0 {
		t.Fatal(a.err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"retention list", 0, "(default)"},
		{"retention set visitors --results 90d --templates 30d", 0, "90d"},
		{"retention set visitors --results 29d", exitInvalid, ""},
		{"retention set visitors --results off", exitInvalid, ""},
		{"retention list", 0, "visitors"},
		{"retention sweep", 0, "deleted 0 results"},
		{"retention trust-clock", 0, "believed"},
		{"retention drop visitors", 0, ""},
		{"retention drop visitors", exitNotFound, ""},
		{"hold add subject barack --reason case-7 --by counsel", 0, "barack"},
		{"hold add subject barack --reason case-7 --by counsel", exitConflict, ""},
		{"hold add face barack --reason case-7 --by counsel", exitInvalid, ""},
		{"hold add subject barack --by counsel", exitInvalid, ""},
		{"hold list", 0, "case-7"},
		{"subjects delete barack", exitConflict, ""},
		{"hold remove subject barack --by counsel", 0, "no longer"},
		{"hold remove subject barack --by counsel", exitNotFound, ""},
		{"subjects delete barack", 0, ""},
		{"retention list --set retention.results=29d", exitInvalid, ""},
		{"retention list --set retention.images=90d", 0, "90d"},
	} {
		a := postern(t, append(strings.Fields(c.args), data)...)
		if a.code != c.code || !strings.Contains(a.out, c.want) {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.args, a.code, c.code, a.out, a.err)
		}
	}
	if hs := decode[[]store.Hold](t, postern(t, "hold", "list", data, "--json")); len(hs) != 0 {
		t.Errorf("%+v", hs)
	}
}
