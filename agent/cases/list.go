package cases

import (
	"encoding/json"
	"slices"
	"time"
	"unicode"
)

// List types.
const (
	Blocklist = "blocklist" // one for each entry type, always there, cannot be changed
	Allowlist = "allowlist"
	Custom    = "custom"
)

// EntryTypes are what the entries of a list can be.
var EntryTypes = []string{"face", "document", "phone", "email", "ip_address", "device_fingerprint", "wallet_address", "bank_account",
	"user", "business", "country", "key"}

// EntryFace is the type of the lists that hold faces, EntryUser of those that hold
// vendor_data.
const (
	EntryFace = "face"
	EntryUser = "user"
)

// List is a blocklist, an allowlist or one of the deployer's own.
type List struct {
	UUID        string    `json:"uuid"`
	Application string    `json:"application,omitempty"` // whose it is; empty is the default one
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Type        string    `json:"list_type"`
	EntryType   string    `json:"entry_type"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// MaxListText bounds names, values and labels of lists.
const MaxListText = 256

// Validate checks a list.
func (l *List) Validate() error {
	switch {
	case l.Name == "":
		return Wrong("name", "This field may not be blank.")
	case !plain(l.Name):
		return Wrong("name", "Ensure this field has no more than %d characters and no control characters.", MaxListText)
	case !plain(l.Description):
		return Wrong("description", "Ensure this field has no more than %d characters and no control characters.", MaxListText)
	case !slices.Contains([]string{Blocklist, Allowlist, Custom}, l.Type):
		return Wrong("list_type", "%.40q is not a valid choice: allowlist or custom.", l.Type)
	case !slices.Contains(EntryTypes, l.EntryType):
		return Wrong("entry_type", "%.40q is not a valid choice.", l.EntryType)
	}
	return nil
}

// plain accepts printable text of a bounded length.
func plain(s string) bool {
	n := 0
	for _, r := range s {
		if n++; n > MaxListText || unicode.IsControl(r) || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}

// Entry is one entry of a list. A face's template is stored beside it.
type Entry struct {
	UUID       string          `json:"uuid"`
	ListUUID   string          `json:"list_uuid"`
	Value      string          `json:"value"`
	Label      string          `json:"display_label"`
	Comment    string          `json:"comment"`
	AddedBy    string          `json:"added_by"`
	SessionID  string          `json:"reference_session_id,omitempty"`
	Number     uint64          `json:"reference_session_number,omitempty"`
	ObjectUUID string          `json:"reference_object_uuid,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	Media      string          `json:"media,omitempty"` // picture of a face
	CreatedAt  time.Time       `json:"created_at"`
}

// Validate checks an entry.
func (e *Entry) Validate() error {
	switch {
	case e.Value == "":
		return Wrong("value", "This field may not be blank.")
	case !plain(e.Value):
		return Wrong("value", "Ensure this field has no more than %d characters and no control characters.", MaxListText)
	case !plain(e.Label):
		return Wrong("display_label", "Ensure this field has no more than %d characters and no control characters.", MaxListText)
	case len([]rune(e.Comment)) > MaxComment:
		return Wrong("comment", "Ensure this field has no more than %d characters.", MaxComment)
	}
	return nil
}
