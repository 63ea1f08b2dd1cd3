package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/agent"
)

// failWrites puts a file that cannot be written under bbolt's file: every write fails,
// the memory map goes on.
func failWrites(tb testing.TB, d *dbFile) {
	tb.Helper()
	other, err := os.Open("/dev/null")
	must(tb, err)
	defer other.Close()
	must(tb, unix.Dup3(int(other.Fd()), int(d.handle.Fd()), unix.O_CLOEXEC))
}

func TestWriteErrorIsFatal(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	_, err := s.AppendResult(testResult("a", agent.Approved))
	must(t, err)
	failWrites(t, s.results)

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.AppendResult(testResult("a", agent.Approved)); agent.ErrorCode(err) != agent.CodeStorage {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	_, err = s.AppendResult(testResult("a", agent.Approved))
	wantCode(t, err, agent.CodeStorage, "takes no more writes", "restart")
	if !errors.Is(err, syscall.EBADF) || !errors.Is(s.Err(), syscall.EBADF) {
		t.Errorf("the cause is lost: %v, %v", err, s.Err())
	}
	select {
	case <-s.Broken():
	default:
		t.Error("nobody is told")
	}
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}})
	wantCode(t, err, agent.CodeStorage)
	_, err = s.Ack(s.Epoch(), 1)
	wantCode(t, err, agent.CodeStorage)
	if rs, err := s.Results(ResultQuery{}); err != nil || len(rs) != 1 {
		t.Errorf("%d results to read: %v", len(rs), err)
	}
	must(t, s.Close())
	s = mustOpen(t, s.opts)
	if r, err := s.AppendResult(testResult("a", agent.Approved)); err != nil || r.Seq != 2 {
		t.Errorf("after reopening: %+v %v", r, err)
	}
}

// TestSizeLimit fills the results to the soft cap, and lets the hub take all.
func TestSizeLimit(t *testing.T) {
	o := testOptions(t)
	o.MaxBytes = 1 << 20
	s := mustOpen(t, o)
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = s.AppendResult(testResult("a", agent.Approved))
	}
	wantCode(t, err, agent.CodeStorage, "size limit", ResultsFile)
	n--
	st, err := s.Stats()
	must(t, err)
	if st.ResultsBytes > o.MaxBytes || st.Outbox != n {
		t.Errorf("%d appended, stats %+v", n, st)
	}
	// The other file has its own cap.
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(1)})
	must(t, err)
	removed, err := s.Ack(s.Epoch(), st.LastSeq)
	must(t, err)
	if removed != n {
		t.Errorf("%d acknowledged of %d", removed, n)
	}
	_, err = s.AppendResult(testResult("a", agent.Approved))
	t.Logf("%d results in %d bytes, then: %v", n, st.ResultsBytes, err)
}

// TestHardLimit: bbolt's own limit is hit within a verb that the soft cap lets
// through. The verb fails, the store lives.
func TestHardLimit(t *testing.T) {
	o := testOptions(t)
	s := mustOpen(t, o)
	for range 300 {
		_, err := s.AppendResult(testResult("a", agent.Approved))
		must(t, err)
	}
	fi, err := os.Stat(filepath.Join(o.Dir, ResultsFile))
	must(t, err)
	s.results.db.MaxSize = int(fi.Size())
	for err == nil {
		_, err = s.AppendResult(testResult("a", agent.Approved))
	}
	wantCode(t, err, agent.CodeStorage, "size limit")
	st, err := s.Stats()
	must(t, err)
	if n, err := s.Ack(s.Epoch(), st.LastSeq); err != nil || n != st.Outbox {
		t.Errorf("acknowledged %d of %d in a full file: %v", n, st.Outbox, err)
	}
	s.results.db.MaxSize = 0
	_, err = s.AppendResult(testResult("a", agent.Approved))
	must(t, err)
}

// TestDiskFull runs into the limit of a process on the size of files.
func TestDiskFull(t *testing.T) {
	o := testOptions(t)
	c := startChild(t, "limit", o.Dir)
	var n int
	said := map[string]string{}
	for l, ok := c.line(); ok; l, ok = c.line() {
		what, rest, _ := strings.Cut(l, " ")
		said[what] = rest
	}
	if _, err := fmt.Sscan(said["appended"], &n); err != nil || n < 10 {
		t.Fatalf("child: %v", said)
	}
	if !strings.HasPrefix(said["append"], "storage ") || !strings.Contains(said["append"], "the disk is full") {
		t.Errorf("append: %s", said["append"])
	}
	// The other file has room, and what the hub takes makes room in this one.
	if said["enrol"] != "<nil>" || said["read"] != "" || said["again"] != "<nil>" {
		t.Errorf("afterwards: %v", said)
	}
	s := mustOpen(t, childOptions(o.Dir))
	if st, err := s.Stats(); err != nil || st.Results < n {
		t.Errorf("%d results of %d: %v", st.Results, n, err)
	}
}

