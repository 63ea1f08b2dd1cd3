// Package envelope encrypts files that leave the device, backups and exports, with
// age: to the public keys of those who may open them, or under a passphrase.
package envelope

import (
	"errors"
	"io"
	"strings"

	"filippo.io/age"

	"postern/agent"
)

// To says who may open an encrypted file: recipients, or whoever knows the
// passphrase, but not both.
type To struct {
	Recipients []string `json:"recipients,omitempty"` // age1…
	Passphrase string   `json:"passphrase,omitempty"`
}

// minPassphrase keeps out passphrases that would be tried in no time.
const minPassphrase = 12

func invalid(message, fix string, err error) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: message, Fix: fix, Err: err}
}

func (t To) recipients() ([]age.Recipient, error) {
	switch {
	case t.Passphrase != "" && len(t.Recipients) > 0:
		return nil, invalid("a passphrase and recipients do not go together", "give one of them", nil)
	case t.Passphrase != "":
		if len(t.Passphrase) < minPassphrase {
			return nil, invalid("the passphrase is shorter than 12 characters", "take several random words", nil)
		}
		r, err := age.NewScryptRecipient(t.Passphrase)
		if err != nil {
			return nil, err
		}
		return []age.Recipient{r}, nil
	case len(t.Recipients) == 0:
		return nil, invalid("nobody is named who may open the file", "give --recipient age1… or --passphrase-file", nil)
	}
	rs, err := age.ParseRecipients(strings.NewReader(strings.Join(t.Recipients, "\n")))
	if err != nil {
		return nil, invalid("a recipient is not one of age", "they begin with age1 and come from age-keygen", err)
	}
	return rs, nil
}

// Encrypt returns a writer whose content only To can read. The file is whole only
// when Close has returned nil.
func Encrypt(w io.Writer, to To) (io.WriteCloser, error) {
	rs, err := to.recipients()
	if err != nil {
		return nil, err
	}
	return age.Encrypt(w, rs...)
}

// By says how to open an encrypted file: the text of an age identity file, or the
// passphrase.
type By struct {
	Identity   string
	Passphrase string
}

// Decrypt returns the content of an encrypted file. Reading it to its end proves
// that nothing was changed or cut off.
func Decrypt(r io.Reader, by By) (io.Reader, error) {
	var ids []age.Identity
	if by.Passphrase != "" {
		id, err := age.NewScryptIdentity(by.Passphrase)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if by.Identity != "" {
		more, err := age.ParseIdentities(strings.NewReader(by.Identity))
		if err != nil {
			return nil, invalid("the identity file is not one of age", "it comes from age-keygen", nil) // the cause may show a key
		}
		ids = append(ids, more...)
	}
	if len(ids) == 0 {
		return nil, invalid("nothing is given to open the file with", "give --identity or --passphrase-file", nil)
	}
	out, err := age.Decrypt(r, ids...)
	var no *age.NoIdentityMatchError
	if errors.As(err, &no) {
		return nil, invalid("the file is not encrypted to this identity or passphrase", "", nil)
	}
	if err != nil {
		return nil, invalid("this is no file that age has encrypted, or it is damaged", "", err)
	}
	return out, nil
}

// NewIdentity makes a key pair: the text to keep secret, and the recipient.
func NewIdentity() (identity, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return id.String(), id.Recipient().String(), nil
}
