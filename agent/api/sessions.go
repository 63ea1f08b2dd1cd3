package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

type sessionService interface {
	Create(ctx context.Context, c cases.Scope, n cases.NewSession) (cases.Session, error)
	Session(c cases.Scope, id string) (cases.Session, error)
	Sessions(c cases.Scope, q cases.SessionQuery) ([]cases.Session, int, error)
	MayChange(c cases.Scope, id string) error
	Change(ctx context.Context, c cases.Scope, id string, ch cases.Change) (cases.Session, error)
	AddReview(ctx context.Context, c cases.Scope, id string, r cases.Review) (cases.Session, error)
	Delete(ctx context.Context, c cases.Scope, id string) (cases.Session, error)
	DeleteMany(ctx context.Context, c cases.Scope, numbers []uint64, all bool) (int, error)
	Share(c cases.Scope, id, application string, life time.Duration) (string, error)
	ImportShared(c cases.Scope, token, workflow, vendor string, trust bool) (cases.Session, error)
}

// maxCreate bounds the body of a creation: a portrait of 2 MB in base64, and the rest.
const maxCreate = 4 << 20

func (cr caseRoutes) sessionRoutes() []Route {
	const one, res = "/v3/session/{id}/", agent.ResourceSessions
	create := write(res, http.MethodPost, "/v3/session/", on(http.StatusCreated, cr.createSession))
	create.Budget, create.MaxBody = BudgetCreate, maxCreate
	pdf := read(res, one+"generate-pdf/", cr.sessionPDF)
	pdf.Budget = BudgetPDF
	return []Route{
		create, pdf,
		read(res, "/v3/sessions/", on(http.StatusOK, cr.listSessions)),
		read(res, one, on(http.StatusOK, cr.getSession)),
		read(res, one+"decision/", on(http.StatusOK, cr.decision)),
		write(res, http.MethodPatch, one+"update-status/", on(http.StatusOK, cr.updateStatus)),
		write(res, http.MethodDelete, one+"delete/", on(http.StatusOK, cr.deleteSession)),
		write(res, http.MethodPost, "/v3/sessions/delete/", on(http.StatusOK, cr.deleteSessions)),
		write(res, http.MethodPost, one+"share/", on(http.StatusOK, cr.shareSession)),
		write(res, http.MethodPost, "/v3/session/import-shared/", on(http.StatusCreated, cr.importShared)),
		read(res, "/v3/sessions/{id}/reviews/", on(http.StatusOK, cr.listReviews)),
		write(res, http.MethodPost, "/v3/sessions/{id}/reviews/", on(http.StatusCreated, cr.addReview)),
	}
}

