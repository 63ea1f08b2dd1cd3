package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/photo"
)

// Lists returns the lists of the scope's application, oldest first. The blocklists of an
// application are made when it asks for them first.
func (s *Service) Lists(c cases.Scope) ([]cases.List, error) {
	if err := s.Store.ProvideBlocklists(agent.ApplicationOr(c.Application)); err != nil {
		return nil, err
	}
	all, err := s.Store.Lists()
	return slices.DeleteFunc(all, func(l cases.List) bool { return !c.Owns(l.Application) }), err
}

// List returns one list.
func (s *Service) List(c cases.Scope, uuid string) (cases.List, error) {
	l, err := s.Store.List(uuid)
	if err == nil && !c.Owns(l.Application) {
		return cases.List{}, notFound("list", uuid)
	}
	return l, err
}

// CreateList makes an allowlist or a list of the deployer's own.
func (s *Service) CreateList(c cases.Scope, l cases.List) (cases.List, error) {
	if made, err := s.List(c, c.Record); err == nil {
		return made, nil // by an earlier try of the same request
	}
	l.UUID, l.Application = c.Record, c.Application
	if l.Type == cases.Blocklist {
		return l, cases.Wrong("list_type", "Blocklists are always there, one for each entry type; create an allowlist or a custom list.")
	}
	if err := l.Validate(); err != nil {
		return l, err
	}
	out, err := s.Store.CreateList(l)
	return out, taken(err)
}

// taken words a conflict as the field's fault.
func taken(err error) error {
	if agent.ErrorCode(err) == agent.CodeConflict {
		return cases.Wrong("name", "A list with this name already exists.")
	}
	return err
}

// ChangeList renames or describes a list. Blocklists do not change.
func (s *Service) ChangeList(c cases.Scope, uuid string, change func(*cases.List)) (cases.List, error) {
	if _, err := s.List(c, uuid); err != nil {
		return cases.List{}, err
	}
	out, err := s.Store.UpdateList(uuid, func(l *cases.List) error {
		if l.Type == cases.Blocklist {
			return immutable()
		}
		change(l)
		return l.Validate()
	})
	return out, taken(err)
}

func immutable() error {
	return &cases.Refusal{Form: cases.Detail, Forbidden: true, Message: "Blocklists cannot be changed or deleted."}
}

// DeleteList deletes a list with its entries.
func (s *Service) DeleteList(c cases.Scope, uuid string) error {
	l, err := s.List(c, uuid)
	if err != nil {
		return err
	}
	if l.Type == cases.Blocklist {
		return immutable()
	}
	gone, err := s.Store.DeleteList(uuid)
	for _, e := range gone {
		s.index.dropEntry(e.UUID)
	}
	return err
}

// Entries returns the entries of a list, oldest first.
func (s *Service) Entries(c cases.Scope, list string) ([]cases.Entry, error) {
	if _, err := s.List(c, list); err != nil {
		return nil, err
	}
	return s.Store.Entries(list)
}

// made finds the entry that an earlier try of the same request has made.
func (s *Service) made(c cases.Scope, list string) (cases.Entry, bool) {
	if c.Record == "" {
		return cases.Entry{}, false
	}
	all, err := s.Store.Entries(list)
	i := slices.IndexFunc(all, func(e cases.Entry) bool { return e.UUID == c.Record })
	if err != nil || i < 0 {
		return cases.Entry{}, false
	}
	return all[i], true
}

// AddEntry adds a value, or what a session has of the list's type: its face or its
// vendor_data.
func (s *Service) AddEntry(c cases.Scope, list string, e cases.Entry) (cases.Entry, error) {
	l, err := s.List(c, list)
	if err != nil {
		return e, err
	}
	if made, ok := s.made(c, list); ok {
		return made, nil
	}
	e.UUID, e.ListUUID = c.Record, list
	if e.SessionID != "" {
		return s.addFromSession(c, &l, e)
	}
	if l.EntryType == cases.EntryFace {
		return e, cases.Wrong("reference_session_id", "A face is added from a session, or by face-upload.")
	}
	if err := e.Validate(); err != nil {
		return e, err
	}
	return s.addEntry(&l, e, nil, nil)
}

