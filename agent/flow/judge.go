package flow

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/decide"
	"postern/agent/photo"
	"postern/agent/verify"
)

// longSide is that of the pictures that a session keeps, in pixels: enough for a
// person to compare two faces.
const longSide = 1024

// MaxFrames is how many pictures of one face a submission may have.
const MaxFrames = 10

// Submit takes pictures of what the session awaits: one of a document, or one or
// more of the face, which are fused. It returns the session as it is then.
func (s *Service) Submit(ctx context.Context, token string, in cases.Input, frames []*agent.Frame) (cases.Session, error) {
	v, leave, err := s.turn(ctx, token)
	if err != nil {
		return v, err
	}
	defer leave()
	if v, err = s.Store.Session(v.ID); err != nil { // as it is now that it is our turn
		return v, err
	}
	if err := s.accepts(&v, in, frames); err != nil {
		return v, err
	}
	revision := v.Revision
	j := &judging{Service: s, ctx: ctx, session: &v}
	defer j.wipe()
	if v.Environment == cases.Live {
		if err := j.see(in, frames); err != nil {
			return v, err
		}
	}
	if err := v.Advance(in, j.judge, s.now(), s.Idle); err != nil {
		return v, err
	}
	out, err := s.update(v.Application, v.ID, func(c *cases.Session) (cases.Attachments, error) {
		if c.Revision != revision {
			return cases.Attachments{}, &agent.Error{Code: agent.CodeConflict, Message: "the session has changed meanwhile", Fix: "read it and try again"}
		}
		*c = v
		return j.attach, nil
	})
	if err != nil {
		return out, err
	}
	s.learn(&out, j.capture)
	s.Wake()
	return out, nil
}

// accepts refuses what cannot be taken before anything is computed.
func (s *Service) accepts(v *cases.Session, in cases.Input, frames []*agent.Frame) error {
	if err := v.Open(s.now()); err != nil {
		return err
	}
	if want, _ := v.Awaits(); want != in {
		return v.Advance(in, nil, s.now(), s.Idle) // says what is awaited
	}
	if len(frames) == 0 || len(frames) > MaxFrames || in == cases.InputDocument && len(frames) != 1 {
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%d pictures were sent", len(frames)),
			Fix: fmt.Sprintf("send one picture of a document, or 1 to %d of the face", MaxFrames)}
	}
	return nil
}

// learn lets searches find the face of a session that has a decision.
func (s *Service) learn(v *cases.Session, capture agent.Embedding) {
	if v.Environment != cases.Live || !v.Decided() {
		return
	}
	if capture == nil {
		t, err := s.Store.Face(owner(v.ID), cases.FaceCapture)
		if err != nil {
			return
		}
		capture = t.Embedding
		defer clear(capture)
	}
	s.index.addSession(v, capture)
}

func owner(session string) string { return "session/" + session }

// judging is one submission on its way through the steps.
type judging struct {
	*Service
	ctx     context.Context
	session *cases.Session
	attach  cases.Attachments
	capture agent.Embedding // of this submission
	faces   map[string]agent.Template
	read    []agent.Template // from the store
}

// wipe zeroes the faces of the submission: the store has them sealed, and the index has
// copies of its own.
func (j *judging) wipe() {
	for _, f := range slices.Concat(j.attach.Faces, j.read, slices.Collect(maps.Values(j.faces))) {
		clear(f.Embedding)
	}
}

// see analyses the pictures and notes them in the session.
func (j *judging) see(in cases.Input, frames []*agent.Frame) error {
	j.faces = map[string]agent.Template{}
	old := j.session.Capture
	kind := cases.FaceCapture
	var seen cases.Face
	var err error
	if in == cases.InputDocument {
		kind, old = cases.FaceDocument, j.session.Document
		seen, err = j.look(j.ctx, frames[0], kind, &j.attach)
		j.session.Document = seen
	} else {
		seen, err = j.present(frames)
		j.session.Capture = seen
	}
	if err != nil {
		return err
	}
	for _, id := range []string{old.Media, old.Crop} {
		if id != "" {
			j.attach.Drop = append(j.attach.Drop, id)
		}
	}
	if !seen.Found && old.Found {
		j.attach.Drop = append(j.attach.Drop, kind)
	}
	for _, f := range j.attach.Faces {
		j.faces[f.ID] = f
		if f.ID == cases.FaceCapture {
			j.capture = f.Embedding
		}
	}
	return nil
}

