package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"postern/agent"
)

// Exit codes. 0 to 2 answer a comparison; from 3 on something kept it from being
// made. They are part of the interface: scripts open doors by them.
const (
	exitApproved    = 0
	exitDeclined    = 1
	exitInReview    = 2
	exitInvalid     = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitQuality     = 6
	exitUnavailable = 7
	exitLocked      = 8
	exitStorage     = 9
	exitInternal    = 10
	exitThrottled   = 11
)

const exitHelp = `Exit codes:
  0  approved (or: the command succeeded)
  1  declined
  2  in review
  3  invalid input or usage
  4  not found
  5  conflict (for example: the face is enrolled under another subject)
  6  the picture is not good enough
  7  a part is missing or broken (library, model, camera)
  8  the data folder is in use by another process
  9  the disk refused
 10  internal error
 11  too many failed attempts: wait, or use another factor`

var exitByCode = map[agent.Code]int{
	agent.CodeInvalid:     exitInvalid,
	agent.CodeNotFound:    exitNotFound,
	agent.CodeConflict:    exitConflict,
	agent.CodeQuality:     exitQuality,
	agent.CodeUnavailable: exitUnavailable,
	agent.CodeLocked:      exitLocked,
	agent.CodeStorage:     exitStorage,
	agent.CodeInternal:    exitInternal,
	agent.CodeThrottled:   exitThrottled,
}

// verdict carries the status of a comparison out of a command as its exit code.
type verdict struct{ status agent.Status }

func (v verdict) Error() string { return string(v.status) }

// exitCode maps what a command returned to the exit code and tells errors to w.
func exitCode(err error, w io.Writer) int {
	var v verdict
	if errors.As(err, &v) {
		return exitOf(v.status)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(w, "postern: "+strings.TrimRight(oneLine(err.Error()), "."))
	var u usageError
	if errors.As(err, &u) {
		return exitInvalid
	}
	return exitByCode[agent.ErrorCode(err)]
}

func exitOf(s agent.Status) int {
	switch s {
	case agent.Approved:
		return exitApproved
	case agent.InReview:
		return exitInReview
	}
	return exitDeclined
}

// oneLine keeps what a file name or a peer put into an error from writing further
// lines, or control sequences, to the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// usageError marks wrong arguments.
type usageError struct{ error }
