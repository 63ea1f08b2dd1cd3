package retention

import (
	"fmt"
	"time"

	"postern/agent"
	"postern/agent/throttle"
)

// How far a clock that nobody confirms may go.
const (
	slack  = time.Hour // against the time since boot
	behind = 24 * time.Hour
	ahead  = 31 * 24 * time.Hour // between two openings of the store
)

// Evidence is what there is to judge the clock by.
type Evidence struct {
	Now    throttle.Mark
	Anchor throttle.Mark // when the clock was believed the last time; zero: never
	Built  time.Time     // of the program; zero: not known
	Newest time.Time     // of the records; zero: there are none
	Synced bool          // the system says that its clock is synchronised
}

// Believe decides whether what has expired by the clock may be deleted: what is deleted
// by a wrong clock cannot be had back. A clock is not believed while it is before the
// program was built or far behind the newest record, and when it has gone forward by
// more than the machine has run, unless the system has it synchronised. The error says
// which; it holds until the clock is right, or somebody confirms it.
func Believe(e Evidence) error {
	now := e.Now.At
	switch {
	case now.Before(e.Built):
		return wrong("it is before this program was built, %s", e.Built.UTC().Format(time.DateOnly))
	case !e.Newest.IsZero() && now.Before(e.Newest.Add(-behind)):
		return wrong("it is far behind the newest record, of %s", e.Newest.UTC().Format(time.RFC3339))
	case e.Synced:
		return nil
	case e.Anchor.At.IsZero():
		if !e.Newest.IsZero() && now.After(e.Newest.Add(ahead)) {
			return wrong("it is far ahead of the newest record, of %s, and not synchronised", e.Newest.UTC().Format(time.RFC3339))
		}
		return nil
	}
	expected, by := e.Anchor.At.Add(e.Now.Since(e.Anchor)), ahead
	if e.Now.Boot != "" && e.Now.Boot == e.Anchor.Boot {
		by = slack
	}
	if now.After(expected.Add(by)) {
		return wrong("it has jumped forward by %s and is not synchronised", now.Sub(expected).Round(time.Minute))
	}
	return nil
}

func wrong(format string, args ...any) error {
	return &agent.Error{Code: agent.CodeUnavailable, Message: "the clock is not believed, so nothing is deleted by it: " + fmt.Sprintf(format, args...),
		Fix: `set the clock, or confirm it with "postern retention trust-clock"`}
}