// look analyses one picture and prepares it, the part with the face and the template
// for the store.
func (s *Service) look(ctx context.Context, f *agent.Frame, kind string, a *cases.Attachments) (cases.Face, error) {
	p, err := s.Prober.ProbeLive(ctx, f)
	if err != nil {
		return cases.Face{}, &agent.Error{Code: agent.CodeUnavailable, Message: "the picture could not be analysed", Err: err}
	}
	return s.keep(f, &p, p.Embedding, kind, a)
}

// keep notes what was seen in a picture and prepares it for the store.
func (s *Service) keep(f *agent.Frame, p *agent.Probe, e agent.Embedding, kind string, a *cases.Attachments) (cases.Face, error) {
	out := cases.Face{ModelID: p.ModelID, Space: p.Space, Quality: p.Quality, Liveness: p.Liveness, Others: p.Others}
	var err error
	if out.Media, err = s.addPicture(f, nil, kind, a); err != nil {
		return out, err
	}
	if p.Face == nil || !e.Normalised() {
		return out, nil
	}
	out.Found, out.Box = true, p.Face.Box
	if kind != cases.FaceCapture {
		if out.Crop, err = s.addPicture(f, &p.Face.Box, kind+"_face", a); err != nil {
			return out, err
		}
	}
	a.Faces = append(a.Faces, agent.Template{ID: kind, ModelID: p.ModelID, Space: p.Space, Quality: p.Quality, Embedding: e, CreatedAt: s.now()})
	return out, nil
}

func (s *Service) addPicture(f *agent.Frame, box *agent.Box, kind string, a *cases.Attachments) (string, error) {
	var data []byte
	var err error
	if box == nil {
		data, err = photo.Encode(f, longSide)
	} else {
		data, err = photo.EncodeFace(f, *box, longSide/2)
	}
	if err != nil {
		return "", err
	}
	id, err := s.mediaID()
	if err != nil {
		return "", err
	}
	a.Media = append(a.Media, agent.Media{ID: id, Kind: kind, ContentType: "image/jpeg", Data: data, ExpiresAt: s.now().Add(s.KeepMedia)})
	return id, nil
}

// present fuses the pictures of a face. The first good one stands for all of them;
// where none is good, the first that has a face.
func (j *judging) present(frames []*agent.Frame) (cases.Face, error) {
	ev := j.Matcher.NewPictureEvidence("session") // liveness is a step of its own
	defer ev.Wipe()
	var best *agent.Frame
	var probe agent.Probe
	good := false
	var attacks []agent.Signal // an attack in one picture is one on all of them
	for _, f := range frames {
		p, err := j.Prober.ProbeLive(j.ctx, f)
		if err != nil {
			return cases.Face{}, &agent.Error{Code: agent.CodeUnavailable, Message: "the picture could not be analysed", Err: err}
		}
		for _, sig := range p.Liveness.Signals {
			if sig.Grade == agent.GradeAttack {
				attacks = append(attacks, sig)
			}
		}
		verdict := ev.Add(&p)
		if verdict == verify.Different {
			return cases.Face{}, &agent.Error{Code: agent.CodeInvalid, Message: "the pictures show different faces", Fix: "send pictures of one person, taken one after the other"}
		}
		first := best == nil || probe.Face == nil && p.Face != nil
		if verdict == verify.Used && !good || first {
			best, probe = f, p
		}
		good = good || verdict == verify.Used
	}
	e := probe.Embedding
	if good {
		e, probe.Liveness = ev.Embedding(), ev.Liveness()
		probe.Liveness.Signals = append(probe.Liveness.Signals, attacks...)
	}
	return j.keep(best, &probe, e, cases.FaceCapture, &j.attach)
}

// template returns a face of the session, of this submission or of an earlier one.
func (j *judging) template(kind string) (agent.Template, error) {
	if t, ok := j.faces[kind]; ok {
		return t, nil
	}
	t, err := j.Store.Face(owner(j.session.ID), kind)
	j.read = append(j.read, t)
	return t, err
}

// judge computes one step.
func (j *judging) judge(v *cases.Session, st *cases.Step) (cases.Outcome, error) {
	var o cases.Outcome
	var err error
	switch {
	case v.Environment == cases.Sandbox:
		o = sandbox(agent.Scenario(v.Scenario), st)
	case st.Feature == cases.FaceMatch:
		o, err = j.faceMatch(st)
	case st.Feature == cases.Liveness:
		o, err = j.liveness(st)
	case st.Feature == cases.FaceSearch:
		o, err = j.faceSearch(st)
	case st.Feature == cases.IDVerification:
		o = j.document(st)
	default:
		err = fmt.Errorf("nobody judges %s", st.Feature)
	}
	if err != nil {
		return o, err
	}
	o.Status = cases.Verdict(o.Warnings)
	return o, nil
}

