package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

var (
	errOtherTPM = errors.New("sealed under the key of another TPM")
	errBlob     = errors.New("not what a TPM has sealed")
	errOwner    = errors.New("the owner hierarchy is not usable")
)

// tpmChip is an open TPM with the key under which it seals: the storage key that
// the TCG's provisioning guidance prescribes, ECC P-256, in the owner hierarchy. A
// TPM derives it anew from its seed each time; after a clear it is another one.
type tpmChip struct {
	tpm     transport.TPMCloser
	primary tpm2.NamedHandle
	public  tpm2.TPMTPublic
}

func openChip(device string) (*tpmChip, error) {
	t, err := openTPM(device)
	if err != nil {
		return nil, err
	}
	c := &tpmChip{tpm: t}
	if err := c.derive(); err != nil {
		t.Close()
		return nil, err
	}
	return c, nil
}

// openTPM opens a device, or the socket of a software TPM.
func openTPM(path string) (transport.TPMCloser, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Mode()&fs.ModeSocket != 0 {
		return linuxudstpm.Open(path)
	}
	return linuxtpm.Open(path)
}

func (c *tpmChip) derive() error {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c.tpm)
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail, tpm2.TPMRCHierarchy} {
		if errors.Is(err, rc) {
			return fmt.Errorf("%w: %v", errOwner, err)
		}
	}
	if err != nil {
		return err
	}
	c.primary = tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return errors.Join(err, c.flush(rsp.ObjectHandle))
	}
	c.public = *public
	// The name vouches for the key, so it has to be the key's.
	name, err := tpm2.ObjectName(public)
	if err == nil && !bytes.Equal(name.Buffer, rsp.Name.Buffer) {
		err = errors.New("the storage key does not have its name")
	}
	if err != nil {
		return errors.Join(err, c.flush(rsp.ObjectHandle))
	}
	return nil
}

func (c *tpmChip) flush(h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(c.tpm)
	return err
}

// close drops what was loaded. Its errors change nothing: the kernel drops the rest.
func (c *tpmChip) close() {
	_ = c.flush(c.primary.Handle)
	_ = c.tpm.Close()
}

// encryptIn and encryptOut authorize one command. The salt is encrypted to the
// storage key, so who listens on the wires to the TPM cannot read the secret, and
// who answers in its place cannot open the salt.
func (c *tpmChip) encryptIn() tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(c.primary.Handle, c.public), tpm2.AESEncryption(128, tpm2.EncryptIn))
}

func (c *tpmChip) encryptOut() tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(c.primary.Handle, c.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
}

func (c *tpmChip) seal(secret []byte) ([]byte, error) {
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: c.primary.Handle, Name: c.primary.Name, Auth: c.encryptIn()},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
		}),
	}.Execute(c.tpm)
	if err != nil {
		return nil, err
	}
	return sealed{parent: c.primary.Name.Buffer, public: rsp.OutPublic.Bytes(), private: rsp.OutPrivate.Buffer}.bytes(), nil
}

func (c *tpmChip) unseal(blob []byte) ([]byte, error) {
	s, err := parseSealed(blob)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(s.parent, c.primary.Name.Buffer) {
		return nil, errOtherTPM
	}
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: c.primary.Handle, Name: c.primary.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.public),
	}.Execute(c.tpm)
	var refused tpm2.TPMFmt1Error // it does not like a parameter
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("%w: %v", errBlob, err)
	}
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: c.encryptOut()},
	}.Execute(c.tpm)
	err = errors.Join(err, c.flush(loaded.ObjectHandle))
	if err != nil {
		return nil, err
	}
	return rsp.OutData.Buffer, nil
}

// sealed is what stands in a ring's text for a secret that a TPM has sealed: the
// name of the storage key, and the two parts of the sealed object.
type sealed struct{ parent, public, private []byte }

const (
	sealedVersion = 1
	sealedSum     = 8 // bytes of SHA-256: tells damage from another TPM's; no protection
)

func (s sealed) bytes() []byte {
	out := []byte{sealedVersion}
	for _, part := range [][]byte{s.parent, s.public, s.private} {
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return withSum(out)
}

func withSum(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:sealedSum]...)
}

// parseSealed is the inverse of sealed.bytes.
func parseSealed(b []byte) (s sealed, err error) {
	if len(b) < 1+sealedSum {
		return sealed{}, fmt.Errorf("%w: cut short", errBlob)
	}
	body := b[:len(b)-sealedSum]
	if !bytes.Equal(withSum(body), b) {
		return sealed{}, fmt.Errorf("%w: wrong checksum", errBlob)
	}
	if body[0] != sealedVersion {
		return sealed{}, fmt.Errorf("%w: version %d", errBlob, body[0])
	}
	rest := body[1:]
	for _, part := range []*[]byte{&s.parent, &s.public, &s.private} {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return sealed{}, fmt.Errorf("%w: cut short", errBlob)
		}
		n := 2 + int(binary.BigEndian.Uint16(rest))
		*part, rest = rest[2:n], rest[n:]
	}
	if len(rest) > 0 || len(s.parent) == 0 || len(s.public) == 0 || len(s.private) == 0 {
		return sealed{}, fmt.Errorf("%w: malformed", errBlob)
	}
	return s, nil
}
