package hosted

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"rsc.io/qr"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/photo"
	"postern/agent/ui"
)

//go:embed assets templates
var files embed.FS

var pages = sync.OnceValue(func() *ui.Pages { return ui.Parse(files, "templates/*.html", "hosted") })

// sessions is what the page needs from the service of cases.
type sessions interface {
	SessionByToken(token string) (cases.Session, error)
	Consent(ctx context.Context, token string) (cases.Session, error)
}

type prober interface {
	Probe(ctx context.Context, f *agent.Frame) (agent.Probe, error)
}

// Config is what the page is made of.
type Config struct {
	Sessions  sessions
	Prober    prober // for guidance
	Limits    agent.QualityLimits
	Brands    Brands
	Origins   []string // of the integrators that may frame the page
	PublicURL string   // scheme and host of the page's links; "": those of the request
	KeepMedia time.Duration
	// Kept says how long an application's pictures are kept, 0 for no limit; nil is KeepMedia.
	Kept func(application string) (time.Duration, error)
	Log  *slog.Logger
	Now  func() time.Time
}

// Server is the page. Serve its Handler at the paths of Owns.
type Server struct {
	Config
	looking chan struct{} // holds one token: guidance analyses one picture at a time
	pace    pace
}

// New makes the page.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Config: c, looking: make(chan struct{}, 1), pace: pace{now: c.Now}}
	return s
}

// TokenHeader carries a session's token: it opens that session and nothing else.
const TokenHeader = "Session-Token"

// Handler serves the page and what it asks for.
func (s *Server) Handler() http.Handler {
	sub, err := fs.Sub(files, "assets")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /session/{token}", s.page)
	mux.HandleFunc("GET /{lang}/session/{token}", s.page)
	mux.Handle("GET /hosted/{file}", http.StripPrefix("/hosted/", ui.Static(sub)))
	mux.HandleFunc("GET /hosted/brand/{id}/style.css", s.brandStyle)
	mux.HandleFunc("GET /hosted/brand/{id}/logo", s.brandLogo)
	mux.HandleFunc("GET /hosted/state", s.opened(s.state))
	mux.HandleFunc("POST /hosted/consent", s.opened(s.consent))
	mux.HandleFunc("POST /hosted/look", s.opened(s.look))
	mux.Handle("GET /ui/{file}", ui.Assets())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ui.Secure(w.Header(), s.Origins...)
		mux.ServeHTTP(w, r)
	})
}

// Owns tells whether a path is the page's; /ui/ is too, so that the page works under
// names that the kiosk refuses.
func Owns(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if first == "session" || first == "hosted" || first == "ui" {
		return true
	}
	return len(first) >= 2 && len(first) <= 10 && strings.HasPrefix(rest, "session/")
}

// pageData is what the template shows.
type pageData struct {
	Brand   *Brand
	BrandID string
	QR      *code
	Origins string // that may hear what happens, as JSON
	Keep    string
	URL     string
}

// page serves the page of a session, or says that the link leads nowhere.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	v, err := s.Sessions.SessionByToken(r.PathValue("token"))
	lang := ui.Negotiate(r, cmp.Or(r.PathValue("lang"), v.Language))
	brand := s.Brands.of(v.Application, r.Host)
	m := pages().Messages(lang).With(brand.Texts[lang])
	data := pageData{Brand: brand, BrandID: brand.id, URL: s.base(r) + r.URL.Path}
	p := ui.Page{Lang: lang, Theme: ui.Theme(r, ""), Title: m.T("hosted.title", "name", cmp.Or(brand.Name, m.T("common.product"))),
		Brand: ui.Brand{Name: brand.Name}, Other: ui.Others(r, lang), Messages: m.Under("hosted.", "common.")}
	if len(brand.logo) > 0 {
		p.Brand.Logo = "/hosted/brand/" + url.PathEscape(brand.id) + "/logo"
	}
	if err == nil {
		data.Keep, err = s.kept(m, v.Application)
	}
	name, status := "session", http.StatusOK
	switch {
	case agent.ErrorCode(err) == agent.CodeNotFound:
		name, status = "gone", http.StatusNotFound
	case err != nil:
		s.Log.Error("session not read", "err", err)
		name, status = "broken", http.StatusServiceUnavailable
	default:
		data.QR, data.Origins = newCode(data.URL), originsJSON(s.Origins)
	}
	p.Data = data
	if err := pages().Render(w, status, name, p); err != nil {
		s.Log.Error("page not rendered", "err", err)
	}
}

