package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// Error is an answer that is not a success: a status and the JSON body of it.
type Error struct {
	Status     int
	Body       any           // marshalled as it is
	RetryAfter time.Duration // more than 0: sent as whole seconds
}

// Error is for logs.
func (e *Error) Error() string {
	b, err := json.Marshal(e.Body)
	if err != nil {
		return strconv.Itoa(e.Status)
	}
	return fmt.Sprintf("%d %s", e.Status, b)
}

// Detail is {"detail": msg}.
func Detail(status int, msg string) *Error {
	return &Error{Status: status, Body: map[string]string{"detail": msg}}
}

// Failure is {"error": msg}, the shape of what a picture's content is refused with.
func Failure(status int, msg string) *Error {
	return &Error{Status: status, Body: map[string]string{"error": msg}}
}

// FieldText is 400 {"field": msg}: a business rule about one field.
func FieldText(field, msg string) *Error {
	return &Error{Status: http.StatusBadRequest, Body: map[string]string{field: msg}}
}

// Bare is 400 ["msg"].
func Bare(msg string) *Error {
	return &Error{Status: http.StatusBadRequest, Body: []string{msg}}
}

// NotFound is 404 {"detail": "Not found."}.
func NotFound() *Error { return Detail(http.StatusNotFound, "Not found.") }

// Fields collects what is wrong with each field; the answer names all of them.
type Fields map[string][]string

// Add notes one fault.
func (f Fields) Add(field, msg string) { f[field] = append(f[field], msg) }

// Err is the 400 that names every fault, nil when there is none.
func (f Fields) Err() error {
	if len(f) == 0 {
		return nil
	}
	return &Error{Status: http.StatusBadRequest, Body: f}
}

// statusOf maps the codes of the domain to HTTP, here only.
var statusOf = map[agent.Code]int{
	agent.CodeInvalid:     http.StatusBadRequest,
	agent.CodeNotFound:    http.StatusNotFound,
	agent.CodeConflict:    http.StatusConflict,
	agent.CodeQuality:     http.StatusBadRequest,
	agent.CodeUnavailable: http.StatusServiceUnavailable,
	agent.CodeLocked:      http.StatusServiceUnavailable,
	agent.CodeThrottled:   http.StatusTooManyRequests,
	agent.CodeStorage:     http.StatusServiceUnavailable,
	agent.CodeInternal:    http.StatusInternalServerError,
}

// answerFor turns any error into an answer. What is ours to mend is told in general
// terms; the cause goes to the log.
func answerFor(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var refused *cases.Refusal
	if errors.As(err, &refused) {
		status := http.StatusBadRequest
		if refused.Forbidden {
			status = http.StatusForbidden
		}
		return &Error{Status: status, Body: refused.Body()}
	}
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return Detail(http.StatusRequestEntityTooLarge, "Request body is too large.")
	}
	var d *agent.Error
	if !errors.As(err, &d) {
		return Detail(http.StatusInternalServerError, "Internal error.")
	}
	switch status := statusOf[d.Code]; {
	case d.Code == agent.CodeNotFound:
		return NotFound()
	case status == 0 || status == http.StatusInternalServerError:
		return Detail(http.StatusInternalServerError, "Internal error.")
	case status == http.StatusServiceUnavailable:
		return &Error{Status: status, Body: map[string]string{"detail": "The service cannot answer now."}, RetryAfter: 5 * time.Second}
	default:
		public := agent.Error{Message: d.Message, Fix: d.Fix}
		out := Detail(status, public.Error())
		out.RetryAfter = d.RetryAfter
		return out
	}
}

// fail writes err as the answer.
func fail(w http.ResponseWriter, log *slog.Logger, err error) {
	e := answerFor(err)
	var meant *Error // refusals that the server means, also when it is busy, are no news
	if e.Status >= http.StatusInternalServerError && !errors.As(err, &meant) {
		log.Error("request failed", "status", e.Status, "err", err)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	WriteJSON(w, e.Status, e.Body)
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // no answer is HTML; links keep their &
	if err := enc.Encode(v); err != nil {
		buf.Reset()
		status = http.StatusInternalServerError
		buf.WriteString(`{"detail":"Internal error."}`)
	}
	body := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
