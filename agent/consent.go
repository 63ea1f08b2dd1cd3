package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Consent records why a person's templates may be used: who agreed to what, when,
// on which text, and for how long. The zero value is no consent.
type Consent struct {
	GivenBy   string    `json:"given_by"`           // the person, or who may speak for them
	Purpose   string    `json:"purpose"`            // what the templates are for, for example "door 3"
	Basis     string    `json:"basis"`              // one of Bases
	Text      string    `json:"text,omitempty"`     // version of the text that was shown
	At        time.Time `json:"at,omitzero"`        // when it was given
	Expires   time.Time `json:"expires,omitzero"`   // from here on it does not hold; zero: no end
	Withdrawn time.Time `json:"withdrawn,omitzero"` // when it was withdrawn; zero: it was not
}

// Bases are the legal bases that can be recorded: explicit consent, and those of
// article 9(2) of the GDPR that a deployer may be able to rely on instead.
var Bases = []string{"explicit_consent", "employment_law", "vital_interests", "substantial_public_interest", "other_law"}

const maxConsentText = 256

// Validate checks a consent that is to be recorded.
func (c Consent) Validate() error {
	for _, f := range []struct{ name, value string }{{"giver", c.GivenBy}, {"purpose", c.Purpose}} {
		if f.value == "" {
			return &Error{Code: CodeInvalid, Message: "the consent has no " + f.name, Fix: "say who consented and for what purpose"}
		}
	}
	for _, f := range []struct{ name, value string }{{"giver", c.GivenBy}, {"purpose", c.Purpose}, {"text version", c.Text}} {
		if len(f.value) > maxConsentText || strings.ContainsFunc(f.value, unicode.IsControl) {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("the %s of the consent is longer than %d bytes or has control characters", f.name, maxConsentText)}
		}
	}
	switch {
	case !slices.Contains(Bases, c.Basis):
		return &Error{Code: CodeInvalid, Message: "the consent has the unknown legal basis " + quoteShort(c.Basis), Fix: "one of " + strings.Join(Bases, ", ")}
	case c.At.IsZero():
		return &Error{Code: CodeInvalid, Message: "the consent has no time"}
	case !c.Expires.IsZero() && !c.Expires.After(c.At):
		return &Error{Code: CodeInvalid, Message: "the consent expires before it was given"}
	}
	return nil
}

// Holds reports whether the consent is there and in force at a time. What was
// withdrawn does not hold at any time, so a clock that is set back changes nothing.
func (c Consent) Holds(at time.Time) bool {
	return c.GivenBy != "" && c.Withdrawn.IsZero() && (c.Expires.IsZero() || at.Before(c.Expires))
}

// Given reports whether a consent was ever recorded.
func (c Consent) Given() bool { return c != Consent{} }