func originsJSON(origins []string) string {
	raw, err := json.Marshal(slices.Clone(origins))
	if err != nil || len(origins) == 0 {
		return "[]"
	}
	return string(raw)
}

// kept says how long an application's pictures are kept, in words.
func (s *Server) kept(m ui.Messages, application string) (string, error) {
	if s.Kept == nil {
		return keptFor(m, s.KeepMedia), nil
	}
	d, err := s.Kept(application)
	return keptFor(m, d), err
}

func keptFor(m ui.Messages, d time.Duration) string {
	if d == 0 {
		return m.T("hosted.unlimited")
	}
	if days := int(d.Hours() / 24); days >= 1 {
		return m.T("hosted.days", "days", days)
	}
	return m.T("hosted.hours", "hours", max(1, int(d.Hours())))
}

func (s *Server) base(r *http.Request) string {
	switch {
	case s.PublicURL != "":
		return strings.TrimSuffix(s.PublicURL, "/")
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// code is a QR code as the path of an SVG picture.
type code struct {
	Size int
	Path string
}

// newCode draws text as a QR code with a quiet zone; nil when it does not fit one.
func newCode(text string) *code {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil
	}
	const quiet = 4
	var b strings.Builder
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	return &code{c.Size + 2*quiet, b.String()}
}

func (s *Server) brandStyle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = w.Write([]byte(s.Brands.of(r.PathValue("id"), "").css())) // the browser has gone
}

// brandLogo serves a deployer's picture. As a document of its own it may do nothing.
func (s *Server) brandLogo(w http.ResponseWriter, r *http.Request) {
	b := s.Brands.of(r.PathValue("id"), "")
	if len(b.logo) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", ui.PictureType(b.logo))
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	_, _ = w.Write(b.logo) // the browser has gone
}

// opened asks for the session's token before anything else.
func (s *Server) opened(next func(w http.ResponseWriter, r *http.Request, v cases.Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.Sessions.SessionByToken(r.Header.Get(TokenHeader))
		switch {
		case agent.ErrorCode(err) == agent.CodeNotFound:
			answer(w, http.StatusForbidden, map[string]string{"detail": "The session's token is missing or wrong."})
		case err != nil:
			s.refuse(w, err)
		default:
			next(w, r, v)
		}
	}
}

