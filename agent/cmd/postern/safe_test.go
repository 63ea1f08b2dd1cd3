package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/store"
)

func TestEnrolNeedsConsent(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	a := postern(t, "enroll", "ada", face(t, "obama.jpg"), "--data", data, "--consent", "", "--purpose", "")
	if a.code != exitInvalid || !strings.Contains(a.err, "no consent is recorded") {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "enroll", "ada", face(t, "obama.jpg"), "--data", data, "--consent", "Ada", "--purpose", ""); a.code != exitInvalid || !strings.Contains(a.err, "no purpose") {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "enroll", "ada", face(t, "obama.jpg"), "--data", data, "--consent", "Ada", "--purpose", "door 3", "--consent-for", "1h"); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	s := decode[agent.Subject](t, postern(t, "subjects", "show", "ada", "--data", data, "--json"))
	if c := s.Consent; c.GivenBy != "Ada" || c.Purpose != "door 3" || c.Basis != "explicit_consent" || c.Expires.IsZero() {
		t.Errorf("%+v", c)
	}
	verify := func() answer {
		return postern(t, "verify", "ada", "--image", face(t, "obama2.jpg"), "--data", data)
	}
	if a := verify(); a.code != exitApproved {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := postern(t, "consent", "ada", "--withdraw", "--data", data); a.code != 0 || !strings.Contains(a.out, "withdrawn") {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := verify(); a.code != exitDeclined || !strings.Contains(a.out, string(agent.RiskNoReference)) {
		t.Fatalf("after the withdrawal: exit %d: %s%s", a.code, a.out, a.err)
	}
}

// TestEraseCommand erases with proof, and audits it.
func TestEraseCommand(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for id, picture := range map[string]string{"b44": "obama.jpg", "b46": "biden.jpg"} {
		if a := postern(t, "enroll", id, face(t, picture), "--data", data); a.code != 0 {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	}
	p := decode[store.Proof](t, postern(t, "erase", "b44", "--prove", "--data", data, "--json"))
	if !p.Clean || p.Templates != 1 || len(p.Traces) < 4 {
		t.Fatalf("%+v", p)
	}
	if a := postern(t, "erase", "b44", "--data", data); a.code != exitNotFound {
		t.Errorf("erased twice: exit %d", a.code)
	}
	if a := postern(t, "verify", "b46", "--image", face(t, "biden.jpg"), "--data", data); a.code != exitApproved {
		t.Errorf("the other one: exit %d: %s%s", a.code, a.out, a.err)
	}
	es := decode[[]agent.AuditEvent](t, postern(t, "audit", "list", "--data", data, "--json"))
	var got []string
	for _, e := range es {
		got = append(got, string(e.Action)+" "+e.Subject)
		if !strings.HasPrefix(e.Actor, "user ") {
			t.Errorf("actor %q", e.Actor)
		}
	}
	slices.Sort(got)
	if strings.Join(got, ",") != "enrol ,enrol b46,erase ,rotate " {
		t.Errorf("audit: %q", got)
	}
	if a := postern(t, "audit", "verify", "--data", data); a.code != 0 || !strings.Contains(a.out, "4 entries, in order") {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	kept := postern(t, "audit", "checkpoint", "--data", data)
	file := filepath.Join(t.TempDir(), "kept.json")
	if err := os.WriteFile(file, []byte(kept.out), 0o600); err != nil {
		t.Fatal(err)
	}
	// Whoever takes both folders back to an older state is found by what was kept elsewhere.
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(data + ".keys"); err != nil {
		t.Fatal(err)
	}
	if a := postern(t, "audit", "verify", "--data", data, "--checkpoint", file); a.code != exitStorage || !strings.Contains(a.out, "PROBLEM") {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
}

func TestVaultCommand(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if a := postern(t, "enroll", "b44", face(t, "obama.jpg"), "--data", data); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	for _, l := range []string{"root", "store", "owners"} {
		if a := postern(t, "vault", "rotate", l, "--data", data); a.code != 0 || !strings.Contains(a.out, "rotated "+l) {
			t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
		}
	}
	if a := postern(t, "vault", "rotate", "paper", "--data", data); a.code != exitInvalid {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	v := decode[vaultStatus](t, postern(t, "vault", "status", "--data", data, "--json"))
	if v.Root.Kind != "file" || len(v.Files) != 3 || v.Files[0].Version != 2 || v.Files[0].Round != 2 || v.Files[0].Owners != 1 || len(v.PublicKey) != 64 {
		t.Errorf("%+v", v)
	}
	if a := postern(t, "vault", "compact", "--data", data); a.code != 0 {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "doctor", "--data", data); !strings.Contains(a.out, "whoever has the whole disk or card has this key too") {
		t.Errorf("doctor does not say what the key protects: %s", a.out)
	}
}

// TestRunningAgentTakesPart does on a running agent what the commands do, and what
// the agent knows follows at once.
func TestRunningAgentTakesPart(t *testing.T) {
	data := shortDir(t)
	if a := postern(t, "enroll", "b44", face(t, "obama.jpg"), "--data", data); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	s := start(t, append(cameraOf(t, "biden.jpg"), "--data", data)...)
	waitFor(t, func() bool { _, err := os.Stat(filepath.Join(data, controlSocket)); return err == nil }, s.out.String)
	if a := postern(t, "vault", "rotate", "owners", "--data", data); a.code != 0 {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "consent", "nobody", "--withdraw", "--data", data); a.code != exitNotFound || !strings.Contains(a.err, "no subject") {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	p := decode[store.Proof](t, postern(t, "erase", "b44", "--prove", "--data", data, "--json"))
	if !p.Clean {
		t.Errorf("%+v", p)
	}
	if a := postern(t, "audit", "verify", "--data", data); a.code != 0 {
		t.Errorf("exit %d: %s%s\n%s", a.code, a.out, a.err, s.out)
	}
}

// shortDir is a data folder whose socket has a name that fits into an address.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "d")
}

func TestNewRoot(t *testing.T) {
	var out, errw bytes.Buffer
	if code := execute(context.Background(), []string{"vault", "new-root"}, nil, nil, &out, &errw); code != 0 {
		t.Fatal(errw.String())
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postern.root"), out.Bytes(), 0o400); err != nil {
		t.Fatal(err)
	}
	env := []string{"CREDENTIALS_DIRECTORY=" + dir}
	args := []string{"subjects", "list", "--data", filepath.Join(t.TempDir(), "data"), "--set", "keys.root=credential", "--set", "device=test"}
	for range 2 {
		if code := execute(context.Background(), args, env, nil, &out, &errw); code != 0 {
			t.Fatal(errw.String())
		}
	}
	if code := execute(context.Background(), args, nil, nil, &out, &errw); code != exitUnavailable {
		t.Errorf("without the credential: exit %d", code)
	}
}
