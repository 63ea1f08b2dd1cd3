package agent

import (
	"errors"
	"strings"
	"time"
)

// Code classifies an error for whoever has to act on it. The CLI maps a code to
// an exit status and HTTP maps it to a status line, each in one place.
type Code string

// The codes. An error without one is CodeInternal.
const (
	CodeInvalid     Code = "invalid"     // the caller's input is wrong
	CodeNotFound    Code = "not_found"   // the named thing does not exist
	CodeConflict    Code = "conflict"    // the thing exists already, under another name
	CodeQuality     Code = "quality"     // the picture is not good enough for the purpose
	CodeUnavailable Code = "unavailable" // a part is missing or broken: model, library, camera
	CodeLocked      Code = "locked"      // another process holds the data folder
	CodeThrottled   Code = "throttled"   // too many failed attempts: wait (RetryAfter) or use another factor
	CodeStorage     Code = "storage"     // the disk refused
	CodeInternal    Code = "internal"    // a bug, or nothing better is known
)

// Error is an error a person may read: what happened to which thing, and what
// to do about it. Err keeps the cause for errors.Is and the log.
type Error struct {
	Code    Code
	Message string // one sentence naming the thing; lower case, no full stop
	Fix     string // what the reader can do; empty when there is nothing to say
	Err     error

	// RetryAfter is how long to wait before the same request can succeed; 0 where
	// waiting does not help or nobody knows.
	RetryAfter time.Duration
}

// Error joins message, fix and cause into one sentence.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	if e.Fix != "" {
		b.WriteString(" (")
		b.WriteString(e.Fix)
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode returns the code of the outermost *Error in err's chain,
// CodeInternal for any other error and "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// RetryAfter returns the wait that the outermost *Error in err's chain asks for, or 0.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
