package watch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/throttle"
	"postern/agent/verify"
	"postern/agent/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const space = "space-1"

var errDisk = &agent.Error{Code: agent.CodeStorage, Message: "the disk is full"}

// people are the faces of the tests; all but eve are enrolled.
var people = map[string]int{"ada": 0, "bob": 1, "eve": 2}

func embedding(name string) agent.Embedding {
	e := make(agent.Embedding, 8)
	e[people[name]] = 1
	return e
}

// memory is a store that is enrolled with ada and bob.
type memory struct {
	mu      sync.Mutex // guards results
	results []agent.Result
	fail    error // of AppendResult

	throttled map[string]throttle.State
	up        time.Duration
}

func (m *memory) Throttle(subject string) (throttle.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.throttled[subject], nil
}

func (m *memory) mark() throttle.Mark { return throttle.Mark{Boot: "boot-1", Up: m.up} }

func (m *memory) Subject(id string) (agent.Subject, error) {
	if _, ok := people[id]; !ok || id == "eve" {
		return agent.Subject{}, &agent.Error{Code: agent.CodeNotFound, Message: "there is no subject " + id}
	}
	return agent.Subject{ID: id}, nil
}

func (m *memory) Templates(string) ([]agent.Template, error) { return nil, nil }

func (m *memory) EachTemplate(_ string, fn func(agent.Template) error) error {
	for _, id := range []string{"ada", "bob"} {
		if err := fn(agent.Template{SubjectID: id, Space: space, Embedding: embedding(id)}); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Enrol(agent.Subject, []agent.Template) (agent.Subject, []agent.Template, error) {
	return agent.Subject{}, nil, errors.New("not in this test")
}

func (m *memory) Usable(agent.Subject) bool { return true }

func (m *memory) DeleteSubject(string) (int, error) { return 0, errors.New("not in this test") }

func (m *memory) AppendResult(r agent.Result) (agent.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return agent.Result{}, m.fail
	}
	r.Seq = uint64(len(m.results) + 1)
	m.results = append(m.results, r)
	if m.throttled == nil {
		m.throttled = map[string]throttle.State{}
	}
	m.throttled[""] = m.throttled[""].After(throttle.EffectOf(r), m.mark())
	return r, nil
}

// stage plays a script to a Watcher. It is its camera, its prober and its clock.
// A line of the script is one of
//
//	ada, bob, eve     a frame that shows this person
//	~ada              the same, blurred
//	-                 a frame that shows nobody
//	!                 a frame on which the prober fails
//	stall             the camera gives nothing for Settings.Stalled
//	claim ada         a badge is read (no frame)
//	disk full, disk ok
//	cancel            the agent is told to stop (no frame)
//
// followed by "x n" to repeat it. Each frame comes after the stage's step.
type stage struct {
	*watch.Watcher
	m       memory
	step    time.Duration
	script  []string
	now     time.Time
	seq     uint64
	shown   string
	end     error // after the script; io.EOF unless set
	cancel  func()
	updates []watch.Update
	log     bytes.Buffer
}

func newStage(tb testing.TB, identify bool, script string) *stage {
	tb.Helper()
	s := &stage{step: 100 * time.Millisecond, now: time.Unix(1_700_000_000, 0), end: io.EOF}
	for line := range strings.SplitSeq(script, ",") {
		line = strings.TrimSpace(line)
		n := 1
		if what, count, ok := strings.Cut(line, " x "); ok {
			line = what
			if _, err := fmt.Sscan(count, &n); err != nil {
				tb.Fatal(err)
			}
		}
		for range n {
			s.script = append(s.script, line)
		}
	}
	curve, err := decide.NewCurve("curve-1", []decide.Point{{Cosine: 0, Score: 0}, {Cosine: 1, Score: 100}})
	if err == nil {
		curve, err = curve.WithRates([]decide.Rate{{Score: 50, FMR: 1e-3}})
	}
	if err != nil {
		tb.Fatal(err)
	}
	th := agent.Thresholds{Review: 70, Decline: 50}
	svc, err := verify.New(verify.Config{Store: &s.m, Mark: s.m.mark, Space: space, Matcher: verify.Matcher{Prober: s, Curve: curve, Policy: verify.Policy{
		Match: th, Identify: &decide.Search{FPIR: 1e-2, ReviewFPIR: 1e-2}, IdentifyMargin: 10, VerifyQuality: agent.QualityLimits{MinSharpness: 15}}}})
	if err != nil {
		tb.Fatal(err)
	}
	s.Watcher = &watch.Watcher{
		Frames: s, Prober: s, Decider: svc, Now: func() time.Time { return s.now }, Identify: identify, Source: "cam",
		Log:     slog.New(slog.NewTextHandler(&s.log, nil)),
		Publish: func(u watch.Update) { s.updates = append(s.updates, u) },
		Settings: watch.Settings{Budget: 3 * time.Second, MinFrames: 3, MaxFrames: 6, Gone: 700 * time.Millisecond,
			MaxRate: 1e12, ClaimFor: 15 * time.Second, Stalled: 3 * time.Second},
	}
	return s
}

// Next plays the script up to the next frame.
func (s *stage) Next(ctx context.Context, after uint64) (*agent.Frame, error) {
	if after != s.seq {
		return nil, fmt.Errorf("asked for a frame after %d, had %d", after, s.seq)
	}
	for len(s.script) > 0 {
		line := s.script[0]
		s.script = s.script[1:]
		switch verb, arg, _ := strings.Cut(line, " "); {
		case line == "cancel":
			s.cancel()
		case line == "disk full":
			s.m.fail = errDisk
		case line == "disk ok":
			s.m.fail = nil
		case line == "stall":
			s.now = s.now.Add(s.Settings.Stalled)
			return nil, context.DeadlineExceeded
		case verb == "claim":
			if err := s.Claim(arg); err != nil {
				return nil, err
			}
		default:
			s.shown = line
			s.seq++
			s.now = s.now.Add(s.step)
			s.m.up += s.step
			return &agent.Frame{Seq: s.seq, Width: 640, Height: 480}, ctx.Err()
		}
	}
	return nil, s.end
}

func (s *stage) Probe(ctx context.Context, _ *agent.Frame) (agent.Probe, error) {
	p := agent.Probe{ModelID: "m", Space: space, Quality: agent.Quality{Sharpness: 100}}
	name, blurred := strings.CutPrefix(s.shown, "~")
	switch {
	case ctx.Err() != nil:
		return p, ctx.Err()
	case name == "!":
		return p, errors.New("the network is broken")
	case name == "-":
		return p, nil
	case blurred:
		p.Quality.Sharpness = 1
	}
	p.Face, p.Faces, p.Embedding = &agent.Face{}, 1, embedding(name)
	return p, nil
}

// play runs the script to its end.
func (s *stage) play(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	s.cancel = cancel
	if err := s.Run(ctx); err != nil {
		tb.Fatal(err)
	}
}

// states lists the published states by their first letter, failed as "!",
// no_camera as "0"; a frame with a result as "[kind subject status]".
func (s *stage) states() string {
	letters := map[watch.State]string{watch.Idle: "i", watch.Looking: "l", watch.Decided: "d", watch.Waiting: "w",
		watch.Throttled: "t", watch.NoCamera: "0", watch.OutOfWork: "!"}
	var b strings.Builder
	for _, u := range s.updates {
		if r := u.Result; r != nil {
			fmt.Fprintf(&b, "[%s]", strings.Join(strings.Fields(fmt.Sprint(r.Kind, " ", r.SubjectID, " ", r.Decision.Status)), " "))
			continue
		}
		b.WriteString(letters[u.State])
	}
	return b.String()
}

const (
	itIsAda = "[identify ada Approved]"
	itIsBob = "[identify bob Approved]"
	isAda   = "[verify ada Approved]"
)

func times(s string, n int) string { return strings.Repeat(s, n) }

func TestPresentations(t *testing.T) {
	for _, c := range []struct {
		name     string
		identify bool
		script   string
		want     string
	}{
		{"nobody", true, "- x 3", "iii"},
		{"one decision, as soon as it is sure", true, "ada x 6", "ll" + itIsAda + "ddd"},
		{"leaves and comes back", true, "ada x 4, - x 8, ada x 4", "ll" + itIsAda + "d" + times("d", 6) + "ii" + "ll" + itIsAda + "d"},
		{"looks away for a moment", true, "ada x 4, - x 6, ada x 4", "ll" + itIsAda + "d" + times("d", 6) + "dddd"},
		{"looks away before the decision", true, "ada x 2, - x 6, ada", "ll" + times("l", 6) + itIsAda},
		{"leaves before the decision", true, "ada x 2, - x 7, ada x 3", "ll" + times("l", 6) + "i" + "ll" + itIsAda},
		{"another one steps in without a gap", true, "ada x 4, bob x 5", "ll" + itIsAda + "d" + "dll" + itIsBob + "d"},
		{"another one steps in before the decision", true, "ada x 2, bob x 3", "ll" + "ll" + itIsBob},
		{"one odd frame is not a new person", true, "ada x 3, bob, ada x 3, bob, ada", "ll" + itIsAda + "dddddd"},
		{"blurred frames in between", true, "ada x 2, ~ada x 3, ada", "lllll" + itIsAda},
		{"passer-by", true, "~ada x 60", times("l", 60)},
		{"a passer-by with two good frames", true, "ada x 2, ~ada x 60", times("l", 62)},
		{"stranger", true, "eve x 8", "lllll[identify Declined]dd"},
		{"a stranger who steps aside is counted", true, "eve x 4, - x 7, ada x 3", "llll" + times("l", 6) + "[identify Declined]i" + "ll" + itIsAda},
		{"a stranger who pushes another in is counted", true, "eve x 4, ada x 3", "llll[identify Declined]ll" + itIsAda},
		{"a stranger who covers the camera is counted", true, "eve x 4, stall, ada x 3", "llll[identify Declined]0ll" + itIsAda},
		{"a stranger during a failure is counted", true, "eve x 4, !, ada x 3", "llll[identify Declined]!ll" + itIsAda},
		{"a face tried with another badge is counted for the first", false, "claim bob, ada x 4, claim ada, ada", "llll[verify bob Declined]" + isAda},
		{"five strangers, then it waits", true, times("eve x 6, - x 8, ", 5) + "ada x 6, - x 300, ada x 3",
			times("lllll[identify Declined]"+times("d", 6)+"ii", 5) + "lllllt" + times("t", 6) + times("i", 294) + "ll" + itIsAda},
		{"1:N is off and nobody claims", false, "ada x 40", times("w", 40)},
		{"badge and face", false, "claim ada, - x 2, ada x 5", "ii" + "ll" + isAda + "dd"},
		{"badge of somebody else", false, "claim bob, ada x 8", "lllll[verify bob Declined]dd"},
		{"badge of an approved person", true, "claim bob, ada x 8", "lllll[verify bob Declined]dd"},
		{"a badge counts once", false, "claim ada, ada x 3, - x 7, ada x 4", "ll" + isAda + times("d", 6) + "i" + "wwww"},
		{"a badge after the face", false, "ada x 2, claim ada, ada", "ww" + isAda},
		{"a newer badge replaces an older", false, "claim bob, claim ada, ada x 3", "ll" + isAda},
		{"a badge waits", false, "claim ada, - x 149, ada x 3", times("i", 149) + "l" + "ww"},
		{"a badge waits no longer", false, "claim ada, - x 150, ada x 3", times("i", 150) + "www"},
		{"a badge gets an answer in time", false, "claim ada, ~ada x 31", times("l", 30) + "[verify ada Declined]"},
		{"a badge is given time, however long one stood there", false, "~ada x 60, claim ada, ~ada x 5, ada x 3", times("w", 60) + "lllll" + "ll" + isAda},
		{"the budget runs from the badge", false, "~ada x 60, claim ada, ~ada x 30", times("w", 60) + times("l", 29) + "[verify ada Declined]"},
		{"the prober fails once", true, "ada x 2, !, ada x 3", "ll!ll" + itIsAda},
		{"the prober fails after the decision", true, "ada x 3, ! x 2, ada x 3", "ll" + itIsAda + "!!" + "ll" + itIsAda},
		{"the result cannot be stored", true, "disk full, ada x 6, disk ok, ada x 3", "ll!ll!" + "ll" + itIsAda},
		{"the result of a badge cannot be stored", false, "claim ada, disk full, ada x 3, disk ok, ada x 3", "ll!" + "www"},
		{"the camera stalls", true, "ada x 2, stall x 2, ada x 3", "ll00" + "ll" + itIsAda},
		{"the camera stalls after the decision", true, "ada x 3, stall, bob x 3", "ll" + itIsAda + "0" + "ll" + itIsBob},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, c.identify, c.script)
			s.play(t)
			if got := s.states(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			shown := 0
			for _, u := range s.updates {
				if u.Result != nil {
					shown++
				}
				if (u.State == watch.OutOfWork || u.State == watch.NoCamera) && (u.Result != nil || u.Problem == "") {
					t.Errorf("a failure with a result or without a reason: %+v", u)
				}
			}
			if shown != len(s.m.results) {
				t.Errorf("%d results shown, %d stored", shown, len(s.m.results))
			}
		})
	}
}

