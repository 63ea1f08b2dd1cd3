package main

import (
	"bytes"
	"context"
	"crypto/rand"
	mrand "math/rand/v2"
	"time"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/cases"
	"postern/agent/flow"
	"postern/agent/photo"
	casereport "postern/agent/report"
	"postern/agent/retention"
	"postern/agent/store"
	"postern/agent/verify"
	"postern/agent/webhook"
)

// caseParts are the parts behind workflows, sessions, lists and webhooks.
type caseParts struct {
	flow      *flow.Service
	deliverer *webhook.Deliverer
	report    *casereport.Report
}

// people are those who are enrolled; a *verify.Service has them.
type people interface {
	Subject(id string) (agent.Subject, []agent.Template, error)
	Verify(ctx context.Context, subjectID string, ev *verify.Evidence) (agent.Result, error)
}

// newCases makes the parts; their loops are started by serve.
func (a *app) newCases(b *brain, st *store.Store, svc people) (*caseParts, error) {
	d := &webhook.Deliverer{Queue: st, Now: time.Now, Random: mrand.Float64, Loopback: a.cfg.Webhooks.AllowLoopback, Log: a.log.With("part", "webhooks")}
	d.Init()
	s, k := a.cfg.Sessions, a.cfg.Webhooks
	f, err := flow.New(flow.Config{
		Store: st, Prober: newFaces(b), Enrolled: svc, Matcher: b.matcher(), Wake: d.Wake, Secret: st.ShareKey, Audit: st.Audit, Now: time.Now, Rand: rand.Reader,
		Log: a.log.With("part", "sessions"), Idle: s.AbandonAfter, KeepMedia: s.KeepMedia, LinkLife: a.cfg.API.LinkLife, Images: imagesOf(st, a.cfg.Retention.Policy()), KeepLog: k.KeepLog, SearchLimit: s.SearchLimit, PlainHTTP: k.AllowLoopback,
	})
	if err != nil {
		return nil, err
	}
	return &caseParts{f, d, &casereport.Report{Media: st.Media, Now: time.Now, By: "postern " + version + " on " + a.cfg.Device}}, nil
}

// imagesOf tells how long an application keeps pictures: by its own policy, else by the
// default one.
func imagesOf(st *store.Store, def retention.Policy) func(string) (retention.Period, error) {
	return func(application string) (retention.Period, error) {
		own, err := st.Retention(agent.ApplicationOr(application))
		if agent.ErrorCode(err) == agent.CodeNotFound {
			return def.Images, nil
		}
		return own.Images, err
	}
}

func (p *caseParts) pdf(_ context.Context, s *cases.Session) ([]byte, error) { return p.report.PDF(s) }

// saver turns standalone requests of the API into sessions.
type saver struct{ flow *flow.Service }

// features of the services that can be saved.
var features = map[string]cases.Feature{"FACE_MATCH": cases.FaceMatch, "PASSIVE_LIVENESS": cases.Liveness, "FACE_SEARCH": cases.FaceSearch}

// savedSide is the longest side of the pictures that are kept, in pixels.
const savedSide = 1024

