package agent

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resource is a group of endpoints of the HTTP API that a key may be allowed to use.
type Resource string

// The resources.
const (
	ResourceSessions   Resource = "sessions"
	ResourceWorkflows  Resource = "workflows"
	ResourceLists      Resource = "lists"
	ResourceWebhooks   Resource = "webhooks"
	ResourceBiometrics Resource = "biometrics" // face match, liveness, face search
	ResourceMedia      Resource = "media"      // read: answers carry links to pictures
)

// Resources lists all of them.
var Resources = []Resource{ResourceSessions, ResourceWorkflows, ResourceLists, ResourceWebhooks, ResourceBiometrics, ResourceMedia}

// Access is how much a key may do with a resource; each level includes those below.
type Access int

// The levels.
const (
	NoAccess Access = iota
	ReadAccess
	WriteAccess
)

// APIKey is one credential of the HTTP API. The secret itself is known to its
// holder only: what is kept is a digest of it.
type APIKey struct {
	ID          string              `json:"id"` // public: names the key in tokens, logs and lists
	Name        string              `json:"name"`
	Application string              `json:"application"` // whose sessions, workflows and lists it sees
	Digest      []byte              `json:"digest"`      // SHA-256 of the token
	Sandbox     bool                `json:"sandbox"`     // answers are canned, real data is out of reach
	Scopes      map[Resource]Access `json:"scopes"`
	Workflows   []string            `json:"workflows"` // empty: all
	Networks    []netip.Prefix      `json:"networks"`  // empty: from anywhere
	CreatedAt   time.Time           `json:"created_at"`
	ExpiresAt   time.Time           `json:"expires_at"` // zero: never
	RevokedAt   time.Time           `json:"revoked_at"` // zero: not revoked
}

// DefaultApplication is whose everything is that names no other.
const DefaultApplication = "default"

// ApplicationOr is the application, or the default one.
func ApplicationOr(name string) string { return cmp.Or(name, DefaultApplication) }

// CheckApplication refuses what cannot be the name of an application.
func CheckApplication(name string) error {
	inside := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !inside(r) }) {
		return &Error{Code: CodeInvalid, Message: fmt.Sprintf("application %s is not 1 to 64 letters, digits, '-', '_' or '.'", quoteShort(name)), Fix: "name it for example visitors"}
	}
	return nil
}

const (
	keyIDLength     = 10
	keySecretLength = 52 // 32 bytes in base32
	liveKeyPrefix   = "postern_live_"
	testKeyPrefix   = "postern_test_"
)

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewAPIKey gives k an id and a digest, and returns the token to hand out once.
// The token has 256 random bits, so a plain SHA-256 of it cannot be searched.
func NewAPIKey(k APIKey, random io.Reader) (APIKey, string, error) {
	raw := make([]byte, 8+32)
	if _, err := io.ReadFull(random, raw); err != nil {
		return k, "", &Error{Code: CodeInternal, Message: "no randomness for a key", Err: err}
	}
	k.ID = keyEncoding.EncodeToString(raw[:8])[:keyIDLength]
	prefix := liveKeyPrefix
	if k.Sandbox {
		prefix = testKeyPrefix
	}
	token := prefix + k.ID + "_" + keyEncoding.EncodeToString(raw[8:])
	sum := sha256.Sum256([]byte(token))
	k.Digest = sum[:]
	return k, token, nil
}

// KeyIDOf returns the id inside a token; false when it is not one.
func KeyIDOf(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, liveKeyPrefix)
	if !ok {
		rest, ok = strings.CutPrefix(token, testKeyPrefix)
	}
	if !ok || len(rest) != keyIDLength+1+keySecretLength || rest[keyIDLength] != '_' {
		return "", false
	}
	outside := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }
	if strings.ContainsFunc(rest[:keyIDLength], outside) || strings.ContainsFunc(rest[keyIDLength+1:], outside) {
		return "", false
	}
	return rest[:keyIDLength], true
}

// Opens reports whether token is this key's and the key is in force at now. The
// comparison takes the same time wherever the digests differ.
func (k *APIKey) Opens(token string, now time.Time) bool {
	sum := sha256.Sum256([]byte(token))
	same := subtle.ConstantTimeCompare(sum[:], k.Digest) == 1
	expired := !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
	return same && k.RevokedAt.IsZero() && !expired
}

// Allows reports whether the key may use a resource that far.
func (k *APIKey) Allows(r Resource, a Access) bool { return k.Scopes[r] >= a }

// AllowsFrom reports whether the key may be used from an address.
func (k *APIKey) AllowsFrom(a netip.Addr) bool {
	return len(k.Networks) == 0 || slices.ContainsFunc(k.Networks, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// AllowsWorkflow reports whether the key may see a workflow and its sessions.
func (k *APIKey) AllowsWorkflow(id string) bool {
	return len(k.Workflows) == 0 || slices.Contains(k.Workflows, id)
}

// ParseScope reads "sessions=read", "lists=none", or "webhooks" for write.
func ParseScope(s string) (Resource, Access, error) {
	name, level, given := strings.Cut(s, "=")
	if !given {
		level = "write"
	}
	a := slices.Index([]string{"none", "read", "write"}, level)
	if !slices.Contains(Resources, Resource(name)) || a < 0 {
		return "", 0, &Error{Code: CodeInvalid, Message: fmt.Sprintf("scope %s is not resource=read or resource=write", quoteShort(s)),
			Fix: fmt.Sprintf("resources are %s", joinResources())}
	}
	return Resource(name), Access(a), nil
}

func joinResources() string {
	names := make([]string, len(Resources))
	for i, r := range Resources {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}
