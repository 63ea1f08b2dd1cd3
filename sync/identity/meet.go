package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
)

// FirstMeeting is how a device that has nothing but a claim recognises its hub. Where
// the hub shows a certificate of its own authority the claim's pin tells: it is the
// SHA-256 of the authority's certificate, which the hub shows with its own. Any other
// certificate must be vouched for by roots (nil: what the system trusts).
func FirstMeeting(pin, serverName string, roots *x509.CertPool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	c.InsecureSkipVerify = true // the function below verifies instead
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the hub shows no certificate")
		}
		leaf := cs.PeerCertificates[0]
		o := x509.VerifyOptions{Roots: roots, DNSName: cs.ServerName, Intermediates: x509.NewCertPool()}
		for _, other := range cs.PeerCertificates[1:] {
			sum := sha256.Sum256(other.Raw)
			if base64.RawURLEncoding.EncodeToString(sum[:]) == pin {
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