func (s *Service) addEntry(l *cases.List, e cases.Entry, face *agent.Template, picture *agent.Media) (cases.Entry, error) {
	out, err := s.Store.AddEntry(e, face, picture)
	if agent.ErrorCode(err) == agent.CodeConflict {
		return out, cases.Wrong("value", "This value is already in the list.")
	}
	if err != nil {
		return out, err
	}
	return out, s.indexEntry(l, out)
}

func (s *Service) addFromSession(c cases.Scope, l *cases.List, e cases.Entry) (cases.Entry, error) {
	v, err := s.Store.Session(e.SessionID)
	if v, err = visible(c, v, err); err != nil {
		if agent.ErrorCode(err) == agent.CodeNotFound {
			err = cases.Wrong("reference_session_id", "There is no such session.")
		}
		return e, err
	}
	e.Number = v.Number
	switch l.EntryType {
	case cases.EntryUser:
		if e.Value = v.VendorData; e.Value == "" {
			return e, cases.Wrong("reference_session_id", "The session has no vendor_data.")
		}
		return s.addEntry(l, e, nil, nil)
	case cases.EntryFace:
		return s.addFace(l, &v, e)
	}
	return e, cases.Wrong("reference_session_id", "A session has nothing of this list's type here; send a value.")
}

func (s *Service) addFace(l *cases.List, v *cases.Session, e cases.Entry) (cases.Entry, error) {
	t, err := s.Store.Face(owner(v.ID), cases.FaceCapture)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return e, cases.Wrong("reference_session_id", "The session has no face.")
	}
	if err != nil {
		return e, err
	}
	defer clear(t.Embedding)
	e.Value = v.ID
	var picture *agent.Media
	if m, err := s.Store.Media(v.Capture.Media); err == nil { // a copy of its own: it outlives the session
		if m.ID, err = s.mediaID(); err != nil {
			return e, err
		}
		images, err := s.Images(l.Application)
		if err != nil {
			return e, err
		}
		m.Kind, m.ExpiresAt = "list_entry", s.keepEntry(images)
		picture = &m
	}
	if e.Metadata, err = json.Marshal(map[string]any{"reference_session_id": v.ID}); err != nil {
		return e, err
	}
	return s.addEntry(l, e, &t, picture)
}

// keepListed stands for a time without limit.
const keepListed = 100 * 365 * 24 * 3600 * 1e9

// UploadFace adds the face on a picture to a list.
func (s *Service) UploadFace(ctx context.Context, c cases.Scope, list string, image []byte, e cases.Entry) (cases.Entry, error) {
	l, err := s.List(c, list)
	if err != nil {
		return e, err
	}
	if made, ok := s.made(c, list); ok {
		return made, nil
	}
	if l.EntryType != cases.EntryFace {
		return e, cases.Wrong("image", "This list holds no faces.")
	}
	frame, err := photo.Decode(bytes.NewReader(image), "image", photo.Limits{MaxBytes: 5 << 20, MaxPixels: photo.DefaultLimits.MaxPixels})
	if err != nil {
		return e, cases.Wrong("image", "%s", err)
	}
	p, err := s.Prober.ProbeLive(ctx, frame)
	if err != nil {
		return e, &agent.Error{Code: agent.CodeUnavailable, Message: "the picture could not be analysed", Err: err}
	}
	if p.Face == nil || !p.Embedding.Normalised() {
		return e, cases.Wrong("image", "No face detected in the image.")
	}
	var a cases.Attachments
	id, err := s.addPicture(frame, &p.Face.Box, "list_entry", &a)
	if err != nil {
		return e, err
	}
	images, err := s.Images(l.Application)
	if err != nil {
		return e, err
	}
	picture := a.Media[0]
	picture.ExpiresAt = s.keepEntry(images)
	e.UUID, e.ListUUID, e.Value, e.ObjectUUID = c.Record, list, id, id
	face := agent.Template{ModelID: p.ModelID, Space: p.Space, Quality: p.Quality, Embedding: p.Embedding, CreatedAt: s.now()}
	return s.addEntry(&l, e, &face, &picture)
}

// DeleteEntry deletes an entry with its face.
func (s *Service) DeleteEntry(c cases.Scope, list, uuid string) error {
	if _, err := s.List(c, list); err != nil {
		return err
	}
	s.index.dropEntry(uuid)
	_, err := s.Store.DeleteEntry(list, uuid)
	return err
}
