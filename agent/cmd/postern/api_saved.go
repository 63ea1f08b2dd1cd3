package main

import (
	"context"
	"time"

	"github.com/google/uuid"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/cases"
	"postern/agent/store"
)

// savedRequests keeps standalone requests as sessions of their own kind.
type savedRequests struct {
	store *store.Store
	keep  time.Duration // of pictures
}

// services says which feature a standalone request ran and which node reports it.
var services = map[string]struct {
	feature cases.Feature
	node    string
}{
	"FACE_MATCH":       {cases.FaceMatch, "feature_face_match_1"},
	"PASSIVE_LIVENESS": {cases.Liveness, "feature_liveness_1"},
	"FACE_SEARCH":      {cases.FaceSearch, "feature_face_search_1"},
}

// SaveRequest stores session, pictures and face in one transaction and queues its
// status.updated. Only liveness enrols the face for later searches.
func (s savedRequests) SaveRequest(_ context.Context, r api.Saved) error {
	sess, at := s.session(r)
	_, err := s.store.CreateSession(sess, at, nil)
	return err
}

func (s savedRequests) session(r api.Saved) (cases.Session, store.Attachments) {
	sv := services[r.Service]
	out := cases.Outcome{Status: cases.NodeStatus(r.Status), Score: r.Score, Warnings: warningsOf(r.Warnings),
		Matches: matchesOf(r.Matches), Quality: r.Quality, Luminance: r.Luminance, At: r.CreatedAt}
	sess := cases.Session{ID: r.ID, API: r.Service, Environment: cases.Live, Scenario: string(r.Scenario), Status: cases.Status(r.Status),
		VendorData: r.VendorData, Metadata: r.Metadata, CreatedAt: r.CreatedAt, UpdatedAt: r.CreatedAt, ActiveAt: r.CreatedAt}
	if r.Caller.Sandbox {
		sess.Environment = cases.Sandbox
	}
	var at store.Attachments
	for _, p := range r.Pictures {
		at.Media = append(at.Media, agent.Media{ID: p.Media, Kind: p.Kind, ContentType: p.ContentType, ExpiresAt: r.CreatedAt.Add(s.keep), Data: p.Data})
		if p.Kind == "source_image" {
			out.Source = p.Media
		} else {
			out.Target = p.Media
			sess.Capture.Media = p.Media
		}
	}
	if f := r.Face; f != nil && r.Service == "PASSIVE_LIVENESS" && r.Scenario == "" {
		sess.Capture.Template = uuid.NewString()
		at.Faces = []agent.Template{{ID: sess.Capture.Template, ModelID: f.ModelID, Space: f.Space, Quality: f.Quality, CreatedAt: r.CreatedAt, Embedding: f.Embedding}}
		out.ModelID = f.ModelID
	}
	sess.Steps = []cases.StepState{{Step: cases.Step{Node: sv.node, Feature: sv.feature, MaxAttempts: 1}, Outcome: out, Attempts: 1, Final: true}}
	return sess, at
}

func warningsOf(ws []api.Warning) (out []cases.Warning) {
	for _, w := range ws {
		out = append(out, cases.Warning{AdditionalData: w.AdditionalData,
			Warning: agent.Warning{Feature: w.Feature, Risk: w.Risk, LogType: w.LogType, Short: w.Short, Long: w.Long}})
	}
	return out
}

func matchesOf(ms []api.Match) (out []cases.Match) {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	for _, m := range ms {
		c := cases.Match{Source: m.Source, SessionID: text(m.SessionID), VendorData: text(m.VendorData), Similarity: m.Similarity,
			Media: m.Media, Status: cases.Status(text(m.Status)), Blocklisted: m.Blocklisted, Allowlisted: m.Allowlisted, API: text(m.Service)}
		if m.Number != nil {
			c.Number = *m.Number
		}
		out = append(out, c)
	}
	return out
}
