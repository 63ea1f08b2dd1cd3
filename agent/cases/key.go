package cases

import (
	"slices"
	"time"
)

// Key is an API key. The secret itself is not kept, only its SHA-256.
type Key struct {
	ID        string            `json:"id"`
	Label     string            `json:"label"`
	Prefix    string            `json:"prefix"` // the first characters of the secret, for people
	Sandbox   bool              `json:"sandbox,omitempty"`
	Scopes    map[string]string `json:"scopes,omitempty"`    // resource -> none, read or write; nil: write on all
	Workflows []string          `json:"workflows,omitempty"` // group ids; nil: all
	Networks  []string          `json:"networks,omitempty"`  // CIDRs of callers; nil: all
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
	RevokedAt time.Time         `json:"revoked_at,omitzero"`
	LastUsed  time.Time         `json:"last_used_at,omitzero"`
}

// Usable tells whether the key is neither revoked nor expired.
func (k *Key) Usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// Scope limits what a caller may see of sessions and workflows.
type Scope struct {
	Sandbox   bool
	Workflows []string // group ids; nil: all
}

// Sees tells whether a session lies within the scope.
func (c Scope) Sees(s *Session) bool {
	return c.Sandbox == (s.Environment == Sandbox) && c.Allows(s.WorkflowID)
}

// Allows tells whether a workflow lies within the scope.
func (c Scope) Allows(group string) bool {
	return c.Workflows == nil || slices.Contains(c.Workflows, group)
}

// Replay is what an idempotency key stands for: the answer that was given.
type Replay struct {
	Key       string    `json:"key"`
	Digest    string    `json:"digest"` // of the request, so that another one is refused
	Status    int       `json:"status"`
	Type      string    `json:"content_type"`
	Body      []byte    `json:"body"`
	CreatedAt time.Time `json:"created_at"`
}
