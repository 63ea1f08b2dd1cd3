package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/config"
	"postern/agent/keys"
	"postern/agent/store"
	"postern/sync/identity"
	"postern/sync/registry"
)

// freeAddress is one of this machine where nobody listened just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// runHubCommand runs "postern hub" until the test ends.
func runHubCommand(t *testing.T, data, addr string, more ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan answer, 1)
	go func() {
		ended <- posternCtx(t, ctx, append([]string{"hub", "--data", data, "--set", "hub.listen=" + addr, "--set", "hub.http_listen="}, more...)...)
	}()
	t.Cleanup(func() {
		stop()
		if a := <-ended; a.code != 0 {
			t.Errorf("hub: %d\n%s", a.code, a.err)
		}
	})
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatal("the hub does not listen")
		}
	}
}

// joinUntil joins, trying anew while the hub is not up yet.
func joinUntil(t *testing.T, args ...string) answer {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		a := postern(t, append([]string{"join"}, args...)...)
		if a.code == 0 || !strings.Contains(a.err, "not reachable") || time.Now().After(until) {
			return a
		}
	}
}

// From a claim to a device that the hub knows, by the commands of the documentation.
func TestJoinCommand(t *testing.T) {
	dir := t.TempDir()
	hub, door, copied := filepath.Join(dir, "hub"), filepath.Join(dir, "door"), filepath.Join(dir, "copied")
	addr := freeAddress(t)
	claim := postern(t, "devices", "claim", "lobby", "--data", hub, "--group", "north", "--approve")
	if claim.code != 0 {
		t.Fatalf("claim: %s", claim.err)
	}
	text := strings.TrimSpace(claim.out)
	runHubCommand(t, hub, addr)
	for name, bad := range map[string]string{"not a claim": "x", "another hub's": text[:len(text)-43] + strings.Repeat("x", 43)} {
		if a := postern(t, "join", addr, "--data", door, "--claim", bad); a.code == 0 {
			t.Errorf("%s: joined", name)
		}
	}
	joined := joinUntil(t, addr, "--data", door, "--claim", text)
	if joined.code != 0 || !strings.Contains(joined.out, "lobby has joined mqtts://"+addr) {
		t.Fatalf("join: %d\n%s%s", joined.code, joined.out, joined.err)
	}
	if a := postern(t, "join", addr, "--data", door, "--claim", text); a.code == 0 || !strings.Contains(a.err, "--again") {
		t.Errorf("joined twice: %s", a.err)
	}
	if a := postern(t, "join", addr, "--data", copied, "--claim", text); a.code == 0 || !strings.Contains(a.err, "was used already") {
		t.Errorf("replayed claim: %d %s", a.code, a.err)
	}
	approved := postern(t, "devices", "approve", "lobby", "--data", hub)
	key := decode[registry.Device](t, postern(t, "devices", "approve", "lobby", "--data", hub, "--json")).Certificate.Key
	if approved.code != 0 || !strings.Contains(joined.out, key) {
		t.Errorf("keys differ: %s, %s", joined.out, key)
	}
	if a := postern(t, "devices", "group", "lobby", "south", "--data", hub); a.code != 0 {
		t.Errorf("group: %s", a.err)
	}
	list := postern(t, "devices", "list", "--data", hub)
	if !strings.Contains(list.out, "lobby") || !strings.Contains(list.out, "south") || !strings.Contains(list.out, "joined") {
		t.Errorf("list:\n%s", list.out)
	}
	if a := postern(t, "devices", "revoke", "lobby", "--data", hub); a.code != 0 {
		t.Errorf("revoke: %s", a.err)
	}
	log := postern(t, "devices", "log", "--data", hub)
	for _, want := range []string{"claim made", "joined", "refused", "approved", "put into group", "revoked"} {
		if !strings.Contains(log.out, want) {
			t.Errorf("the journal lacks %q:\n%s", want, log.out)
		}
	}
	if a := postern(t, "devices", "ca", "--data", hub); !strings.Contains(a.out, "BEGIN CERTIFICATE") {
		t.Errorf("ca: %s%s", a.out, a.err)
	}
}

// A root key that is replaced takes along what it seals beside the store.
func TestRewrap(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Data = filepath.Join(dir, "door")
	hub := filepath.Join(dir, "hub")
	addr := freeAddress(t)
	text := strings.TrimSpace(postern(t, "devices", "claim", "lobby", "--data", hub).out)
	runHubCommand(t, hub, addr)
	if a := joinUntil(t, addr, "--data", cfg.Data, "--claim", text); a.code != 0 {
		t.Fatal(a.err)
	}
	before := keys.Options{Kind: keys.File, Dir: cfg.KeyDir()}
	if a := postern(t, "vault", "rotate", string(store.LevelRoot), "--data", cfg.Data); a.code != 0 {
		t.Fatalf("rotate: %s", a.err)
	}
	if id, err := identity.Load(identityPath(cfg), freshRoot{before}); err != nil || id.Device != "lobby" {
		t.Errorf("after the root key was replaced: %v", err)
	}
}
