package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"postern/agent"
)

// mediaStore keeps pictures for the links in answers.
type mediaStore interface {
	// PutMedia stores a picture under m.ID until m.ExpiresAt.
	PutMedia(m agent.Media) error
	// Media returns a stored picture; agent.CodeNotFound when it is gone or expired.
	Media(id string) (agent.Media, error)
	// HasMedia tells whether a picture is stored.
	HasMedia(id string) bool
	// MediaKey returns the secret that signs links; the same after a restart.
	MediaKey() ([]byte, error)
}

// Links signs and checks picture links: /media/{id}?exp=unix seconds&sig=hex of an
// HMAC-SHA256. A link dies by its own clock, and with the picture.
type Links struct {
	Key  []byte
	Life time.Duration
	Now  func() time.Time
}

const mediaPath = "/media/"

// URL is the link to a picture from now until Life has passed.
func (l *Links) URL(base, id string) string {
	exp := strconv.FormatInt(l.Now().Add(l.Life).Unix(), 10)
	return base + mediaPath + id + "?exp=" + exp + "&sig=" + l.sign(id, exp)
}

func (l *Links) sign(id, exp string) string {
	m := hmac.New(sha256.New, l.Key)
	m.Write([]byte("media\n" + id + "\n" + exp))
	return hex.EncodeToString(m.Sum(nil))
}

var mediaIDs = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

var errLink = errors.New("the link is wrong or has expired")

// Check reports whether a link's query opens the picture now.
func (l *Links) Check(id string, q url.Values) error {
	exp, sig := q.Get("exp"), q.Get("sig")
	unix, err := strconv.ParseInt(exp, 10, 64)
	if err != nil || !mediaIDs.MatchString(id) || len(q["exp"]) != 1 || len(q["sig"]) != 1 {
		return errLink
	}
	if subtle.ConstantTimeCompare([]byte(sig), []byte(l.sign(id, exp))) != 1 {
		return errLink
	}
	if left := time.Unix(unix, 0).Sub(l.Now()); left <= 0 || left > l.Life+time.Minute {
		return errLink // also when the clock was set back
	}
	return nil
}

func (s *Server) mediaRoutes() []Route {
	if s.links == nil {
		return nil
	}
	return []Route{{Method: http.MethodGet, Path: mediaPath + "{id}/", Open: true, Handle: s.media}}
}

// media serves one picture. The link is the permission; whatever is wrong with it
// looks the same from outside.
func (s *Server) media(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if s.links.Check(id, r.URL.Query()) != nil {
		return NotFound()
	}
	m, err := s.Media.Media(id)
	if err != nil {
		return err
	}
	if !s.Now().Before(m.ExpiresAt) {
		return NotFound()
	}
	h := w.Header()
	h.Set("Content-Type", m.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(m.Data)))
	h.Set("Content-Disposition", "inline")
	h.Set("Cache-Control", "private, no-store")
	if r.Method == http.MethodHead {
		return nil
	}
	w.Write(m.Data) // who has gone away needs no error
	return nil
}

// MediaURL is a link to a stored picture for a caller; nil when the caller may not see
// pictures or none are kept.
func (s *Server) MediaURL(ctx context.Context, base, id string) *string {
	if s.links == nil || id == "" || !s.Media.HasMedia(id) || !CallerOf(ctx).Allows(agent.ResourceMedia, agent.ReadAccess) {
		return nil
	}
	u := s.links.URL(base, id)
	return &u
}