// document: the portrait is what counts. No text is read.
func (j *judging) document(st *cases.Step) cases.Outcome {
	d := &j.session.Document
	o := cases.Outcome{Target: d.Media, Source: d.Crop, Retry: true, ModelID: d.ModelID}
	if !d.Found {
		o.Warnings = append(o.Warnings, st.Warn(cases.RiskNoPortrait, nil))
	} else if len(d.Others) > 0 {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskSeveralFaces, nil))
	}
	return o
}

// evidence is the session's capture as what the matcher compares.
func (j *judging) evidence() (*verify.Evidence, error) {
	t, err := j.template(cases.FaceCapture)
	if err != nil {
		return nil, err
	}
	p := j.session.Capture.Probe(t.Embedding)
	ev := j.Matcher.NewPictureEvidence("session " + j.session.ID)
	ev.Add(&p)
	return ev, nil
}

func (j *judging) faceMatch(st *cases.Step) (cases.Outcome, error) {
	c := &j.session.Capture
	o := cases.Outcome{Target: c.Media, Retry: true, ModelID: c.ModelID, Calibration: j.curve().ID()}
	if !c.Found {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskNoReference, nil))
		return o, nil
	}
	ev, err := j.evidence()
	if err != nil {
		return o, err
	}
	defer ev.Wipe()
	d, err := j.compare(st, ev, &o)
	if err != nil {
		return o, err
	}
	if d.Scored {
		o.Score = &d.Score
	}
	for _, w := range d.Warnings {
		o.Warnings = append(o.Warnings, fromDecision(st, w))
	}
	if !d.Scored && cases.Verdict(o.Warnings) == cases.NodeApproved {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskNoReference, nil)) // nothing was compared: it cannot be approved
	}
	return o, nil
}

// fromDecision gives a warning of the decision the effect that the workflow gives it.
// What the score or a fatal risk says stands.
func fromDecision(st *cases.Step, w agent.Warning) cases.Warning {
	if w.LogType == agent.LogInformation || w.Risk == agent.RiskNotComputed {
		own := st.Warn(w.Risk, nil)
		own.Long = w.Long
		return own
	}
	own := st.WarnAs(w.Risk, w.LogType, nil)
	own.Short, own.Long = w.Short, w.Long
	return own
}

// compare compares the capture with the reference that the session has: the portrait
// on its document, the portrait it was made with, or the enrolled subject.
func (j *judging) compare(st *cases.Step, ev *verify.Evidence, o *cases.Outcome) (agent.Decision, error) {
	v := j.session
	kind := ""
	switch {
	case v.Document.Found && precedes(v.Steps, cases.IDVerification, st.Node):
		kind, o.Reference, o.Source = cases.FaceDocument, cases.FromDocument, v.Document.Crop
	case v.Portrait.Found:
		kind, o.Reference, o.Source = cases.FacePortrait, cases.FromPortrait, v.Portrait.Crop
	default:
		return j.compareEnrolled(st, ev, o)
	}
	ref, err := j.template(kind)
	if err != nil {
		return agent.Decision{}, err
	}
	seen := decide.Evidence{ModelID: v.Capture.ModelID, Frames: 1}
	if used, _ := ev.Frames(); used == 0 {
		seen.Missing, seen.Findings = agent.RiskLowQuality, j.findings()
	} else if e := ev.Embedding(); ref.Space == v.Capture.Space && e.Normalised() {
		seen.Scored, seen.Cosine = true, ref.Embedding.Cosine(e)
	} else {
		seen.Missing = agent.RiskNotComputed
	}
	return decide.Decide(j.curve(), st.Thresholds, seen), nil
}

// precedes tells whether a step with this feature stands before a node and was not
// skipped.
func precedes(steps []cases.StepState, f cases.Feature, node string) bool {
	for _, st := range steps {
		if st.Node == node {
			return false
		}
		if st.Feature == f && !st.Skipped {
			return true
		}
	}
	return false
}

func (j *judging) findings() []agent.Finding {
	p := j.session.Capture.Probe(nil)
	return j.Matcher.Policy.VerifyQuality.Findings(&p)
}

