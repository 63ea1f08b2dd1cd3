// Package authority holds the hub's two keys: one signs what it orders devices to do,
// the other certifies devices and the hub itself to one another.
//
// Both lie in one file of the hub's data folder, sealed under the hub's root key, with
// their public halves in the clear: who copies the folder without the root key can
// neither let a device in nor order one about.
package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"postern/agent"
	"postern/sync/atomicfile"
)

// File is the name of the file in the hub's data folder.
const File = "authority.json"

// sealer is the hub's root key; *keys.Root is one.
type sealer interface {
	Wrap(key, ad []byte) ([]byte, error)
	Unwrap(wrapped, ad []byte) (key []byte, current bool, err error)
}

// What the two sealed keys are bound to.
var (
	adSigning = []byte("postern hub signing key 1")
	adCA      = []byte("postern hub certificate key 1")
)

// caLife is long, for a device trusts this certificate and no other. NotBefore lies
// back, for clocks of devices do.
const (
	caLife   = 20 * 365 * 24 * time.Hour
	backdate = 24 * time.Hour
)

// Card is the public half.
type Card struct {
	Signing ed25519.PublicKey
	CA      *x509.Certificate
}

// KeyID names the signing key: the first 16 hexadecimal digits of its SHA-256.
func (c Card) KeyID() string { return KeyID(c.Signing) }

// KeyID names a signing key.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// PEM is the certificate of the authority, for clients that want a file.
func (c Card) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.CA.Raw})
}

// Pin is what a claim carries, so that a device knows its hub at the first meeting: the
// SHA-256 of the authority's certificate.
func (c Card) Pin() string { return Pin(c.CA) }

// Pin names a certificate.
func Pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Authority is both halves. Its methods may be called from any goroutine.
type Authority struct {
	Card
	signing ed25519.PrivateKey
	ca      *ecdsa.PrivateKey
}

// file is what is on disk.
type file struct {
	SigningPublic []byte `json:"signing_public"`
	SigningSealed []byte `json:"signing_sealed"`
	CACertificate []byte `json:"ca_certificate"`
	CASealed      []byte `json:"ca_sealed"`
}

// Exists tells whether the hub in dir has its keys already.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, File))
	return err == nil
}

// Load reads the public half.
func Load(dir string) (Card, error) {
	f, err := read(filepath.Join(dir, File))
	if errors.Is(err, fs.ErrNotExist) {
		return Card{}, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("the hub in %q has no keys yet", dir), Fix: "start it once: postern hub"}
	}
	if err != nil {
		return Card{}, unusable(dir, err)
	}
	return f.card()
}

// Open opens the hub's keys, and makes them where there are none. Keys that were sealed
// under a root key that has been replaced are sealed anew.
func Open(dir string, root sealer, now time.Time) (*Authority, error) {
	path := filepath.Join(dir, File)
	f, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		a, err := generate(now)
		if err == nil {
			err = a.save(path, root)
		}
		if err != nil {
			return nil, unusable(dir, err)
		}
		return a, nil
	}
	if err != nil {
		return nil, unusable(dir, err)
	}
	a, current, err := f.open(root)
	if err == nil && !current {
		err = a.save(path, root)
	}
	if err != nil {
		return nil, unusable(dir, err)
	}
	return a, nil
}

func unusable(dir string, err error) error {
	return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the hub's keys in %q cannot be used", dir), Err: err,
		Fix: "put back " + File + " and the hub's root key; new ones would mean that every device has to join again"}
}

func generate(now time.Time) (*Authority, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "postern fleet " + KeyID(public)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{Card{public, cert}, private, key}, err
}

// serial is random: nobody counts devices by it.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func read(path string) (f file, err error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	return f, err
}

func (f file) card() (Card, error) {
	cert, err := x509.ParseCertificate(f.CACertificate)
	if err == nil && len(f.SigningPublic) != ed25519.PublicKeySize {
		err = errors.New("it is not complete")
	}
	return Card{f.SigningPublic, cert}, err
}

// open unseals, and makes sure that the halves belong together.
func (f file) open(root sealer) (a *Authority, current bool, err error) {
	card, err := f.card()
	if err != nil {
		return nil, false, err
	}
	seed, current1, err := root.Unwrap(f.SigningSealed, adSigning)
	if err != nil {
		return nil, false, err
	}
	der, current2, err := root.Unwrap(f.CASealed, adCA)
	if err != nil {
		return nil, false, err
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, false, errors.Join(err, errors.New("a key is damaged"))
	}
	a = &Authority{card, ed25519.NewKeyFromSeed(seed), key}
	if !card.Signing.Equal(a.signing.Public()) || !key.PublicKey.Equal(card.CA.PublicKey) {
		return nil, false, errors.New("public and private keys do not belong together")
	}
	return a, current1 && current2, nil
}

func (a *Authority) save(path string, root sealer) error {
	der, err := x509.MarshalECPrivateKey(a.ca)
	if err != nil {
		return err
	}
	f := file{SigningPublic: a.Signing, CACertificate: a.CA.Raw}
	if f.SigningSealed, err = root.Wrap(a.signing.Seed(), adSigning); err != nil {
		return err
	}
	if f.CASealed, err = root.Wrap(der, adCA); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(raw, '\n'))
}
