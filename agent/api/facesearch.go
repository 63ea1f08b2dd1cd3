package api

import (
	"net/http"

	"postern/agent"
)

// maxMatches is how many faces a search tells at most.
const maxMatches = 5

// faceSearch is the block of a search.
type faceSearch struct {
	Status    agent.Status `json:"status"`
	Total     int          `json:"total_matches"`
	Matches   []Match      `json:"matches"`
	UserImage imageBlock   `json:"user_image"`
	Warnings  []Warning    `json:"warnings"`
}

var searchForm = formSpec{files: []string{"user_image"}, texts: append([]string{"search_type"}, commonTexts...)}

// faceSearch finds out whether a face is on a list or was seen in a former session.
func (s *Server) faceSearch(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := CallerOf(ctx)
	f, err := readForm(r, searchForm)
	if err != nil {
		return err
	}
	u := f.upload("user_image")
	kind := f.choice("search_type", "most_similar", "most_similar", "blocklisted_or_approved")
	cm := readCommon(f, c)
	if err := f.Fields.Err(); err != nil {
		return err
	}
	block := &faceSearch{Matches: []Match{}, Warnings: []Warning{}}
	rec := Saved{VendorData: cm.vendorData, Metadata: cm.metadata, Scenario: cm.scenario}
	if cm.scenario != "" {
		err = s.sandboxSearch(ctx, u, cm.scenario, block)
	} else {
		err = s.realSearch(r, u, cm, kind, block)
	}
	if err != nil {
		return err
	}
	block.Total = len(block.Matches)
	block.Status = statusOfWarnings(block.Warnings)
	e := s.envelope(ctx, cm)
	e.FaceSearch = block
	if cm.save {
		rec.ID, rec.Service, rec.Caller, rec.CreatedAt = e.RequestID, "FACE_SEARCH", c, e.at
		rec.Status, rec.Warnings, rec.Matches = block.Status, block.Warnings, block.Matches
		rec.Pictures = []Picture{s.picture(ctx, "reference_image", u)}
		if err := s.save(ctx, rec); err != nil {
			return err
		}
	}
	s.Metrics.decided("face_search", block.Status)
	WriteJSON(w, http.StatusOK, e)
	return nil
}

func (s *Server) realSearch(r *http.Request, u Upload, cm common, kind string, out *faceSearch) error {
	ctx := r.Context()
	if s.Screen == nil {
		return &agent.Error{Code: agent.CodeUnavailable, Message: "nothing to search in is connected"}
	}
	var a analysed
	err := s.gate.work(ctx, func() (err error) {
		a, err = s.analyse(ctx, "user_image", u, cm.rotate)
		return err
	})
	if err != nil {
		return err
	}
	defer clear(a.probe.Embedding)
	if a.probe.Face == nil {
		return Failure(http.StatusBadRequest, "No face detected in the image")
	}
	out.UserImage = a.block()
	found, err := s.Screen.Screen(ctx, ScreenQuery{Caller: CallerOf(ctx), Face: &a.probe, ListsOnly: kind == "blocklisted_or_approved", Max: maxMatches})
	if err != nil {
		return err
	}
	if len(a.probe.Others) > 0 {
		out.Warnings = append(out.Warnings, liveWarning(agent.RiskSeveralFaces, agent.LogWarning, nil))
	}
	base := s.Base(r)
	for i := range found.Matches {
		found.Matches[i].ImageURL = s.MediaURL(ctx, base, found.Matches[i].Media)
	}
	out.Matches = append(out.Matches, found.Matches...)
	out.Warnings = append(out.Warnings, screenWarnings(found.Matches)...)
	return nil
}

// screenWarnings says what the matches mean, the gravest of each kind once.
func screenWarnings(ms []Match) []Warning {
	var out []Warning
	seen := map[agent.Risk]bool{}
	for _, m := range ms {
		risk, level, prefix := screenRisk(m)
		if risk == "" || seen[risk] {
			continue
		}
		seen[risk] = true
		data := map[string]any{prefix + "_session_id": m.SessionID, prefix + "_session_number": m.Number, "api_service": m.Service}
		out = append(out, liveWarning(risk, level, data))
	}
	return out
}

func screenRisk(m Match) (agent.Risk, agent.LogType, string) {
	switch {
	case m.Allowlisted:
		return "", "", ""
	case m.Blocklisted && m.Sure:
		return riskBlocklist, agent.LogError, "blocklisted"
	case m.Blocklisted:
		return riskMaybeBlocklist, agent.LogError, "blocklisted"
	case m.Sure:
		return riskDuplicate, agent.LogInformation, "duplicated"
	}
	return riskMaybeDuplicate, agent.LogInformation, "duplicated"
}