// compareEnrolled goes through the service that counts attempts on enrolled people.
// Its result is stored with the device's own thresholds; the workflow's decide here.
func (j *judging) compareEnrolled(st *cases.Step, ev *verify.Evidence, o *cases.Outcome) (agent.Decision, error) {
	o.Reference = cases.FromSubject
	var r agent.Result
	_, err := j.person(j.session.Application, j.session.VendorData)
	if err == nil {
		r, err = j.Enrolled.Verify(j.ctx, j.session.VendorData, ev)
	}
	switch agent.ErrorCode(err) {
	case "":
	case agent.CodeNotFound, agent.CodeInvalid:
		return decide.Decide(j.curve(), st.Thresholds, decide.Evidence{Missing: agent.RiskNoReference}), nil
	case agent.CodeThrottled:
		o.Retry = false
		w := st.Warn(cases.RiskTooManyTries, nil)
		w.Long = err.Error()
		o.Warnings = append(o.Warnings, w)
		return agent.Decision{}, nil
	default:
		return agent.Decision{}, err
	}
	d := r.Decision
	own := decide.Evidence{Cosine: d.Cosine, Scored: d.Scored, ModelID: d.ModelID, Frames: d.Frames}
	if !d.Scored {
		own.Missing = missing(d.Warnings)
	}
	out := decide.Decide(j.curve(), st.Thresholds, own)
	for _, w := range d.Warnings {
		// What the device declines for, other than the score, is not the workflow's to allow.
		if w.Risk != agent.RiskLowSimilarity && w.LogType != agent.LogInformation && (d.Scored || w.Risk != own.Missing) {
			out.Warnings = append(out.Warnings, w)
		}
	}
	return out, nil
}

// person returns the templates of an enrolled subject, if it is the application's.
func (s *Service) person(application, id string) ([]agent.Template, error) {
	sub, ts, err := s.Enrolled.Subject(id)
	if err == nil && agent.ApplicationOr(sub.Application) != agent.ApplicationOr(application) {
		return nil, notFound("subject", id)
	}
	return ts, err
}

// missing is why a decision has no score.
func missing(ws []agent.Warning) agent.Risk {
	for _, w := range ws {
		if w.LogType == agent.LogError {
			return w.Risk
		}
	}
	return agent.RiskNoReference
}

func (j *judging) liveness(st *cases.Step) (cases.Outcome, error) {
	c := &j.session.Capture
	o := cases.Outcome{Target: c.Media, Retry: true, ModelID: c.Liveness.ModelID, Calibration: c.Liveness.Calibration}
	if !c.Found {
		o.Warnings = append(o.Warnings, st.Warn(cases.RiskNoFace, nil))
		return o, nil
	}
	check, ws := decide.Live(decide.Capture{Liveness: c.Liveness, Findings: j.findings(),
		Policy: decide.LivenessPolicy{Thresholds: st.Thresholds, SeveralFaces: decide.NoAction, Quality: decide.NoAction, Dark: decide.NoAction, Bright: decide.NoAction}})
	if check.Measured {
		score := round2(check.Score)
		o.Score = &score
	}
	for _, w := range ws {
		if w.Risk == cases.RiskLivenessAttack {
			o.Retry = false
		}
		o.Warnings = append(o.Warnings, fromDecision(st, w))
	}
	if o.Score == nil && cases.Verdict(o.Warnings) == cases.NodeApproved {
		o.Warnings = append(o.Warnings, st.Warn(cases.RiskNotMeasured, nil))
	}
	j.pictureLimits(st, &o)
	if !st.Search {
		return o, nil
	}
	return o, j.screen(st, &o)
}

// pictureLimits holds the capture against the limits that the step itself sets.
func (j *judging) pictureLimits(st *cases.Step, o *cases.Outcome) {
	q := j.session.Capture.Quality
	luminance := round2(float64(q.Luminance))
	o.Luminance, o.Quality = &luminance, faceQuality(q)
	if st.MinLuminance > 0 && !(luminance >= st.MinLuminance) {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskDarkFace, nil))
	}
	if st.MaxLuminance > 0 && !(luminance <= st.MaxLuminance) {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskBrightFace, nil))
	}
	if st.QualityReview == 0 && st.QualityDecline == 0 {
		return
	}
	switch {
	case o.Quality == nil || *o.Quality <= st.QualityDecline:
		o.Warnings = append(o.Warnings, st.WarnAs(agent.RiskLowQuality, agent.LogError, nil))
	case *o.Quality <= st.QualityReview:
		o.Warnings = append(o.Warnings, st.WarnAs(agent.RiskLowQuality, agent.LogWarning, nil))
	}
}

