package store

import "postern/agent/keys"

// Binding says which record a sealed value belongs to. It is the associated data
// of the value's AES-256-GCM: a value that is copied to another place, another
// file, another device or another tenant cannot be opened there.
type Binding struct {
	Kind   string // one of the Kind constants
	Tenant string // filled in by the Store
	Device string // filled in by the Store

	// Subject is the owner of the data key: a subject id, or "session/" or "entry/"
	// and an id. Empty is the file's general key, which biometric data may not use.
	Subject string

	Record  string // id of the record within its kind
	Model   string // of a template: the embedder that made it
	Version byte   // of the record's encoding, filled in by the Store
}

// The kinds of records.
const (
	KindSubject  = "subject"
	KindTemplate = "template"
	KindResult   = "result"

	KindWorkflow    = "workflow"
	KindSession     = "session"
	KindMedia       = "picture"
	KindFace        = "face"
	KindList        = "list"
	KindEntry       = "list entry"
	KindDestination = "webhook destination"
	KindEvent       = "event"
	KindDelivery    = "delivery"
	KindKey         = "API key"
	KindReplay      = "repeated request"
	KindLinkKey     = "key of picture links"
	KindShareKey    = "key of share tokens"

	KindAudit = "audit"
)

// biometric tells which of an owner's two keys seals the record.
func (b Binding) biometric() bool {
	return b.Kind == KindTemplate || b.Kind == KindMedia || b.Kind == KindFace
}

// Bytes is the associated data: every field behind its length, so that no two
// bindings look alike.
func (b Binding) Bytes() []byte {
	return keys.Bind(string(rune(b.Version)), b.Kind, b.Tenant, b.Device, b.Subject, b.Record, b.Model)
}
