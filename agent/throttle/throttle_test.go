package throttle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
)

func at(boot string, up time.Duration) Mark { return Mark{Boot: boot, Up: up} }

func TestJudge(t *testing.T) {
	sec := time.Second
	for name, c := range map[string]struct {
		limits   Limits
		failures int
		last     Mark
		underWay int
		now      Mark
		want     Verdict
	}{
		"fresh":                      {Limits{}, 0, Mark{}, 0, at("a", 0), Verdict{Allowed, 0}},
		"the fifth":                  {Limits{}, 4, at("a", 0), 0, at("a", 0), Verdict{Allowed, 0}},
		"the sixth at once":          {Limits{}, 5, at("a", 100*sec), 0, at("a", 100*sec), Verdict{Later, 30 * sec}},
		"the sixth too early":        {Limits{}, 5, at("a", 100*sec), 0, at("a", 129*sec), Verdict{Later, sec}},
		"the sixth":                  {Limits{}, 5, at("a", 100*sec), 0, at("a", 130*sec), Verdict{Allowed, 0}},
		"the fiftieth":               {Limits{}, 49, at("a", 0), 0, at("a", 30*sec), Verdict{Allowed, 0}},
		"after the fiftieth":         {Limits{}, 50, at("a", 0), 0, at("a", 1e6*sec), Verdict{Stopped, 0}},
		"liveness: the tenth":        {WithLiveness, 9, at("a", 0), 0, at("a", 0), Verdict{Allowed, 0}},
		"liveness: the eleventh":     {WithLiveness, 10, at("a", 0), 0, at("a", 0), Verdict{Later, 30 * sec}},
		"liveness: after a hundred":  {WithLiveness, 100, at("a", 0), 0, at("a", 1e6*sec), Verdict{Stopped, 0}},
		"five at once":               {Limits{}, 0, Mark{}, 5, at("a", 0), Verdict{Busy, 0}},
		"four at once":               {Limits{}, 0, Mark{}, 4, at("a", 0), Verdict{Allowed, 0}},
		"one of the last":            {Limits{}, 4, at("a", 0), 1, at("a", 0), Verdict{Busy, 0}},
		"two of the waiting":         {Limits{}, 7, at("a", 0), 1, at("a", 1e6*sec), Verdict{Busy, 0}},
		"reboot: just up":            {Limits{}, 5, at("a", 1e5*sec), 0, at("b", 3*sec), Verdict{Later, 27 * sec}},
		"reboot: up long enough":     {Limits{}, 5, at("a", 1e5*sec), 0, at("b", 30*sec), Verdict{Allowed, 0}},
		"boot not known":             {Limits{}, 5, at("", 1e5*sec), 0, at("", 10*sec), Verdict{Later, 20 * sec}},
		"boot not known, later":      {Limits{}, 5, at("", 0), 0, at("", 29*sec), Verdict{Later, sec}},
		"clock contradicts itself":   {Limits{}, 5, at("a", 1e5*sec), 0, at("a", 10*sec), Verdict{Later, 20 * sec}},
		"clock below zero":           {Limits{}, 5, at("a", 1e5*sec), 0, at("a", -10*sec), Verdict{Later, 30 * sec}},
		"stop below failures":        {Limits{Failures: 5, Stop: 3}, 3, at("a", 0), 0, at("a", 1e6*sec), Verdict{Stopped, 0}},
		"stop below, under way":      {Limits{Failures: 5, Stop: 3}, 2, at("a", 0), 1, at("a", 1e6*sec), Verdict{Busy, 0}},
		"longer delay":               {Limits{Delay: time.Hour}, 5, at("a", 0), 0, at("a", 3000*sec), Verdict{Later, 600 * sec}},
		"nonsense limits are strict": {Limits{-1, -1, -1}, 5, at("a", 0), 0, at("a", 0), Verdict{Later, 30 * sec}},
	} {
		if got := c.limits.Judge(State{c.failures, c.last}, c.underWay, c.now); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestEffectOf(t *testing.T) {
	attack := []agent.Warning{{Feature: agent.FeatureLiveness, Risk: agent.RiskFaceAttack}}
	for name, c := range map[string]struct {
		kind agent.Kind
		d    agent.Decision
		want Effect
	}{
		"approved":         {agent.KindVerify, agent.Decision{Status: agent.Approved, Scored: true}, Success},
		"declined":         {agent.KindVerify, agent.Decision{Status: agent.Declined, Scored: true}, Failure},
		"in review":        {agent.KindVerify, agent.Decision{Status: agent.InReview, Scored: true}, Failure},
		"stranger":         {agent.KindIdentify, agent.Decision{Status: agent.Declined, Scored: true}, Failure},
		"no face":          {agent.KindVerify, agent.Decision{Status: agent.Declined}, None},
		"attack":           {agent.KindVerify, agent.Decision{Status: agent.Declined, Warnings: attack}, Failure},
		"two pictures":     {agent.KindMatch, agent.Decision{Status: agent.Declined, Scored: true}, None},
		"two that match":   {agent.KindMatch, agent.Decision{Status: agent.Approved, Scored: true}, None},
		"no status at all": {agent.KindVerify, agent.Decision{Scored: true}, Failure},
	} {
		if got := EffectOf(agent.Result{Kind: c.kind, Decision: c.d}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestLooserThan(t *testing.T) {
	for name, c := range map[string]struct {
		l    Limits
		want bool
	}{
		"same": {Strict, false}, "liveness": {WithLiveness, true},
		"stricter":     {Limits{3, time.Minute, 10}, false},
		"shorter wait": {Limits{3, 29 * time.Second, 10}, true},
		"later stop":   {Limits{3, time.Minute, 51}, true},
	} {
		if got := c.l.LooserThan(Strict); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// world is a machine whose clock can be rebooted and whose wall clock can be set.
type world struct {
	real time.Duration // time as it passes for everybody
	boot int
	from time.Duration // real time of the last boot
	wall time.Duration // offset of the wall clock
}

func (w *world) now() Mark {
	return Mark{Boot: fmt.Sprint(w.boot), Up: w.real - w.from, At: time.Unix(0, 0).Add(w.real + w.wall)}
}

// TestModel lets an impostor try, wait, reboot and set the clock at random: after the
// first five failures no two tries are nearer than the delay, none comes after the
// fiftieth, and nobody who waited in front of a running machine is refused.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, s, tries := &world{}, State{}, []time.Duration{}
		pass := func(t *rapid.T) { w.real += time.Duration(rapid.IntRange(0, 40000).Draw(t, "ms")) * time.Millisecond }
		rt.Repeat(map[string]func(*rapid.T){
			"wait":   pass,
			"reboot": func(t *rapid.T) { pass(t); w.boot++; w.from = w.real },
			"set clock": func(t *rapid.T) {
				w.wall += time.Duration(rapid.Int64Range(-1e6, 1e6).Draw(t, "s")) * time.Second
			},
			"try": func(t *rapid.T) {
				v := Strict.Judge(s, 0, w.now())
				waited := w.real - max(w.from, last(tries))
				if want := s.Failures < 50 && (s.Failures < 5 || waited >= 30*time.Second); (v.Answer == Allowed) != want {
					t.Fatalf("after %d failures and %v: %+v", s.Failures, waited, v)
				}
				if v.Answer != Allowed {
					return
				}
				s, tries = s.After(Failure, w.now()), append(tries, w.real)
				if n := len(tries); n > 50 || n > 5 && tries[n-1]-tries[n-2] < 30*time.Second {
					t.Fatalf("tries at %v", tries)
				}
			},
			"success": func(*rapid.T) {
				if Strict.Judge(s, 0, w.now()).Answer == Allowed {
					s, tries = s.After(Success, w.now()), nil
				}
			},
		})
	})
}

func last(tries []time.Duration) time.Duration {
	if len(tries) == 0 {
		return 0
	}
	return tries[len(tries)-1]
}

// memory is where a test's Gate finds its states.
type memory struct {
	mu     sync.Mutex // guards states
	states map[string]State
}

func (m *memory) state(subject string) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[subject], nil
}

func (m *memory) count(subject string, e Effect, now Mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys(subject) {
		m.states[k] = m.states[k].After(e, now)
	}
}

// testGate runs on the test bubble's clock.
func testGate(p Policy) (*Gate, *memory) {
	m := &memory{states: map[string]State{}}
	start := time.Now()
	return &Gate{Policy: p, State: m.state, Now: func() Mark { return at("a", time.Since(start)) }}, m
}

// TestGateCrowd: a hundred impostors at once get as many tries as one after another.
func TestGateCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, m := testGate(Policy{})
		var mu sync.Mutex
		tried, refused := 0, 0
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				leave, err := g.Enter(t.Context(), "ada")
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused++
					return
				}
				tried++
				mu.Unlock()
				time.Sleep(time.Second) // the comparison
				mu.Lock()
				m.count("ada", Failure, g.Now())
				leave()
			})
		}
		wg.Wait()
		if tried != 5 || refused != 95 {
			t.Errorf("%d tries, %d refused", tried, refused)
		}
		for n := 5; n < 50; n++ {
			_, err := g.Enter(t.Context(), "ada")
			if agent.ErrorCode(err) != agent.CodeThrottled || agent.RetryAfter(err) != 30*time.Second {
				t.Fatalf("after %d: %v", n, err)
			}
			time.Sleep(30*time.Second - 1)
			if err := g.Allow("ada"); err == nil {
				t.Fatal("one nanosecond early")
			}
			time.Sleep(time.Nanosecond)
			leave, err := g.Enter(t.Context(), "ada")
			if err != nil {
				t.Fatal(err)
			}
			m.count("ada", Failure, g.Now())
			leave()
			leave() // again does nothing
		}
		time.Sleep(1000 * time.Hour)
		_, err := g.Enter(t.Context(), "ada")
		if agent.ErrorCode(err) != agent.CodeThrottled || agent.RetryAfter(err) != 0 || !strings.Contains(err.Error(), "another factor") {
			t.Errorf("after fifty: %v", err)
		}
	})
}