func (j *judging) faceSearch(st *cases.Step) (cases.Outcome, error) {
	c := &j.session.Capture
	o := cases.Outcome{Target: c.Media, Retry: true, ModelID: c.ModelID, Calibration: j.curve().ID()}
	if !c.Found {
		o.Warnings = append(o.Warnings, st.Warn(cases.RiskNoFace, nil))
		return o, nil
	}
	if len(c.Others) > 0 && len(j.findings()) > 0 && j.findings()[0].Code == agent.FindingSeveralFaces {
		o.Warnings = append(o.Warnings, st.Warn(agent.RiskSeveralFaces, nil))
	}
	err := j.screen(st, &o)
	if len(o.Matches) > 0 {
		o.Score = &o.Matches[0].Similarity
	}
	return o, err
}

// screen searches lists and former sessions.
func (j *judging) screen(st *cases.Step, o *cases.Outcome) error {
	t, err := j.template(cases.FaceCapture)
	if err != nil {
		return err
	}
	limits := st.Thresholds
	if st.Feature == cases.Liveness {
		limits = Screening
	}
	found, err := j.Search(SearchQuery{Application: j.session.Application, Embedding: t.Embedding, Space: t.Space, Limits: limits, Vendor: j.session.VendorData, Session: j.session.ID})
	if err != nil {
		return err
	}
	o.Matches = found
	seen := map[agent.Risk]bool{}
	for _, m := range found {
		risk, data := riskOf(&m, limits.Review)
		if risk == "" || seen[risk] {
			continue
		}
		seen[risk] = true
		if m.Blocklisted {
			o.Retry = false
		}
		o.Warnings = append(o.Warnings, st.Warn(risk, data))
	}
	return nil
}

// riskOf names what a found face means; above the sure limit it is not only possible.
func riskOf(m *cases.Match, sure float64) (agent.Risk, map[string]any) {
	high := m.Similarity > sure
	prefix := "duplicated"
	risk := cases.RiskMaybeDuplicate
	switch {
	case m.Allowlisted:
		return "", nil
	case m.Blocklisted && high:
		prefix, risk = "blocklisted", cases.RiskBlocklisted
	case m.Blocklisted:
		prefix, risk = "blocklisted", cases.RiskMaybeBlocked
	case high:
		risk = cases.RiskDuplicate
	}
	data := map[string]any{prefix + "_session_id": nil, prefix + "_session_number": nil, "api_service": nil}
	if m.SessionID != "" {
		data[prefix+"_session_id"] = m.SessionID
	}
	if m.Number > 0 {
		data[prefix+"_session_number"] = m.Number
	}
	if m.API != "" {
		data["api_service"] = m.API
	}
	return risk, data
}

func round2(v float64) float64 { return math.Round(v*100) / 100 }

// sandbox answers by the scenario and looks at nothing.
func sandbox(sc agent.Scenario, st *cases.Step) cases.Outcome {
	o := cases.Outcome{}
	score := func(v float64) { o.Score = &v }
	warn := func(w cases.Warning) { o.Warnings = append(o.Warnings, w) }
	switch st.Feature {
	case cases.FaceMatch:
		switch sc {
		case agent.ScenarioDeclineNoReference:
			warn(st.Warn(agent.RiskNoReference, nil))
		case agent.ScenarioDeclineLowSimilarity:
			score(12.34)
			warn(st.WarnAs(agent.RiskLowSimilarity, agent.LogError, nil))
		case agent.ScenarioReviewBorderline:
			score(60)
			warn(st.WarnAs(agent.RiskLowSimilarity, agent.LogWarning, nil))
		default:
			score(99.41)
		}
	case cases.Liveness:
		score(95)
		switch sc {
		case agent.ScenarioDeclineNoFace:
			o.Score = nil
			warn(st.Warn(cases.RiskNoFace, nil))
		case agent.ScenarioDeclineAttack:
			score(3)
			warn(st.Warn(cases.RiskLivenessAttack, nil))
		case agent.ScenarioDeclineLowLiveness:
			score(0)
			warn(st.WarnAs(cases.RiskLowLiveness, agent.LogError, nil))
		}
	}
	if st.Feature == cases.FaceSearch || st.Feature == cases.Liveness {
		switch sc {
		case agent.ScenarioDeclineBlocklist:
			warn(st.Warn(cases.RiskBlocklisted, nil))
		case agent.ScenarioDuplicate:
			warn(st.Warn(cases.RiskDuplicate, nil))
		}
	}
	return o
}
