package registry_test

import (
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/sync/registry"
)

// clocked is a registry whose clock the test moves.
func clocked(t *testing.T) (registry.Registry, *time.Time) {
	now := at
	return registry.Registry{Dir: filepath.Join(t.TempDir(), "devices"), Now: func() time.Time { return now }}, &now
}

func issue(n int64, from time.Time) func() (*x509.Certificate, error) {
	return func() (*x509.Certificate, error) {
		return &x509.Certificate{SerialNumber: big.NewInt(n), NotBefore: from, NotAfter: from.Add(30 * 24 * time.Hour)}, nil
	}
}

func claim(t *testing.T, r registry.Registry, name string, hold bool) string {
	t.Helper()
	secret, _, err := r.NewClaim(name, "lobby", time.Hour, hold)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func code(t *testing.T, what string, err error, want agent.Code) {
	t.Helper()
	if got := agent.ErrorCode(err); got != want {
		t.Errorf("%s: code %q, want %q: %v", what, got, want, err)
	}
}

// A claim serves one key, within its time, and what is refused is written down.
func TestClaim(t *testing.T) {
	r, now := clocked(t)
	secret := claim(t, r, "door", false)
	code(t, "before joining", r.CheckCertificate("door", at), agent.CodeInvalid)
	code(t, "claim", r.CheckClaim("door", secret), "")
	code(t, "wrong claim", r.CheckClaim("door", "x"), agent.CodeInvalid)
	code(t, "another's name", r.CheckClaim("door-2", secret), agent.CodeNotFound)
	_, err := r.Redeem("door", "x", "key-1", issue(1, *now))
	code(t, "wrong secret", err, agent.CodeInvalid)
	for range 2 { // the answer was lost
		_, err = r.Redeem("door", secret, "key-1", issue(1, *now))
		code(t, "redeem", err, "")
	}
	_, err = r.Redeem("door", secret, "key-2", issue(2, *now))
	code(t, "replayed for another key", err, agent.CodeConflict)
	code(t, "joined", r.CheckCertificate("door", at), "")
	*now = at.Add(time.Hour + time.Second)
	_, err = r.Redeem("door", secret, "key-1", issue(1, *now))
	code(t, "replayed too late", err, agent.CodeInvalid)
	code(t, "replayed too late", r.CheckClaim("door", secret), agent.CodeInvalid)
	events, err := r.Journal()
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, e := range events {
		what = append(what, e.What)
	}
	if got := strings.Join(what, ", "); got != "claim made, refused, joined, joined, refused, refused, refused" {
		t.Errorf("journal: %s", got)
	}
	_, _, err = r.NewClaim("door", "", 8*24*time.Hour, false)
	code(t, "a claim for ever", err, agent.CodeInvalid)
	_, _, err = r.NewClaim("Door 7", "", time.Hour, false)
	code(t, "a bad name", err, agent.CodeInvalid)
	_, _, err = r.NewClaim("door", "No Group", time.Hour, false)
	code(t, "a bad group", err, agent.CodeInvalid)
}

// Joining anew and renewing void older certificates, but not the one before.
func TestCertificates(t *testing.T) {
	r, now := clocked(t)
	secret := claim(t, r, "door", false)
	if _, err := r.Renew("door", "k", issue(1, *now)); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("renewed without a certificate: %v", err)
	}
	if _, err := r.Redeem("door", secret, "k1", issue(1, *now)); err != nil {
		t.Fatal(err)
	}
	first := *now
	*now = now.Add(15 * 24 * time.Hour)
	second := *now
	if _, err := r.Renew("door", "k2", issue(2, *now)); err != nil {
		t.Fatal(err)
	}
	code(t, "the one before", r.CheckCertificate("door", first), "")
	*now = now.Add(15 * 24 * time.Hour)
	if _, err := r.Renew("door", "k3", issue(3, *now)); err != nil {
		t.Fatal(err)
	}
	code(t, "two before", r.CheckCertificate("door", first), agent.CodeInvalid)
	code(t, "one before", r.CheckCertificate("door", second), "")
	if err := r.Revoke("door"); err != nil {
		t.Fatal(err)
	}
	code(t, "revoked", r.CheckCertificate("door", *now), agent.CodeInvalid)
	_, err := r.Renew("door", "k4", issue(4, *now))
	code(t, "renewed when revoked", err, agent.CodeInvalid)
	secret = claim(t, r, "door", false)
	code(t, "a claim alone does not bring it back", r.CheckCertificate("door", *now), agent.CodeInvalid)
	*now = now.Add(time.Minute)
	if _, err := r.Redeem("door", secret, "k5", issue(5, *now)); err != nil {
		t.Fatal(err)
	}
	code(t, "from before it joined anew", r.CheckCertificate("door", second), agent.CodeInvalid)
	code(t, "joined anew", r.CheckCertificate("door", *now), "")
}

func TestApprove(t *testing.T) {
	r, now := clocked(t)
	secret := claim(t, r, "door", true)
	_, err := r.Approve("door")
	code(t, "approved before it joined", err, agent.CodeConflict)
	if _, err := r.Redeem("door", secret, "k1", issue(1, *now)); err != nil {
		t.Fatal(err)
	}
	code(t, "waiting", r.CheckCertificate("door", at), agent.CodeInvalid)
	if d, err := r.Approve("door"); err != nil || d.Certificate.Key != "k1" {
		t.Errorf("%+v, %v", d, err)
	}
	code(t, "approved", r.CheckCertificate("door", at), "")
	code(t, "group", r.SetGroup("door", "north"), "")
	if d, err := r.Get("door"); err != nil || d.Group != "north" {
		t.Errorf("%+v, %v", d, err)
	}
	code(t, "unknown", r.SetGroup("nobody", "north"), agent.CodeNotFound)
}

// Changes by several at once are all there, and the journal has them in order.
func TestAtOnce(t *testing.T) {
	r, _ := clocked(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 5 {
				if _, _, err := r.NewClaim("door-"+string(rune('a'+i)), "", time.Hour, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if events, err := r.Journal(); err != nil || len(events) != 40 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if list, err := r.List(); err != nil || len(list) != 8 {
		t.Errorf("%d devices, %v", len(list), err)
	}
}

// A line that was changed or taken out shows; one that a power cut left unfinished is
// passed over.
func TestJournalChain(t *testing.T) {
	r, _ := clocked(t)
	for range 3 {
		claim(t, r, "door", false)
	}
	path := filepath.Join(r.Dir, "journal.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, text := range map[string]string{
		"changed":   strings.Replace(string(whole), "claim made", "claim", 1),
		"taken out": lines[0] + lines[2],
		"reordered": lines[1] + lines[0] + lines[2],
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Journal(); agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, append(whole, `{"seq":4,"at`...), 0o600); err != nil {
		t.Fatal(err)
	}
	claim(t, r, "door", false)
	if events, err := r.Journal(); err != nil || len(events) != 4 {
		t.Errorf("after a power cut: %d events, %v", len(events), err)
	}
}
