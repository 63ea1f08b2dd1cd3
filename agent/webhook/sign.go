package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
)

// Headers of a delivery. Those with Next are signed with the secret that takes over
// when a rotation ends.
const (
	HeaderTimestamp = "X-Timestamp"
	HeaderRaw       = "X-Signature"
	HeaderV2        = "X-Signature-V2"
	HeaderSimple    = "X-Signature-Simple"
	HeaderNext      = "X-Signature-Next"
	HeaderNextV2    = "X-Signature-V2-Next"
	HeaderTest      = "X-Didit-Test-Webhook"
)

// Sign is the lower-case hex of HMAC-SHA256.
func Sign(secret string, message []byte) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(message)
	return hex.EncodeToString(m.Sum(nil))
}

// simple is the message of the older signature that leaves the decision out.
func simple(timestamp int64, session, status, kind string) []byte {
	return []byte(strconv.FormatInt(timestamp, 10) + ":" + session + ":" + status + ":" + kind)
}

// signed is what the headers are made from.
type signed struct {
	body      []byte // canonical
	timestamp int64
	session   string
	status    string
	kind      string
}

// sign sets the signature headers. The body is canonical as it is sent, so both of
// the signatures over it are the same.
func (s *signed) sign(h http.Header, secret, next string) {
	h.Set(HeaderTimestamp, strconv.FormatInt(s.timestamp, 10))
	h.Set(HeaderV2, Sign(secret, s.body))
	h.Set(HeaderRaw, Sign(secret, s.body))
	h.Set(HeaderSimple, Sign(secret, simple(s.timestamp, s.session, s.status, s.kind)))
	if next != "" {
		h.Set(HeaderNextV2, Sign(next, s.body))
		h.Set(HeaderNext, Sign(next, s.body))
	}
}
