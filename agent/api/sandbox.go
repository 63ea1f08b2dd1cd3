package api

import (
	"context"
	"net/http"

	"postern/agent"
)

// What a sandbox answers. The pictures are decoded, so that a caller's faults show
// as they would with a live key, but nothing is computed from them and no real data
// is looked at.
var sandboxScores = map[agent.Scenario]float64{
	agent.ScenarioApprove:              99.41,
	agent.ScenarioReviewBorderline:     60,
	agent.ScenarioDeclineLowSimilarity: 12.34,
}

var sandboxFace = imageBlock{Entities: []entity{{Box: [4]int{40, 40, 120, 120}, Confidence: 0.73}}}

// sandboxDecode refuses what is no picture, as a live key would.
func (s *Server) sandboxDecode(ctx context.Context, field string, u Upload) error {
	return s.gate.work(ctx, func() error {
		_, err := decode(field, u)
		return err
	})
}

func (s *Server) sandboxMatch(ctx context.Context, m matchRequest, out *faceMatch) error {
	if err := s.sandboxDecode(ctx, m.refField, m.ref); err != nil {
		return err
	}
	if err := s.sandboxDecode(ctx, m.userField, m.user); err != nil {
		return err
	}
	*out = faceMatch{Status: agent.Declined, UserImage: sandboxFace, RefImage: sandboxFace, Warnings: []Warning{}}
	warn := func(r agent.Risk, short, long string) {
		out.Warnings = append(out.Warnings, Warning{Risk: r, Feature: "FACEMATCH", LogType: agent.LogError, Short: short, Long: long})
	}
	if m.scenario == agent.ScenarioDeclineNoReference {
		out.RefImage = imageBlock{Entities: []entity{}}
		warn(agent.RiskNoReference, "No reference image", "A reference image or face image for facial comparison is missing, preventing the system from completing the face matching process.")
		return nil
	}
	score, ok := sandboxScores[m.scenario]
	if !ok {
		score = sandboxScores[agent.ScenarioApprove] // a scenario about something else
	}
	out.Score = &score
	if score > m.threshold && m.scenario != agent.ScenarioDeclineLowSimilarity {
		out.Status = agent.Approved
		return nil
	}
	warn(agent.RiskLowSimilarity, "Low face match similarity", "The facial features of the provided image don't closely match the reference image, suggesting a potential identity mismatch.")
	return nil
}

func (s *Server) sandboxLiveness(ctx context.Context, u Upload, threshold float64, sc agent.Scenario, out *liveness) error {
	if err := s.sandboxDecode(ctx, "user_image", u); err != nil {
		return err
	}
	if sc == agent.ScenarioDeclineNoFace {
		out.Warnings = append(out.Warnings, liveWarning(riskNoFace, agent.LogError, nil))
		return nil
	}
	score, quality, luminance := 95.0, 84.21, 50.33
	switch sc {
	case agent.ScenarioDeclineAttack:
		score = 3
		out.Warnings = append(out.Warnings, liveWarning(agent.RiskFaceAttack, agent.LogError, nil))
	case agent.ScenarioDeclineLowLiveness:
		score = 0
	}
	out.UserImage, out.Score, out.Quality, out.Luminance = sandboxFace, &score, &quality, &luminance
	if !(score > threshold) {
		out.Warnings = append(out.Warnings, liveWarning(agent.RiskLowLiveness, agent.LogError, nil))
	}
	if m := sandboxMatchOf(sc); m != nil {
		out.Warnings = append(out.Warnings, screenWarnings([]Match{*m})...)
	}
	out.Status = statusOfWarnings(out.Warnings)
	return nil
}

func (s *Server) sandboxSearch(ctx context.Context, u Upload, sc agent.Scenario, out *faceSearch) error {
	if err := s.sandboxDecode(ctx, "user_image", u); err != nil {
		return err
	}
	if sc == agent.ScenarioDeclineNoFace {
		return Failure(http.StatusBadRequest, "No face detected in the image")
	}
	out.UserImage = sandboxFace
	if m := sandboxMatchOf(sc); m != nil {
		out.Matches = append(out.Matches, *m)
		out.Warnings = append(out.Warnings, screenWarnings(out.Matches)...)
	}
	return nil
}

// sandboxMatchOf is the face that a scenario finds.
func sandboxMatchOf(sc agent.Scenario) *Match {
	id, number, status := "00000000-0000-4000-8000-000000000001", uint64(1), "Approved"
	m := &Match{SessionID: &id, Number: &number, Similarity: 99.99, Source: "session", Status: &status, Sure: true}
	switch sc {
	case agent.ScenarioDeclineBlocklist:
		m.Blocklisted = true
	case agent.ScenarioDuplicate:
	default:
		return nil
	}
	return m
}
