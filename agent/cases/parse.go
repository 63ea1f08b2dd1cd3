package cases

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"postern/agent"
)

// object decodes a JSON object into its fields. Duplicate keys and trailing text are
// errors: a body that two readers understand differently must not pass.
func object(field string, raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return nil, Wrong(field, "Invalid data. Expected a JSON object.")
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, Wrong(field, "JSON parse error.")
		}
		name, _ := k.(string)
		if _, twice := out[name]; twice {
			return nil, Wrong(field, "The key %.60q stands twice.", name)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, Wrong(field, "JSON parse error.")
		}
		out[name] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, Wrong(field, "JSON parse error.")
	}
	if d.More() {
		return nil, Wrong(field, "JSON parse error: text after the object.")
	}
	return out, nil
}

// reader takes typed fields out of an object and keeps the first error.
type reader struct {
	fields map[string]json.RawMessage
	known  []string
	err    error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// get decodes one field; false when it is absent or null.
func (r *reader) get(name string, v any, what string) bool {
	r.known = append(r.known, name)
	raw, ok := r.fields[name]
	if !ok || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		r.fail(Wrong(name, "%s", what))
		return false
	}
	return true
}

func (r *reader) text(name string, v *string) bool {
	return r.get(name, v, "Not a valid string.")
}
func (r *reader) flag(name string, v *bool) bool { return r.get(name, v, "Must be a valid boolean.") }

func (r *reader) whole(name string, v *int64) bool {
	return r.get(name, v, "A valid integer is required.")
}

func (r *reader) number(name string, v *float64) bool {
	ok := r.get(name, v, "A valid number is required.")
	if ok && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
		r.fail(Wrong(name, "A valid number is required."))
		return false
	}
	return ok
}

