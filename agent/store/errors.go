package store

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"

	"postern/agent"
)

func coded(code agent.Code, format string, args ...any) error {
	return &agent.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// panicError is a panic of bbolt, or a fault on a page that the file does not
// have, caught by guarded.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("unreadable page: %v", e.value) }

// guarded runs fn and turns a panic into a *panicError. bbolt panics on pages
// that make no sense, and the memory map faults where a file was cut short; the
// latter would end the process without SetPanicOnFault, which holds for this
// goroutine only. So whatever reads pages must run in fn itself.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
	}()
	return fn()
}

// diskError names the folder or file that an operation failed on and what can
// be done. Errors that carry a code already pass through.
func diskError(what string, err error) error {
	var known *agent.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, berrors.ErrTimeout):
		return &agent.Error{Code: agent.CodeLocked, Message: what + " is in use by another program",
			Fix: "stop it", Err: err}
	case isFull(err):
		return &agent.Error{Code: agent.CodeStorage, Message: what + " cannot be written, the disk is full",
			Fix: "free some space on the disk and start again", Err: err}
	case isForbidden(err):
		return &agent.Error{Code: agent.CodeStorage, Message: what + " is not writable for this user",
			Fix: "give the user write access or choose another data folder", Err: err}
	}
	return &agent.Error{Code: agent.CodeStorage, Message: what + " cannot be used",
		Fix: "check the disk and the path", Err: err}
}

// openError is diskError for a file that is there: what is not the disk's fault
// is the file's.
func openError(what string, err error) error {
	var known *agent.Error
	if err == nil || errors.As(err, &known) || isErrno(err) || errors.Is(err, berrors.ErrTimeout) {
		return diskError(what, err)
	}
	return damaged(what, err)
}

// damaged reports a file whose content makes no sense. It is never touched.
func damaged(what string, err error) error {
	return &agent.Error{Code: agent.CodeStorage, Message: what + " is damaged or not a postern data file",
		Fix: `nothing was changed; "postern recover" keeps it and takes the best that is left`, Err: &damageError{err}}
}

func isErrno(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no)
}

// isFull also looks at the text: bbolt drops the cause when it cannot grow a file.
func isFull(err error) bool {
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, no) || strings.HasSuffix(err.Error(), no.Error()) {
			return true
		}
	}
	return false
}

// isFullWrite tells whether there was no room to write, or to grow the file, before
// anything was made durable. bbolt has rolled back then, and the next commit may do
// better. Where syncing says so nothing is certain.
func isFullWrite(err error) bool {
	var p *fs.PathError
	return isFull(err) && (errors.As(err, &p) && p.Op == "write" || strings.Contains(err.Error(), "file resize error"))
}

func isForbidden(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func errClosed() error {
	return coded(agent.CodeUnavailable, "the store is closed")
}
