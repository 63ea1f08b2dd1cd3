package cases

import (
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"

	"postern/agent"
	"postern/agent/decide"
)

// Step is one feature of a workflow with its settings.
type Step struct {
	Node        string                `json:"node_id"` // feature_face_match_1
	Feature     Feature               `json:"feature"`
	Label       string                `json:"label,omitempty"`
	Thresholds  agent.Thresholds      `json:"thresholds"`
	MaxAttempts int                   `json:"max_attempts"`
	Actions     map[agent.Risk]Action `json:"actions,omitempty"`
	Search      bool                  `json:"search,omitempty"` // LIVENESS: look for duplicates and blocked faces too
	RunIf       *Condition            `json:"run_if,omitempty"`

	// Limits of LIVENESS on the picture itself; 0 is not checked.
	QualityReview, QualityDecline float64 `json:",omitempty"`
	MinLuminance, MaxLuminance    float64 `json:",omitempty"`
}

// Condition lets a step run only after what a former step came to. Every part that
// is given must hold. A former step that was itself skipped fulfils none.
type Condition struct {
	Node       string       `json:"node_id"`
	Status     []NodeStatus `json:"status,omitempty"`
	ScoreAbove *float64     `json:"score_above,omitempty"`
	ScoreBelow *float64     `json:"score_below,omitempty"`
}

// Variant is one arm of an A/B test. A workflow without a test has one variant.
type Variant struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
	Steps  []Step `json:"steps"`
}

// Workflow statuses.
const (
	Draft     = "draft"
	Published = "published"
)

