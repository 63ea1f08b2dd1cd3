package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// keeper is a store with a clock of its own.
type keeper struct {
	*Store
	now  time.Time
	mark throttle.Mark
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), mark: throttle.Mark{Boot: "a", Up: time.Hour}}
	o := testOptions(t)
	o.Now, o.Mark = func() time.Time { return k.now }, func() throttle.Mark { return k.mark }
	k.Store = mustOpen(t, o)
	return k
}

// pass lets days go by on all clocks.
func (k *keeper) pass(days int) {
	k.now, k.mark.Up = k.now.AddDate(0, 0, days), k.mark.Up+time.Duration(days)*24*time.Hour
}

func (k *keeper) decide(t *testing.T, subject, application string, n int) (last agent.Result) {
	t.Helper()
	for range n {
		r := testResult(subject, agent.Approved)
		r.Application = application
		var err error
		last, err = k.AppendResult(r)
		must(t, err)
	}
	return last
}

func (k *keeper) ack(t *testing.T) {
	t.Helper()
	st, err := k.Stats()
	must(t, err)
	_, err = k.Ack(k.Epoch(), st.LastSeq)
	must(t, err)
}

func (k *keeper) sweep(t *testing.T, o Sweeping, want Swept) {
	t.Helper()
	got, err := k.Sweep(t.Context(), o)
	must(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("swept %+v, want %+v", got, want)
	}
	must(t, k.Check())
}

const days = retention.Period(24 * time.Hour)

func TestSweepResults(t *testing.T) {
	k := newKeeper(t)
	month := Sweeping{Default: retention.Policy{Results: 30 * days}}
	must(t, k.SetRetention(Retention{"forever", retention.Policy{}}))
	must(t, k.SetRetention(Retention{"year", retention.Policy{Results: 365 * days}}))
	k.decide(t, "ada", "", 3)
	held := k.decide(t, "bob", "", 1)
	k.decide(t, "eve", "", 1)
	k.decide(t, "", "forever", 2)
	k.decide(t, "", "year", 2)
	_, err := k.Hold(Hold{Kind: HoldResult, ID: held.ID, Reason: "case 7", By: "counsel"})
	must(t, err)
	_, err = k.Hold(Hold{Kind: HoldSubject, ID: "eve", Reason: "case 8", By: "counsel"})
	must(t, err)

	k.pass(29)
	k.sweep(t, month, Swept{})
	k.pass(1)
	k.sweep(t, month, Swept{Overdue: 5})
	k.ack(t)
	fresh := k.decide(t, "ada", "", 1)
	k.sweep(t, month, Swept{Results: 3, Held: 2})
	st, err := k.Stats()
	must(t, err)
	if st.Results != 7 || st.LastSeq != 10 || st.Outbox != 1 {
		t.Errorf("%+v", st)
	}
	if rs, err := k.Results(ResultQuery{SubjectID: "ada"}); err != nil || len(rs) != 1 || rs[0].ID != fresh.ID {
		t.Errorf("ada's results: %v %v", rs, err)
	}
	_, err = k.Release(HoldResult, held.ID, "counsel")
	must(t, err)
	k.sweep(t, month, Swept{Results: 1, Held: 1})
	k.pass(335)
	k.sweep(t, month, Swept{Results: 2, Held: 1, Overdue: 1})
	month.Unsent = true
	k.sweep(t, month, Swept{Results: 1, Held: 1})
	must(t, k.DropRetention("forever"))
	wantCode(t, k.DropRetention("forever"), agent.CodeNotFound)
	k.sweep(t, month, Swept{Results: 2, Held: 1})
	if r := k.decide(t, "ada", "", 1); r.Seq != 11 {
		t.Errorf("the next result is %d", r.Seq)
	}
	k.Store = mustReopen(t, k.Store)
	if n, err := k.Ack(k.Epoch(), 11); err != nil || n != 1 {
		t.Errorf("acknowledged %d: %v", n, err)
	}
}

