package authority_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
)

var at = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func root(tb testing.TB, dir string) *keys.Root {
	tb.Helper()
	r, err := keys.Options{Kind: keys.File, Dir: dir}.Open(false)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func open(tb testing.TB) *authority.Authority {
	tb.Helper()
	a, err := authority.Open(tb.TempDir(), root(tb, tb.TempDir()), at)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func request(tb testing.TB, name string) (*ecdsa.PrivateKey, []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	t := &x509.CertificateRequest{DNSNames: []string{name}}
	t.Subject.CommonName = name
	csr, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		tb.Fatal(err)
	}
	return key, csr
}

// The keys stay the same, and open under the hub's root key only.
func TestOpen(t *testing.T) {
	dir, keyDir := t.TempDir(), t.TempDir()
	if authority.Exists(dir) {
		t.Error("there before it was made")
	}
	if _, err := authority.Load(dir); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("load: %v", err)
	}
	r := root(t, keyDir)
	a, err := authority.Open(dir, r, at)
	if err != nil {
		t.Fatal(err)
	}
	card, err := authority.Load(dir)
	if err != nil || !card.Signing.Equal(a.Signing) || card.Pin() != a.Pin() || !strings.Contains(string(card.PEM()), "BEGIN CERTIFICATE") {
		t.Errorf("card %+v, %v", card, err)
	}
	b, err := authority.Open(dir, r, at)
	if err != nil || b.KeyID() != a.KeyID() {
		t.Errorf("again: %v", err)
	}
	if sig := b.Sign([]byte("m")); !authority.Verify(a.Signing, []byte("m"), sig) || authority.Verify(a.Signing, []byte("n"), sig) || authority.Verify(nil, []byte("m"), sig) {
		t.Error("signature")
	}
	if _, err := authority.Open(dir, root(t, t.TempDir()), at); agent.ErrorCode(err) != agent.CodeUnavailable {
		t.Errorf("under another root key: %v", err)
	}
	path := filepath.Join(dir, authority.File)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(otherHub(t, r), authority.File))
	if err != nil {
		t.Fatal(err)
	}
	half := len(raw) / 2
	for name, bad := range map[string][]byte{"cut": raw[:half], "empty": nil, "no keys": []byte("{}"), "mixed": mixed(raw, other)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Open(dir, r, at); agent.ErrorCode(err) != agent.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(bad) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func otherHub(tb testing.TB, r *keys.Root) string {
	tb.Helper()
	dir := tb.TempDir()
	if _, err := authority.Open(dir, r, at); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// mixed has the first line with a key of one file and the others of another.
func mixed(a, b []byte) []byte {
	as, bs := strings.SplitAfter(string(a), "\n"), strings.SplitAfter(string(b), "\n")
	return []byte(as[0] + as[1] + strings.Join(bs[2:], ""))
}

// Keys sealed under a root key that was replaced are sealed under the new one.
func TestRootRotates(t *testing.T) {
	dir, r := t.TempDir(), root(t, t.TempDir())
	a, err := authority.Open(dir, r, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Open(dir, r, at); err != nil {
		t.Fatal(err)
	}
	if err := r.Settle(); err != nil {
		t.Fatal(err)
	}
	if b, err := authority.Open(dir, r, at); err != nil || b.KeyID() != a.KeyID() {
		t.Errorf("after the old root key is gone: %v", err)
	}
}

func TestIssueAndCheck(t *testing.T) {
	a, stranger := open(t), open(t)
	_, csr := request(t, "somebody-else")
	leaf, err := a.Issue("door-7", csr, at)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Issue("door-7", csr, at)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		leaf *x509.Certificate
		at   time.Time
		want authority.Standing
		ok   bool
	}{
		"new":                {leaf, at, authority.Valid, true},
		"hub's clock behind": {leaf, at.Add(-30 * time.Minute), authority.Valid, true},
		"last day":           {leaf, at.Add(authority.DeviceLife), authority.Valid, true},
		"in its grace":       {leaf, at.Add(authority.DeviceLife + time.Hour), authority.Overdue, true},
		"end of grace":       {leaf, at.Add(authority.DeviceLife + authority.DeviceGrace), authority.Overdue, true},
		"after the grace":    {leaf, at.Add(authority.DeviceLife + authority.DeviceGrace + time.Second), 0, false},
		"of another fleet":   {foreign, at, 0, false},
		"the authority's":    {a.CA, at, 0, false},
		"not yet":            {leaf, at.Add(-48 * time.Hour), 0, false},
	} {
		device, got, err := a.Check(c.leaf, c.at)
		if (err == nil) != c.ok || c.ok && (device != "door-7" || got != c.want) {
			t.Errorf("%s: %q, %v, %v", name, device, got, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	a := open(t)
	_, good := request(t, "d")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{"none": nil, "cut": good[:len(good)/2], "RSA": rsaCSR, "signature": forged, "long": make([]byte, 5000)} {
		if c, err := a.Issue("d", csr, at); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// handshake connects a client with a server and gives the error of each side.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			err = tls.Server(conn, server).Handshake()
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, client)
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	clientErr = c.Handshake()
	if clientErr == nil {
		_, _ = c.Read(make([]byte, 1)) // the server's verdict on the certificate
	}
	conn.Close()
	return <-done, clientErr
}

func TestServerTLS(t *testing.T) {
	a, stranger := open(t), open(t)
	now := func() time.Time { return at }
	trust := func(h *authority.Authority) *tls.Config {
		pool := x509.NewCertPool()
		pool.AddCert(h.CA)
		return &tls.Config{RootCAs: pool, ServerName: authority.ServerName, Time: now}
	}
	with := func(h *authority.Authority, name string) *tls.Config {
		key, csr := request(t, name)
		leaf, err := h.Issue(name, csr, at)
		if err != nil {
			t.Fatal(err)
		}
		c := trust(a)
		cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		return c
	}
	server := a.ServerTLS([]string{"hub.example.com", "192.0.2.1"}, now)
	byName := trust(a)
	byName.ServerName = "hub.example.com"
	old := trust(a)
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]struct {
		client     *tls.Config
		server, ok bool
	}{
		"no certificate":            {trust(a), true, true},
		"by another name":           {byName, true, true},
		"a device":                  {with(a, "door"), true, true},
		"a device of another fleet": {with(stranger, "door"), false, true},
		"expects another hub":       {trust(stranger), false, false},
		"TLS 1.2":                   {old, false, false},
	} {
		s, cl := handshake(t, server, c.client)
		if (s == nil) != c.server || (cl == nil) != c.ok {
			t.Errorf("%s: server %v, client %v", name, s, cl)
		}
	}
	// A device cannot be taken for the hub.
	key, csr := request(t, authority.ServerName)
	leaf, err := a.Issue(authority.ServerName, csr, at)
	if err != nil {
		t.Fatal(err)
	}
	fake := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}}
	if _, err := handshake(t, fake, trust(a)); err == nil {
		t.Error("a device was taken for the hub")
	}
}

// FuzzRequest: no request crashes the hub.
func FuzzRequest(f *testing.F) {
	_, csr := request(f, "d")
	f.Add(csr)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := authority.RequestKey(p); err != nil && agent.ErrorCode(err) != agent.CodeInvalid {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