// Workflow is one version of a workflow. Published versions do not change; sessions
// keep the steps that they were made with.
type Workflow struct {
	UUID        string    `json:"uuid"`        // of this version
	GroupID     string    `json:"workflow_id"` // stable over versions
	Version     int       `json:"version"`
	Application string    `json:"application,omitempty"` // whose it is; empty is the default one
	Status      string    `json:"status"`
	Label       string    `json:"label"`
	Sandbox     bool      `json:"sandbox,omitempty"` // made by a sandbox key, for sandbox sessions
	Variants    []Variant `json:"variants"`
	Default     bool      `json:"is_default"`
	Retries     int       `json:"max_retry_attempts"` // of each step, where it does not say itself
	WhiteLabel  bool      `json:"is_white_label_enabled"`
	Desktop     bool      `json:"is_desktop_allowed"`
	Expiration  int64     `json:"session_expiration_time"` // seconds
	Language    string    `json:"language,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	PublishedAt time.Time `json:"published_at,omitzero"`
}

// Bounds and defaults of workflows.
const (
	MaxLabel          = 50
	MaxSteps          = 10
	MaxVariants       = 10
	DefaultExpiration = 7 * 24 * 3600
	MinExpiration     = 60
	MaxExpiration     = 90 * 24 * 3600
	DefaultAttempts   = 3
	MaxAttempts       = 10
)

// Validate checks what every stored workflow keeps to.
func (w *Workflow) Validate() error {
	switch {
	case len([]rune(w.Label)) > MaxLabel || !plain(w.Label):
		return Wrong("workflow_label", "Ensure this field has no more than %d characters and no control characters.", MaxLabel)
	case w.Status != Draft && w.Status != Published:
		return Wrong("status", "%.40q is not a valid choice: draft or published.", w.Status)
	case w.Expiration < MinExpiration || w.Expiration > MaxExpiration:
		return Wrong("session_expiration_time", "Ensure this value is between %d and %d seconds.", MinExpiration, MaxExpiration)
	case w.Retries < 0 || w.Retries >= MaxAttempts:
		return Wrong("max_retry_attempts", "Ensure this value is between 0 and %d.", MaxAttempts-1)
	case len(w.Variants) == 0 || len(w.Variants) > MaxVariants:
		return Wrong("variants", "A workflow has 1 to %d variants.", MaxVariants)
	}
	if w.Language != "" && !ValidLanguage(w.Language) {
		return Wrong("language", "%.20q is not a language code such as en or pt-BR.", w.Language)
	}
	names := map[string]bool{}
	for i := range w.Variants {
		v := &w.Variants[i]
		if names[v.Name] || v.Weight < 1 || v.Weight > 1000 || len(v.Name) > MaxLabel {
			return Wrong("variants", "Each variant needs a name of its own and a weight from 1 to 1000.")
		}
		names[v.Name] = true
		if err := validateSteps(v.Steps); err != nil {
			return err
		}
	}
	return nil
}

// ValidLanguage accepts what can be a path segment of a session's link.
func ValidLanguage(s string) bool {
	return len(s) >= 2 && len(s) <= 10 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-')
	})
}

func validateSteps(steps []Step) error {
	if len(steps) == 0 {
		return Wrong("features", "This list may not be empty.")
	}
	if len(steps) > MaxSteps {
		return Wrong("features", "Ensure this list has no more than %d features.", MaxSteps)
	}
	if steps[0].RunIf != nil {
		return Wrong("features", "The first feature has no former step to depend on: remove its run_if.")
	}
	before := map[string]bool{}
	for i := range steps {
		if err := steps[i].validate(before); err != nil {
			return err
		}
		before[steps[i].Node] = true
	}
	return nil
}

func (s *Step) validate(before map[string]bool) error {
	if s.Node == "" || before[s.Node] {
		return Wrong("features", "Node %q stands twice or has no name.", s.Node)
	}
	if err := decide.ValidateThresholds(s.Thresholds); err != nil {
		return Wrong("features", "%s: the decline threshold must be at most the review threshold, both from 0 to below 100.", s.Feature)
	}
	if s.MaxAttempts < 1 || s.MaxAttempts > MaxAttempts {
		return Wrong("features", "%s: attempts must be 1 to %d.", s.Feature, MaxAttempts)
	}
	for r, a := range s.Actions {
		if !a.valid() {
			return Wrong("features", "%s: the action %.40q on %s is not NO_ACTION, REVIEW or DECLINE.", s.Feature, a, r)
		}
		if slices.Contains(fatal, r) && a != DoDecline {
			return Wrong("features", "%s: %s always declines and cannot be configured.", s.Feature, r)
		}
	}
	return s.validateLimits(before)
}

func (s *Step) validateLimits(before map[string]bool) error {
	for _, v := range []float64{s.QualityReview, s.QualityDecline, s.MinLuminance, s.MaxLuminance} {
		if !(v >= 0 && v <= 100) {
			return Wrong("features", "%s: quality and luminance limits are from 0 to 100.", s.Feature)
		}
	}
	if s.RunIf == nil {
		return nil
	}
	c := s.RunIf
	if !before[c.Node] {
		return Wrong("features", "%s: run_if names %.60q, which is no former step.", s.Feature, c.Node)
	}
	if len(c.Status) == 0 && c.ScoreAbove == nil && c.ScoreBelow == nil {
		return Wrong("features", "%s: run_if needs a status, score_above or score_below.", s.Feature)
	}
	for _, st := range c.Status {
		if st != NodeApproved && st != NodeDeclined && st != NodeInReview {
			return Wrong("features", "%s: run_if status %.40q is not Approved, Declined or In Review.", s.Feature, st)
		}
	}
	return nil
}

// NameNodes numbers the steps of each feature: feature_face_match_1, _2.
func NameNodes(steps []Step) {
	seen := map[Feature]int{}
	for i := range steps {
		f := steps[i].Feature
		seen[f]++
		steps[i].Node = fmt.Sprintf("feature_%s_%d", strings.ToLower(string(f)), seen[f])
	}
}

// Choose picks a variant by weight. An error of the randomness is the caller's to
// report: a session without a chance variant would bias the test.
func (w *Workflow) Choose(rand io.Reader) (Variant, error) {
	if len(w.Variants) == 1 {
		return w.Variants[0], nil
	}
	total := 0
	for _, v := range w.Variants {
		total += v.Weight
	}
	n, err := draw(rand, total)
	if err != nil {
		return Variant{}, err
	}
	for _, v := range w.Variants {
		if n < v.Weight {
			return v, nil
		}
		n -= v.Weight
	}
	return w.Variants[len(w.Variants)-1], nil
}

// draw is a number from 0 to n-1, each as likely: 128 random bits leave a bias that
// nobody can measure.
func draw(rand io.Reader, n int) (int, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return 0, fmt.Errorf("randomness for the variant: %w", err)
	}
	x := new(big.Int).SetBytes(b[:])
	return int(x.Mod(x, big.NewInt(int64(n))).Int64()), nil
}

// FeatureNames lists the features of a variant's steps in order.
func FeatureNames(steps []Step) []string {
	out := []string{}
	for _, s := range steps {
		if !slices.Contains(out, string(s.Feature)) {
			out = append(out, string(s.Feature))
		}
	}
	return out
}
