package agent

import "time"

// Replay is what a request with an Idempotency-Key came to, or is about to.
type Replay struct {
	Print  []byte    `json:"print"`  // digest of method, path and body
	Record string    `json:"record"` // id of what the request makes, the same in every try
	At     time.Time `json:"at"`     // of the first try

	About       string `json:"about,omitempty"`  // id of the session or list entry that the answer is about
	Status      int    `json:"status,omitempty"` // 0: not answered yet
	ContentType string `json:"content_type,omitempty"`
	Body        []byte `json:"body,omitempty"`
}

// ReplayLife is how long a request may be repeated under its Idempotency-Key.
const ReplayLife = 24 * time.Hour
