package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

func TestOpenMakesFiles(t *testing.T) {
	o := testOptions(t)
	o.Dir = filepath.Join(o.Dir, "deep", "er")
	mustClose(t, mustOpen(t, o))
	for name, mode := range map[string]os.FileMode{
		"": 0o700 | os.ModeDir, TemplatesFile: 0o600, ResultsFile: 0o600, lockName: 0o600,
	} {
		fi, err := os.Stat(filepath.Join(o.Dir, name))
		must(t, err)
		if fi.Mode() != mode {
			t.Errorf("%q has mode %v, want %v", name, fi.Mode(), mode)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*.new")); left != nil {
		t.Errorf("left over: %v", left)
	}
}

func TestOpenInvalid(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"dir":       func(o *Options) { o.Dir = "" },
		"no device": func(o *Options) { o.Device = "" },
		"device":    func(o *Options) { o.Device = "a b" },
		"timeout":   func(o *Options) { o.Timeout = -1 },
		"bytes":     func(o *Options) { o.MaxBytes = 1 },
		"templates": func(o *Options) { o.MaxTemplates = -1 },
	} {
		o := testOptions(t)
		change(&o)
		_, err := Open(o)
		if agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEpoch(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	epoch := s.Epoch()
	s = mustReopen(t, s)
	if s.Epoch() != epoch || len(epoch) != 36 {
		t.Errorf("epoch %q, was %q", s.Epoch(), epoch)
	}
	mustClose(t, s)
	must(t, os.Remove(filepath.Join(s.opts.Dir, ResultsFile)))
	if again := mustOpen(t, s.opts); again.Epoch() == epoch {
		t.Error("a new results file has the old epoch")
	}
}

func TestOpenLocked(t *testing.T) {
	o := testOptions(t)
	o.Root = fileRoot(o.Dir)
	c := startChild(t, "hold", o.Dir)
	if l, _ := c.line(); l != "open" {
		t.Fatalf("child: %s", l)
	}
	o.Timeout = 50 * time.Millisecond
	_, err := Open(o)
	wantCode(t, err, agent.CodeLocked, fmt.Sprintf("is in use by postern child (pid %d, since ", c.cmd.Process.Pid), o.Dir)
	c.kill()
	o.Timeout = 5 * time.Second
	mustOpen(t, o) // the lock went with its holder
	o.Timeout = 0
	_, err = Open(o)
	wantCode(t, err, agent.CodeLocked, fmt.Sprintf("postern test (pid %d", os.Getpid()))
}

func TestOpenWaits(t *testing.T) {
	o := testOptions(t)
	first := mustOpen(t, o)
	o.Timeout = 10 * time.Second
	opened := make(chan error)
	go func() {
		s, err := Open(o)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	time.Sleep(30 * time.Millisecond)
	mustClose(t, first)
	must(t, <-opened)
}

func TestHolder(t *testing.T) {
	now := time.Date(2026, 11, 2, 15, 0, 0, 0, time.UTC)
	for want, h := range map[string]holder{
		"postern run (pid 4711, since 14:03)":            {4711, "postern run", now.Add(-57 * time.Minute)},
		"postern run (pid 4711, since 2026-11-01 14:03)": {4711, "postern run", now.Add(-24*time.Hour - 57*time.Minute)},
		"another process":                                {},
	} {
		if got := h.describe(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for want, args := range map[string][]string{
		"postern run": {"/usr/bin/postern", "run", "--key=secret"}, "postern": {"postern", "--key=secret"},
		"another program": nil,
	} {
		if got := commandName(args); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestOpenBoltHeld(t *testing.T) {
	o := testOptions(t)
	mustClose(t, mustOpen(t, o))
	db, err := bolt.Open(filepath.Join(o.Dir, ResultsFile), 0o600, nil)
	must(t, err)
	defer db.Close()
	o.Timeout = 60 * time.Millisecond
	_, err = Open(o)
	wantCode(t, err, agent.CodeLocked, ResultsFile)
}

func TestOpenOtherDevice(t *testing.T) {
	o := testOptions(t)
	mustClose(t, mustOpen(t, o))
	o.Device = "kiosk-2"
	_, err := Open(o)
	wantCode(t, err, agent.CodeConflict, `"kiosk-1", not "kiosk-2"`)
}

// TestOpenStrangeFiles puts things in the place of a data file: each is named,
// none is changed.
func TestOpenStrangeFiles(t *testing.T) {
	good := testOptions(t)
	s := mustOpen(t, good)
	for range 50 {
		_, err := s.AppendResult(testResult("a", agent.Approved))
		must(t, err)
	}
	mustClose(t, s)
	results, err := os.ReadFile(filepath.Join(good.Dir, ResultsFile))
	must(t, err)
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bolt.Open(foreign, 0o600, nil)
	must(t, err)
	must(t, db.Close())
	bare, err := os.ReadFile(foreign)
	must(t, err)

	for name, content := range map[string][]byte{
		"empty":         {},
		"short text":    []byte("hello"),
		"text":          bytes.Repeat([]byte("hello world\n"), 10000),
		"zeroes":        make([]byte, 1<<16),
		"foreign bbolt": bare,
		"other kind":    results,
		"cut short":     results[:3*os.Getpagesize()],
		"meta only":     results[:2*os.Getpagesize()],
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			mustClose(t, mustOpen(t, o))
			path := filepath.Join(o.Dir, TemplatesFile)
			must(t, os.WriteFile(path, content, 0o600))
			_, err := Open(o)
			wantCode(t, err, agent.CodeStorage, path, "nothing was changed")
			after, err := os.ReadFile(path)
			must(t, err)
			if sha256.Sum256(after) != sha256.Sum256(content) {
				t.Error("the file was changed")
			}
			must(t, os.Remove(path))
			mustOpen(t, o) // everything was let go
		})
	}
}

func TestOpenStrangeFolders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	inPlace := testOptions(t)
	mustClose(t, mustOpen(t, inPlace))
	path := filepath.Join(inPlace.Dir, ResultsFile)
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	for name, dir := range map[string]string{
		"file in place of folder": file, "file above": filepath.Join(file, "data"),
		"proc": "/proc/self/postern", "folder in place of file": inPlace.Dir,
	} {
		o := testOptions(t)
		o.Dir = dir
		_, err := Open(o)
		if agent.ErrorCode(err) != agent.CodeStorage || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenReadOnly opens folders in which this user may not write. Permission
// bits do not bind root, so root lets a child give its rights up.
func TestOpenReadOnly(t *testing.T) {
	dir, err := os.MkdirTemp("", "postern-store-")
	must(t, err)
	t.Cleanup(func() { os.Chmod(dir, 0o700); os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o555))
	if os.Getuid() != 0 {
		o := testOptions(t)
		o.Dir = dir
		_, err := Open(o)
		wantCode(t, err, agent.CodeStorage, "not writable", dir)
		return
	}
	l, _ := startChild(t, "nobody", dir).line()
	if strings.HasPrefix(l, "skip") {
		t.Skip(l)
	}
	if !strings.HasPrefix(l, string(agent.CodeStorage)) || !strings.Contains(l, "not writable") || !strings.Contains(l, dir) {
		t.Errorf("child: %s", l)
	}
}