// rest refuses what nobody has asked for: a setting that is silently dropped is one
// that somebody relies on.
func (r *reader) rest(where string) error {
	if r.err != nil {
		return r.err
	}
	var unknown []string
	for name := range r.fields {
		if !slices.Contains(r.known, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	if where == "" {
		return Wrong(unknown[0], "Unknown field.%s", hint(unknown[0]))
	}
	return Wrong("features", "%s: unknown setting %.80q.%s", where, unknown[0], hint(unknown[0]))
}

func hint(name string) string {
	switch {
	case name == "workflow_type" || strings.HasPrefix(name, "is_") && strings.HasSuffix(name, "_enabled"):
		return " List what the workflow does in features, for example [\"LIVENESS\",\"FACE_MATCH\"]."
	case strings.HasSuffix(name, "_action"):
		return " This check is not done here, so no action can be attached to it."
	}
	return ""
}

// ParseWorkflow reads the body of a creation (old is nil) or of a change. What the
// body does not name stays as it was.
func ParseWorkflow(raw []byte, old *Workflow) (Workflow, error) {
	fields, err := object("detail", raw)
	if err != nil {
		return Workflow{}, err
	}
	w := Workflow{Status: Published, Expiration: DefaultExpiration, Retries: DefaultAttempts - 1, Desktop: true}
	if old != nil {
		w = *old
	}
	r := &reader{fields: fields}
	r.text("workflow_label", &w.Label)
	r.text("status", &w.Status)
	r.text("language", &w.Language)
	r.flag("is_default", &w.Default)
	r.flag("is_white_label_enabled", &w.WhiteLabel)
	r.flag("is_desktop_allowed", &w.Desktop)
	r.whole("session_expiration_time", &w.Expiration)
	retries := int64(w.Retries)
	r.whole("max_retry_attempts", &retries)
	if retries < 0 || retries > MaxAttempts {
		r.fail(Wrong("max_retry_attempts", "Ensure this value is between 0 and %d.", MaxAttempts-1))
	}
	w.Retries = int(retries)
	var days json.RawMessage
	if r.get("retry_window_days", &days, "") {
		r.fail(Wrong("retry_window_days", "Attempts are not counted over days here: limit them with max_retry_attempts, and the session's time with session_expiration_time. Leave this out, or send null."))
	}
	w.Status = strings.ToLower(w.Status)
	if err := w.readVariants(r, old); err != nil {
		return Workflow{}, err
	}
	if err := r.rest(""); err != nil {
		return Workflow{}, err
	}
	return w, w.Validate()
}

// readVariants reads features or variants and the thresholds beside them.
func (w *Workflow) readVariants(r *reader, old *Workflow) error {
	d := defaults{attempts: w.Retries + 1}
	d.review, d.hasReview = r.threshold("review_threshold")
	d.decline, d.hasDecline = r.threshold("decline_threshold")
	var features, variants json.RawMessage
	hasFeatures := r.get("features", &features, "")
	hasVariants := r.get("variants", &variants, "")
	switch {
	case r.err != nil:
		return r.err
	case hasFeatures && hasVariants:
		return Wrong("variants", "Give either features or variants, not both.")
	case hasVariants:
		return w.parseVariants(variants, d)
	case hasFeatures:
		steps, err := parseSteps(features, d)
		w.Variants = []Variant{{Name: "main", Weight: 1, Steps: steps}}
		return err
	case old == nil:
		return Wrong("features", "This field is required.")
	case d.hasReview || d.hasDecline:
		return w.overrideThresholds(d)
	}
	return nil
}

// overrideThresholds changes the thresholds of all steps of a workflow whose
// features a change does not name.
func (w *Workflow) overrideThresholds(d defaults) error {
	vs := slices.Clone(w.Variants)
	for i := range vs {
		vs[i].Steps = slices.Clone(vs[i].Steps)
		for j := range vs[i].Steps {
			d.apply(&vs[i].Steps[j].Thresholds)
		}
	}
	w.Variants = vs
	return nil
}

func (w *Workflow) parseVariants(raw json.RawMessage, d defaults) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(list) > MaxVariants {
		return Wrong("variants", "Expected a list of at most %d objects with name, weight and features.", MaxVariants)
	}
	w.Variants = nil
	for i, item := range list {
		fields, err := object("variants", item)
		if err != nil {
			return err
		}
		v, weight := Variant{Name: fmt.Sprintf("variant_%d", i+1)}, int64(1)
		r := &reader{fields: fields}
		r.text("name", &v.Name)
		r.whole("weight", &weight)
		var features json.RawMessage
		if !r.get("features", &features, "") {
			return Wrong("variants", "Each variant needs features.")
		}
		if err := r.rest(""); err != nil {
			return err
		}
		if v.Weight = int(weight); weight < 1 || weight > 1000 {
			return Wrong("variants", "A weight is from 1 to 1000.")
		}
		if v.Steps, err = parseSteps(features, d); err != nil {
			return err
		}
		w.Variants = append(w.Variants, v)
	}
	return nil
}

// defaults are what the settings beside the features say for all of them.
type defaults struct {
	review, decline       float64
	hasReview, hasDecline bool
	attempts              int
}

func (d defaults) apply(t *agent.Thresholds) {
	if d.hasReview {
		t.Review = d.review
	}
	if d.hasDecline {
		t.Decline = d.decline
	}
}

func (r *reader) threshold(names ...string) (v float64, ok bool) {
	for _, n := range names {
		if r.number(n, &v) {
			ok = true
			if v < 0 || v > 100 {
				r.fail(Wrong(n, "Ensure this value is between 0 and 100."))
			}
		}
	}
	return v, ok
}

// usualThresholds of each feature. FACE_MATCH has those of the contract; a search
// meets as many strangers as there are faces, so it is stricter.
var usualThresholds = map[Feature]agent.Thresholds{
	FaceMatch:      {Review: 70, Decline: 50},
	Liveness:       {Review: 70, Decline: 50},
	FaceSearch:     {Review: 90, Decline: 70},
	IDVerification: {},
}

func parseSteps(raw json.RawMessage, d defaults) ([]Step, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, Wrong("features", "Expected a list of features.")
	}
	if len(list) > MaxSteps {
		return nil, Wrong("features", "Ensure this list has no more than %d features.", MaxSteps)
	}
	steps := make([]Step, len(list))
	conditions := make([]*rawCondition, len(list))
	for i, item := range list {
		var err error
		if steps[i], conditions[i], err = parseStep(item, d); err != nil {
			return nil, err
		}
	}
	NameNodes(steps)
	for i, c := range conditions {
		if c == nil {
			continue
		}
		cond, err := c.resolve(steps[:i])
		if err != nil {
			return nil, err
		}
		steps[i].RunIf = cond
	}
	return steps, nil
}

