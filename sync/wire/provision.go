package wire

import "errors"

// Join asks for a certificate: with a claim, on ChanJoin, as a device that has none; or
// without, on ChanRenew, over a connection that has one.
type Join struct {
	Claim   string `cbor:"1,keyasint,omitempty"` // the secret of a claim
	Request []byte `cbor:"2,keyasint"`           // PKCS #10, DER
}

// Certificate answers a Join. When the header has a code it is empty.
type Certificate struct {
	Leaf       []byte `cbor:"1,keyasint,omitempty"` // the device's certificate, DER
	Authority  []byte `cbor:"2,keyasint,omitempty"` // and that of who issued it
	HubKey     []byte `cbor:"3,keyasint,omitempty"` // Ed25519 key with which the hub signs commands and desired state
	ServerName string `cbor:"4,keyasint,omitempty"` // the name in the hub's own certificate, where Authority issued that; else the address counts
}

// Limits on parts of these messages, in bytes.
const (
	maxClaim       = 128
	maxCertificate = 4096
)

// Type implements Message.
func (*Join) Type() Type { return TypeJoin }

// Type implements Message.
func (*Certificate) Type() Type { return TypeCertificate }

func (j *Join) check() error {
	if len(j.Request) == 0 {
		return errors.New("no request for a certificate")
	}
	return errors.Join(atMost("claim", len(j.Claim), maxClaim), atMost("request", len(j.Request), maxCertificate))
}

func (c *Certificate) check() error {
	whole := len(c.Leaf) > 0 && len(c.Authority) > 0 && len(c.HubKey) == 32
	none := len(c.Leaf)+len(c.Authority)+len(c.HubKey) == 0
	if !whole && !none {
		return errors.New("a certificate without its authority or the hub's key")
	}
	return errors.Join(atMost("certificate", len(c.Leaf), maxCertificate), atMost("certificate", len(c.Authority), maxCertificate),
		atMost("server name", len(c.ServerName), 253))
}
