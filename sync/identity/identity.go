// Package identity is who a device is to its hub: a key that never leaves it, the
// certificate that the hub has issued for it, and whom it takes for its hub.
package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"postern/agent"
	"postern/sync/atomicfile"
	"postern/sync/wire"
)

// File is the name of the file in the folder of the device's keys.
const File = "hub-identity.json"

// sealer is the device's root key; *keys.Root is one.
type sealer interface {
	Wrap(key, ad []byte) ([]byte, error)
	Unwrap(wrapped, ad []byte) (key []byte, current bool, err error)
}

// Identity is what a device has joined with. Its fields are not changed.
type Identity struct {
	Device     string
	Hub        string // where the hub's broker is, mqtts://host:port
	ServerName string // in the hub's certificate; "": the host of Hub
	Leaf       *x509.Certificate
	Authority  *x509.Certificate // who issued Leaf
	HubKey     ed25519.PublicKey // signs what the hub orders
	// Roots may vouch for the hub, in PEM, where it does not show a certificate of
	// Authority; "" is what the system trusts.
	Roots string

	key *ecdsa.PrivateKey
}

// file is what is on disk.
type file struct {
	Device     string `json:"device"`
	Hub        string `json:"hub"`
	ServerName string `json:"server_name,omitempty"`
	Leaf       []byte `json:"certificate"`
	Authority  []byte `json:"authority"`
	HubKey     []byte `json:"hub_key"`
	Roots      string `json:"roots,omitempty"`
	KeySealed  []byte `json:"key_sealed"`
}

var adKey = []byte("postern device key 1")

// Key is a key for which a certificate is asked.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey makes a key.
func NewKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return Key{k}, err
}

// Request asks for a certificate for the key.
func (k Key) Request(device string) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: device}}, k.private)
}

// Fingerprint names the key for people: SHA-256 of its public half.
func (k Key) Fingerprint() string { return Fingerprint(&k.private.PublicKey) }

// Fingerprint names a public key: the SHA-256, in hexadecimal, of its PKIX form.
func Fingerprint(key *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // not a key that RequestKey gives
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// New makes an identity of the hub's answer to a request for k. What belongs to the
// hub is taken from like: only Hub and Roots of it need to be set.
func New(device string, k Key, c wire.Certificate, like Identity) (*Identity, error) {
	id := &Identity{Device: device, Hub: like.Hub, Roots: like.Roots, ServerName: c.ServerName, HubKey: c.HubKey, key: k.private}
	var err1, err2 error
	id.Leaf, err1 = x509.ParseCertificate(c.Leaf)
	id.Authority, err2 = x509.ParseCertificate(c.Authority)
	err := errors.Join(err1, err2)
	if err == nil {
		err = id.check()
	}
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the hub's answer is not a certificate for this device", Err: err}
	}
	return id, nil
}

// check makes sure that the parts belong together.
func (i *Identity) check() error {
	key, ok := i.Leaf.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !key.Equal(&i.key.PublicKey):
		return errors.New("the certificate is for another key")
	case i.Leaf.Subject.CommonName != i.Device:
		return fmt.Errorf("the certificate is for %.64q, not for %q", i.Leaf.Subject.CommonName, i.Device)
	case len(i.HubKey) != ed25519.PublicKeySize:
		return errors.New("the hub's key is missing")
	}
	return i.Leaf.CheckSignatureFrom(i.Authority)
}

// Load reads the identity at path; agent.CodeNotFound where the device has not joined.
func Load(path string, root sealer) (*Identity, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: "this device has not joined a hub", Fix: "run postern join"}
	}
	var f file
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	var i *Identity
	if err == nil {
		i, err = f.open(root)
	}
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("this device's identity in %q cannot be used", path), Err: err,
			Fix: "put it and the root key back, or join anew: postern join"}
	}
	return i, nil
}

func (f file) open(root sealer) (*Identity, error) {
	der, _, err := root.Unwrap(f.KeySealed, adKey)
	if err != nil {
		return nil, err
	}
	i := &Identity{Device: f.Device, Hub: f.Hub, ServerName: f.ServerName, HubKey: f.HubKey, Roots: f.Roots}
	if i.key, err = x509.ParseECPrivateKey(der); err != nil {
		return nil, err
	}
	if i.Leaf, err = x509.ParseCertificate(f.Leaf); err != nil {
		return nil, err
	}
	if i.Authority, err = x509.ParseCertificate(f.Authority); err != nil {
		return nil, err
	}
	return i, i.check()
}

// Save writes the identity, its key sealed under the device's root key.
func (i *Identity) Save(path string, root sealer) error {
	der, err := x509.MarshalECPrivateKey(i.key)
	if err != nil {
		return err
	}
	f := file{Device: i.Device, Hub: i.Hub, ServerName: i.ServerName, Leaf: i.Leaf.Raw, Authority: i.Authority.Raw, HubKey: i.HubKey, Roots: i.Roots}
	if f.KeySealed, err = root.Wrap(der, adKey); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = atomicfile.Write(path, append(raw, '\n'))
	}
	if err != nil {
		return &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("this device's identity cannot be written to %q", path), Err: err, Fix: "check the disk"}
	}
	return nil
}

// Rewrap seals the key of the identity at path, where there is one, under the root key
// in use, if that has been replaced.
func Rewrap(path string, root sealer) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var f file
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if err != nil {
		return err
	}
	if _, current, err := root.Unwrap(f.KeySealed, adKey); err != nil || current {
		return err
	}
	i, err := f.open(root)
	if err != nil {
		return err
	}
	return i.Save(path, root)
}

// Fingerprint names the device's key.
func (i *Identity) Fingerprint() string { return Fingerprint(&i.key.PublicKey) }

// RenewAt is when the certificate is half over.
func (i *Identity) RenewAt() time.Time {
	return i.Leaf.NotBefore.Add(i.Leaf.NotAfter.Sub(i.Leaf.NotBefore) / 2)
}

// TLS shows the certificate, whomever the server says that it trusts, and accepts the
// hub only.
func (i *Identity) TLS() *tls.Config {
	cert := tls.Certificate{Certificate: [][]byte{i.Leaf.Raw}, PrivateKey: i.key, Leaf: i.Leaf}
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: i.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }}
	switch {
	case i.ServerName != "": // certified by the authority itself
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AddCert(i.Authority)
	case i.Roots != "":
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM([]byte(i.Roots))
	}
	return c
}

// Claim is what "postern devices claim" prints: who the device is to be, a secret, and
// the hub's pin.
type Claim struct{ Device, Secret, Pin string }

// String is the claim in one word.
func (c Claim) String() string { return strings.Join([]string{c.Device, c.Secret, c.Pin}, ".") }

// ParseClaim reads a claim.
func ParseClaim(text string) (Claim, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 3 || !wire.ValidDevice(parts[0]) || len(parts[1]) != 43 || len(parts[2]) != 43 {
		return Claim{}, &agent.Error{Code: agent.CodeInvalid, Message: "this is not a claim", Fix: "copy the whole line that postern devices claim printed at the hub"}
	}
	return Claim{parts[0], parts[1], parts[2]}, nil
}
