package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"postern/agent"
)

const (
	lockName  = "postern.lock"
	lockRetry = 20 * time.Millisecond
)

// holder is what the lock file says about the process that has the folder. It
// is for people: only the flock decides.
type holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// lockDir takes the folder's lock or reports who has it. The lock goes with the
// returned file, so also with the process, however it ends. The file itself
// stays: removing it would let two openers lock two different files.
func lockDir(o Options) (*os.File, error) {
	path := filepath.Join(o.Dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, diskError(folder(o.Dir), err)
	}
	if err := flock(f, o.Timeout); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, lockedError(o, f)
		}
		return nil, diskError(folder(o.Dir), err)
	}
	if err := writeHolder(f, holder{os.Getpid(), o.Command, o.Now()}); err != nil && !isFull(err) {
		f.Close() // on a full disk the lock holds all the same, and what is there can be read
		return nil, diskError(folder(o.Dir), err)
	}
	return f, nil
}

// flock tries until the timeout; EWOULDBLOCK then means that somebody has it.
func flock(f *os.File, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !time.Now().Before(end) {
			return err
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func writeHolder(f *os.File, h holder) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(b, '\n'), 0)
	return err
}

func lockedError(o Options, f *os.File) error {
	return &agent.Error{
		Code:    agent.CodeLocked,
		Message: folder(o.Dir) + " is in use by " + readHolder(f).describe(o.Now()),
		Fix:     "stop it or choose another data folder",
	}
}

// readHolder tolerates a lock file that its holder has not written yet.
func readHolder(f *os.File) (h holder) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return holder{}
	}
	return h
}

func (h holder) describe(now time.Time) string {
	if h.PID == 0 || h.Command == "" {
		return "another process"
	}
	since, layout := h.Since.In(now.Location()), "15:04"
	if since.Format(time.DateOnly) != now.Format(time.DateOnly) {
		layout = "2006-01-02 15:04"
	}
	return fmt.Sprintf("%s (pid %d, since %s)", h.Command, h.PID, since.Format(layout))
}

func folder(dir string) string { return fmt.Sprintf("data folder %q", dir) }
