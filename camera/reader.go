package camera

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	"postern/agent"
)

// Picture is one decoded picture as a Reader lends it: rows tightly packed,
// three bytes a pixel. It is valid until the reader's next call.
type Picture struct {
	Pix           []byte
	Width, Height int
	BGR           bool // blue first, as OpenCV has it; red first otherwise
}

// Reader is one opened source. One goroutine uses it, never two at a time.
type Reader interface {
	// Read waits for the next picture. io.EOF says that the source is at its
	// end; any other error that it is broken and must be opened anew.
	Read() (Picture, error)
	// Rate returns the pictures a second at which the source wants to be shown,
	// 0 when it keeps its own time or does not know.
	Rate() float64
	// Close frees the source. It is called once, also after an error.
	Close() error
}

// opener opens a source; it is called again after every loss.
type opener func() (Reader, error)

// openerFor returns the opener for checked options.
func openerFor(o Options) opener {
	if o.Kind == KindFolder {
		return func() (Reader, error) { return openFolder(o) }
	}
	return func() (Reader, error) {
		if err := reachable(o); err != nil {
			return nil, err
		}
		return openVideo(o)
	}
}

// reachable finds the common reasons why a device or file cannot be opened,
// because OpenCV says only "no".
func reachable(o Options) error {
	if o.Kind == KindURL {
		return nil
	}
	path, what, missing, fix := o.Target, "video", agent.CodeNotFound, ""
	if o.Kind == KindDevice {
		path, what, missing = devicePath(o.Target), "camera", agent.CodeUnavailable
		fix = "`postern camera list` shows what there is"
	}
	st, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return &agent.Error{Code: missing, Message: fmt.Sprintf("%s %q does not exist", what, path), Fix: fix}
	case err == nil && o.Kind == KindDevice && st.Mode()&fs.ModeCharDevice == 0:
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%q is not a camera device", path), Fix: fix}
	case err == nil && o.Kind == KindFile && !st.Mode().IsRegular():
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("%q is not a file", path)}
	}
	f, err := os.Open(path)
	if err != nil {
		return unreadable(what, path, err)
	}
	return f.Close()
}

func unreadable(what, path string, err error) error {
	fix := ""
	if os.IsPermission(err) && what == "camera" {
		fix = "add this user to the group video, or run as root"
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("cannot open %s %q", what, path), Fix: fix, Err: unwrapPath(err)}
}

// Open checks the options and opens the source, or with Options.Wait starts
// trying to. ctx bounds the opening only; Close ends the stream.
//
// An error is an *agent.Error that names the camera: CodeInvalid for options or
// contents that cannot work, CodeNotFound for a missing file or folder,
// CodeUnavailable for a device or stream that does not answer.
func Open(ctx context.Context, o Options) (*Stream, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	return start(ctx, o, openerFor(o))
}

// OpenReader is Open with a source of the caller's own: open is called at the
// start and after every loss. Options.Kind decides whether the source counts as
// live (device, url) or recorded; Target only names it.
func OpenReader(ctx context.Context, o Options, open func() (Reader, error)) (*Stream, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	return start(ctx, o, open)
}
