package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/agent"
)

// fullDisk is a small file system of its own.
type fullDisk struct{ dir, ballast string }

// newFullDisk mounts it. It needs the right to mount; "make diskfull" gets it in a user
// namespace.
func newFullDisk(t *testing.T) *fullDisk {
	t.Helper()
	f := &fullDisk{dir: t.TempDir()}
	if err := unix.Mount("tmpfs", f.dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("did not run: no file system can be mounted here (%v); make diskfull does it in a namespace of its own", err)
	}
	t.Cleanup(func() { unix.Unmount(f.dir, unix.MNT_DETACH) })
	f.ballast = filepath.Join(f.dir, "ballast")
	return f
}

// leave fills the disk but for n bytes.
func (f *fullDisk) leave(t *testing.T, n int64) {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(f.dir, &st))
	free := int64(st.Bavail)*st.Bsize - n
	if free <= 0 {
		return
	}
	b, err := os.OpenFile(f.ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	defer b.Close()
	if _, err := b.Write(make([]byte, free)); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func (f *fullDisk) empty() { os.Remove(f.ballast) }

// diskStep is something that writes, and how to tell whether it has been done.
type diskStep struct {
	name string
	do   func(*Store) error
	done func(*Store) (bool, error) // nil: it changes nothing that can be seen
}

func diskSteps() []diskStep {
	there := func(id string, want bool) func(*Store) (bool, error) {
		return func(s *Store) (bool, error) {
			ts, err := s.Templates(id)
			if agent.ErrorCode(err) == agent.CodeNotFound {
				return !want, nil
			}
			if err == nil && len(ts) != 4 {
				err = fmt.Errorf("%d templates of %s", len(ts), id)
			}
			return want, err
		}
	}
	results := 0
	return []diskStep{
		{"enrol", func(s *Store) error {
			_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "new"}, Templates: testTemplates(4)})
			return err
		}, there("new", true)},
		{"verify", func(s *Store) error {
			st, err := s.Stats()
			if err != nil {
				return err
			}
			r := testResult("s1", agent.Declined)
			r.Source = strings.Repeat("x", 2000)
			for results = st.Results; results < st.Results+100; results++ {
				if _, err := s.AppendResult(r); err != nil {
					return err
				}
			}
			return nil
		}, func(s *Store) (bool, error) {
			st, err := s.Stats()
			if err == nil && st.Results < results {
				err = fmt.Errorf("%d of %d acknowledged results", st.Results, results)
			}
			return true, err
		}},
		{"erase", func(s *Store) error { _, _, err := s.Erase("s2", "test"); return err }, there("s2", false)},
		{"rotate", func(s *Store) error { _, err := s.Rotate(LevelOwners, "test"); return err }, nil},
		{"compact", func(s *Store) error { return s.Compact() }, nil},
		{"backup", func(s *Store) error { _, err := s.Backup(io.Discard, "test"); return err }, nil},
		{"copy", func(s *Store) error { _, err := s.Copy(); return err }, nil},
		{"sweep", func(s *Store) error { _, err := s.Sweep(context.Background(), Sweeping{}); return err }, nil},
		{"hold", func(s *Store) error {
			_, err := s.Hold(Hold{Kind: HoldSubject, ID: "s3", Reason: "case", By: "counsel"})
			return err
		}, func(s *Store) (bool, error) { hs, err := s.Holds(); return len(hs) == 1, err }},
	}
}

// TestDiskFullSteps runs every verb that writes with less and less room on the disk. It
// fails with an error that says so or succeeds; what it says is so after opening again;
// nothing else is lost; and with room it works.
func TestDiskFullSteps(t *testing.T) {
	f := newFullDisk(t)
	for _, step := range diskSteps() {
		t.Run(step.name, func(t *testing.T) {
			failed := 0
			for _, room := range []int64{0, 4 << 10, 12 << 10, 24 << 10, 48 << 10, 96 << 10, 256 << 10} {
				if f.try(t, step, room) {
					failed++
				}
				if t.Failed() {
					t.Fatalf("with %d bytes left", room)
				}
			}
			t.Logf("failed with %d of 7 amounts of room", failed)
		})
	}
}

// try runs the step once in a fresh folder, and again when there is room.
func (f *fullDisk) try(t *testing.T, step diskStep, room int64) (failed bool) {
	t.Helper()
	o := testOptions(t)
	o.Dir = filepath.Join(f.dir, "data")
	defer os.RemoveAll(o.Dir)
	s, err := Open(o)
	must(t, err)
	for i := range 8 {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: testTemplates(4)})
		must(t, err)
		_, err = s.AppendResult(testResult("s1", agent.Approved))
		must(t, err)
	}
	f.leave(t, room)
	err = step.do(s)
	if failed = err != nil; failed && agent.ErrorCode(err) != agent.CodeStorage {
		t.Errorf("%s: %v", agent.ErrorCode(err), err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	f.openFull(t, o)
	f.empty()
	o.Recover = true
	s, err = Open(o)
	must(t, err)
	defer mustClose(t, s)
	if rs := s.Recovered(); len(rs) > 0 {
		t.Errorf("a full disk damaged a file: %+v", rs)
	}
	f.settled(t, s, step, failed)
	return failed
}

// openFull reads on the full disk, as an agent does that starts on one.
func (f *fullDisk) openFull(t *testing.T, o Options) {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		if agent.ErrorCode(err) != agent.CodeStorage {
			t.Errorf("open on a full disk: %v", err)
		}
		return
	}
	defer s.Close()
	if ts, err := s.Templates("s1"); err != nil || len(ts) != 4 {
		t.Errorf("read on a full disk: %d templates, %v", len(ts), err)
	}
}

func (f *fullDisk) settled(t *testing.T, s *Store, step diskStep, failed bool) {
	t.Helper()
	must(t, s.Check())
	if step.done != nil {
		switch done, err := step.done(s); {
		case err != nil:
			t.Error(err)
		case !failed && !done:
			t.Error("it was acknowledged and is not there")
		case failed && done:
			t.Log("it failed, and was done all the same")
		}
	}
	for i := range 8 {
		if ts, err := s.Templates(fmt.Sprint("s", i)); i != 2 && (err != nil || len(ts) != 4) {
			t.Errorf("s%d has %d templates: %v", i, len(ts), err)
		}
	}
	if err := step.do(s); err != nil && agent.ErrorCode(err) != agent.CodeNotFound && agent.ErrorCode(err) != agent.CodeConflict && failed {
		t.Errorf("with room again: %v", err)
	}
}
