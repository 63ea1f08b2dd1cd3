package flow

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/photo"
)

// MaxPortrait bounds a portrait_image, in bytes of the picture.
const MaxPortrait = 2 << 20

// Create makes a session, or returns the unfinished one of the same vendor_data on
// the same workflow version, with callback and metadata replaced.
func (s *Service) Create(ctx context.Context, c cases.Scope, r cases.NewSession) (cases.Session, error) {
	if made, err := s.Session(c, c.Record); err == nil {
		return made, nil // by an earlier try of the same request
	}
	w, err := s.Store.PublishedWorkflow(r.WorkflowID)
	if err != nil {
		return cases.Session{}, unknownWorkflow(err)
	}
	if !usable(c, &w) {
		return cases.Session{}, unknownWorkflow(notFound("workflow", w.GroupID))
	}
	if r.VendorData != "" && !c.Sandbox && s.index.blocks(c.Application, r.VendorData) {
		return cases.Session{}, &cases.Refusal{Form: cases.FieldText, Field: "vendor_data",
			Message: "This user or business has been blocked and cannot create new verification sessions."}
	}
	v, err := w.Choose(s.Rand)
	if err != nil {
		return cases.Session{}, err
	}
	n := cases.New(&w, v, s.now(), s.Idle)
	n.ID, n.Application = c.Record, c.Application
	n.Environment, n.Scenario = c.Environment(), r.Scenario
	n.VendorData, n.Metadata, n.ContactDetails, n.ExpectedDetails = r.VendorData, r.Metadata, r.ContactDetails, r.ExpectedDetails
	n.Callback, n.CallbackMethod, n.Language = r.Callback, r.CallbackMethod, r.Language
	if n.Language == "" && w.Language != "" {
		n.Language = w.Language
	}
	if n.Token, err = s.token(9); err != nil {
		return cases.Session{}, err
	}
	a, err := s.reference(ctx, c, &n, r.Portrait)
	if err != nil {
		return cases.Session{}, err
	}
	out, err := s.create(n, a, func(old *cases.Session) bool { return s.reuse(old, &n, c) })
	if err == nil {
		s.Wake()
	}
	return out, err
}

func unknownWorkflow(err error) error {
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return &cases.Refusal{Form: cases.FieldText, Field: "workflow_id", Message: "Invalid workflow_id."}
	}
	return err
}

// reuse takes over an unfinished session of the same version for a new request. A
// request with a portrait takes only one that has not been started: what was compared
// with one reference must not count for another.
func (s *Service) reuse(old, n *cases.Session, c cases.Scope) bool {
	now := s.now()
	if old.VersionID != n.VersionID || !c.Sees(old) || old.Open(now) != nil || n.Portrait.Found && old.Status != cases.NotStarted {
		return false
	}
	old.Callback, old.CallbackMethod, old.Metadata, old.UpdatedAt = n.Callback, n.CallbackMethod, n.Metadata, now
	if n.Portrait.Found {
		old.Portrait = n.Portrait
	}
	return true
}

// reference finds out what a face match of the session will compare with, and
// refuses the session when that is nothing.
func (s *Service) reference(ctx context.Context, c cases.Scope, n *cases.Session, portrait string) (cases.Attachments, error) {
	var a cases.Attachments
	if portrait != "" {
		data, err := DecodePortrait(portrait)
		if err != nil {
			return a, err
		}
		if c.Sandbox {
			n.Portrait.Found = true
			return a, nil
		}
		return a, s.portrait(ctx, n, data, &a)
	}
	if c.Sandbox || !needsReference(n.Steps) {
		return a, nil
	}
	if n.VendorData != "" && agent.ValidateSubject(n.VendorData, "") == nil {
		ts, err := s.person(n.Application, n.VendorData)
		if err == nil && len(ts) > 0 {
			return a, nil
		}
		if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
			return a, err
		}
	}
	return a, cases.Wrong("portrait_image", "This workflow compares faces: send portrait_image, or the vendor_data of an enrolled subject.")
}

// needsReference tells whether a face match runs without a document before it that
// is always asked for.
func needsReference(steps []cases.StepState) bool {
	document := false
	for _, st := range steps {
		document = document || st.Feature == cases.IDVerification && st.RunIf == nil
		if st.Feature == cases.FaceMatch && !document {
			return true
		}
	}
	return false
}

