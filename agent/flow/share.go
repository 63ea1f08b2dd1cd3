package flow

import (
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"postern/agent"
	"postern/agent/cases"
)

// shareClaims are what a share token says.
type shareClaims struct {
	SessionID   string `json:"session_id"`
	Application string `json:"for_application_id"`
	jwt.RegisteredClaims
}

// Bounds of a share token's life.
const (
	MinShare     = time.Minute
	MaxShare     = 24 * time.Hour
	DefaultShare = time.Hour
)

// Share makes a token with which the named application can import a session's
// decision from this installation.
func (s *Service) Share(c cases.Scope, id, application string, life time.Duration) (string, error) {
	v, err := s.Session(c, id)
	if err != nil {
		return "", err
	}
	if !v.Decided() {
		return "", &cases.Refusal{Form: cases.DetailList, Message: "Only sessions with status Approved, Declined or In Review can be shared. Current status: " + string(v.Status)}
	}
	key, err := s.Secret()
	if err != nil {
		return "", err
	}
	now := s.now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, shareClaims{SessionID: v.ID, Application: application, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: "postern", Subject: "share", IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life))}}).SignedString(key)
}

// errShare is the answer to every token that does not open a session.
func errShare() error { return cases.Wrong("share_token", "The token is invalid or has expired.") }

// ImportShared makes a session of its own from a shared one: its decision and its
// pictures, without the faces that comparisons need. Unless the review is trusted,
// a person has to look at it.
func (s *Service) ImportShared(c cases.Scope, token, workflow, vendor string, trust bool) (cases.Session, error) {
	key, err := s.Secret()
	if err != nil {
		return cases.Session{}, err
	}
	var claims shareClaims
	_, err = jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil }, jwt.WithValidMethods([]string{"HS256"}),
		jwt.WithTimeFunc(s.Now), jwt.WithIssuer("postern"), jwt.WithSubject("share"), jwt.WithExpirationRequired())
	if err != nil {
		return cases.Session{}, errShare()
	}
	v, err := s.Store.Session(claims.SessionID)
	if agent.ErrorCode(err) == agent.CodeNotFound || err == nil && (!v.Decided() || v.Environment != c.Environment()) {
		return cases.Session{}, errShare()
	}
	if err != nil {
		return cases.Session{}, err
	}
	return s.importSession(c, v, workflow, vendor, trust)
}

func (s *Service) importSession(c cases.Scope, v cases.Session, workflow, vendor string, trust bool) (cases.Session, error) {
	n := v
	if made, err := s.Session(c, c.Record); err == nil {
		return made, nil // by an earlier try of the same request
	}
	n.ID, n.Number, n.Revision, n.Token, n.SharedFrom, n.Reviews, n.Happenings = c.Record, 0, 0, "", v.ID, nil, nil
	n.Application = c.Application
	n.Capture, n.Document, n.Portrait = cases.Face{}, cases.Face{}, cases.Face{}
	n.CreatedAt = s.now()
	n.UpdatedAt, n.ActiveAt, n.ExpiresAt, n.DueAt = n.CreatedAt, n.CreatedAt, time.Time{}, time.Time{}
	n.VendorData = vendor
	if !trust {
		n.Status = cases.InReview
	}
	if workflow != "" {
		w, err := s.Store.PublishedWorkflow(workflow)
		if err != nil || !usable(c, &w) {
			return n, unknownWorkflow(errors.Join(err, notFound("workflow", workflow)))
		}
		n.WorkflowID, n.VersionID, n.Version, n.Expiration = w.GroupID, w.UUID, w.Version, w.Expiration
	}
	a, err := s.copyPictures(&n)
	if err != nil {
		return n, err
	}
	out, err := s.create(n, a, nil)
	s.Wake()
	return out, err
}

// copyPictures gives the steps pictures of their own; those that are gone stay away.
func (s *Service) copyPictures(n *cases.Session) (cases.Attachments, error) {
	var a cases.Attachments
	copied := map[string]string{"": ""}
	steps := append([]cases.StepState(nil), n.Steps...)
	for i := range steps {
		steps[i].Matches = nil // they tell of other people's sessions
		for _, id := range []*string{&steps[i].Source, &steps[i].Target} {
			fresh, done := copied[*id]
			if !done {
				m, err := s.Store.Media(*id)
				if err == nil {
					if fresh, err = s.mediaID(); err != nil {
						return a, err
					}
					m.ID = fresh
					a.Media = append(a.Media, m)
				}
				copied[*id] = fresh
			}
			*id = fresh
		}
	}
	n.Steps = steps
	return a, nil
}
