package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/agent"
	"postern/agent/envelope"
	"postern/agent/keys"
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
	if a := postern(t, "enroll", "ada", face(t, "obama.jpg"), "--data", data, "--consent", "Ada", "--purpose", "door 3", "--consent-for", "1h", "--application", "visitors"); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	s := decode[agent.Subject](t, postern(t, "subjects", "show", "ada", "--data", data, "--json"))
	if c := s.Consent; c.GivenBy != "Ada" || c.Purpose != "door 3" || c.Basis != "explicit_consent" || c.Expires.IsZero() || s.Application != "visitors" {
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

// TestBackupOfRunningAgent takes a backup while the agent serves, restores it, and
// moves an enrolment to another device.
func TestBackupOfRunningAgent(t *testing.T) {
	data, dir := shortDir(t), t.TempDir()
	for id, picture := range map[string]string{"b44": "obama.jpg", "b46": "biden.jpg"} {
		if a := postern(t, "enroll", id, face(t, picture), "--data", data); a.code != 0 {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	}
	secret, recipient, err := envelope.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	identity, file, export := filepath.Join(dir, "identity"), filepath.Join(dir, "backup.age"), filepath.Join(dir, "export.age")
	if err := os.WriteFile(identity, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, append(cameraOf(t, "biden.jpg"), "--data", data)...)
	waitFor(t, func() bool { _, err := os.Stat(filepath.Join(data, controlSocket)); return err == nil }, s.out.String)
	if a := postern(t, "backup", file, "--recipient", recipient, "--data", data); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "backup", file, "--recipient", "age1x", "--data", data); a.code != exitInvalid {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "export", export, "b44", "--recipient", recipient, "--data", data); a.code != 0 {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "export", export, "nobody", "--recipient", recipient, "--data", data); a.code != exitNotFound {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "restore", file, "--identity", identity, "--data", data); a.code != exitLocked {
		t.Errorf("restored under a running agent: exit %d: %s", a.code, a.err)
	}
	s.stop()
	if a := postern(t, "erase", "b44", "--data", data); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "restore", file, "--data", data); a.code != exitInvalid {
		t.Errorf("restored without an identity: exit %d", a.code)
	}
	r := decode[store.Restored](t, postern(t, "restore", file, "--identity", identity, "--data", data, "--json"))
	if r.ErasedAgain != 1 || r.Subjects != 2 || !r.Confirmed {
		t.Errorf("%+v", r)
	}
	if a := postern(t, "subjects", "show", "b44", "--data", data); a.code != exitNotFound {
		t.Errorf("an erased person is back: exit %d: %s", a.code, a.out)
	}
	unlock := func(data string) { // after a restore the counting of failed attempts begins with a wait
		if a := postern(t, "throttle", "unlock", "--device", "--data", data); a.code != 0 {
			t.Errorf("exit %d: %s", a.code, a.err)
		}
	}
	unlock(data)
	if a := postern(t, "verify", "b46", "--image", face(t, "biden.jpg"), "--data", data); a.code != exitApproved {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := postern(t, "import", export, "--identity", identity, "--data", data); a.code != exitConflict || !strings.Contains(a.out, "was erased") {
		t.Errorf("an erased person was imported: exit %d: %s%s", a.code, a.out, a.err)
	}
	other := filepath.Join(dir, "other")
	if a := postern(t, "import", export, "--identity", identity, "--data", other); a.code != 0 {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := postern(t, "verify", "b44", "--image", face(t, "obama2.jpg"), "--data", other); a.code != exitApproved {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
	importIntoRunning(t, export, identity)
	elsewhere := filepath.Join(dir, "elsewhere")
	if a := postern(t, "restore", file, "--identity", identity, "--data", elsewhere); a.code != 0 || !strings.Contains(a.out, "NOBODY IS COMPARED") {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	unlock(elsewhere)
	if a := postern(t, "verify", "b46", "--image", face(t, "biden.jpg"), "--data", elsewhere); a.code != exitDeclined {
		t.Errorf("compared before it was confirmed: exit %d: %s%s", a.code, a.out, a.err)
	}
	if a := postern(t, "restore", "--confirm", "--data", elsewhere); a.code != 0 {
		t.Errorf("exit %d: %s", a.code, a.err)
	}
	if a := postern(t, "verify", "b46", "--image", face(t, "biden.jpg"), "--data", elsewhere); a.code != exitApproved {
		t.Errorf("exit %d: %s%s", a.code, a.out, a.err)
	}
}

// importIntoRunning imports into an agent that runs: it keeps running, takes them over
// under its own keys, and knows them at once.
func importIntoRunning(t *testing.T, export, identity string) {
	t.Helper()
	data := shortDir(t)
	s := start(t, append(cameraOf(t, "obama2.jpg"), "--data", data, "--set", "identify.enabled=true")...)
	waitFor(t, func() bool { _, err := os.Stat(filepath.Join(data, controlSocket)); return err == nil }, s.out.String)
	for i, want := range []string{"imported 1 subject", "imported 0 subjects, 1 were here already"} {
		if a := postern(t, "import", export, "--identity", identity, "--data", data); a.code != 0 || !strings.Contains(a.out, want) {
			t.Errorf("import %d: exit %d: %s%s", i, a.code, a.out, a.err)
		}
	}
	if a := postern(t, "import", export, "--data", data); a.code != exitInvalid {
		t.Errorf("without an identity: exit %d: %s", a.code, a.err)
	}
	waitFor(t, func() bool { return strings.Contains(s.out.String(), "subject=b44") }, s.out.String)
	if a := postern(t, "audit", "list", "--data", data, "--json"); !strings.Contains(a.out, `"import"`) {
		t.Errorf("the audit says %s", a.out)
	}
	s.stop()
}

// TestNothingBiometricIsTold: what the program logs and prints about enrolled people
// holds no part of a template.
func TestNothingBiometricIsTold(t *testing.T) {
	data := shortDir(t)
	var all strings.Builder
	say := func(a answer) { all.WriteString(a.out + a.err) }
	say(postern(t, "enroll", "b44", face(t, "obama.jpg"), "--data", data, "--json", "-v"))
	say(postern(t, "subjects", "show", "b44", "--data", data, "--json", "-v"))
	say(postern(t, "verify", "b44", "--image", face(t, "obama2.jpg"), "--data", data, "--json", "-v"))
	say(postern(t, "audit", "list", "--data", data, "--json"))
	s := start(t, append(cameraOf(t, "obama2.jpg"), "--data", data, "-v")...)
	waitFor(t, func() bool { return strings.Contains(s.out.String(), "agent started") }, s.out.String)
	for _, path := range []string{"metrics", "system/healthcheck", "debug/pprof/", "debug/pprof/heap", "debug/vars"} {
		code, body := get(t, s.url+path)
		if strings.HasPrefix(path, "debug") && code == 200 {
			t.Errorf("%s is served", path)
		}
		all.WriteString(body)
	}
	s.stop()
	all.WriteString(s.out.String())
	m := &storeReader{}
	for _, e := range m.embeddings(t, data) {
		for _, f := range e {
			for _, text := range []string{strconv.FormatFloat(float64(f), 'g', -1, 32), strconv.FormatFloat(float64(f), 'g', -1, 64)} {
				if len(text) > 8 && strings.Contains(all.String(), text) {
					t.Fatalf("a value of a template was told: %s", text)
				}
			}
		}
	}
}

// storeReader reads what is enrolled past the program.
type storeReader struct{}

func (*storeReader) embeddings(t *testing.T, data string) (out []agent.Embedding) {
	t.Helper()
	root := keys.Options{Kind: keys.File, Dir: data + ".keys"}
	st, err := store.Open(store.Options{Dir: data, Device: "test", Root: func(e bool) (store.Root, error) { return root.Open(e) }})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.EachTemplate("", func(tp agent.Template) error { out = append(out, slices.Clone(tp.Embedding)); return nil }); err != nil || len(out) == 0 {
		t.Fatalf("%d templates: %v", len(out), err)
	}
	return out
}

// TestNoCoreDumps: a crash of the running agent leaves no memory on the disk.
func TestNoCoreDumps(t *testing.T) {
	if os.Getenv("TEST_HARDEN") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=TestNoCoreDumps")
		cmd.Env = append(os.Environ(), "TEST_HARDEN=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := noCoreDumps(); err != nil {
		t.Fatal(err)
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &lim); err != nil || lim.Cur != 0 || lim.Max != 0 {
		t.Errorf("core dumps of %d bytes: %v", lim.Cur, err)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v != 0 {
		t.Errorf("dumpable %d: %v", v, err)
	}
}

// Without news from the hub for too long nobody is approved, 1:1 and 1:N alike.
func TestOfflineLimit(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if a := postern(t, "enroll", "ada", face(t, "obama.jpg"), "--data", data); a.code != 0 {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	for _, c := range [][]string{
		{"verify", "ada", "--image", face(t, "obama2.jpg"), "--data", data},
		{"identify", "--image", face(t, "obama2.jpg"), "--data", data, "--set", "identify.enabled=true"},
	} {
		if a := postern(t, c...); a.code != exitApproved {
			t.Errorf("%s without a limit: exit %d: %s%s", c[0], a.code, a.out, a.err)
		}
		if a := postern(t, append(c, "--set", "sync.offline_limit=72h")...); a.code != exitInReview || !strings.Contains(a.out, string(agent.RiskOffline)) {
			t.Errorf("%s beyond the limit: exit %d: %s%s", c[0], a.code, a.out, a.err)
		}
	}
}