// TestGateDevice: failures of many subjects add up for the device; a success clears
// it, and another subject's own counting stays.
func TestGateDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, m := testGate(Policy{})
		for i := range 5 {
			m.count(fmt.Sprint("s", i), Failure, g.Now())
		}
		_, err := g.Enter(t.Context(), "s9")
		if agent.ErrorCode(err) != agent.CodeThrottled || !strings.Contains(err.Error(), "this device") {
			t.Fatalf("sixth subject: %v", err)
		}
		if err := g.Allow(""); agent.ErrorCode(err) != agent.CodeThrottled {
			t.Errorf("1:N: %v", err)
		}
		m.count("s1", Success, g.Now())
		if _, err := g.Enter(t.Context(), "s9"); err != nil {
			t.Error(err)
		}
		if s, _ := m.state("s2"); s.Failures != 1 {
			t.Errorf("another subject's state is %+v", s)
		}
	})
}

// TestGateWaits: who waits for the last try goes on with its outcome, or with ctx.
func TestGateWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, m := testGate(Policy{})
		m.states["ada"] = State{Failures: 4}
		leave, err := g.Enter(t.Context(), "ada")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, "ada"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		passed := make(chan error)
		go func() {
			_, err := g.Enter(t.Context(), "ada")
			passed <- err
		}()
		synctest.Wait()
		m.count("ada", Success, g.Now())
		leave()
		if err := <-passed; err != nil {
			t.Error(err)
		}
	})
}

// TestGateFailsClosed: a state that cannot be read lets nobody pass.
func TestGateFailsClosed(t *testing.T) {
	broken := errors.New("disk")
	g := &Gate{Now: System, State: func(string) (State, error) { return State{}, broken }}
	if _, err := g.Enter(t.Context(), "ada"); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestSystem(t *testing.T) {
	a := System()
	b := System()
	if a.Boot == "" || a.Boot != b.Boot || a.Up <= 0 || b.Up < a.Up {
		t.Errorf("%+v, then %+v", a, b)
	}
}
