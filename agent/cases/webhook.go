package cases

import (
	"net/url"
	"slices"
	"time"
)

// events that a destination can subscribe to, with whether this product has them.
var events = []string{EventStatus, EventData, "user.status.updated", "user.data.updated", "business.status.updated", "business.data.updated",
	"activity.created", "transaction.created", "transaction.status.updated", "travel_rule.status.updated",
	OldVerified, OldReview, OldDeclined}

// The older names of a change to one status. A destination subscribed to one gets
// only that change, under that name.
const (
	OldVerified = "session.verified"
	OldReview   = "session.review_started"
	OldDeclined = "session.declined"
)

// EventTest is the type of a test delivery.
const EventTest = EventStatus

// oldNames maps a status to its older event.
var oldNames = map[Status]string{Approved: OldVerified, InReview: OldReview, Declined: OldDeclined}

// Names lists the types under which an event of this session is announced.
func (s *Session) Names(event string) []string {
	names := []string{event}
	if old, ok := oldNames[s.Status]; ok && event == EventStatus {
		names = append(names, old)
	}
	return names
}

// Destination is where webhooks go.
type Destination struct {
	UUID        string    `json:"uuid"`
	Label       string    `json:"label"`
	URL         string    `json:"url"`
	Application string    `json:"application,omitempty"` // whose sessions it hears of; empty is the default one
	Enabled     bool      `json:"enabled"`
	Sandbox     bool      `json:"sandbox,omitempty"` // hears of sandbox sessions, and of no others
	Version     string    `json:"webhook_version"`
	Events      []string  `json:"subscribed_events"`
	Secret      string    `json:"secret_shared_key"`
	Next        string    `json:"next_secret,omitempty"` // takes over at SwitchAt
	SwitchAt    time.Time `json:"switch_at,omitzero"`
	Legacy      bool      `json:"legacy,omitempty"` // the one behind /v3/webhook/

	Deliveries int       `json:"deliveries"` // attempts
	Failures   int       `json:"failures"`
	MinMS      int64     `json:"min_ms"`
	MaxMS      int64     `json:"max_ms"`
	SumMS      int64     `json:"sum_ms"`
	LastAt     time.Time `json:"last_at,omitzero"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// MaxURL bounds addresses.
const MaxURL = 2048

// Validate checks a destination. Whether its host may be reached is decided when
// it is dialled: names resolve to other addresses tomorrow.
func (d *Destination) Validate(plainHTTP bool) error {
	if err := CheckURL("url", d.URL, plainHTTP); err != nil {
		return err
	}
	if !plain(d.Label) {
		return Wrong("label", "Ensure this field has no more than %d characters and no control characters.", MaxListText)
	}
	if d.Version != "v3" {
		return Wrong("webhook_version", "%.20q is not available here: only v3 payloads are sent.", d.Version)
	}
	if len(d.Events) == 0 {
		return Wrong("subscribed_events", "This list may not be empty. Available: %v.", events)
	}
	for i, e := range d.Events {
		if !slices.Contains(events, e) || slices.Contains(d.Events[:i], e) {
			return Wrong("subscribed_events", "%.60q is not a valid choice or stands twice. Available: %v.", e, events)
		}
	}
	return nil
}

// CheckURL refuses what is not an absolute https address (http where allowed)
// without user name or fragment.
func CheckURL(field, s string, plainHTTP bool) error {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return Wrong(field, "This field is required.")
	case err != nil || len(s) > MaxURL || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return Wrong(field, "Enter a valid URL.")
	case u.Scheme != "https" && !(plainHTTP && u.Scheme == "http"):
		return Wrong(field, "The URL must start with https://.")
	}
	return nil
}

// AllEvents is what a destination gets that does not say.
func AllEvents() []string { return []string{EventStatus, EventData} }

// Rotate gives the destination a new secret. Until the overlap has passed the old
// one still signs, so that receivers have time to learn the new one, which signs
// beside it in headers of its own. Without overlap it takes over at once.
func (d *Destination) Rotate(secret string, now time.Time, overlap time.Duration) {
	d.UpdatedAt = now
	if overlap <= 0 {
		d.Secret, d.Next, d.SwitchAt = secret, "", time.Time{}
		return
	}
	if d.Next != "" && !now.Before(d.SwitchAt) {
		d.Secret = d.Next
	}
	d.Next, d.SwitchAt = secret, now.Add(overlap)
}

// Secrets are the secret that signs now, and the one that will ("" for none).
func (d *Destination) Secrets(now time.Time) (current, next string) {
	if d.Next != "" && !now.Before(d.SwitchAt) {
		return d.Next, ""
	}
	return d.Secret, d.Next
}

// Event is one thing that happened to a session, with the session as it was then.
// It is the same for all who are told.
type Event struct {
	ID      string    `json:"event_id"`
	Type    string    `json:"webhook_type"`
	At      time.Time `json:"at"`
	Session Session   `json:"session"`
	Changed []string  `json:"changed_fields,omitempty"` // data.updated
}

// Delivery states.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Failed    = "failed" // given up; can be sent again by hand
)

// Try is one attempt at a delivery.
type Try struct {
	At     time.Time `json:"at"`
	Status int       `json:"status_code"` // 0: no answer
	MS     int64     `json:"response_time_ms"`
	Error  string    `json:"error,omitempty"`
}

// MaxTries bounds the log of one delivery.
const MaxTries = 32

// Delivery is one event on its way to one destination.
type Delivery struct {
	UUID        string    `json:"uuid"`
	EventID     string    `json:"event_id"`
	Type        string    `json:"webhook_type"`
	Destination string    `json:"destination_uuid"`
	SessionID   string    `json:"session_id"`
	Status      Status    `json:"session_status"`
	State       string    `json:"state"`
	Test        bool      `json:"test,omitempty"`
	Attempts    int       `json:"attempts"` // since it was queued or sent again
	Tries       []Try     `json:"tries"`
	NextAt      time.Time `json:"next_at,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
}

// Record notes an attempt.
func (d *Delivery) Record(t Try) {
	d.Attempts++
	if len(d.Tries) == MaxTries {
		d.Tries = append(d.Tries[:1], d.Tries[2:]...) // the first and the latest tell most
	}
	d.Tries = append(d.Tries, t)
}

// Count notes an attempt in the destination's statistics.
func (d *Destination) Count(t Try, ok bool) {
	if d.Deliveries == 0 || t.MS < d.MinMS {
		d.MinMS = t.MS
	}
	d.MaxMS = max(d.MaxMS, t.MS)
	d.SumMS += t.MS
	d.Deliveries++
	if !ok {
		d.Failures++
	}
	d.LastAt = t.At
}