// refuse answers an error; what nobody outside should read stays in the log.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	status := map[agent.Code]int{agent.CodeInvalid: http.StatusBadRequest, agent.CodeConflict: http.StatusConflict, agent.CodeNotFound: http.StatusNotFound}[agent.ErrorCode(err)]
	if status == 0 {
		s.Log.Error("hosted page", "err", err)
		answer(w, http.StatusServiceUnavailable, map[string]string{"detail": "This cannot be done now."})
		return
	}
	answer(w, status, map[string]string{"detail": err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the browser has gone
}

// stateView is where a session stands, for its page.
type stateView struct {
	SessionID string       `json:"session_id"`
	Status    cases.Status `json:"status"`
	Consented bool         `json:"consented"`
	Awaits    cases.Input  `json:"awaits"` // document, face or nothing
	Left      int          `json:"attempts_left"`
	Tried     bool         `json:"tried"` // an attempt at what is awaited has failed
	Risks     []agent.Risk `json:"risks"` // why it has
	Inputs    []string     `json:"inputs"`
	Callback  string       `json:"callback,omitempty"`
}

func viewOf(v *cases.Session) stateView {
	out := stateView{SessionID: v.ID, Status: v.Status, Consented: v.Consented(), Risks: []agent.Risk{}, Inputs: []string{}, Callback: callback(v)}
	for i := range v.Steps {
		if in := string(v.Steps[i].Feature.Needs()); !slices.Contains(out.Inputs, in) {
			out.Inputs = append(out.Inputs, in)
		}
	}
	if !v.Unfinished() {
		return out
	}
	in, node := v.Awaits()
	out.Awaits = in
	for i := range v.Steps {
		st := &v.Steps[i]
		if st.Node != node {
			continue
		}
		out.Left, out.Tried = st.MaxAttempts-st.Attempts, st.Attempts > 0 && !st.Resubmit
		for _, w := range st.Warnings {
			if w.LogType == agent.LogError {
				out.Risks = append(out.Risks, w.Risk)
			}
		}
	}
	return out
}

// callback is where the person goes on from here, with what upstream appends.
func callback(v *cases.Session) string {
	u, err := url.Parse(v.Callback)
	if v.Callback == "" || err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	q := u.Query()
	q.Set("verificationSessionId", v.ID)
	q.Set("status", string(v.Status))
	u.RawQuery = q.Encode()
	return u.String()
}

func (s *Server) state(w http.ResponseWriter, _ *http.Request, v cases.Session) {
	answer(w, http.StatusOK, viewOf(&v))
}

func (s *Server) consent(w http.ResponseWriter, r *http.Request, v cases.Session) {
	v, err := s.Sessions.Consent(r.Context(), v.Token)
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, http.StatusOK, viewOf(&v))
}

// The limits of pictures for guidance: small ones, and not too often.
const (
	maxLook       = 512 << 10
	maxLookPixels = 1_000_000
	lookWait      = 1500 * time.Millisecond
	lookEvery     = 200 * time.Millisecond // and session
)

// look says what is wrong with a picture before it is sent in. It is not kept. While
// another picture is being looked at the answer is "no advice" (204): guidance never
// holds up a decision.
func (s *Server) look(w http.ResponseWriter, r *http.Request, v cases.Session) {
	if err := v.Open(s.Now()); err != nil {
		s.refuse(w, err)
		return
	}
	if !s.pace.may(v.ID, lookEvery) {
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusTooManyRequests, map[string]string{"detail": "Too many pictures at once."})
		return
	}
	select {
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	default:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	frame, err := readFrame(w, r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookWait)
	defer cancel()
	p, err := s.Prober.Probe(ctx, frame)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("guidance", "err", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, adviceOf(&p, s.Limits, frame))
}

func readFrame(w http.ResponseWriter, r *http.Request) (*agent.Frame, error) {
	var b bytes.Buffer
	if _, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, maxLook)); err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the picture is too large or was cut off", Fix: fmt.Sprintf("send up to %d bytes", maxLook)}
	}
	return photo.Decode(&b, "picture", photo.Limits{MaxBytes: maxLook, MaxPixels: maxLookPixels})
}

// advice is what to do before the picture is taken.
type advice struct {
	Findings []agent.FindingCode `json:"findings"` // the gravest first; none: it is good
	X        float64             `json:"x"`        // of the face's centre, 0 to 1
}

func adviceOf(p *agent.Probe, limits agent.QualityLimits, f *agent.Frame) advice {
	a := advice{Findings: []agent.FindingCode{}, X: 0.5}
	for _, found := range limits.Findings(p) {
		a.Findings = append(a.Findings, found.Code)
	}
	if p.Face != nil && f.Width > 0 {
		a.X = float64(p.Face.Box.X+p.Face.Box.W/2) / float64(f.Width)
	}
	return a
}

// pace lets each session ask only so often. What is old is forgotten.
type pace struct {
	now  func() time.Time
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

// maxPaced bounds what is remembered.
const maxPaced = 1000

func (p *pace) may(id string, every time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if now.Sub(p.last[id]) < every {
		return false
	}
	if p.last == nil || len(p.last) >= maxPaced {
		p.last = map[string]time.Time{}
	}
	p.last[id] = now
	return true
}
