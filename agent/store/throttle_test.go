package store

import (
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/throttle"
)

// TestThrottleSurvives: the counting is where it was after a restart, a reboot and a
// jump of the clock, in either direction.
func TestThrottleSurvives(t *testing.T) {
	o := testOptions(t)
	now, mark := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), throttle.Mark{Boot: "a", Up: time.Hour}
	o.Now, o.Mark = func() time.Time { return now }, func() throttle.Mark { m := mark; m.At = now; return m }
	s := mustOpen(t, o)
	fail := func() {
		t.Helper()
		_, err := s.AppendResult(testResult("ada", agent.Declined))
		must(t, err)
	}
	for range 5 {
		fail()
	}
	judge := func(subject string) throttle.Verdict {
		t.Helper()
		st, err := s.Throttle(subject)
		must(t, err)
		return throttle.Strict.Judge(st, 0, mark)
	}
	for _, jump := range []time.Duration{0, 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
		now = now.Add(jump)
		s = mustReopen(t, s)
		for _, id := range []string{"ada", ""} {
			if v := judge(id); v != (throttle.Verdict{Answer: throttle.Later, Wait: 30 * time.Second}) {
				t.Errorf("%q after a jump of %v: %+v", id, jump, v)
			}
		}
	}
	mark = throttle.Mark{Boot: "b", Up: 20 * time.Second}
	s = mustReopen(t, s)
	if v := judge("ada"); v != (throttle.Verdict{Answer: throttle.Later, Wait: 10 * time.Second}) {
		t.Errorf("after a reboot: %+v", v)
	}
	for range 45 {
		fail()
	}
	mark.Up += 1000 * time.Hour
	if v := judge("ada"); v.Answer != throttle.Stopped {
		t.Errorf("after fifty: %+v", v)
	}
	_, err := s.Unlock("ada")
	must(t, err)
	_, err = s.Unlock("")
	must(t, err)
	if all, err := s.Throttles(); err != nil || len(all) != 0 {
		t.Errorf("after unlocking: %v %v", all, err)
	}
	_, err = s.Unlock("ada")
	wantCode(t, err, agent.CodeNotFound, "ada")
}

// TestThrottleWithResult: a result that is repeated or refused counts nothing.
func TestThrottleWithResult(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	r, err := s.AppendResult(testResult("ada", agent.Declined))
	must(t, err)
	_, err = s.AppendResult(r)
	must(t, err)
	bad := testResult("ada", agent.Approved)
	bad.ID = r.ID
	_, err = s.AppendResult(bad)
	wantCode(t, err, agent.CodeConflict)
	failWrites(t, s.results)
	_, err = s.AppendResult(testResult("ada", agent.Declined))
	wantCode(t, err, agent.CodeStorage)
	must(t, s.Close())
	s = mustOpen(t, s.opts)
	if st, err := s.Throttle("ada"); err != nil || st.Failures != 1 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestThrottleGarbled: a counting that cannot be read is an error for who asks and for
// who would go on counting, never a count of zero.
func TestThrottleGarbled(t *testing.T) {
	s, err := Open(testOptions(t)) // broken on purpose: no check at the end
	must(t, err)
	defer s.Close()
	must(t, s.results.db.Update(func(tx *bolt.Tx) error { return bucket(tx, bucketThrottle).Put(throttleKey("ada"), []byte{1, 2}) }))
	_, err = s.Throttle("ada")
	wantCode(t, err, agent.CodeStorage)
	_, err = s.AppendResult(testResult("ada", agent.Approved))
	wantCode(t, err, agent.CodeStorage)
	wantCode(t, s.Check(), agent.CodeStorage)
}

func FuzzDecodeThrottle(f *testing.F) {
	p, err := encodePayload(throttle.State{Failures: 3, Last: throttle.System()}, nil)
	must(f, err)
	f.Add(p)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		if st, err := decodeThrottle(p); err == nil && st.Failures < 1 {
			t.Errorf("%+v", st)
		}
	})
}
