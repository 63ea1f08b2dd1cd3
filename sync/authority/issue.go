package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"postern/agent"
)

// The lives of certificates. A device renews at half of its life; one that was off line
// longer may still renew, and nothing else, during the grace.
const (
	DeviceLife  = 30 * 24 * time.Hour
	DeviceGrace = 60 * 24 * time.Hour
	serverLife  = 90 * 24 * time.Hour
)

// ServerName is whom a device expects: the hub's certificate is for this name, by
// whatever address the hub is reached. Only the hub has a certificate that may be a
// server's.
const ServerName = "postern-hub"

// maxCSR bounds a request in bytes.
const maxCSR = 4096

// Sign signs what the hub orders. The message must begin with words that say what it
// is, so that no signature serves for something else.
func (a *Authority) Sign(message []byte) []byte { return ed25519.Sign(a.signing, message) }

// Verify tells whether the hub with this key signed the message.
func Verify(key ed25519.PublicKey, message, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, sig)
}

// Issue certifies a device's key. Of the request only the key is taken, which the
// request proves that the device has: who it is, the caller says.
func (a *Authority) Issue(device string, csr []byte, now time.Time) (*x509.Certificate, error) {
	key, err := RequestKey(csr)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: device}, DNSNames: []string{device},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(DeviceLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return a.certify(t, key)
}

// RequestKey is the key that a certificate is asked for.
func RequestKey(csr []byte) (*ecdsa.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, refuse("it has %d bytes, over %d", len(csr), maxCSR)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, refuse("%v", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, refuse("its key is not one of P-256")
	}
	return key, nil
}

func refuse(format string, args ...any) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: "the request for a certificate cannot be used: " + fmt.Sprintf(format, args...)}
}

func (a *Authority) certify(t *x509.Certificate, key *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, a.CA, key, a.ca)
	if err != nil {
		return nil, fmt.Errorf("certify %s: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// Standing is what a device's certificate is worth.
type Standing int

// The standings.
const (
	Valid   Standing = iota
	Overdue          // over, but within the grace: good for renewing it and for nothing else
)

// Check tells whose certificate this is. It must be of this fleet's authority and one
// of a device; the error says what it is not.
func (c Card) Check(leaf *x509.Certificate, now time.Time) (device string, s Standing, err error) {
	at := now
	if now.After(leaf.NotAfter) {
		if now.After(leaf.NotAfter.Add(DeviceGrace)) {
			return "", 0, fmt.Errorf("the certificate of %.64q was over at %s, and so is its grace of %s", leaf.Subject.CommonName, leaf.NotAfter.Format(time.RFC3339), DeviceGrace)
		}
		s, at = Overdue, leaf.NotAfter
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.CA)
	o := x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(o); err != nil {
		return "", 0, err
	}
	if leaf.IsCA {
		return "", 0, errors.New("this is an authority's certificate, not a device's")
	}
	return leaf.Subject.CommonName, s, nil
}

// ServerTLS is how the hub's broker shows itself: with a certificate for ServerName and
// for the names given, made anew when it is half over. Clients that show a certificate
// must show one that was issued here; what it is worth is for Check to say.
func (a *Authority) ServerTLS(names []string, now func() time.Time) *tls.Config {
	s := &server{a: a, names: names, now: now}
	c := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.certificate}
	a.AskDevices(c, now)
	return c
}

// AskDevices makes a server ask for devices' certificates. Logins without one, or with
// one in its grace, are left to the caller to judge.
func (c Card) AskDevices(t *tls.Config, now func() time.Time) {
	t.ClientAuth = tls.RequestClientCert
	t.ClientCAs = x509.NewCertPool()
	t.ClientCAs.AddCert(c.CA)
	t.SessionTicketsDisabled = true // each connection shows its certificate
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		_, _, err := c.Check(cs.PeerCertificates[0], now())
		return err
	}
}

// server holds the hub's own certificate.
type server struct {
	a     *Authority
	names []string
	now   func() time.Time

	mu   sync.Mutex // guards cert and half
	cert *tls.Certificate
	half time.Time
}

func (s *server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.cert != nil && now.Before(s.half) {
		return s.cert, nil
	}
	cert, err := s.a.serverCertificate(s.names, now)
	if err != nil {
		return nil, err
	}
	s.cert, s.half = cert, now.Add(serverLife/2)
	return cert, nil
}

func (a *Authority) serverCertificate(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: ServerName}, DNSNames: []string{ServerName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(serverLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if n != "" {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	leaf, err := a.certify(t, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.CA.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
