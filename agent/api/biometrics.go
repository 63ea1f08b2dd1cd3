package api

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"time"

	"postern/agent"
)

// comparer analyses and compares faces.
type comparer interface {
	Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error)
	// ProbeLive is Probe with liveness, where it can be measured.
	ProbeLive(ctx context.Context, f *agent.Frame) (agent.Probe, error)
	// Compare decides about two analysed pictures.
	Compare(t agent.Thresholds, reference, probe *agent.Probe) agent.Decision
}

// saver turns standalone requests into sessions that the API can read later.
type saver interface {
	SaveRequest(ctx context.Context, s Saved) error
}

// screener searches faces among lists and former sessions.
type screener interface {
	Screen(ctx context.Context, q ScreenQuery) (Screening, error)
}

// Saved is a standalone request that its caller wants kept.
type Saved struct {
	ID         string // of the session that it becomes
	Service    string // FACE_MATCH, PASSIVE_LIVENESS or FACE_SEARCH
	Caller     *Caller
	VendorData string
	Metadata   json.RawMessage
	CreatedAt  time.Time

	Status    agent.Status
	Score     *float64
	Warnings  []Warning
	Matches   []Match
	Quality   *float64
	Luminance *float64
	Scenario  agent.Scenario // set: nothing was computed

	Pictures []Picture    // reference first
	Face     *agent.Probe // of the person the request is about; nil without a face
}

// Picture is one picture of a saved request. Its media id is known before it is
// stored, so that the answer can name it.
type Picture struct {
	Media string
	Kind  string // source_image, target_image or reference_image
	Upload
	ContentType string
}

// ScreenQuery asks who a face might be.
type ScreenQuery struct {
	Caller     *Caller
	Face       *agent.Probe
	VendorData string // sessions and entries of the same are no duplicates; "" excludes none
	ListsOnly  bool   // only block and allow lists
	Max        int
}

// Screening is what a search found, the most similar first.
type Screening struct{ Matches []Match }

// Match is one face found.
type Match struct {
	SessionID    *string      `json:"session_id"`
	Number       *uint64      `json:"session_number"`
	Similarity   float64      `json:"similarity_percentage"`
	Source       string       `json:"source"`
	VendorData   *string      `json:"vendor_data"`
	VendorUserID *string      `json:"vendor_user_id"`
	TemplateID   *string      `json:"biometric_template_id"`
	VerifiedAt   *string      `json:"verification_date"`
	User         *UserDetails `json:"user_details"`
	ImageURL     *string      `json:"match_image_url"`
	Status       *string      `json:"status"`
	Blocklisted  bool         `json:"is_blocklisted"`
	Allowlisted  bool         `json:"is_allowlisted"`
	Service      *string      `json:"api_service"`

	Media string `json:"-"` // id of the picture behind ImageURL
	Sure  bool   `json:"-"` // high similarity: the risk is not only a possible one
}

// UserDetails is what a former session knew of its person.
type UserDetails struct {
	FullName       *string `json:"full_name"`
	DocumentType   *string `json:"document_type"`
	DocumentNumber *string `json:"document_number"`
}

// Warning is one reason in an answer.
type Warning struct {
	Risk           agent.Risk     `json:"risk"`
	Feature        string         `json:"feature"`
	AdditionalData map[string]any `json:"additional_data"`
	LogType        agent.LogType  `json:"log_type"`
	Short          string         `json:"short_description"`
	Long           string         `json:"long_description"`
}

// entity is one face of a picture. Age and gender are not estimated here.
type entity struct {
	Box        [4]int  `json:"bbox"` // x1, y1, x2, y2 in the picture turned by best_angle
	Confidence float64 `json:"confidence"`
}

type imageBlock struct {
	Entities  []entity `json:"entities"`
	BestAngle int      `json:"best_angle"`
}

// common is what every standalone request may carry.
type common struct {
	rotate     bool
	save       bool
	vendorData string
	metadata   json.RawMessage
	scenario   agent.Scenario
}

var commonTexts = []string{"rotate_image", "save_api_request", "vendor_data", "metadata", "sandbox_scenario"}

func readCommon(f *Form, c *Caller) common {
	out := common{rotate: f.boolean("rotate_image", false), save: f.boolean("save_api_request", true), metadata: f.metadata("metadata")}
	out.vendorData, _ = f.text("vendor_data", MaxVendorData)
	if s, ok := f.texts["sandbox_scenario"]; ok {
		out.scenario = agent.Scenario(s)
		switch {
		case !c.Sandbox:
			f.Fields.Add("sandbox_scenario", "Only sandbox keys may name a scenario.")
		case !out.scenario.Known():
			f.Fields.Add("sandbox_scenario", notAChoice(s))
		}
	} else if c.Sandbox {
		out.scenario = agent.ScenarioApprove
	}
	return out
}

// envelope is what every standalone answer carries around its block.
type envelope struct {
	RequestID  string          `json:"request_id"`
	FaceMatch  *faceMatch      `json:"face_match,omitempty"`
	Liveness   *liveness       `json:"liveness,omitempty"`
	FaceSearch *faceSearch     `json:"face_search,omitempty"`
	VendorData *string         `json:"vendor_data"`
	Metadata   json.RawMessage `json:"metadata"`
	CreatedAt  string          `json:"created_at"`

	at time.Time
}

// envelope names the request. One that is sent again under an Idempotency-Key keeps its
// name and its time.
func (s *Server) envelope(ctx context.Context, c common) envelope {
	id, at := s.NewID(), s.Now()
	if r := replayIn(ctx); r != nil {
		id, at, r.unsaved = r.Record, r.At, !c.save
	}
	e := envelope{RequestID: id, Metadata: c.metadata, CreatedAt: Time(at), at: at}
	if c.vendorData != "" {
		e.VendorData = &c.vendorData
	}
	if e.Metadata == nil {
		e.Metadata = json.RawMessage("null")
	}
	return e
}

