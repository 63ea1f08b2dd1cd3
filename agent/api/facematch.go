package api

import (
	"context"
	"net/http"

	"postern/agent"
)

// defaultThreshold is what standalone requests decline at unless they say otherwise.
const defaultThreshold = 30

// faceMatch is the block of a face match. Both published shapes are in it: the
// pictures as links and what was seen in them.
type faceMatch struct {
	Status          agent.Status `json:"status"`
	Score           *float64     `json:"score"`
	SourceSessionID *string      `json:"source_image_session_id"`
	SourceImage     *string      `json:"source_image"` // the reference
	TargetImage     *string      `json:"target_image"` // the person
	UserImage       imageBlock   `json:"user_image"`
	RefImage        imageBlock   `json:"ref_image"`
	Warnings        []Warning    `json:"warnings"`
}

const thresholdField = "face_match_score_decline_threshold"

// matchRequest is a checked request.
type matchRequest struct {
	common
	userField, refField string
	user, ref           Upload
	threshold           float64
}

var matchForm = formSpec{
	files: []string{"user_image", "ref_image", "target_image", "source_image"},
	texts: append([]string{thresholdField}, commonTexts...),
}

func readMatch(r *http.Request, c *Caller) (matchRequest, error) {
	f, err := readForm(r, matchForm)
	if err != nil {
		return matchRequest{}, err
	}
	m := matchRequest{userField: "user_image", refField: "ref_image"}
	if f.has("target_image") || f.has("source_image") {
		if f.has("user_image") || f.has("ref_image") {
			f.Fields.Add("non_field_errors", "Send either user_image and ref_image, or target_image and source_image, not a mixture of both.")
			return m, f.Fields.Err()
		}
		m.userField, m.refField = "target_image", "source_image"
	}
	m.user, m.ref = f.upload(m.userField), f.upload(m.refField)
	m.threshold = f.number(thresholdField, defaultThreshold, 0, 100)
	m.common = readCommon(f, c)
	return m, f.Fields.Err()
}

// faceMatch compares two pictures. It never enrols a face and screens no lists.
func (s *Server) faceMatch(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := CallerOf(ctx)
	m, err := readMatch(r, c)
	if err != nil {
		return err
	}
	block, rec, err := s.match(ctx, m)
	if err != nil {
		return err
	}
	e := s.envelope(ctx, m.common)
	e.FaceMatch = block
	if m.save {
		rec.ID, rec.Service, rec.Caller, rec.CreatedAt = e.RequestID, "FACE_MATCH", c, e.at
		source, target := s.picture(ctx, "source_image", m.ref), s.picture(ctx, "target_image", m.user)
		rec.Pictures = []Picture{source, target}
		if err := s.save(ctx, rec); err != nil {
			return err
		}
		base := s.Base(r)
		block.SourceImage, block.TargetImage = s.MediaURL(ctx, base, source.Media), s.MediaURL(ctx, base, target.Media)
	} else if block.Score == nil {
		block.Score = new(float64) // so the contract has it
	}
	s.Metrics.decided("face_match", block.Status)
	WriteJSON(w, http.StatusOK, e)
	return nil
}

// match decides, in a sandbox by the scenario.
func (s *Server) match(ctx context.Context, m matchRequest) (*faceMatch, Saved, error) {
	rec := Saved{VendorData: m.vendorData, Metadata: m.metadata, Scenario: m.scenario}
	block := &faceMatch{}
	var err error
	if m.scenario != "" {
		err = s.sandboxMatch(ctx, m, block)
	} else {
		err = s.gate.work(ctx, func() error { return s.realMatch(ctx, m, block) })
	}
	rec.Status, rec.Score, rec.Warnings = block.Status, block.Score, block.Warnings
	return block, rec, err
}

// realMatch compares. The standalone threshold knows Approved and Declined only, so it
// stands for both limits of a decision: strictly above approves.
func (s *Server) realMatch(ctx context.Context, m matchRequest, out *faceMatch) error {
	ref, err := s.analyse(ctx, m.refField, m.ref, m.rotate)
	if err != nil {
		return err
	}
	defer clear(ref.probe.Embedding)
	user, err := s.analyse(ctx, m.userField, m.user, m.rotate)
	if err != nil {
		return err
	}
	defer clear(user.probe.Embedding)
	d := s.Compare.Compare(agent.Thresholds{Review: m.threshold, Decline: m.threshold}, &ref.probe, &user.probe)
	*out = faceMatch{Status: agent.Declined, UserImage: user.block(), RefImage: ref.block(), Warnings: []Warning{}}
	if d.Scored {
		score := rounded(d.Score, 2)
		out.Score = &score
		if d.Status == agent.Approved && score > m.threshold {
			out.Status = agent.Approved
		}
	}
	for _, x := range d.Warnings {
		if x.LogType == agent.LogError {
			out.Warnings = append(out.Warnings, Warning{Risk: x.Risk, Feature: x.Feature, LogType: x.LogType, Short: x.Short, Long: x.Long})
		}
	}
	return nil
}
