package api

import (
	"context"
	"net/http"

	"postern/agent"
	"postern/agent/decide"
)

// liveness is the block of a passive liveness check.
type liveness struct {
	Status    agent.Status `json:"status"`
	Method    string       `json:"method"`
	Score     *float64     `json:"score"`
	UserImage imageBlock   `json:"user_image"`
	Warnings  []Warning    `json:"warnings"`
	Quality   *float64     `json:"face_quality"`
	Luminance *float64     `json:"face_luminance"`
}

// The risks of liveness and of screening.
const (
	riskNoFace         agent.Risk = "NO_FACE_DETECTED"
	riskBlocklist      agent.Risk = "FACE_IN_BLOCKLIST"
	riskMaybeBlocklist agent.Risk = "POSSIBLE_FACE_IN_BLOCKLIST"
	riskDuplicate      agent.Risk = "DUPLICATED_FACE"
	riskMaybeDuplicate agent.Risk = "POSSIBLE_DUPLICATED_FACE"
)

var riskTexts = map[agent.Risk][2]string{
	riskNoFace:             {"No face detected", "No face was found in the picture."},
	agent.RiskLowLiveness:  {"Low liveness score", "The liveness score is at or below the threshold, so the picture may not show a person who is present."},
	agent.RiskFaceAttack:   {"Liveness attack", "The picture looks like a presentation attack: a print, a screen or a mask."},
	riskBlocklist:          {"Face in blocklist", "The face matches one in the blocklist."},
	riskMaybeBlocklist:     {"Possible face in blocklist", "The face resembles one in the blocklist."},
	riskDuplicate:          {"Duplicated face", "The face matches one of another person's session."},
	riskMaybeDuplicate:     {"Possible duplicated face", "The face resembles one of another person's session."},
	agent.RiskSeveralFaces: {"Multiple faces detected", "More than one face was found; the largest was used."},
}

func liveWarning(r agent.Risk, t agent.LogType, data map[string]any) Warning {
	return Warning{Risk: r, Feature: "LIVENESS", LogType: t, AdditionalData: data, Short: riskTexts[r][0], Long: riskTexts[r][1]}
}

const livenessThresholdField = "face_liveness_score_decline_threshold"

var livenessForm = formSpec{files: []string{"user_image"}, texts: append([]string{livenessThresholdField}, commonTexts...)}

// passiveLiveness judges whether one picture shows a person who is present, and
// screens the face.
func (s *Server) passiveLiveness(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := CallerOf(ctx)
	f, err := readForm(r, livenessForm)
	if err != nil {
		return err
	}
	u := f.upload("user_image")
	threshold := f.number(livenessThresholdField, defaultThreshold, 0, 100)
	cm := readCommon(f, c)
	if err := f.Fields.Err(); err != nil {
		return err
	}
	block := &liveness{Method: "PASSIVE", Status: agent.Declined, Warnings: []Warning{}, UserImage: imageBlock{Entities: []entity{}}}
	rec := Saved{VendorData: cm.vendorData, Metadata: cm.metadata, Scenario: cm.scenario}
	if cm.scenario != "" {
		err = s.sandboxLiveness(ctx, u, threshold, cm.scenario, block)
	} else {
		err = s.realLiveness(ctx, u, threshold, cm, block, &rec)
	}
	if err != nil {
		return err
	}
	e := s.envelope(ctx, cm)
	e.Liveness = block
	if cm.save {
		rec.ID, rec.Service, rec.Caller, rec.CreatedAt = e.RequestID, "PASSIVE_LIVENESS", c, e.at
		rec.Status, rec.Score, rec.Warnings, rec.Quality, rec.Luminance = block.Status, block.Score, block.Warnings, block.Quality, block.Luminance
		rec.Pictures = []Picture{s.picture(ctx, "reference_image", u)}
		if err := s.save(ctx, rec); err != nil {
			return err
		}
	}
	s.Metrics.decided("liveness", block.Status)
	WriteJSON(w, http.StatusOK, e)
	return nil
}

func (s *Server) realLiveness(ctx context.Context, u Upload, threshold float64, cm common, out *liveness, rec *Saved) error {
	var a analysed
	err := s.gate.work(ctx, func() (err error) {
		a, err = s.analyseBy(ctx, s.Compare.ProbeLive, "user_image", u, cm.rotate)
		return err
	})
	if err != nil {
		return err
	}
	out.UserImage = a.block()
	if a.probe.Face == nil {
		out.Warnings = append(out.Warnings, liveWarning(riskNoFace, agent.LogError, nil))
		return nil
	}
	rec.Face = &a.probe
	judgeLiveness(&a.probe, threshold, out)
	if s.Screen != nil {
		found, err := s.Screen.Screen(ctx, ScreenQuery{Caller: CallerOf(ctx), Face: &a.probe, VendorData: cm.vendorData, Max: maxMatches})
		if err != nil {
			return err
		}
		rec.Matches = found.Matches
		out.Warnings = append(out.Warnings, screenWarnings(found.Matches)...)
	}
	out.Status = statusOfWarnings(out.Warnings)
	return nil
}

// judgeLiveness fills in the score and its warnings. What was not measured declines.
func judgeLiveness(p *agent.Probe, threshold float64, out *liveness) {
	luminance := rounded(float64(p.Quality.Luminance), 2)
	out.Luminance = &luminance
	quality := rounded(float64(p.Quality.Score), 2)
	out.Quality = &quality
	if len(p.Others) > 0 {
		out.Warnings = append(out.Warnings, liveWarning(agent.RiskSeveralFaces, agent.LogWarning, nil))
	}
	check, ws := decide.Live(decide.Capture{Liveness: p.Liveness, Policy: decide.LivenessPolicy{
		Thresholds: agent.Thresholds{Review: threshold, Decline: threshold}}})
	if check.Measured {
		score := rounded(check.Score, 2)
		out.Score = &score
	}
	for _, w := range ws {
		out.Warnings = append(out.Warnings, Warning{Risk: w.Risk, Feature: w.Feature, LogType: w.LogType, Short: w.Short, Long: w.Long})
	}
}

// statusOfWarnings: an error declines; here nothing else does.
func statusOfWarnings(ws []Warning) agent.Status {
	for _, w := range ws {
		if w.LogType != agent.LogInformation && w.LogType != agent.LogWarning {
			return agent.Declined
		}
	}
	return agent.Approved
}