// SaveRequest stores the request, its pictures and, for a liveness check, its face.
func (s saver) SaveRequest(_ context.Context, r api.Saved) error {
	v := cases.Session{ID: r.ID, Application: r.Caller.Application, API: r.Service, Environment: cases.Live, Scenario: string(r.Scenario), Status: cases.Status(r.Status),
		VendorData: r.VendorData, Metadata: r.Metadata, CreatedAt: r.CreatedAt}
	if r.Caller.Sandbox {
		v.Environment = cases.Sandbox
	}
	steps := []cases.Step{{Feature: features[r.Service], MaxAttempts: 1}}
	cases.NameNodes(steps)
	st := cases.StepState{Step: steps[0], Attempts: 1, Final: true, Outcome: cases.Outcome{Status: cases.NodeStatus(r.Status), Score: r.Score,
		Quality: r.Quality, Luminance: r.Luminance, Matches: matchesOf(r.Matches), At: r.CreatedAt}}
	for _, w := range r.Warnings {
		st.Warnings = append(st.Warnings, cases.Warning{Warning: agent.Warning{Feature: w.Feature, Risk: w.Risk, LogType: w.LogType, Short: w.Short, Long: w.Long},
			AdditionalData: w.AdditionalData})
	}
	var a cases.Attachments
	for _, p := range r.Pictures {
		m, err := savedPicture(p)
		if err != nil {
			return err
		}
		a.Media = append(a.Media, m)
		if p.Kind == "source_image" {
			st.Source = p.Media
		} else {
			st.Target = p.Media
		}
	}
	v.Steps = []cases.StepState{st}
	// Only a liveness check enrols its face: a match or a search never does.
	if f := r.Face; f != nil && r.Service == "PASSIVE_LIVENESS" && f.Embedding.Normalised() {
		v.Capture = cases.Face{Media: st.Target, Found: true, Box: f.Face.Box, Quality: f.Quality, Liveness: f.Liveness, ModelID: f.ModelID, Space: f.Space}
		a.Faces = append(a.Faces, agent.Template{ID: cases.FaceCapture, ModelID: f.ModelID, Space: f.Space, Quality: f.Quality, Embedding: f.Embedding, CreatedAt: r.CreatedAt})
	}
	_, err := s.flow.SaveRequest(v, a)
	return err
}

// savedPicture keeps what can be seen in a picture, and nothing else of its file.
func savedPicture(p api.Picture) (agent.Media, error) {
	frame, err := photo.Decode(bytes.NewReader(p.Data), p.Kind, photo.DefaultLimits)
	if err != nil {
		return agent.Media{}, err
	}
	data, err := photo.Encode(frame, savedSide)
	return agent.Media{ID: p.Media, Kind: p.Kind, ContentType: "image/jpeg", Data: data}, err
}

func matchesOf(ms []api.Match) []cases.Match {
	var out []cases.Match
	for _, m := range ms {
		c := cases.Match{Source: m.Source, Similarity: m.Similarity, Media: m.Media, Blocklisted: m.Blocklisted, Allowlisted: m.Allowlisted,
			SessionID: value(m.SessionID), Number: value(m.Number), VendorData: value(m.VendorData), Status: cases.Status(value(m.Status)), API: value(m.Service)}
		if t, err := time.Parse(time.RFC3339, value(m.VerifiedAt)); err == nil {
			c.At = t
		}
		out = append(out, c)
	}
	return out
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func pointer[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// screener searches faces for the API's standalone endpoints.
type screener struct{ flow *flow.Service }

// Screen searches lists and former sessions. A key that is limited to workflows sees
// lists only: sessions outside its workflows are not its to know.
func (s screener) Screen(_ context.Context, q api.ScreenQuery) (api.Screening, error) {
	found, err := s.flow.Search(flow.SearchQuery{Application: q.Caller.Application, Embedding: q.Face.Embedding, Space: q.Face.Space, Limits: flow.Screening, Vendor: q.VendorData,
		ListsOnly: q.ListsOnly || len(q.Caller.Workflows) > 0, Max: q.Max})
	if err != nil {
		return api.Screening{}, err
	}
	out := api.Screening{Matches: []api.Match{}}
	for _, m := range found {
		a := api.Match{SessionID: pointer(m.SessionID), Number: pointer(m.Number), Similarity: m.Similarity, Source: m.Source, VendorData: pointer(m.VendorData),
			Status: pointer(string(m.Status)), Blocklisted: m.Blocklisted, Allowlisted: m.Allowlisted, Service: pointer(m.API), Media: m.Media,
			Sure: m.Similarity > flow.Screening.Review}
		if !m.At.IsZero() {
			at := m.At.UTC().Format(time.RFC3339)
			a.VerifiedAt = &at
		}
		out.Matches = append(out.Matches, a)
	}
	return out, nil
}
