package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/store/lossytest"
)

// heard is a line of a child and the moment of the file system's history by which all
// it speaks of had been done.
type heard struct {
	at   int
	line string
}

// TestPowerCut lets a child work on a file system that remembers everything, and opens
// what a power cut at random moments would have left: all that was acknowledged by then
// is there, every decision whole, the files sound. TEST_CUTS sets how many.
func TestPowerCut(t *testing.T) {
	cuts := roundsOf(t, "TEST_CUTS", 50)
	const perRun = 25
	rungs := map[Rung]int{}
	for done := 0; done < cuts; done += perRun {
		powerCuts(t, min(perRun, cuts-done), rungs)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d power cuts, recoveries: %v", cuts, rungs)
}

func powerCuts(t *testing.T, cuts int, rungs map[Rung]int) {
	t.Helper()
	mount := t.TempDir()
	f, err := lossytest.Mount(mount)
	if err != nil {
		t.Skipf("did not run: no FUSE file system can be mounted here: %v", err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	lines := listen(t, f, "load", filepath.Join(mount, "data"), time.Duration(50+rand.IntN(250))*time.Millisecond)
	end := f.Now()
	for range cuts {
		at := rand.IntN(end + 1)
		loss := lossytest.Loss{Keep: []float64{0, 0.1, 0.5, 0.9, 1}[rand.IntN(5)], Sector: []int64{512, 4096}[rand.IntN(2)],
			Rand: rand.New(rand.NewPCG(rand.Uint64(), 1))}
		dir := filepath.Join(t.TempDir(), "disk")
		must(t, f.Image(at, loss, dir))
		for r, n := range openAfterCut(t, filepath.Join(dir, "data"), lines, at) {
			rungs[r] += n
		}
		if t.Failed() {
			t.Fatalf("power cut at %d of %d, kept %v in sectors of %d", at, end, loss.Keep, loss.Sector)
		}
		must(t, os.RemoveAll(dir))
	}
}

// TestPowerCutBites: a store that does not sync loses what it acknowledged, and the
// cut shows it.
func TestPowerCutBites(t *testing.T) {
	mount := t.TempDir()
	f, err := lossytest.Mount(mount)
	if err != nil {
		t.Skipf("did not run: no FUSE file system can be mounted here: %v", err)
	}
	defer f.Close()
	o := newOracle()
	for _, h := range listen(t, f, "careless", filepath.Join(mount, "data"), 100*time.Millisecond) {
		if h.line != "ready" {
			o.hear(t, h.line)
		}
	}
	dir := filepath.Join(t.TempDir(), "disk")
	must(t, f.Image(f.Now(), lossytest.Loss{Sector: 4096}, dir))
	s, err := Open(childOptions(filepath.Join(dir, "data")))
	if err != nil {
		return
	}
	defer s.Close()
	if st, err := s.Stats(); err == nil && st.LastSeq >= o.last && o.last > 0 {
		t.Errorf("all of %d results survived without a sync", o.last)
	}
}

// listen runs a child under load for a while and notes when it said what.
func listen(t *testing.T, f *lossytest.FS, role, dir string, load time.Duration) (lines []heard) {
	t.Helper()
	c := startChild(t, role, dir)
	defer c.kill()
	for {
		l, ok := c.line()
		if !ok {
			return lines
		}
		lines = append(lines, heard{f.Now(), l})
		if l == "ready" {
			timer := time.AfterFunc(load, func() { c.cmd.Process.Kill() })
			defer timer.Stop()
		}
	}
}

// openAfterCut opens an image the way the agent does and asks the oracle.
func openAfterCut(t *testing.T, dir string, lines []heard, at int) map[Rung]int {
	t.Helper()
	o := newOracle()
	for _, h := range lines {
		switch {
		case strings.HasPrefix(h.line, "deleting "): // perhaps begun before it was said
			o.hear(t, h.line)
		case h.at <= at && h.line != "ready":
			o.hear(t, h.line)
		}
	}
	opts := childOptions(dir)
	opts.Recover = true
	s, err := Open(opts)
	if err != nil {
		t.Errorf("open: %v", err)
		return nil
	}
	rungs := map[Rung]int{}
	for _, r := range s.Recovered() {
		if rungs[r.Rung]++; r.Rung != RungPrevious {
			t.Errorf("a power cut cost more than a commit that was not acknowledged: %+v", r)
		}
	}
	o.forget()
	o.verify(t, s)
	mustClose(t, s)
	return rungs
}

// forget drops deletions of subjects nobody heard of: whether they are there is open.
func (o *oracle) forget() {
	for id := range o.deleting {
		if _, known := o.subjects[id]; !known && !o.deleted[id] {
			delete(o.deleting, id)
		}
	}
}

func roundsOf(t *testing.T, env string, n int) int {
	t.Helper()
	if testing.Short() {
		n /= 5
	}
	if v := os.Getenv(env); v != "" {
		_, err := fmt.Sscan(v, &n)
		must(t, err)
	}
	return n
}
