// Package retention says how long what is stored is kept, and when the clock may be
// believed enough to delete by it. It is rules only; the store applies them.
package retention

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/agent"
)

// Period is how long something is kept. The zero value is Unlimited.
type Period time.Duration

// The special periods, and the range of the others.
const (
	Unlimited Period = 0
	Off       Period = -1 // of images: none are kept

	day           = 24 * time.Hour
	Shortest      = 30 * day
	Longest       = 3653 * day // ten years
	wordUnlimited = "unlimited"
	wordOff       = "off"
)

// Parse reads "unlimited", a number of days ("90d") or, where off is allowed, "off".
func Parse(s string, offAllowed bool) (Period, error) {
	days, isDays := strings.CutSuffix(s, "d")
	n, err := strconv.Atoi(days)
	d := time.Duration(n) * day
	switch {
	case s == wordUnlimited:
		return Unlimited, nil
	case s == wordOff && offAllowed:
		return Off, nil
	case !isDays || err != nil || n < int(Shortest/day) || n > int(Longest/day):
		want := fmt.Sprintf("%q or %d to %d days, for example 365d", wordUnlimited, int(Shortest/day), int(Longest/day))
		if offAllowed {
			want = fmt.Sprintf("%q, %s", wordOff, want)
		}
		return 0, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("period %.40q is not %s", s, want)}
	}
	return Period(d), nil
}

// String is the inverse of Parse.
func (p Period) String() string {
	switch p {
	case Unlimited:
		return wordUnlimited
	case Off:
		return wordOff
	}
	return strconv.Itoa(int(time.Duration(p)/day)) + "d"
}

// MarshalText writes a period as Parse reads it.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a period.
func (p *Period) UnmarshalText(b []byte) (err error) {
	*p, err = Parse(string(b), true)
	return err
}

// Over tells whether what began at from has been kept long enough at now.
func (p Period) Over(from, now time.Time) bool {
	return p == Off || p != Unlimited && !now.Before(from.Add(time.Duration(p)))
}

// Policy is what an application wants to be kept how long.
type Policy struct {
	Results   Period `json:"results"`   // decisions and sessions
	Images    Period `json:"images"`    // pictures of sessions
	Templates Period `json:"templates"` // of enrolled people, since their newest enrolment
}

// Default keeps results and templates without limit, and no images.
func Default() Policy { return Policy{Images: Off} }

// Validate refuses "off" where only images may be off.
func (p Policy) Validate() error {
	for _, c := range []struct {
		what string
		Period
		offAllowed bool
	}{{"results", p.Results, false}, {"images", p.Images, true}, {"templates", p.Templates, false}} {
		if _, err := Parse(c.String(), c.offAllowed); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	return nil
}
