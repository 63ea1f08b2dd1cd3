package agent

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Subject is an enrolled person, known by an id that the deployer chooses
// (badge number, employee number).
type Subject struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	// Version grows with each new enrolment of the same id: it is the time of the
	// enrolment in microseconds, or later. An erasure forbids all versions up to its own.
	Version uint64  `json:"version,omitempty"`
	Consent Consent `json:"consent,omitzero"`
	// Application is who enrolled the person; empty is the device's own.
	Application string `json:"application,omitempty"`
}

// Template is one enrolled embedding of a subject.
type Template struct {
	ID        string    `json:"id"` // UUIDv7
	SubjectID string    `json:"subject_id"`
	ModelID   string    `json:"model_id"` // embedder that made it
	Space     string    `json:"space"`    // templates compare only within one space
	Quality   Quality   `json:"quality"`
	CreatedAt time.Time `json:"created_at"`
	Embedding Embedding `json:"-"` // never in JSON: templates do not leave by accident
}

// Kind says which question a result answers.
type Kind string

// The kinds of comparison.
const (
	KindMatch    Kind = "match"    // two pictures
	KindVerify   Kind = "verify"   // 1:1 against a subject's templates
	KindIdentify Kind = "identify" // 1:N over all subjects
)

// Result is one durable decision. Device, Epoch and Seq make it unique in a
// fleet: Epoch changes when a device's results store is made anew, Seq counts
// from 1 within an epoch without gaps.
type Result struct {
	ID        string `json:"id"` // UUIDv7
	Device    string `json:"device"`
	Epoch     string `json:"epoch"`
	Seq       uint64 `json:"seq"`
	Kind      Kind   `json:"kind"`
	SubjectID string `json:"subject_id,omitempty"` // claimed (verify) or found (identify, only when Approved or In Review)
	Source    string `json:"source"`               // camera or caller
	// Application is whose decision it is; empty is the device's own. It chooses how
	// long the decision is kept.
	Application string    `json:"application,omitempty"`
	At          time.Time `json:"at"` // UTC, when the decision was made
	Decision    Decision  `json:"decision"`
}

// Limits on what a deployer may call a subject.
const (
	MaxSubjectID   = 128
	MaxSubjectName = 256
)

// ValidateSubject checks id and name: the id is 1..128 printable characters
// without white space, the name at most 256 characters without control characters.
func ValidateSubject(id, name string) error {
	switch {
	case id == "":
		return &Error{Code: CodeInvalid, Message: "the subject id is empty", Fix: "give a badge or employee number"}
	case len(id) > MaxSubjectID || !utf8.ValidString(id) || strings.ContainsFunc(id, notIDRune):
		return &Error{Code: CodeInvalid, Message: "subject id " + quoteShort(id) + " is not 1 to 128 printable characters without spaces"}
	case len(name) > MaxSubjectName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return &Error{Code: CodeInvalid, Message: "name of subject " + quoteShort(id) + " is longer than 256 bytes or has control characters"}
	}
	return nil
}

func notIDRune(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// quoteShort quotes at most 40 runes of s, control characters escaped.
func quoteShort(s string) string {
	r := []rune(s)
	if len(r) > 40 {
		r = append(r[:40], '…')
	}
	return strings.ToValidUTF8(`"`+strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, string(r))+`"`, "?")
}
