package retention

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/throttle"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Period{"unlimited": Unlimited, "30d": Period(30 * day), "3653d": Period(3653 * day), "365d": Period(365 * day), "off": Off} {
		p, err := Parse(s, true)
		if err != nil || p != want || p.String() != s {
			t.Errorf("%s: %v %v", s, p, err)
		}
	}
	for _, s := range []string{"", "29d", "3654d", "0d", "-1d", "30", "30h", "d", "30dd", "1e3d", "99999999999999999999d", "Off"} {
		if p, err := Parse(s, true); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%q: %v %v", s, p, err)
		}
	}
	if _, err := Parse("off", false); err == nil {
		t.Error("results can be off")
	}
	if Default().Validate() != nil || (Policy{Results: Off}).Validate() == nil || (Policy{Templates: 1}).Validate() == nil {
		t.Error("policies")
	}
}

func TestOver(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := Period(30 * day)
	for at, want := range map[time.Duration]bool{0: false, 30*day - 1: false, 30 * day: true, 31 * day: true, -time.Hour: false} {
		if p.Over(from, from.Add(at)) != want {
			t.Errorf("%v: %v", at, !want)
		}
	}
	if Unlimited.Over(from, from.Add(Longest)) || !Off.Over(from, from) {
		t.Error("special periods")
	}
}

func TestBelieve(t *testing.T) {
	t0 := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration, boot string, up time.Duration) throttle.Mark {
		return throttle.Mark{At: t0.Add(d), Boot: boot, Up: up}
	}
	anchor := at(0, "a", time.Hour)
	for name, c := range map[string]struct {
		e    Evidence
		want bool
	}{
		"running on":                    {Evidence{Now: at(day, "a", 25*time.Hour), Anchor: anchor, Newest: t0}, true},
		"before the build":              {Evidence{Now: at(-day, "a", 25*time.Hour), Anchor: anchor, Built: t0, Synced: true}, false},
		"1970":                          {Evidence{Now: throttle.Mark{At: time.Unix(0, 0)}, Built: t0}, false},
		"far behind the newest":         {Evidence{Now: at(-25*time.Hour, "b", time.Hour), Anchor: anchor, Newest: t0, Synced: true}, false},
		"a little behind the newest":    {Evidence{Now: at(-23*time.Hour, "a", 2*time.Hour), Anchor: anchor, Newest: t0}, true},
		"forward while running":         {Evidence{Now: at(3*time.Hour, "a", 2*time.Hour-time.Minute), Anchor: anchor}, false},
		"forward while running, synced": {Evidence{Now: at(400*day, "a", 2*time.Hour), Anchor: anchor, Synced: true}, true},
		"ten years on":                  {Evidence{Now: at(Longest, "a", 2*time.Hour), Anchor: anchor}, false},
		"off for a fortnight":           {Evidence{Now: at(14*day, "b", time.Minute), Anchor: anchor}, true},
		"off for a year":                {Evidence{Now: at(365*day, "b", time.Minute), Anchor: anchor}, false},
		"off for a year, synced":        {Evidence{Now: at(365*day, "b", time.Minute), Anchor: anchor, Synced: true}, true},
		"new, near the newest":          {Evidence{Now: at(day, "a", time.Hour), Newest: t0}, true},
		"new, far ahead of the newest":  {Evidence{Now: at(100*day, "a", time.Hour), Newest: t0}, false},
		"new and empty":                 {Evidence{Now: at(0, "a", 0)}, true},
		"boot not known, a day":         {Evidence{Now: at(day, "", time.Minute), Anchor: at(0, "", time.Hour)}, true},
		"boot not known, a year":        {Evidence{Now: at(365*day, "", time.Minute), Anchor: at(0, "", time.Hour)}, false},
		"back while running":            {Evidence{Now: at(-time.Hour, "a", 2*time.Hour), Anchor: anchor}, true},
	} {
		if err := Believe(c.e); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBelieveModel: whatever a machine does, a clock that runs more than a month ahead of
// the truth is not believed unless the system vouches for it, as long as the machine was
// not off for longer.
func TestBelieveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		anchor := throttle.Mark{At: truth, Boot: "a", Up: time.Hour}
		ran := time.Duration(rapid.Int64Range(0, int64(100*day)).Draw(t, "ran"))
		off := time.Duration(rapid.Int64Range(0, int64(31*day)).Draw(t, "off"))
		wrongBy := time.Duration(rapid.Int64Range(int64(ahead)+int64(slack), int64(Longest)).Draw(t, "wrong by"))
		now := throttle.Mark{Boot: "a", Up: time.Hour + ran, At: truth.Add(ran + wrongBy)}
		if off > 0 {
			now = throttle.Mark{Boot: "b", Up: ran, At: truth.Add(off + ran + wrongBy)}
		}
		if Believe(Evidence{Now: now, Anchor: anchor}) == nil {
			t.Fatalf("believed %v of %v", now, truth.Add(off+ran))
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"unlimited", "30d", "off", "-1d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s, true)
		if err != nil {
			return
		}
		if again, err := Parse(p.String(), true); err != nil || again != p {
			t.Errorf("%q is %v, then %v %v", s, p, again, err)
		}
	})
}
