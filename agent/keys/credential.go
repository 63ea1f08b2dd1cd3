package keys

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"postern/agent"
)

// CredentialName is the systemd credential that holds the root keys.
const CredentialName = "postern.root"

// credentialSource is a credential that systemd hands to the service.
type credentialSource struct{ dir string }

func (c credentialSource) label() Label {
	place := filepath.Join(c.dir, CredentialName)
	if c.dir == "" {
		place = CredentialName
	}
	return Label{Kind: Credential, Place: place,
		Protects: "protects the data folder and backups; a stolen disk too when systemd-creds encrypted it to this machine's TPM, which this program cannot see"}
}

func (c credentialSource) lock(secret []byte) ([]byte, error) { return secret, nil }

func (c credentialSource) load() (ring, error) {
	if c.dir == "" {
		return ring{}, missingCredential("systemd gave this process no credentials")
	}
	f, err := os.Open(filepath.Join(c.dir, CredentialName))
	if errors.Is(err, fs.ErrNotExist) {
		return ring{}, missingCredential("systemd gave this process no credential " + CredentialName)
	}
	if err != nil {
		return ring{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRing+1))
	if err != nil {
		return ring{}, err
	}
	defer clear(text)
	r, err := parseRing(text)
	if err != nil {
		return ring{}, err
	}
	return r, r.unlock(func(blob []byte) ([]byte, error) { return blob, nil })
}

// missingCredential is no fs.ErrNotExist: a credential is never made here.
func missingCredential(what string) error {
	return &agent.Error{Code: agent.CodeUnavailable, Message: "the root key is missing: " + what,
		Fix: "postern vault new-root | systemd-creds encrypt --name=" + CredentialName + " - /etc/credstore.encrypted/" + CredentialName +
			", and LoadCredentialEncrypted=" + CredentialName + " in the unit"}
}

func (c credentialSource) save(ring) error { return errors.ErrUnsupported }

// NewCredential returns the text of a credential with a new root key in front of
// those of an older one, which may be empty.
func NewCredential(old []byte, now time.Time, random io.Reader) ([]byte, error) {
	if random == nil {
		random = rand.Reader
	}
	var r ring
	if len(old) > 0 {
		var err error
		if r, err = parseRing(old); err != nil {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the old credential cannot be read", Err: err}
		}
	}
	secret := make([]byte, Size)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, err
	}
	defer clear(secret)
	e := entry{id: idOf(secret), made: now.UTC().Truncate(time.Second), blob: secret}
	r.entries = append([]entry{e}, r.entries...)
	return r.text(), nil
}