// Few frames a second are decided within the budget, with what there is.
func TestBudget(t *testing.T) {
	s := newStage(t, true, "eve x 5")
	s.step = time.Second
	s.play(t)
	if got, want := s.states(), "lll[identify Declined]d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := s.m.results[0]; r.Decision.Frames != 4 {
		t.Errorf("%d frames", r.Decision.Frames)
	}
}

// TestSlowMachine: a loop slower than live.gone still decides, and none is approved that
// would not be on a quick one.
func TestSlowMachine(t *testing.T) {
	for _, c := range []struct {
		name     string
		step     time.Duration
		need     int
		identify bool
		script   string
		want     string
	}{
		{"one missed frame", time.Second, 3, true, "ada x 2, -, ada x 2", "lll" + itIsAda + "d"},
		{"two missed frames", time.Second, 3, true, "ada x 2, - x 2, ada x 3", "lllill" + itIsAda},
		{"a missed frame after the decision", time.Second, 3, true, "ada x 3, -, ada x 3", "ll" + itIsAda + "dddd"},
		{"another one comes in between", time.Second, 3, true, "ada x 2, -, eve x 5", "llllll[identify Declined]d"},
		{"too slow to tell who was there", 4 * time.Second, 3, true, "ada x 2, -, ada x 2, -", "llilli"},
		{"many frames are needed", time.Second, 8, false, "claim ada, ada x 9", times("l", 7) + isAda + "d"},
		{"of somebody else", time.Second, 8, false, "claim bob, ada x 9", times("l", 7) + "[verify bob Declined]d"},
		{"few of them are good", time.Second, 8, false, "claim ada, ~ada, ada x 8", times("l", 8) + isAda},
		{"too few of them are good", time.Second, 8, false, "claim ada, ~ada x 3, ada x 8", times("l", 9) + "[verify ada Declined]d"},
		{"the time before the badge does not count", time.Second, 8, false, "~ada x 20, claim ada, ada x 8", times("w", 20) + times("l", 7) + isAda},
		{"an answer comes before the badge expires", 3 * time.Second, 8, false, "claim ada, ada x 6", "llll[verify ada Declined]d"},
		{"ten frames a second are as ever", 100 * time.Millisecond, 8, false, "claim ada, ~ada x 31", times("l", 30) + "[verify ada Declined]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, c.identify, c.script)
			s.step, s.Settings.MinFrames, s.Settings.MaxFrames = c.step, c.need, 12
			s.play(t)
			if got := s.states(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	s := newStage(t, false, "-, claim ada, ~ada, ada x 3")
	s.play(t)
	for i, u := range s.updates {
		if u.Seq != uint64(i+1) || u.Width != 640 || u.Height != 480 || u.At.IsZero() {
			t.Errorf("update %d: %+v", i, u)
		}
		if (u.Face != nil) != (i > 0) || (u.Claim == "ada") != (i > 0) {
			t.Errorf("update %d: face %v, claim %q", i, u.Face, u.Claim)
		}
		if (len(u.Findings) > 0) != (i == 1) {
			t.Errorf("update %d: findings %v", i, u.Findings)
		}
	}
	if r := s.m.results[0]; r.Source != "cam" || r.Decision.Frames != 3 {
		t.Errorf("result %+v", r)
	}
}

func TestClaim(t *testing.T) {
	s := newStage(t, false, "ada x 3")
	if err := s.Claim("nobody"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Fatalf("err = %v", err)
	}
	s.play(t)
	if got := s.states(); got != "www" {
		t.Errorf("an unknown badge left a claim: %s", got)
	}
}

func TestRunEnds(t *testing.T) {
	t.Run("with the source", func(t *testing.T) {
		newStage(t, true, "ada").play(t)
	})
	t.Run("when the source breaks", func(t *testing.T) {
		s := newStage(t, true, "ada")
		s.end = errDisk
		if err := s.Run(context.Background()); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "camera") {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("when told to, while it waits for a frame", func(t *testing.T) {
		s := newStage(t, true, "")
		waiting := make(chan struct{})
		s.Frames = nextFunc(func(ctx context.Context, _ uint64) (*agent.Frame, error) {
			close(waiting)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		s.Settings.Stalled = time.Hour
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		<-waiting
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(s.updates) != 0 {
			t.Errorf("updates %+v", s.updates)
		}
	})
	t.Run("when told to, while it keeps its pace", func(t *testing.T) {
		s := newStage(t, true, "ada, cancel, ada")
		s.Settings.MaxRate = 1e-6 // the second frame is due in days
		s.play(t)
		if got := s.states(); got != "l" || strings.Contains(s.log.String(), "ERROR") {
			t.Errorf("states %s, log %s", got, s.log.String())
		}
	})
}

type nextFunc func(context.Context, uint64) (*agent.Frame, error)

func (f nextFunc) Next(ctx context.Context, after uint64) (*agent.Frame, error) { return f(ctx, after) }

// A failure that lasts is logged once; the next one is news again.
func TestFailuresAreLoggedOnce(t *testing.T) {
	s := newStage(t, true, "! x 20, ada, ! x 20")
	s.play(t)
	if n := strings.Count(s.log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d lines:\n%s", n, s.log.String())
	}
	if !strings.Contains(s.log.String(), "the network is broken") {
		t.Errorf("the log lacks the cause:\n%s", s.log.String())
	}
}

// Claims come from other goroutines.
func TestClaimsMeanwhile(t *testing.T) {
	s := newStage(t, true, "ada x 300")
	s.Now = func() time.Time { return time.Unix(0, 0) } // s.now belongs to the loop
	var wg sync.WaitGroup
	for _, id := range []string{"ada", "bob"} {
		wg.Go(func() {
			for range 300 {
				if err := s.Claim(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	s.play(t)
	wg.Wait()
	for _, r := range s.m.results {
		if r.Decision.Status == agent.Approved && r.SubjectID != "ada" {
			t.Errorf("result %+v", r)
		}
	}
}
