package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

// TestKill kills a process at random moments while it writes, again and again
// on the same folder: whatever was acknowledged must be there and whole.
// TEST_KILL_ROUNDS sets the number of rounds.
func TestKill(t *testing.T) {
	rounds := roundsOf(t, "TEST_KILL_ROUNDS", 50)
	// A folder is used for so many rounds: each is verified as a whole after every one.
	const perFolder = 25
	results, subjects := 0, 0
	for done := 0; done < rounds; done += perFolder {
		o := killRounds(t, min(perFolder, rounds-done))
		results, subjects = results+o.total, subjects+len(o.subjects)
	}
	t.Logf("%d rounds: %d results and %d subjects acknowledged, all there", rounds, results, subjects)
}

func killRounds(t *testing.T, rounds int) *oracle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	o := newOracle()
	for i := range rounds {
		c := startChild(t, "load", dir)
		o.readUntilKilled(t, c, time.Duration(rand.IntN(150))*time.Millisecond)
		opts := childOptions(dir)
		opts.Recover = true
		s, err := Open(opts)
		must(t, err)
		if rs := s.Recovered(); len(rs) > 0 {
			t.Errorf("a kill damaged a file: %+v", rs)
		}
		o.verify(t, s)
		mustClose(t, s)
		if t.Failed() {
			t.Fatalf("round %d of this folder: %s", i, dir)
		}
		o.settle()
	}
	must(t, os.RemoveAll(dir))
	return o
}

// oracle is what children have said to be durable.
type oracle struct {
	results  map[uint64]string // new since the last verification: seq -> id and length of source
	last     uint64
	total    int
	acked    uint64
	subjects map[string]int  // id -> templates
	deleting map[string]bool // asked for: may or may not be there
	deleted  map[string]bool
}

func newOracle() *oracle {
	return &oracle{results: map[uint64]string{}, subjects: map[string]int{}, deleting: map[string]bool{}, deleted: map[string]bool{}}
}

// readUntilKilled kills the child some time after it is ready and reads what it
// managed to say.
func (o *oracle) readUntilKilled(t *testing.T, c *child, after time.Duration) {
	t.Helper()
	defer c.kill()
	for {
		l, ok := c.line()
		if !ok {
			return
		}
		if l == "ready" {
			timer := time.AfterFunc(after, func() { c.cmd.Process.Kill() })
			defer timer.Stop()
			continue
		}
		o.hear(t, l)
	}
}

func (o *oracle) hear(t *testing.T, line string) {
	t.Helper()
	f := strings.Fields(line)
	switch f[0] {
	case "result":
		seq, err := strconv.ParseUint(f[1], 10, 64)
		must(t, err)
		if was, ok := o.results[seq]; ok {
			t.Errorf("seq %d given to %s and %s", seq, was, f[2])
		}
		o.results[seq] = f[2] + " " + f[3]
		o.last = max(o.last, seq)
		o.total++
	case "enrol":
		n, err := strconv.Atoi(f[2])
		must(t, err)
		o.subjects[f[1]] = n
	case "deleting":
		o.deleting[f[1]] = true
	case "deleted":
		delete(o.subjects, f[1])
		o.deleted[f[1]] = true
	case "acked":
		seq, err := strconv.ParseUint(f[1], 10, 64)
		must(t, err)
		o.acked = max(o.acked, seq)
	default:
		t.Errorf("child: %s", line)
	}
}

func (o *oracle) verify(t *testing.T, s *Store) {
	t.Helper()
	o.verifyResults(t, s)
	for id, n := range o.subjects {
		ts, err := s.Templates(id)
		if o.deleting[id] && agent.ErrorCode(err) == agent.CodeNotFound {
			delete(o.subjects, id)
			continue
		}
		if err != nil || len(ts) != n {
			t.Errorf("subject %s: %d templates, want %d: %v", id, len(ts), n, err)
		}
	}
	for id := range o.deleting {
		if _, there := o.subjects[id]; there {
			continue
		}
		if _, err := s.Subject(id); agent.ErrorCode(err) != agent.CodeNotFound {
			t.Errorf("deleted subject %s: %v", id, err)
		}
	}
}

func (o *oracle) verifyResults(t *testing.T, s *Store) {
	t.Helper()
	st, err := s.Stats()
	must(t, err)
	if st.LastSeq < o.last || st.AckedSeq < o.acked {
		t.Errorf("last %d acked %d, acknowledged were %d and %d", st.LastSeq, st.AckedSeq, o.last, o.acked)
	}
	for seq, want := range o.results {
		id, _, _ := strings.Cut(want, " ")
		r, err := s.Result(id)
		if err != nil {
			t.Errorf("result %d: %v", seq, err)
		} else if got := fmt.Sprintf("%s %d", r.ID, len(r.Source)); r.Seq != seq || got != want {
			t.Errorf("result %d is %d %s, want %s", seq, r.Seq, got, want)
		}
	}
}

// settle forgets what Check covers from now on, so that a thousand rounds do
// not get slower and slower. The last result of every round stays covered by
// the sequence without gaps.
func (o *oracle) settle() {
	clear(o.results)
	clear(o.deleting)
	clear(o.deleted)
}
