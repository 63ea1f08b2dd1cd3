package verify

import (
	"context"
	"fmt"
	"strings"

	"postern/agent"
	"postern/agent/decide"
)

// Enrolment asks to enrol a subject from pictures.
type Enrolment struct {
	SubjectID string
	Name      string
	// Application is on whose behalf; empty keeps the one there is. It chooses how long
	// templates, and decisions about the person, are kept.
	Application string
	Pictures    []*agent.Frame
	// AllowDuplicate enrols a face that is enrolled under another subject already.
	AllowDuplicate bool
	// Consent is recorded with the subject; the zero value keeps the one there is.
	Consent agent.Consent
	// Progress is called before each picture; nil is allowed.
	Progress func(done, total int)
}

// Refusal is a picture that did not become a template, with the reason.
type Refusal struct {
	Picture string
	Reason  string
}

// Enrolled is what an enrolment did.
type Enrolled struct {
	Subject   agent.Subject
	Templates []agent.Template // without embeddings: those are wiped once stored
	Refused   []Refusal
}

// Enrol makes one template of each picture that is good enough. It is all or
// nothing towards the store. It fails with CodeQuality when no picture is good
// enough, and with CodeConflict when the pictures show different people, when
// they do not show the person enrolled under this id before, or when the face is
// enrolled under another id.
func (s *Service) Enrol(ctx context.Context, q Enrolment) (Enrolled, error) {
	if err := agent.ValidateSubject(q.SubjectID, q.Name); err != nil {
		return Enrolled{}, err
	}
	if len(q.Pictures) == 0 {
		return Enrolled{}, &agent.Error{Code: agent.CodeInvalid, Message: "there is no picture to enrol " + q.SubjectID + " from"}
	}
	out, err := s.templates(ctx, q)
	made := out.Templates
	defer func() { wipe(made); wipe(out.Templates) }()
	if err != nil {
		return out, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.sameFace(q, out.Templates); err != nil {
		return out, err
	}
	out.Subject, out.Templates, err = s.store.Enrol(agent.Subject{ID: q.SubjectID, Name: q.Name, Consent: q.Consent, Application: q.Application}, out.Templates)
	if err != nil {
		return out, err
	}
	for _, t := range out.Templates {
		s.gallery.add(t)
	}
	return out, nil
}

// templates analyses the pictures.
func (s *Service) templates(ctx context.Context, q Enrolment) (Enrolled, error) {
	var out Enrolled
	for i, f := range q.Pictures {
		if q.Progress != nil {
			q.Progress(i, len(q.Pictures))
		}
		p, err := s.Prober.Probe(ctx, f)
		if err != nil {
			return out, &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("picture %q could not be analysed", f.Source), Err: err}
		}
		if why := s.Policy.EnrolQuality.Findings(&p); len(why) > 0 {
			out.Refused = append(out.Refused, Refusal{f.Source, words(why)})
			continue
		}
		t, err := s.template(q.SubjectID, &p)
		if err != nil {
			return out, err
		}
		out.Templates = append(out.Templates, t)
	}
	if len(out.Templates) == 0 {
		return out, &agent.Error{Code: agent.CodeQuality, Message: "no picture is good enough to enrol " + q.SubjectID + ": " + refusals(out.Refused)}
	}
	return out, nil
}

func (s *Service) template(subject string, p *agent.Probe) (agent.Template, error) {
	if p.Space != s.space || !p.Embedding.Normalised() {
		return agent.Template{}, &agent.Error{Code: agent.CodeUnavailable, Message: "the pipeline gave no embedding of space " + s.space}
	}
	return agent.Template{
		SubjectID: subject, ModelID: p.ModelID, Space: p.Space, Quality: p.Quality, Embedding: p.Embedding,
	}, nil
}

// sameFace holds the new templates against each other, against those the subject
// has, and against all other subjects.
func (s *Service) sameFace(q Enrolment, ts []agent.Template) error {
	for i, t := range ts {
		if i > 0 && s.Curve.Score(ts[0].Embedding.Cosine(t.Embedding)) <= s.Policy.Match.Decline {
			return conflict(fmt.Sprintf("the pictures for %s show different people", q.SubjectID), "enrol them one by one to see which")
		}
		if c, ok := s.gallery.subject(q.SubjectID, t.Embedding); ok && s.Curve.Score(c) <= s.Policy.Match.Decline {
			return conflict(fmt.Sprintf("subject %s is enrolled with another face", q.SubjectID), "delete the subject first if the id is to be given to somebody else")
		}
		if q.AllowDuplicate {
			continue
		}
		if c, ok := s.gallery.closest(t.Embedding, q.SubjectID); ok && s.Curve.Score(c.cosine) > s.Policy.Match.Review {
			return conflict(fmt.Sprintf("the face is enrolled already, as subject %s (score %.1f)", c.subject, s.Curve.Score(c.cosine)),
				"enrol with --allow-duplicate if it is meant")
		}
	}
	return nil
}

func conflict(message, fix string) error {
	return &agent.Error{Code: agent.CodeConflict, Message: message, Fix: fix}
}

// closest is the most similar subject other than except.
func (g *gallery) closest(e agent.Embedding, except string) (candidate, bool) {
	best, second, _ := g.search(e)
	if best.subject == except {
		best = second
	}
	return best, best.subject != ""
}

func words(fs []agent.Finding) string {
	out := make([]string, len(fs))
	for i, f := range fs {
		out[i] = decide.Describe(f)
	}
	return strings.Join(out, "; ")
}

func refusals(rs []Refusal) string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.Picture + ": " + r.Reason
	}
	return strings.Join(out, "; ")
}