func (s *Server) biometricRoutes() []Route {
	route := func(path string, h func(http.ResponseWriter, *http.Request) error) Route {
		return Route{Method: http.MethodPost, Path: path, Resource: agent.ResourceBiometrics, Access: agent.WriteAccess,
			Budget: BudgetBiometrics, MaxBody: maxForm, Handle: s.gated(h)}
	}
	return []Route{
		route("/v3/face-match/", s.faceMatch),
		route("/v3/passive-liveness/", s.passiveLiveness),
		route("/v3/face-search/", s.faceSearch),
		route("/v3/age-estimation/", s.ageEstimation),
	}
}

// gated lets a request in only while there is room, before its body is read.
func (s *Server) gated(h func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		leave, err := s.gate.enter()
		if err != nil {
			s.Metrics.refused.Inc()
			return err
		}
		defer leave()
		return h(w, r)
	}
}

// ageEstimation is refused: no age is estimated on this device.
func (s *Server) ageEstimation(http.ResponseWriter, *http.Request) error {
	return Detail(http.StatusBadRequest, "Age estimation is not available here: no network on this device estimates an age.")
}

// analysed is a picture with what was seen in it.
type analysed struct {
	probe  agent.Probe
	angle  int
	width  int
	height int
}

// analyse decodes a picture and looks for the face, turned all four ways if asked.
func (s *Server) analyse(ctx context.Context, field string, u Upload, rotate bool) (analysed, error) {
	return s.analyseBy(ctx, s.Compare.Probe, field, u, rotate)
}

type prober func(context.Context, *agent.Frame) (agent.Probe, error)

func (s *Server) analyseBy(ctx context.Context, probe prober, field string, u Upload, rotate bool) (analysed, error) {
	start := time.Now()
	frame, err := decode(field, u)
	if err != nil {
		return analysed{}, err
	}
	s.Metrics.stage("decode", time.Since(start))
	angles := []int{0}
	if rotate {
		angles = []int{0, 90, 180, 270}
	}
	var best analysed
	for _, a := range angles {
		f := turn(frame, a)
		p, err := probe(ctx, f)
		if err != nil && ctx.Err() != nil {
			return analysed{}, errLate()
		}
		if err != nil {
			return analysed{}, &agent.Error{Code: agent.CodeUnavailable, Message: "the picture could not be analysed", Err: err}
		}
		s.Metrics.probe(p.Timings)
		if a == 0 || better(&p, &best.probe) {
			best = analysed{p, a, f.Width, f.Height}
		}
	}
	return best, nil
}

// better prefers a face to none and then the surer detection.
func better(a, b *agent.Probe) bool {
	return a.Face != nil && (b.Face == nil || a.Face.Confidence > b.Face.Confidence)
}

// turn rotates a frame clockwise.
func turn(f *agent.Frame, angle int) *agent.Frame {
	if angle == 0 {
		return f
	}
	w, h := f.Width, f.Height
	if angle != 180 {
		w, h = h, w
	}
	out := &agent.Frame{Pix: make([]byte, len(f.Pix)), Width: w, Height: h, Source: f.Source, Seq: f.Seq, CapturedAt: f.CapturedAt}
	for y := range h {
		for x := range w {
			sx, sy := x, y // 90: the left column becomes the top row
			switch angle {
			case 90:
				sx, sy = y, f.Height-1-x
			case 180:
				sx, sy = f.Width-1-x, f.Height-1-y
			case 270:
				sx, sy = f.Width-1-y, x
			}
			copy(out.Pix[(y*w+x)*3:(y*w+x)*3+3], f.Pix[(sy*f.Width+sx)*3:])
		}
	}
	return out
}

// block lists the faces of a picture, the one that was used first.
func (a *analysed) block() imageBlock {
	b := imageBlock{Entities: []entity{}, BestAngle: a.angle}
	if a.probe.Face == nil {
		return b
	}
	for _, f := range append([]agent.Face{*a.probe.Face}, a.probe.Others...) {
		b.Entities = append(b.Entities, entity{a.bbox(f.Box), rounded(float64(f.Confidence), 6)})
	}
	return b
}

// bbox cuts a box to the picture.
func (a *analysed) bbox(b agent.Box) [4]int {
	cut := func(v float32, hi int) int { return min(hi, max(0, int(math.Round(float64(v))))) }
	return [4]int{cut(b.X, a.width), cut(b.Y, a.height), cut(b.X+b.W, a.width), cut(b.Y+b.H, a.height)}
}

// rounded keeps numbers short and free of exponents on the wire.
func rounded(v float64, digits int) float64 {
	p := math.Pow(10, float64(digits))
	return math.Round(v*p) / p
}

// picture names a picture that will be stored.
func (s *Server) picture(ctx context.Context, kind string, u Upload) Picture {
	id := s.NewID()
	if record := recordOf(ctx); record != "" {
		id = record + "-" + kind
	}
	return Picture{Media: id, Kind: kind, Upload: u, ContentType: contentType(u.Data)}
}

// save hands a request over to be kept. What cannot be kept is not answered.
func (s *Server) save(ctx context.Context, rec Saved) error {
	if s.Saved == nil {
		return Detail(http.StatusServiceUnavailable, "Requests cannot be saved here. Send save_api_request=false.")
	}
	return s.Saved.SaveRequest(ctx, rec)
}
