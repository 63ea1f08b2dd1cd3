package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSyncFails lets the kernel answer one fdatasync of a writing process with EIO, by
// strace: the process stops writing and says why, and what it acknowledged is there.
// TEST_EIO sets how often.
func TestSyncFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(strace, "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true").Run()
	}
	if err != nil {
		t.Skipf("did not run: it needs strace, and the right to trace: %v", err)
	}
	for range roundsOf(t, "TEST_EIO", 5) {
		dir := filepath.Join(t.TempDir(), "data")
		o, said := newOracle(), ""
		c := startTraced(t, strace, dir, 30+rand.IntN(300))
		for {
			l, ok := c.line()
			if !ok {
				break
			}
			if strings.HasPrefix(l, "error ") {
				said = l
			} else if l != "ready" {
				o.hear(t, l)
			}
		}
		c.kill()
		if !strings.Contains(said, "input/output error") && !strings.Contains(said, "takes no more writes") {
			t.Errorf("the process said %q", said)
		}
		opts := childOptions(dir)
		opts.Recover = true
		s := mustOpen(t, opts)
		if rs := s.Recovered(); len(rs) > 0 {
			t.Errorf("recovered %+v", rs)
		}
		o.verify(t, s)
		mustClose(t, s)
	}
}

// startTraced starts the loading child so that its fdatasync number when fails.
func startTraced(tb testing.TB, strace, dir string, when int) *child {
	tb.Helper()
	exe, err := os.Executable()
	must(tb, err)
	cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", fmt.Sprintf("inject=fdatasync:error=EIO:when=%d", when), exe)
	cmd.Env = append(os.Environ(), envChild+"=load:"+dir)
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	c := &child{cmd, bufio.NewReader(out)}
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	tb.Cleanup(func() { timer.Stop(); c.kill() })
	return c
}
