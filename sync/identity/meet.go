package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"

	"postern/agent"
	"postern/sync/wire"
)

// FirstMeeting is how a device that has nothing but a claim recognises its hub. Where
// the hub shows a certificate of its own authority the claim's pin tells: it is the
// SHA-256 of the authority's certificate, which the hub shows with its own. Any other
// certificate must be vouched for by roots (nil: what the system trusts).
func FirstMeeting(want, serverName string, roots *x509.CertPool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	c.InsecureSkipVerify = true // the function below verifies instead
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the hub shows no certificate")
		}
		leaf := cs.PeerCertificates[0]
		o := x509.VerifyOptions{Roots: roots, DNSName: cs.ServerName, Intermediates: x509.NewCertPool()}
		for _, other := range cs.PeerCertificates[1:] {
			if pin(other) == want {
				o = x509.VerifyOptions{Roots: x509.NewCertPool(), DNSName: serverName}
				o.Roots.AddCert(other)
				break
			}
			o.Intermediates.AddCert(other)
		}
		_, err := leaf.Verify(o)
		return err
	}
	return c
}

// Refused is the hub's refusal as an error.
func Refused(h wire.Header) error {
	return &agent.Error{Code: agent.Code(h.Code), Message: "the hub refuses: " + h.Text}
}

// Ask says a Join and gives the hub's answer.
type Ask func(ctx context.Context, j *wire.Join) (wire.Header, *wire.Certificate, error)

// Join makes a key and gets its first certificate for a claim. like is as for New.
func Join(ctx context.Context, c Claim, like Identity, ask Ask) (*Identity, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := key.Request(c.Device)
	if err != nil {
		return nil, err
	}
	head, cert, err := ask(ctx, &wire.Join{Claim: c.Secret, Request: csr})
	switch {
	case err != nil:
		return nil, err
	case head.Code != "":
		return nil, Refused(head)
	}
	id, err := New(c.Device, key, *cert, like)
	if err != nil {
		return nil, err
	}
	if pin(id.Authority) != c.Pin {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the hub's certificates are of another authority than the claim's",
			Fix: "ask for a claim at the hub that this device is to join"}
	}
	return id, nil
}

func pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
