package registry

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"postern/agent"
)

// Claim lets a device without a certificate ask for its first one, once.
type Claim struct {
	SHA256    string    `json:"sha256"` // of its secret
	ExpiresAt time.Time `json:"expires_at"`
	Hold      bool      `json:"hold,omitempty"` // who joins by it waits for approval
	// UsedBy is the key that it was used for. The same key may come again until
	// ExpiresAt: its answer was lost. No other may.
	UsedBy string     `json:"used_by,omitempty"`
	UsedAt *time.Time `json:"used_at,omitempty"`
}

// Certificate is what is known of a device's newest certificate.
type Certificate struct {
	Key       string    `json:"key"` // SHA-256 of its public key, hexadecimal
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Floor is the NotBefore of the oldest certificate that the device may still show:
	// joining anew voids those before it, and renewing those before the present one.
	Floor time.Time `json:"floor"`
}

// How long claims may live.
const (
	DefaultClaimLife = time.Hour
	MaxClaimLife     = 7 * 24 * time.Hour
)

// NewClaim makes a claim for a device, known or not, and gives its secret, which is not
// kept. An older claim is void. A revoked device may come back by it.
func (r Registry) NewClaim(name, group string, life time.Duration, hold bool) (secret string, expires time.Time, err error) {
	if life <= 0 || life > MaxClaimLife {
		return "", time.Time{}, refuse("a claim cannot live for %s; at most %s", life, MaxClaimLife)
	}
	secret, expires = random(), r.now().Add(life)
	return secret, expires, r.change(name, true, func(d *Device) error {
		if group != "" {
			d.Group = group
		}
		d.Claim = &Claim{SHA256: digest(secret), ExpiresAt: expires, Hold: hold}
		return r.note(Event{Device: name, What: "claim made", Detail: "until " + expires.Format(time.RFC3339)})
	})
}

// CheckClaim tells whether somebody may come with this claim to ask for a certificate.
func (r Registry) CheckClaim(name, secret string) error {
	d, err := r.Get(name)
	if err != nil {
		return err
	}
	err = r.checkClaim(d, secret)
	if err != nil && d.Claim != nil && same(digest(secret), d.Claim.SHA256) {
		return errors.Join(err, r.Note(name, "refused", err.Error())) // somebody has kept it
	}
	return err
}

func (r Registry) checkClaim(d Device, secret string) error {
	switch {
	case d.Claim == nil:
		return refuse("there is no claim for device %q", d.Name)
	case !same(digest(secret), d.Claim.SHA256):
		return refuse("this is not the claim of device %q", d.Name)
	case r.now().After(d.Claim.ExpiresAt):
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("the claim of device %q was over at %s", d.Name, d.Claim.ExpiresAt.Format(time.RFC3339)),
			Fix: "make another: postern devices claim " + d.Name}
	}
	return nil
}

// Redeem uses a claim for a key: issue makes the certificate, which is recorded before
// it is given. Every attempt with a claim that is there is written to the journal.
func (r Registry) Redeem(name, secret, key string, issue func() (*x509.Certificate, error)) (leaf *x509.Certificate, err error) {
	err = r.change(name, false, func(d *Device) error {
		if err := r.redeemable(*d, secret, key); err != nil {
			return r.refused(name, err)
		}
		if leaf, err = issue(); err != nil {
			return err
		}
		now := r.now()
		used := *d.Claim
		used.UsedBy, used.UsedAt = key, &now
		d.Claim, d.RevokedAt, d.TokenSHA256, d.Waiting = &used, nil, "", used.Hold
		d.Certificate = certificate(leaf, key)
		return r.note(Event{Device: name, What: "joined", Detail: "key " + key})
	})
	return leaf, err
}

func (r Registry) redeemable(d Device, secret, key string) error {
	if err := r.checkClaim(d, secret); err != nil {
		return err
	}
	if d.Claim.UsedBy != "" && d.Claim.UsedBy != key {
		return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("the claim of device %q was used already, for another key, at %s", d.Name, d.Claim.UsedAt.Format(time.RFC3339)),
			Fix: "if that was not this device, revoke it: postern devices revoke " + d.Name}
	}
	return nil
}

// refused writes down that something was refused, and gives why.
func (r Registry) refused(name string, err error) error {
	if e := r.note(Event{Device: name, What: "refused", Detail: err.Error()}); e != nil {
		return e
	}
	return err
}

// Renew records the certificate that a device gets for the one that it came with.
func (r Registry) Renew(name, key string, issue func() (*x509.Certificate, error)) (leaf *x509.Certificate, err error) {
	err = r.change(name, false, func(d *Device) error {
		if err := d.allowed(); err != nil {
			return r.refused(name, err)
		}
		if d.Certificate == nil {
			return r.refused(name, refuse("device %q has no certificate to renew", name))
		}
		if leaf, err = issue(); err != nil {
			return err
		}
		floor := d.Certificate.NotBefore
		d.Certificate = certificate(leaf, key)
		d.Certificate.Floor = floor // the present one stays good: the answer may be lost
		return r.note(Event{Device: name, What: "certificate renewed", Detail: "key " + key})
	})
	return leaf, err
}

func certificate(leaf *x509.Certificate, key string) *Certificate {
	from := leaf.NotBefore.UTC()
	return &Certificate{Key: key, Serial: leaf.SerialNumber.Text(16), NotBefore: from, NotAfter: leaf.NotAfter.UTC(), Floor: from}
}

// CheckCertificate tells whether a device may log in with a certificate that counts from
// the time given. That the authority has issued it, and that the certificate
// is not over, the caller has made sure of.
func (r Registry) CheckCertificate(name string, notBefore time.Time) error {
	d, err := r.Get(name)
	switch {
	case err != nil:
		return err
	case d.Certificate == nil:
		return refuse("device %q logs in with a secret, not with a certificate", name)
	case notBefore.Before(d.Certificate.Floor):
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q has a newer certificate than the one of %s that it shows: an old copy of it, or a second one", name, notBefore.UTC().Format(time.RFC3339)),
			Fix: "look for a copied device; then let it join anew: postern devices claim " + name}
	}
	return d.allowed()
}
