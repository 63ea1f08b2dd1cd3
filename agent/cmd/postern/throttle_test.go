package main

import (
	"path/filepath"
	"strings"
	"testing"

	"postern/agent/store"
)

// TestThrottle tries a stranger's picture as an enrolled person until nothing goes,
// each time as a process of its own would.
func TestThrottle(t *testing.T) {
	data := "--data=" + filepath.Join(t.TempDir(), "data")
	if a := postern(t, "enroll", "barack", face(t, "obama.jpg"), data); a.code != 0 {
		t.Fatal(a.err)
	}
	const limit = "throttle.subject.failures=2"
	for range 2 {
		if a := postern(t, "verify", "barack", "--image", face(t, "biden.jpg"), data, "--set", limit); a.code != exitDeclined {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	}
	a := postern(t, "verify", "barack", "--image", face(t, "obama2.jpg"), data, "--set", limit)
	if a.code != exitThrottled || !strings.Contains(a.err, "barack") || !strings.Contains(a.err, "wait") {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	rows := decode[[]throttleRow](t, postern(t, "throttle", "list", data, "--set", limit, "--json"))
	if len(rows) != 2 || rows[0].Subject != "" || rows[0].Next != "now" || rows[1].Failures != 2 || !strings.HasPrefix(rows[1].Next, "in ") {
		t.Errorf("list: %+v", rows)
	}
	if a := postern(t, "throttle", "list", data, "--set", "throttle.subject.stop=2"); !strings.Contains(a.out, "after unlocking") {
		t.Errorf("list:\n%s", a.out)
	}
	if a := postern(t, "throttle", "unlock", data); a.code != exitInvalid {
		t.Errorf("unlocked nobody: exit %d", a.code)
	}
	if a := postern(t, "throttle", "unlock", "barack", data); a.code != 0 || !strings.Contains(a.out, "2 failed attempts") {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := postern(t, "verify", "barack", "--image", face(t, "obama2.jpg"), data, "--set", limit); a.code != exitApproved {
		t.Errorf("after unlocking: exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "throttle", "unlock", "--device", data); a.code != exitNotFound {
		t.Errorf("the success did not end the device's counting: exit %d: %s", a.code, a.out)
	}
	rowsAfter := decode[[]store.Throttled](t, postern(t, "throttle", "list", data, "--json"))
	if len(rowsAfter) != 0 {
		t.Errorf("still counted: %+v", rowsAfter)
	}
	if a := postern(t, "verify", "barack", data, "--set", "throttle.device.failures=6", "--set", "liveness.mode=off"); a.code != exitInvalid || !strings.Contains(a.err, "throttle.override") {
		t.Errorf("looser than the standard: exit %d: %s", a.code, a.err)
	}
}