// parseStep reads a plain name or an object with feature, config, label and run_if.
func parseStep(raw json.RawMessage, d defaults) (Step, *rawCondition, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		s, err := newStep(name, d)
		return s, nil, err
	}
	fields, err := object("features", raw)
	if err != nil {
		return Step{}, nil, Wrong("features", "Each feature is a name or an object with \"feature\" and \"config\".")
	}
	r := &reader{fields: fields}
	if !r.text("feature", &name) {
		return Step{}, nil, Wrong("features", "An item has no \"feature\".")
	}
	s, err := newStep(name, d)
	if err != nil {
		return s, nil, err
	}
	r.text("label", &s.Label)
	own := defaults{}
	own.review, own.hasReview = r.threshold("review_threshold")
	own.decline, own.hasDecline = r.threshold("decline_threshold")
	own.apply(&s.Thresholds)
	var config json.RawMessage
	if r.get("config", &config, "") {
		if err := s.configure(config); err != nil {
			return s, nil, err
		}
	}
	var c *rawCondition
	if r.get("run_if", &c, "Expected an object with feature or node_id and status, score_above or score_below.") && c != nil {
		if err := c.known(fields["run_if"]); err != nil {
			return s, nil, err
		}
	}
	return s, c, r.rest(string(s.Feature))
}

func newStep(name string, d defaults) (Step, error) {
	f, err := ParseFeature(name)
	if err != nil {
		return Step{}, err
	}
	s := Step{Feature: f, Thresholds: usualThresholds[f], MaxAttempts: d.attempts}
	if f == IDVerification {
		// Many documents show the portrait twice.
		s.Actions = map[agent.Risk]Action{agent.RiskSeveralFaces: DoNothing}
		return s, nil
	}
	d.apply(&s.Thresholds)
	return s, nil
}

// rawCondition is a condition as written: it may name a step by its feature.
type rawCondition struct {
	Node       string          `json:"node_id"`
	Feature    string          `json:"feature"`
	Status     json.RawMessage `json:"status"`
	ScoreAbove *float64        `json:"score_above"`
	ScoreBelow *float64        `json:"score_below"`
}

func (c *rawCondition) known(raw json.RawMessage) error {
	fields, err := object("features", raw)
	if err != nil {
		return err
	}
	r := &reader{fields: fields, known: []string{"node_id", "feature", "status", "score_above", "score_below"}}
	return r.rest("run_if")
}

func (c *rawCondition) resolve(before []Step) (*Condition, error) {
	out := &Condition{Node: c.Node, ScoreAbove: c.ScoreAbove, ScoreBelow: c.ScoreBelow}
	if out.Node == "" {
		for _, s := range before {
			if string(s.Feature) == c.Feature {
				out.Node = s.Node // the nearest before it
			}
		}
		if out.Node == "" {
			return nil, Wrong("features", "run_if names %.60q, which is no former step.", c.Feature)
		}
	}
	var one NodeStatus
	switch {
	case len(c.Status) == 0 || string(c.Status) == "null":
	case json.Unmarshal(c.Status, &one) == nil:
		out.Status = []NodeStatus{one}
	case json.Unmarshal(c.Status, &out.Status) != nil:
		return nil, Wrong("features", "run_if: status is a status or a list of them.")
	}
	return out, nil
}

// ParseMetadata accepts any JSON value up to a bound; nil for null and nothing.
func ParseMetadata(field string, raw json.RawMessage) (json.RawMessage, error) {
	const most = 16 << 10
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if len(raw) > most {
		return nil, Wrong(field, "Ensure this field has no more than %d bytes.", most)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, Wrong(field, "Value must be valid JSON.")
	}
	if fault := faultOf(out.Bytes(), 32); fault != "" {
		return nil, Wrong(field, "%s", fault)
	}
	return out.Bytes(), nil
}

// faultOf says what readers elsewhere could not take about a value, or "": that it is
// nested too deeply, or has a number beyond what a double holds.
func faultOf(raw []byte, most int) string {
	d, n := json.NewDecoder(bytes.NewReader(raw)), 0
	d.UseNumber()
	for {
		t, err := d.Token()
		if err != nil {
			return "" // the end: it is valid JSON already
		}
		if v, ok := t.(json.Number); ok {
			if _, err := v.Float64(); err != nil {
				return "A number is out of range."
			}
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			n++
		case json.Delim('}'), json.Delim(']'):
			n--
		}
		if n > most {
			return "Value is nested too deeply."
		}
	}
}