func TestDiskFullAtCreation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tiny")
	l, _ := startChild(t, "limit", dir).line()
	if !strings.HasPrefix(l, "open storage ") || !strings.Contains(l, "the disk is full") {
		t.Errorf("child: %s", l)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.db*")); left != nil {
		t.Errorf("left over: %v", left)
	}
	mustOpen(t, childOptions(dir))
}

// TestDamage flips bytes all over a file and uses every verb on it: whatever
// happens is an error, never a crash.
func TestDamage(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	o := testOptions(t)
	s := mustOpen(t, o)
	for i := range 150 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: testTemplates(4)})
		must(t, err)
		_, err = s.AppendResult(testResult("s1", agent.Approved))
		must(t, err)
	}
	mustClose(t, s)
	rounds, refused, found := 60, 0, 0
	for seed := range rounds {
		opened, whole := damageRound(t, o, rand.New(rand.NewPCG(uint64(seed), 1)))
		if !opened {
			refused++
		}
		if !whole {
			found++
		}
	}
	t.Logf("%d rounds: %d refused at opening, %d found by Check or before", rounds, refused, found)
	if found < rounds/2 {
		t.Errorf("damage was found in %d of %d rounds only", found, rounds)
	}
}

func damageRound(t *testing.T, from Options, rnd *rand.Rand) (opened, whole bool) {
	t.Helper()
	o := from
	// The cap bounds what a file with a garbled list of free pages can grow to.
	o.Dir, o.Timeout, o.MaxBytes = filepath.Join(t.TempDir(), "damaged"), 100*time.Millisecond, 4<<20
	must(t, os.Mkdir(o.Dir, 0o700))
	defer os.RemoveAll(o.Dir)
	for _, name := range []string{TemplatesFile, ResultsFile} {
		b, err := os.ReadFile(filepath.Join(from.Dir, name))
		must(t, err)
		for range 40 {
			page := rnd.IntN(len(b) / 4096)
			b[page*4096+rnd.IntN(64)] ^= byte(1 + rnd.IntN(255))
		}
		if rnd.IntN(3) == 0 {
			b = b[:len(b)/2+rnd.IntN(len(b)/2)]
		}
		must(t, os.WriteFile(filepath.Join(o.Dir, name), b, 0o600))
	}
	s, err := Open(o)
	if err != nil {
		// A garbled key looks like one of a root key that is missing.
		if c := agent.ErrorCode(err); c != agent.CodeStorage && c != agent.CodeUnavailable {
			t.Errorf("open: %v", err)
		}
		return false, false
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	useAll(s)
	return true, s.Check() == nil
}

func useAll(s *Store) {
	s.EachTemplate("", func(agent.Template) error { return nil })
	s.Subjects("", 1000)
	s.Results(ResultQuery{Limit: 1000})
	s.Results(ResultQuery{SubjectID: "s1"})
	s.Outbox(0, 1000)
	s.Stats()
	s.AppendResult(testResult("s1", agent.Approved))
	s.Ack(s.Epoch(), 5)
	s.Enrol(Enrolment{Subject: agent.Subject{ID: "s1"}, Templates: testTemplates(1)})
	s.DeleteSubject("s5")
}

// TestTruncatedWhileOpen takes the file away under the memory map: pages that
// are gone fault, and the process must live.
func TestTruncatedWhileOpen(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	for i := range 200 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: testTemplates(4)})
		must(t, err)
	}
	must(t, os.Truncate(s.templates.path, 4*4096))
	err := s.EachTemplate("", func(agent.Template) error { return nil })
	wantCode(t, err, agent.CodeStorage, TemplatesFile, "damaged")
	_, err = s.AppendResult(testResult("a", agent.Approved))
	wantCode(t, err, agent.CodeStorage, "takes no more writes")
	wantCode(t, s.Check(), agent.CodeStorage)
	must(t, s.Close())
	_, err = Open(s.opts)
	wantCode(t, err, agent.CodeStorage, "damaged")
	must(t, os.Remove(s.templates.path)) // for the check at the end, and to see that the lock was let go
	mustOpen(t, s.opts)
}
