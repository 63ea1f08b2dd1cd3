package cases

import (
	"fmt"

	"postern/agent"
)

// Form is the shape of a refusal's body on the wire. The v3 contract has several
// and its clients depend on which one comes when.
type Form int

// The forms.
const (
	FieldList  Form = iota // {"field":["message"]}
	FieldText              // {"field":"message"}
	Detail                 // {"detail":"message"}
	DetailList             // {"detail":["message"]}
	Bare                   // ["message"]
)

// Refusal is an error of the caller with the body that the contract gives it.
type Refusal struct {
	Form      Form
	Field     string // FieldList, FieldText
	Message   string
	Forbidden bool // 403 instead of 400
}

// Error names the field and what is wrong with it.
func (r *Refusal) Error() string {
	if r.Field == "" {
		return r.Message
	}
	return r.Field + ": " + r.Message
}

// Unwrap gives the refusal its code.
func (r *Refusal) Unwrap() error {
	return &agent.Error{Code: agent.CodeInvalid, Message: r.Error()}
}

// Body is the refusal as a JSON value.
func (r *Refusal) Body() any {
	switch r.Form {
	case FieldList:
		return map[string]any{r.Field: []string{r.Message}}
	case FieldText:
		return map[string]any{r.Field: r.Message}
	case DetailList:
		return map[string]any{"detail": []string{r.Message}}
	case Bare:
		return []string{r.Message}
	}
	return map[string]any{"detail": r.Message}
}

// Wrong refuses a field in the usual form.
func Wrong(field, format string, args ...any) error {
	return &Refusal{Form: FieldList, Field: field, Message: fmt.Sprintf(format, args...)}
}

func detail(format string, args ...any) error {
	return &Refusal{Form: Detail, Message: fmt.Sprintf(format, args...)}
}
