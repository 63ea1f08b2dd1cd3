package agent

import "time"

// Media is one picture that the API keeps for a while, for the links in its answers.
type Media struct {
	ID          string    // random; says nothing about its content
	Owner       string    // whose data key seals it, "session/<id>"; it goes when that goes
	Kind        string    // what it shows in the session, for example "source_image"
	ContentType string    // image/jpeg, image/png, image/webp or image/tiff
	ExpiresAt   time.Time // from here on it is as if it had never been
	Data        []byte
}