func TestSweepTemplates(t *testing.T) {
	k := newKeeper(t)
	for _, id := range []string{"ada", "bob", "eve"} {
		_, _, err := k.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: testTemplates(2)})
		must(t, err)
	}
	_, err := k.Hold(Hold{Kind: HoldSubject, ID: "eve", Reason: "case 8", By: "counsel"})
	must(t, err)
	k.pass(60)
	_, err = k.AddTemplates("bob", testTemplate(9))
	must(t, err)
	k.sweep(t, Sweeping{}, Swept{})
	k.sweep(t, Sweeping{Default: retention.Policy{Templates: 60 * days}}, Swept{Held: 1, Expired: []string{"ada"}})
}

// TestHolds: what is under a hold cannot be deleted by hand either.
func TestHolds(t *testing.T) {
	k := newKeeper(t)
	_, ts, err := k.Enrol(Enrolment{Subject: agent.Subject{ID: "ada"}, Templates: testTemplates(2)})
	must(t, err)
	h, err := k.Hold(Hold{Kind: HoldSubject, ID: "ada", Reason: "case 7", By: "counsel"})
	must(t, err)
	_, err = k.Hold(h)
	wantCode(t, err, agent.CodeConflict, "already")
	_, err = k.DeleteSubject("ada")
	wantCode(t, err, agent.CodeConflict, "legal hold", "release")
	wantCode(t, k.DeleteTemplate("ada", ts[0].ID), agent.CodeConflict, "legal hold")
	k.Store = mustReopen(t, k.Store)
	if hs, err := k.Holds(); err != nil || len(hs) != 1 || hs[0] != h {
		t.Errorf("holds %+v %v, want %+v", hs, err, h)
	}
	got, err := k.Release(HoldSubject, "ada", "counsel")
	if err != nil || got != h {
		t.Errorf("released %+v %v", got, err)
	}
	_, err = k.Release(HoldSubject, "ada", "counsel")
	wantCode(t, err, agent.CodeNotFound)
	_, err = k.DeleteSubject("ada")
	must(t, err)
	for name, h := range map[string]Hold{
		"kind":      {Kind: "face", ID: "a", Reason: "r", By: "b"},
		"id":        {Kind: HoldResult, ID: "a b", Reason: "r", By: "b"},
		"no id":     {Kind: HoldResult, Reason: "r", By: "b"},
		"no reason": {Kind: HoldResult, ID: "a", By: "b"},
		"nobody":    {Kind: HoldResult, ID: "a", Reason: "r"},
		"control":   {Kind: HoldResult, ID: "a", Reason: "r\n", By: "b"},
	} {
		if _, err := k.Hold(h); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSweepClock sets the clock in every wrong way: nothing is deleted until it is right
// again or confirmed.
func TestSweepClock(t *testing.T) {
	k := newKeeper(t)
	month := Sweeping{Default: retention.Policy{Results: 30 * days}, Built: k.now.AddDate(0, 0, -10)}
	k.decide(t, "ada", "", 3)
	k.ack(t)
	k.sweep(t, month, Swept{}) // the clock is believed now
	right := k.now
	for name, wrong := range map[string]time.Time{
		"the battery is empty":     time.Unix(0, 0),
		"before the build":         right.AddDate(0, 0, -11),
		"behind the newest result": right.AddDate(0, 0, -2),
		"ten years on":             right.AddDate(10, 0, 0),
		"a month and a half ahead": right.AddDate(0, 0, 45),
	} {
		k.now = wrong
		if got, err := k.Sweep(t.Context(), month); agent.ErrorCode(err) != agent.CodeUnavailable || got.Results != 0 {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	k.now = right.AddDate(0, 0, 45)
	must(t, k.TrustClock())
	k.sweep(t, month, Swept{Results: 3})
}

// TestSweepStops: a sweep that is stopped goes on where something is left.
func TestSweepStops(t *testing.T) {
	k := newKeeper(t)
	k.decide(t, "ada", "", 3*sweepBatch)
	k.ack(t)
	k.pass(30)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	month := Sweeping{Default: retention.Policy{Results: 30 * days}}
	if got, err := k.Sweep(ctx, month); err == nil || got.Results != 0 {
		t.Errorf("%+v %v", got, err)
	}
	must(t, (&sweeper{Store: k.Store, o: month, now: k.now, out: &Swept{}}).dropResults(func() []agent.Result {
		rs, err := k.Results(ResultQuery{Limit: sweepBatch})
		must(t, err)
		return rs
	}()))
	must(t, k.Check())
	k.sweep(t, month, Swept{Results: 2 * sweepBatch})
}

func TestTelemetry(t *testing.T) {
	o := testOptions(t)
	o.MaxTelemetry = 100
	s := mustOpen(t, o)
	for i := range 150 {
		n, err := s.PutTelemetry([]byte(fmt.Sprint("reading ", i)))
		if err != nil || n != uint64(i+1) {
			t.Fatalf("%d: %v", n, err)
		}
	}
	for name, p := range map[string][]byte{"empty": {}, "long": make([]byte, maxTelemetry+1)} {
		if _, err := s.PutTelemetry(p); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	ts, err := s.TelemetryAfter(0, 3)
	if err != nil || len(ts) != 3 || ts[0].Seq != 51 || string(ts[2].Payload) != "reading 52" {
		t.Fatalf("%+v %v", ts, err)
	}
	if ts, err := s.TelemetryAfter(149, 0); err != nil || len(ts) != 1 || ts[0].Seq != 150 {
		t.Errorf("%+v %v", ts, err)
	}
	for _, want := range []int{70, 0} {
		if n, err := s.AckTelemetry(120); err != nil || n != want {
			t.Errorf("acknowledged %d, want %d: %v", n, want, err)
		}
	}
	st, err := s.Stats()
	must(t, err)
	if st.Telemetry != 30 || st.TelemetryDropped != 50 {
		t.Errorf("%+v", st)
	}
}

// TestTelemetryGivesWay fills the file with telemetry, then decides: each decision is
// kept, telemetry goes, oldest first and counted, and only when there is none left are
// decisions refused.
func TestTelemetryGivesWay(t *testing.T) {
	o := testOptions(t)
	o.MaxBytes = 1 << 20
	s := mustOpen(t, o)
	var err error
	for err == nil {
		_, err = s.PutTelemetry(make([]byte, 2000))
	}
	wantCode(t, err, agent.CodeStorage, "size limit")
	before, err := s.Stats()
	must(t, err)
	n := 0
	for ; err == nil; n++ {
		_, err = s.AppendResult(testResult("a", agent.Approved))
	}
	n--
	wantCode(t, err, agent.CodeStorage, "size limit")
	st, err := s.Stats()
	must(t, err)
	if n < 100 || st.Results != n || st.Outbox != n || st.Telemetry != 0 || st.TelemetryDropped != before.Telemetry {
		t.Errorf("%d decisions, stats %+v, telemetry was %d", n, st, before.Telemetry)
	}
}

func FuzzDecodeHold(f *testing.F) {
	p, err := encodePayload(Hold{Kind: HoldResult, ID: "a", Reason: "r", By: "b"}, nil)
	must(f, err)
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		if h, err := decodeHold(p); err == nil && h.validate() != nil {
			t.Errorf("%+v", h)
		}
	})
}

func FuzzDecodeRetention(f *testing.F) {
	p, err := encodePayload(Retention{"a", retention.Default()}, nil)
	must(f, err)
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := decodeRetention(p); err == nil && r.Validate() != nil {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzDecodeTelemetry(f *testing.F) {
	p, err := encodePayload(Telemetry{Payload: []byte("x")}, nil)
	must(f, err)
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		if m, err := decodeTelemetry(p); err == nil && len(m.Payload) == 0 {
			t.Errorf("%+v", m)
		}
	})
}
