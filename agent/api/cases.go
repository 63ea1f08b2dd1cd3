package api

import (
	"context"
	"net/http"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// Cases is what the routes of workflows, sessions, lists and webhooks need. A
// *flow.Service is one.
type Cases interface {
	workflowService
	sessionService
	personService
	listService
	webhookService
}

// Report writes the PDF of a session.
type Report func(ctx context.Context, s *cases.Session) ([]byte, error)

// caseRoutes serve the cases.
type caseRoutes struct {
	*Server
	cases  Cases
	report Report
}

// AddCases hangs the routes of workflows, sessions, lists and webhooks on the server.
func (s *Server) AddCases(c Cases, report Report) {
	cr := caseRoutes{s, c, report}
	s.Add(cr.workflowRoutes()...)
	s.Add(cr.sessionRoutes()...)
	s.Add(cr.personRoutes()...)
	s.Add(cr.listRoutes()...)
	s.Add(cr.webhookRoutes()...)
}

// read and write are routes of a resource.
func read(res agent.Resource, path string, h handler) Route {
	return Route{Method: http.MethodGet, Path: path, Resource: res, Access: agent.ReadAccess, Handle: h}
}

func write(res agent.Resource, method, path string, h handler) Route {
	return Route{Method: method, Path: path, Resource: res, Access: agent.WriteAccess, Handle: h}
}

type handler = func(http.ResponseWriter, *http.Request) error

// scopeOf is what a caller may see.
func scopeOf(ctx context.Context) cases.Scope {
	c := CallerOf(ctx)
	return cases.Scope{Application: c.Application, Sandbox: c.Sandbox, Workflows: c.Workflows, Record: recordOf(ctx)}
}

// linksFor makes the addresses in an answer to r. Callers without access to media
// get none of pictures.
func (s *Server) linksFor(r *http.Request) cases.Links {
	base := s.Base(r)
	return cases.Links{Host: base, Media: func(id string) string {
		if u := s.MediaURL(r.Context(), base, id); u != nil {
			return *u
		}
		return ""
	}}
}

// WebhookLinks makes the addresses in webhooks, which have no caller: base is where
// the receiver reaches this server.
func (s *Server) WebhookLinks(base string) cases.Links {
	if s.PublicURL != "" {
		base = s.PublicURL
	}
	return cases.Links{Host: base, Media: func(id string) string {
		if s.links == nil || !s.Media.HasMedia(id) {
			return ""
		}
		return s.links.URL(base, id)
	}}
}

// listTimes are the two forms in which clients send dates.
func parseDate(v string, end bool) (time.Time, bool) {
	if t, err := time.Parse(time.DateOnly, v); err == nil {
		if end {
			t = t.AddDate(0, 0, 1) // the whole day is meant
		}
		return t, true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, v); err == nil {
			if end {
				t = t.Add(time.Microsecond) // the moment itself is meant too
			}
			return t, true
		}
	}
	return time.Time{}, false
}
