package store

import (
	"crypto/rand"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"postern/agent"
	"postern/agent/throttle"
)

// Defaults for the fields of Options that are left zero.
const (
	DefaultTimeout      = 2 * time.Second
	DefaultMaxBytes     = 256 << 20 // bbolt needs one free address range per file; 32-bit boards run out above this
	DefaultMaxTemplates = 10
	DefaultMaxTelemetry = 10_000
)

const (
	minMaxBytes = 256 << 10
	maxDevice   = 128
)

// Options say where a Store lives and what it uses. Dir, Device and Root are required.
type Options struct {
	Dir    string // data folder; made with mode 0700 when missing
	Device string // this device's id; a folder keeps the one it was made with

	Timeout time.Duration // how long Open waits for another holder to let go
	Command string        // how this process calls itself in the lock file; default from os.Args

	Tenant string // whose records these are, where several share a fleet; may be empty

	// Root opens the root key, once the folder is locked. existing says that
	// something in the folder is wrapped by it already, so that it must be there.
	// Required.
	Root func(existing bool) (Root, error)
	// Rewrap is told that the root key was replaced, before the old one goes: what it
	// seals outside of the store must be sealed anew. nil: there is nothing.
	Rewrap func(Root) error
	// AdoptPlain takes over records of a time before there were keys even when
	// the root key was not made for it.
	AdoptPlain bool

	// Witness is a folder outside of Dir that keeps what must not be lost with it:
	// erasures and the last checkpoints of the audit log. Empty: none is kept.
	Witness string
	Actor   string // who acts, for the audit log, where a verb does not say; default Command

	RequireConsent bool // refuse enrolment, and the use of templates, without consent

	Now  func() time.Time     // default time.Now
	Mark func() throttle.Mark // the clock that failed attempts are measured by; default throttle.System
	Rand io.Reader            // default crypto/rand
	Log  *slog.Logger         // default discards

	// Recover lets Open verify every page and replace a file that is damaged, by the
	// best that can be had of it; see Recovery. It also compacts a file when that
	// pays. Without it a damaged file is reported when it is met, and left as it is.
	Recover   bool
	recovered Rung // of the file that is being made
	// provenBy is what a candidate for recovery has to pass besides; nil: nothing.
	provenBy func(*dbFile) error

	compactOver int64 // a file above this size may be compacted; tests set it

	MaxBytes     int64 // cap on each of the two files; adding stops at 80 % of it
	MaxTemplates int   // templates a subject may have
	MaxTelemetry int   // telemetry rows that wait for the hub; above it the oldest go
}

func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxTelemetry <= 0 {
		o.MaxTelemetry = DefaultMaxTelemetry
	}
	if o.compactOver == 0 {
		o.compactOver = compactBytes
	}
	if o.MaxTemplates == 0 {
		o.MaxTemplates = DefaultMaxTemplates
	}
	if o.Command == "" {
		o.Command = commandName(os.Args)
	}
	if o.Actor == "" {
		o.Actor = o.Command
	}
	return o.withSeams()
}

func (o Options) withSeams() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Mark == nil {
		o.Mark = throttle.System
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	switch {
	case o.Dir == "":
		return invalid("the data folder has no name")
	case o.Device == "" || len(o.Device) > maxDevice || strings.ContainsFunc(o.Device, notPrintable):
		return invalid("device id %q is not 1 to %d printable characters without spaces", o.Device, maxDevice)
	case len(o.Tenant) > maxDevice || strings.ContainsFunc(o.Tenant, notPrintable):
		return invalid("tenant %.140q is longer than %d or has other than printable characters without spaces", o.Tenant, maxDevice)
	case o.Root == nil:
		return invalid("the store has no root key")
	case o.Timeout < 0:
		return invalid("the wait for the data folder is negative: %s", o.Timeout)
	case o.MaxBytes < minMaxBytes:
		return invalid("the size cap of %d bytes a file is below %d", o.MaxBytes, minMaxBytes)
	case o.MaxTemplates < 1:
		return invalid("%d templates a subject is less than 1", o.MaxTemplates)
	}
	return nil
}

func notPrintable(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
}

// commandName is the program and its subcommand. Further arguments stay out of
// the lock file: they may hold paths or secrets.
func commandName(args []string) string {
	if len(args) == 0 {
		return "another program"
	}
	name := filepath.Base(args[0])
	if len(args) > 1 && !strings.HasPrefix(args[1], "-") && !strings.ContainsFunc(args[1], notPrintable) {
		name += " " + args[1]
	}
	return name
}

func invalid(format string, args ...any) error { return coded(agent.CodeInvalid, format, args...) }