// DecodePortrait reads the base64 of a portrait_image, with or without a data URL
// before it.
func DecodePortrait(s string) ([]byte, error) {
	if head, rest, ok := strings.Cut(s, ","); ok && strings.HasPrefix(head, "data:") {
		s = rest
	}
	if len(s) > base64.StdEncoding.EncodedLen(MaxPortrait)+4 {
		return nil, cases.Wrong("portrait_image", "Image size exceeds 2MB.")
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		if data, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return nil, cases.Wrong("portrait_image", "Invalid base64 image.")
		}
	}
	if len(data) > MaxPortrait {
		return nil, cases.Wrong("portrait_image", "Image size exceeds 2MB.")
	}
	return data, nil
}

func (s *Service) portrait(ctx context.Context, n *cases.Session, data []byte, a *cases.Attachments) error {
	frame, err := photo.Decode(bytes.NewReader(data), "portrait_image", photo.Limits{MaxBytes: MaxPortrait, MaxPixels: photo.DefaultLimits.MaxPixels})
	if err != nil {
		return cases.Wrong("portrait_image", "%s", err)
	}
	n.Portrait, err = s.look(ctx, frame, cases.FacePortrait, a)
	if err == nil && !n.Portrait.Found {
		err = cases.Wrong("portrait_image", "No face detected in the image.")
	}
	return err
}

// Session returns a session that the caller may see. What the clock has ended is
// shown as ended, even before the sweeper has come by.
func (s *Service) Session(c cases.Scope, id string) (cases.Session, error) {
	v, err := s.Store.Session(id)
	if v, err = visible(c, v, err); err != nil {
		return v, err
	}
	return s.lapsed(v)
}

// lapsed applies the clock to a session that has been read.
func (s *Service) lapsed(v cases.Session) (cases.Session, error) {
	if v.DueAt.IsZero() || s.now().Before(v.DueAt) {
		return v, nil
	}
	out, err := s.lapse(v.Application, v.ID)
	s.Wake()
	return out, err
}

// Sessions lists sessions with the exact number that match.
func (s *Service) Sessions(c cases.Scope, q cases.SessionQuery) ([]cases.Session, int, error) {
	q.Application, q.Environment = c.Application, c.Environment()
	if len(c.Workflows) > 0 {
		q.Allowed = c.Workflows
	}
	q.Workflows = s.groups(q.Workflows)
	return s.Store.Sessions(q)
}

// groups turns workflow ids of either kind, of a group or of a version, into groups.
func (s *Service) groups(ids []string) []string {
	out := slices.Clone(ids)
	for i, id := range out {
		if w, err := s.Store.Workflow(id); err == nil {
			out[i] = w.GroupID
		}
	}
	return out
}

// MayChange refuses a change of status that no body could make right.
func (s *Service) MayChange(c cases.Scope, id string) error {
	v, err := s.Session(c, id)
	if err != nil {
		return err
	}
	return v.MayChange()
}

// Change applies a person's decision on a session.
func (s *Service) Change(ctx context.Context, c cases.Scope, id string, ch cases.Change) (cases.Session, error) {
	leave, err := s.turns.take(ctx, id)
	if err != nil {
		return cases.Session{}, err
	}
	defer leave()
	if _, err := s.Session(c, id); err != nil {
		return cases.Session{}, err
	}
	out, err := s.update(c.Application, id, func(v *cases.Session) (cases.Attachments, error) {
		return cases.Attachments{}, v.Apply(ch, s.now(), s.Idle)
	})
	if err == nil {
		s.audit(agent.AuditReview, "API key "+ch.User, map[string]string{"session": id, "status": string(ch.NewStatus)})
	}
	s.Wake()
	return out, err
}

// AddReview notes a comment on a session, or changes its status with one.
func (s *Service) AddReview(ctx context.Context, c cases.Scope, id string, r cases.Review) (cases.Session, error) {
	if r.NewStatus != "" {
		return s.Change(ctx, c, id, cases.Change{NewStatus: r.NewStatus, Comment: r.Comment, User: r.User})
	}
	if _, err := s.Session(c, id); err != nil {
		return cases.Session{}, err
	}
	r.CreatedAt = s.now()
	out, err := s.update(c.Application, id, func(v *cases.Session) (cases.Attachments, error) {
		v.UpdatedAt = r.CreatedAt
		return cases.Attachments{Event: cases.EventData}, v.AddReview(r)
	})
	s.Wake()
	return out, err
}

