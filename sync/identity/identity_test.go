package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/keys"
	"postern/sync/authority"
	"postern/sync/identity"
	"postern/sync/wire"
)

func root(tb testing.TB, dir string) *keys.Root {
	tb.Helper()
	r, err := keys.Options{Kind: keys.File, Dir: dir}.Open(false)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func hub(tb testing.TB) *authority.Authority {
	tb.Helper()
	a, err := authority.Open(tb.TempDir(), root(tb, tb.TempDir()), time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// join is what a hub answers to a device.
func join(tb testing.TB, a *authority.Authority, device string) (identity.Key, wire.Certificate) {
	tb.Helper()
	k, err := identity.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := k.Request(device)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := a.Issue(device, csr, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return k, wire.Certificate{Leaf: leaf.Raw, Authority: a.CA.Raw, HubKey: a.Signing, ServerName: authority.ServerName}
}

func TestSaveAndLoad(t *testing.T) {
	a := hub(t)
	k, c := join(t, a, "door")
	id, err := identity.New("door", k, c, identity.Identity{Hub: "mqtts://hub"})
	if err != nil {
		t.Fatal(err)
	}
	path, r := filepath.Join(t.TempDir(), identity.File), root(t, t.TempDir())
	if _, err := identity.Load(path, r); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("before: %v", err)
	}
	if err := id.Save(path, r); err != nil {
		t.Fatal(err)
	}
	got, err := identity.Load(path, r)
	if err != nil || got.Fingerprint() != id.Fingerprint() || got.Hub != "mqtts://hub" || !got.HubKey.Equal(a.Signing) || got.Device != "door" {
		t.Errorf("%+v, %v", got, err)
	}
	if half := time.Until(got.RenewAt()); half < 14*24*time.Hour || half > 16*24*time.Hour {
		t.Errorf("renewed in %s", half)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := identity.Load(path, root(t, t.TempDir())); agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Errorf("under another root key: %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Load(path, r); agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Errorf("damaged: %v", err)
	}
}

// A root key that is replaced takes the identity along.
func TestRewrap(t *testing.T) {
	k, c := join(t, hub(t), "door")
	id, err := identity.New("door", k, c, identity.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	path, r := filepath.Join(t.TempDir(), identity.File), root(t, t.TempDir())
	if err := identity.Rewrap(path, r); err != nil {
		t.Errorf("before there is one: %v", err)
	}
	if err := id.Save(path, r); err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := identity.Rewrap(path, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Settle(); err != nil {
		t.Fatal(err)
	}
	if got, err := identity.Load(path, r); err != nil || got.Fingerprint() != id.Fingerprint() {
		t.Errorf("%+v, %v", got, err)
	}
}

// An answer for somebody else, or of parts that do not belong together, is none.
func TestBadAnswers(t *testing.T) {
	a, stranger := hub(t), hub(t)
	k, good := join(t, a, "door")
	_, other := join(t, a, "door")
	k2, named := join(t, a, "door-2")
	for name, c := range map[string]struct {
		k      identity.Key
		change func(*wire.Certificate)
	}{
		"another key's":      {k, func(c *wire.Certificate) { *c = other }},
		"another name's":     {k2, func(c *wire.Certificate) { *c = named }},
		"another authority":  {k, func(c *wire.Certificate) { c.Authority = stranger.CA.Raw }},
		"no key of the hub":  {k, func(c *wire.Certificate) { c.HubKey = nil }},
		"not a certificate":  {k, func(c *wire.Certificate) { c.Leaf = []byte("x") }},
		"empty, as refusals": {k, func(c *wire.Certificate) { *c = wire.Certificate{} }},
	} {
		answer := good
		c.change(&answer)
		if id, err := identity.New("door", c.k, answer, identity.Identity{}); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

func TestClaim(t *testing.T) {
	want := identity.Claim{Device: "door-7", Secret: strings.Repeat("s", 43), Pin: strings.Repeat("p", 43)}
	if got, err := identity.ParseClaim(" " + want.String() + "\n"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "a.b", "a.b.c", "Door." + want.Secret + "." + want.Pin, want.String() + ".x"} {
		if c, err := identity.ParseClaim(bad); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%q: %+v, %v", bad, c, err)
		}
	}
}

// At the first meeting only the pinned hub is accepted, and afterwards only it as well.
func TestMeeting(t *testing.T) {
	a, stranger := hub(t), hub(t)
	k, c := join(t, a, "door")
	id, err := identity.New("door", k, c, identity.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	k2, c2 := join(t, a, authority.ServerName) // a device that would be the hub
	device, err := identity.New(authority.ServerName, k2, c2, identity.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := device.TLS().GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	withCA := *cert
	withCA.Certificate = append(withCA.Certificate[:1:1], a.CA.Raw)
	real, false1 := a.ServerTLS(nil, time.Now), stranger.ServerTLS(nil, time.Now)
	false2 := &tls.Config{Certificates: []tls.Certificate{withCA}}
	first := func(pin string) *tls.Config {
		c := identity.FirstMeeting(pin, authority.ServerName, x509.NewCertPool())
		c.ServerName = "192.0.2.1" // however it is reached
		return c
	}
	for name, c := range map[string]struct {
		server, client *tls.Config
		ok             bool
	}{
		"the pinned hub":             {real, first(a.Pin()), true},
		"another hub":                {false1, first(a.Pin()), false},
		"no pin":                     {real, first(""), false},
		"a device of the fleet":      {false2, first(a.Pin()), false},
		"later":                      {real, id.TLS(), true},
		"later, another hub":         {false1, id.TLS(), false},
		"later, a device as the hub": {false2, id.TLS(), false},
	} {
		if err := handshake(t, c.server, c.client); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.Addr().String(), client)
	if err == nil {
		conn.Close()
	}
	return err
}
