package flow

import (
	"time"

	"postern/agent/cases"
	"postern/agent/retention"
)

// keepPictures says until when the pictures of a session are kept as the session is
// now, by what its application wants. An application that keeps no images has them only
// while they are needed: for at most KeepMedia until there is a decision, and after it as
// long as the links in answers and webhooks live.
func (s *Service) keepPictures(p retention.Period, v *cases.Session) time.Time {
	switch now := s.now(); {
	case p == retention.Unlimited:
		return now.Add(keepListed)
	case p != retention.Off:
		return v.CreatedAt.Add(time.Duration(p))
	case v.Unfinished() || v.Status == cases.InReview:
		return now.Add(s.KeepMedia)
	default:
		return now.Add(s.LinkLife)
	}
}

// keepEntry is keepPictures for the picture of a list entry that is made now.
func (s *Service) keepEntry(p retention.Period) time.Time {
	return s.keepPictures(p, &cases.Session{Status: cases.Approved, CreatedAt: s.now()})
}

// update changes a session in the store. Its pictures are kept anew when its status has
// changed.
func (s *Service) update(application, id string, fn func(*cases.Session) (cases.Attachments, error)) (cases.Session, error) {
	images, err := s.Images(application)
	if err != nil {
		return cases.Session{}, err
	}
	return s.Store.UpdateSession(id, func(v *cases.Session) (cases.Attachments, error) {
		was := v.Status
		a, err := fn(v)
		if v.Status != was {
			a.Until = s.keepPictures(images, v)
		}
		return a, err
	})
}

// create stores a new session with its pictures.
func (s *Service) create(v cases.Session, a cases.Attachments, reuse func(*cases.Session) bool) (cases.Session, error) {
	images, err := s.Images(v.Application)
	if err != nil {
		return v, err
	}
	for i := range a.Media {
		a.Media[i].ExpiresAt = s.keepPictures(images, &v)
	}
	return s.Store.CreateSession(v, a, reuse)
}

// lapse applies the clock to a stored session.
func (s *Service) lapse(application, id string) (cases.Session, error) {
	return s.update(application, id, func(v *cases.Session) (cases.Attachments, error) {
		_, err := v.Lapse(s.now())
		return cases.Attachments{}, err
	})
}
