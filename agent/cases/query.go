package cases

import (
	"encoding/json"
	"time"

	"postern/agent"
)

// Attachments are what a change of a session brings along, stored in the same
// transaction.
type Attachments struct {
	Media []agent.Media
	Faces []agent.Template
	Drop  []string  // media and face ids that nothing refers to any more
	Until time.Time // not zero: all pictures of the session are kept until then
	Event string    // an event besides the changes of status: data.updated
}

// SessionQuery selects sessions. Criteria that are set must all hold; a nil list
// is no criterion, an empty one matches nothing.
type SessionQuery struct {
	Application string // "": the default one
	Environment string
	Statuses    []Status
	VendorData  string
	Workflows   []string  // groups
	Allowed     []string  // groups that the caller may see; nil: all
	From, To    time.Time // of creation; To is not included
	ID          string    // exactly this one
	Number      uint64    // exactly this one
	Digits      string    // the number starts with these
	Text        string    // part of the name or of vendor_data, whatever the case
	Offset      int
	Limit       int // 1..1000; 0 means 100
}

// Due is a delivery whose time has come, with all that is needed to make it.
type Due struct {
	Delivery    Delivery
	Event       Event
	Destination Destination
}

// DeliveryQuery selects deliveries of the log; one of the two is set.
type DeliveryQuery struct {
	Destination string
	SessionID   string
	Offset      int
	Limit       int // 1..1000; 0 means 100
}

// NewSession asks for a session.
type NewSession struct {
	WorkflowID      string // of a group or of a version
	VendorData      string
	Callback        string
	CallbackMethod  string
	Language        string
	Metadata        json.RawMessage
	ContactDetails  json.RawMessage
	ExpectedDetails json.RawMessage
	Portrait        string // base64
	Scenario        string // sandbox
}