// Delete erases a session with its pictures, templates and what was still to be sent
// about it. A list entry made from it stays. It returns the session as it was.
func (s *Service) Delete(ctx context.Context, c cases.Scope, id string) (cases.Session, error) {
	leave, err := s.turns.take(ctx, id)
	if err != nil {
		return cases.Session{}, err
	}
	defer leave()
	v, err := s.Store.Session(id)
	if v, err = visible(c, v, err); err != nil {
		return v, err
	}
	s.index.dropSession(id) // first: what cannot be erased must at least not be found
	if v, err = s.Store.DeleteSession(id); err == nil {
		s.audit(agent.AuditErase, "API", map[string]string{"session": id})
	}
	return v, err
}

// DeleteMany deletes sessions by their numbers, or all that the caller sees, and
// returns how many. Numbers that the caller does not see are passed over.
func (s *Service) DeleteMany(ctx context.Context, c cases.Scope, numbers []uint64, all bool) (int, error) {
	n := 0
	if all {
		for {
			page, _, err := s.Sessions(c, cases.SessionQuery{Limit: 100})
			if err != nil || len(page) == 0 {
				return n, err
			}
			for _, v := range page {
				if _, err := s.Delete(ctx, c, v.ID); err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
					return n, err
				}
				n++
			}
		}
	}
	for _, number := range numbers {
		page, _, err := s.Sessions(c, cases.SessionQuery{Number: number, Limit: 1})
		if err != nil {
			return n, err
		}
		for _, v := range page {
			if _, err := s.Delete(ctx, c, v.ID); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// SaveRequest keeps a standalone request as a session that is decided already.
func (s *Service) SaveRequest(v cases.Session, a cases.Attachments) (cases.Session, error) {
	v.CreatedAt = v.CreatedAt.UTC().Truncate(time.Microsecond)
	v.UpdatedAt, v.ActiveAt = v.CreatedAt, v.CreatedAt
	defer func() {
		for _, f := range a.Faces {
			clear(f.Embedding)
		}
	}()
	out, err := s.create(v, a, nil)
	if agent.ErrorCode(err) == agent.CodeConflict { // an earlier try of the same request
		return s.Store.Session(v.ID)
	}
	if err != nil {
		return out, err
	}
	for _, f := range a.Faces {
		if f.ID == cases.FaceCapture && v.Environment == cases.Live {
			s.index.addSession(&out, f.Embedding)
		}
	}
	s.Wake()
	return out, nil
}

// sweepBatch is how much the sweeper does in one round.
const sweepBatch = 200

// Sweep applies the clock: it ends what is overdue, and deletes deliveries and repeated
// requests that have been kept long enough. Pictures are the store's to sweep, which
// knows of legal holds and of clocks that are not believed.
func (s *Service) Sweep() error {
	now := s.now()
	for {
		due, err := s.Store.DueSessions(now, sweepBatch)
		if err != nil {
			return err
		}
		for _, id := range due {
			v, err := s.Store.Session(id)
			if err == nil {
				_, err = s.lapse(v.Application, id)
			}
			if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
				return err
			}
		}
		if len(due) > 0 {
			s.Wake()
		}
		if len(due) < sweepBatch {
			break
		}
	}
	if _, err := s.Store.PruneReplays(now.Add(-agent.ReplayLife), sweepBatch); err != nil {
		return err
	}
	_, err := s.Store.PruneDeliveries(now.Add(-s.KeepLog), sweepBatch)
	return err
}

// sweepEvery is how often Run sweeps: a status may be that late in what webhooks
// hear, never in what the API answers.
const sweepEvery = 5 * time.Second

// Run sweeps until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := s.Sweep(); err != nil {
			s.Log.Error("sessions cannot be swept", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// SessionByToken returns the session that a token opens.
func (s *Service) SessionByToken(token string) (cases.Session, error) {
	v, err := s.Store.SessionByToken(token)
	if err != nil {
		return v, err
	}
	return s.lapsed(v)
}

// turn waits until nobody else acts on the session that a token opens.
func (s *Service) turn(ctx context.Context, token string) (v cases.Session, leave func(), err error) {
	if v, err = s.Store.SessionByToken(token); err == nil {
		leave, err = s.turns.take(ctx, v.ID)
	}
	return v, leave, err
}

// Consent notes that the person whom a token belongs to agrees to the use of the
// pictures.
func (s *Service) Consent(ctx context.Context, token string) (cases.Session, error) {
	v, leave, err := s.turn(ctx, token)
	if err != nil {
		return v, err
	}
	defer leave()
	return s.Store.UpdateSession(v.ID, func(v *cases.Session) (cases.Attachments, error) {
		return cases.Attachments{}, v.Consent(s.now())
	})
}