func (cr caseRoutes) createSession(c *call) (any, error) {
	o := c.object()
	n := cases.NewSession{
		WorkflowID: o.Required("workflow_id", 64), VendorData: o.String("vendor_data", MaxVendorData), Callback: o.String("callback", 2048),
		CallbackMethod: o.Choice("callback_method", false, "initiator", "completer", "both"), Language: o.String("language", 10),
		Portrait: o.String("portrait_image", maxCreate), Scenario: o.String("sandbox_scenario", 64), Metadata: c.metadata("metadata"),
	}
	checkCreate(o, &n, c.caller.Sandbox)
	if err := c.Err(); err != nil {
		return nil, err
	}
	var err error
	if n.ContactDetails, n.ExpectedDetails, err = details(o); err != nil {
		return nil, err
	}
	if !IsUUID(n.WorkflowID) {
		return nil, FieldText("workflow_id", "Invalid workflow_id.")
	}
	var v cases.Session
	err = cr.analysing(c.Context(), n.Portrait != "", func() (err error) {
		v, err = cr.cases.Create(c.Context(), c.scope, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return v.View(cr.linksFor(c.Request)), nil
}

// analysing runs fn in the queue of those who need a picture analysed, if it does.
func (cr caseRoutes) analysing(ctx context.Context, pictures bool, fn func() error) error {
	if !pictures {
		return fn()
	}
	leave, err := cr.gate.enter()
	if err != nil {
		return err
	}
	defer leave()
	return cr.gate.work(ctx, fn)
}

// checkCreate notes what a type alone does not tell.
func checkCreate(o *Object, n *cases.NewSession, sandbox bool) {
	if o.Has("vendor_data") && n.VendorData == "" && string(o.raw["vendor_data"]) != "null" && len(o.Fields["vendor_data"]) == 0 {
		o.Fields.Add("vendor_data", msgBlank)
	}
	if n.Language != "" && !cases.ValidLanguage(n.Language) {
		o.Fields.Add("language", notAChoice(n.Language))
	}
	if n.Callback != "" && !callable(n.Callback) {
		o.Fields.Add("callback", msgURL)
	}
	switch {
	case n.Scenario == "":
		if sandbox {
			n.Scenario = string(agent.ScenarioApprove)
		}
	case !sandbox:
		o.Fields.Add("sandbox_scenario", "Only sandbox keys may name a scenario.")
	case !agent.Scenario(n.Scenario).Known():
		o.Fields.Add("sandbox_scenario", notAChoice(n.Scenario))
	}
}

// callable accepts absolute addresses, also those of apps, but none that a browser
// would run or read a file for.
func callable(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && (u.Host != "" || u.Opaque == "" && u.Path != "") &&
		!slices.Contains([]string{"javascript", "data", "vbscript", "file", "blob", "about"}, strings.ToLower(u.Scheme)) && !strings.ContainsAny(s, " \t\r\n<>\"")
}

// details reads the two objects that are kept as they are.
func details(o *Object) (contact, expected json.RawMessage, err error) {
	for name, v := range map[string]*json.RawMessage{"contact_details": &contact, "expected_details": &expected} {
		if *v, err = cases.ParseMetadata(name, o.Raw(name, maxCreate)); err != nil {
			return nil, nil, err
		}
		if len(*v) > 0 && (*v)[0] != '{' {
			return nil, nil, &cases.Refusal{Form: cases.FieldList, Field: name, Message: msgObject}
		}
	}
	if len(expected) == 0 {
		return contact, expected, nil
	}
	var e struct {
		Address    *string `json:"address"`
		Country    *string `json:"country"`
		POACountry *string `json:"poa_country"`
		Gender     *string `json:"gender"`
	}
	if json.Unmarshal(expected, &e) != nil {
		return nil, nil, &cases.Refusal{Form: cases.FieldList, Field: "expected_details", Message: msgString}
	}
	switch {
	case e.Address != nil && *e.Address != "" && e.Country == nil && e.POACountry == nil:
		return nil, nil, &cases.Refusal{Form: cases.FieldList, Field: "expected_details", Message: "A country is required with an address."}
	case e.Gender != nil && *e.Gender != "M" && *e.Gender != "F":
		return nil, nil, &cases.Refusal{Form: cases.FieldList, Field: "expected_details", Message: "gender is M, F or null."}
	}
	return contact, expected, nil
}

// session finds the session of the path.
func (cr caseRoutes) session(c *call) (cases.Session, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return cases.Session{}, err
	}
	return cr.cases.Session(c.scope, id)
}

func (cr caseRoutes) getSession(c *call) (any, error) {
	v, err := cr.session(c)
	if err != nil {
		return nil, err
	}
	return v.View(cr.linksFor(c.Request)), nil
}

func (cr caseRoutes) decision(c *call) (any, error) {
	v, err := cr.session(c)
	if err != nil {
		return nil, err
	}
	return v.Decision(cr.linksFor(c.Request), c.URL.Query().Get("include") == "events"), nil
}

func (cr caseRoutes) listSessions(c *call) (any, error) {
	faults := Fields{}
	p := ParsePage(c.URL.Query(), faults)
	q, nothing, err := sessionQuery(c.URL.Query(), faults)
	if err != nil {
		return nil, err
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	q.Limit, q.Offset = p.Limit, p.Offset
	page, count := []cases.Session{}, 0
	if !nothing {
		page, count, err = cr.cases.Sessions(c.scope, q)
	}
	rows := []map[string]any{}
	for i := range page {
		rows = append(rows, page[i].Row(cr.linksFor(c.Request)))
	}
	return cr.Listing(c.Request, p, count, rows), err
}

// sessionQuery reads the filters. nothing: they can match no session here.
func sessionQuery(v url.Values, faults Fields) (q cases.SessionQuery, nothing bool, err error) {
	switch kind := strings.ToLower(v.Get("session_kind")); kind {
	case "", "user", "all":
	case "business":
		nothing = true
	default:
		return q, false, FieldText("session_kind", "Must be one of: user, business, all.")
	}
	for name, to := range map[string]*time.Time{"date_from": &q.From, "date_to": &q.To} {
		if d := v.Get(name); d != "" {
			t, ok := parseDate(d, name == "date_to")
			if !ok {
				faults.Add(name, "Enter a valid date.")
			}
			*to = t
		}
	}
	if v.Get("status") != "" {
		q.Statuses = []cases.Status{}
		for _, st := range strings.Split(v.Get("status"), ",") {
			q.Statuses = append(q.Statuses, cases.Status(strings.TrimSpace(st)))
		}
	}
	if v.Get("workflow_id") != "" {
		q.Workflows = strings.Split(v.Get("workflow_id"), ",")
	}
	if v.Get("country") != "" {
		nothing = true // no document is read, so no session has a country
	}
	q.VendorData = v.Get("vendor_data")
	search(v.Get("search"), &q, &nothing)
	for name, values := range v {
		if slices.ContainsFunc(values, func(s string) bool { return len(s) > 1024 || strings.ContainsRune(s, 0) }) {
			faults.Add(short(name), tooLong(1024))
		}
	}
	return q, nothing, nil
}

// search reads one text as what it looks like: an id, the start of a number, or a part
// of a name.
func search(text string, q *cases.SessionQuery, nothing *bool) {
	digits := text != "" && strings.Trim(text, "0123456789") == ""
	switch {
	case IsUUID(strings.ToLower(text)):
		q.ID = strings.ToLower(text)
	case digits:
		q.Digits = text
		*nothing = *nothing || text[0] == '0'
	default:
		q.Text = text
	}
}

// resubmitFeatures are the features that may stand in nodes_to_resubmit.
var resubmitFeatures = []string{"OCR", "OCR_BACK", "NFC", "AML", "FACE", "LIVENESS", "FACE_MATCH", "IP_ANALYSIS", "AGE_ESTIMATION", "PROOF_OF_ADDRESS",
	"PHONE_VERIFICATION", "EMAIL_VERIFICATION", "FACE_SEARCH", "DATABASE_VALIDATION", "QUESTIONNAIRE", "DOCUMENT_AI", "KYB_DOCUMENTS",
	"ID_VERIFICATION", "POA", "PHONE", "EMAIL"}

// nodesOf reads nodes_to_resubmit in both forms: objects with node_id and feature, and
// bare node ids.
func nodesOf(o *Object) []string {
	raw := o.get("nodes_to_resubmit", false, true)
	if raw == nil {
		return nil
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || len(items) > cases.MaxSteps*2 {
		o.Fields.Add("nodes_to_resubmit", msgList)
		return nil
	}
	nodes := []string{}
	for _, it := range items {
		var name string
		var node struct {
			ID      *string `json:"node_id"`
			Feature *string `json:"feature"`
		}
		switch {
		case json.Unmarshal(it, &name) == nil:
			nodes = append(nodes, name)
		case json.Unmarshal(it, &node) != nil || node.ID == nil || node.Feature == nil:
			o.Fields.Add("nodes_to_resubmit", "Each item is a node id or an object with node_id and feature.")
		case !slices.Contains(resubmitFeatures, *node.Feature):
			o.Fields.Add("nodes_to_resubmit", notAChoice(*node.Feature))
		default:
			nodes = append(nodes, *node.ID)
		}
	}
	return nodes
}

func (cr caseRoutes) updateStatus(c *call) (any, error) {
	id := c.id("id")
	if c.err == nil {
		c.err = cr.cases.MayChange(c.scope, id) // before anything about the body
	}
	o := c.object()
	ch := cases.Change{Comment: o.String("comment", cases.MaxComment), Nodes: nodesOf(o), User: c.caller.Name,
		NewStatus: cases.Status(o.Choice("new_status", true, string(cases.Approved), string(cases.Declined), string(cases.Resubmitted)))}
	send, address := o.Bool("send_email", false), o.String("email_address", 254)
	o.String("email_language", 10)
	switch {
	case send && address == "":
		o.Fields.Add("email_address", msgRequired)
	case send:
		o.Fields.Add("send_email", "This server sends no e-mail. Send false and notify the person yourself.")
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	v, err := cr.cases.Change(c.Context(), c.scope, id, ch)
	return map[string]string{"session_id": v.ID}, err
}

func (cr caseRoutes) deleteSession(c *call) (any, error) {
	id, o := c.id("id"), c.object()
	retain := o.Bool("retain_face_embeddings", false)
	o.Int("face_retention_days", 0, 1, 3650)
	o.String("face_retention_deadline", 64)
	o.Choice("deletion_instruction", false, "operational_session_delete", "privacy_erasure")
	o.String("instruction_id", 256)
	if retain {
		o.Fields.Add("retain_face_embeddings", "Faces are not kept beyond their session here. Enrol the subject, or add the face to a list first.")
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	v, err := cr.cases.Delete(c.Context(), c.scope, id)
	outcome := "none"
	if v.Capture.Found || v.Document.Found || v.Portrait.Found {
		outcome = "deleted"
	}
	return map[string]any{"session_id": v.ID, "session_number": v.Number, "face_retention_outcome": outcome,
		"biometric_template_uuid": nil, "biometric_template_expires_at": nil, "deleted_child_verifications": 0}, err
}

func (cr caseRoutes) deleteSessions(c *call) (any, error) {
	o := c.object()
	all := o.Bool("delete_all", false)
	var numbers []uint64
	if raw := o.get("session_numbers", false, true); raw != nil && (json.Unmarshal(raw, &numbers) != nil || len(numbers) > 1000) {
		o.Fields.Add("session_numbers", "Expected a list of at most 1000 session numbers.")
	}
	if len(numbers) == 0 && !all {
		o.Fields.Add("session_numbers", msgRequired)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	n, err := cr.cases.DeleteMany(c.Context(), c.scope, numbers, all)
	return map[string]int{"deleted": n}, err
}

func (cr caseRoutes) sessionPDF(w http.ResponseWriter, r *http.Request) error {
	v, err := cr.session(&call{Request: r, scope: scopeOf(r.Context())})
	if err != nil {
		return err
	}
	if !v.Decided() {
		return Detail(http.StatusForbidden, "You can only generate a PDF for sessions in review, declined, approved or kyc expired")
	}
	show := v
	if !CallerOf(r.Context()).Allows(agent.ResourceMedia, agent.ReadAccess) {
		show.Steps = slices.Clone(v.Steps) // the report comes without faces
		for i := range show.Steps {
			show.Steps[i].Source, show.Steps[i].Target = "", ""
		}
	}
	data, err := cr.report(r.Context(), &show)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/pdf")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("Content-Disposition", "attachment; filename=session_"+v.ID+".pdf")
	if r.Method != http.MethodHead {
		w.Write(data) // who has gone away needs no error
	}
	return nil
}

func (cr caseRoutes) listReviews(c *call) (any, error) {
	v, err := cr.session(c)
	return cases.ViewReviews(v.Reviews), err
}

func (cr caseRoutes) addReview(c *call) (any, error) {
	id, o := c.id("id"), c.object()
	rv := cases.Review{User: c.caller.Name, Comment: o.String("comment", cases.MaxComment),
		NewStatus: cases.Status(o.Choice("new_status", false, string(cases.Approved), string(cases.Declined), string(cases.Resubmitted)))}
	if rv.Comment == "" && rv.NewStatus == "" {
		o.Fields.Add("comment", msgRequired)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	v, err := cr.cases.AddReview(c.Context(), c.scope, id, rv)
	if err != nil {
		return nil, err
	}
	all := cases.ViewReviews(v.Reviews)
	return all[len(all)-1], nil
}

func (cr caseRoutes) shareSession(c *call) (any, error) {
	id, o := c.id("id"), c.object()
	app := o.String("for_application_id", 128)
	if partner := o.String("partner_client_id", 128); app == "" {
		app = partner
	}
	o.String("session_id", 64)
	life := o.Int("ttl_in_seconds", 3600, 60, 86400)
	if app == "" {
		o.Fields.Add("for_application_id", msgRequired)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	token, err := cr.cases.Share(c.scope, id, app, time.Duration(life)*time.Second)
	return map[string]string{"share_token": token, "for_application_id": app, "session_kind": "user"}, err
}

func (cr caseRoutes) importShared(c *call) (any, error) {
	o := c.object()
	token, trust := o.Required("share_token", 4096), o.Bool("trust_review", false)
	workflow, vendor := o.UUID("workflow_id", false), o.String("vendor_data", MaxVendorData)
	if err := c.Err(); err != nil {
		return nil, err
	}
	v, err := cr.cases.ImportShared(c.scope, token, workflow, vendor, trust)
	if err != nil {
		return nil, err
	}
	return v.Decision(cr.linksFor(c.Request), false), nil
}

// personService is what a person with a session's token can do.
type personService interface {
	SessionByToken(token string) (cases.Session, error)
	Submit(ctx context.Context, token string, in cases.Input, frames []*agent.Frame) (cases.Session, error)
}

// TokenHeader carries a session's token: it opens that session and nothing else.
const TokenHeader = "Session-Token"

// tokenRate is how many requests a minute a token may make; wrong ones count for the
// address.
const tokenRate = 120

func (cr caseRoutes) personRoutes() []Route {
	route := func(method, path string, h handler) Route {
		return Route{Method: method, Path: path, Open: true, MaxBody: maxCapture, Handle: h}
	}
	return []Route{
		route(http.MethodGet, "/v3/session/hosted/state/", cr.hostedState),
		route(http.MethodPost, "/v3/session/hosted/document/", cr.submit(cases.InputDocument)),
		route(http.MethodPost, "/v3/session/hosted/face/", cr.submit(cases.InputFace)),
	}
}

// maxCapture bounds a submission: up to ten pictures of 5 MB would be too much for a
// board, so all together have to fit.
const maxCapture = 12 << 20

// opened finds the session that the request's token opens.
func (cr caseRoutes) opened(w http.ResponseWriter, r *http.Request) (cases.Session, error) {
	token := r.Header.Get(TokenHeader)
	if token == "" {
		return cases.Session{}, errNoKey
	}
	v, err := cr.cases.SessionByToken(token)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return v, cr.refuseKey(remote(r))
	}
	if err == nil {
		err = cr.limiter.take(w.Header(), "session "+v.ID, BudgetWrite, tokenRate)
	}
	return v, err
}

// stateView is what the page of a session needs to know.
func stateView(v *cases.Session) map[string]any {
	in, node := v.Awaits()
	if !v.Unfinished() {
		in, node = cases.InputNone, ""
	}
	out := map[string]any{"session_id": v.ID, "status": v.Status, "language": v.Language, "callback": v.Callback, "awaits": nil, "node_id": nil,
		"attempts_left": nil, "warnings": []string{}}
	if in == cases.InputNone {
		return out
	}
	out["awaits"], out["node_id"] = in, node
	for i := range v.Steps {
		st := &v.Steps[i]
		if st.Node != node {
			continue
		}
		out["attempts_left"] = st.MaxAttempts - st.Attempts
		tips := []string{}
		for _, w := range st.Warnings {
			tips = append(tips, w.Short)
		}
		out["warnings"] = tips
	}
	return out
}

func (cr caseRoutes) hostedState(w http.ResponseWriter, r *http.Request) error {
	v, err := cr.opened(w, r)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, stateView(&v))
	return nil
}

// captureForm: one picture, or several of the same face.
var captureForm = formSpec{files: []string{"image", "image_2", "image_3", "image_4", "image_5", "image_6", "image_7", "image_8", "image_9", "image_10"}}

func (cr caseRoutes) submit(in cases.Input) handler {
	return cr.gated(func(w http.ResponseWriter, r *http.Request) error {
		v, err := cr.opened(w, r)
		if err != nil {
			return err
		}
		f, err := readForm(r, captureForm)
		if err != nil {
			return err
		}
		f.upload("image")
		if err := f.Fields.Err(); err != nil {
			return err
		}
		err = cr.gate.work(r.Context(), func() error {
			frames, err := decodeAll(f)
			if err == nil {
				v, err = cr.cases.Submit(r.Context(), v.Token, in, frames)
			}
			return err
		})
		if err != nil {
			return err
		}
		WriteJSON(w, http.StatusOK, stateView(&v))
		return nil
	})
}

func decodeAll(f *Form) ([]*agent.Frame, error) {
	var frames []*agent.Frame
	for _, name := range captureForm.files {
		if !f.has(name) {
			continue
		}
		frame, err := decode(name, f.upload(name))
		if err != nil {
			return nil, err
		}
		frames = append(frames, frame)
	}
	return frames, nil
}
