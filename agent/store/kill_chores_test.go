package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/retention"
)

// choreOptions are those of an agent: it recovers, and has a witness beside the root key.
func choreOptions(dir string) Options {
	o := childOptions(dir)
	o.Witness, o.Recover = dir+".keys", true
	return o
}

// TestKillChores kills a process at random moments of everything that takes more than a
// transaction, under load: rotation of each level, compaction, good copies, backups,
// erasures, retention. The next process goes on: what was acknowledged is there, who was
// erased stays so, and no chore is left half done. TEST_KILL_ROUNDS sets the rounds.
func TestKillChores(t *testing.T) {
	rounds := roundsOf(t, "TEST_KILL_ROUNDS", 50)
	const perFolder = 25
	within := map[string]int{}
	results, erased := 0, 0
	for done := 0; done < rounds; done += perFolder {
		o := choreRounds(t, min(perFolder, rounds-done), within)
		results, erased = results+o.total, erased+len(o.deleted)
	}
	t.Logf("%d rounds: %d results and %d erasures acknowledged; killed within: %v", rounds, results, erased, within)
}

func choreRounds(t *testing.T, rounds int, within map[string]int) *oracle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	o := newOracle()
	for i := range rounds {
		c := startChild(t, "chores", dir)
		doing := o.readChores(t, c, time.Duration(20+rand.IntN(250))*time.Millisecond)
		for _, chore := range doing {
			within[chore]++
		}
		s, err := Open(choreOptions(dir))
		must(t, err)
		if rs := s.Recovered(); len(rs) > 0 {
			t.Errorf("a kill damaged a file: %+v", rs)
		}
		o.verify(t, s)
		o.verifyChores(t, s)
		mustClose(t, s)
		if t.Failed() {
			t.Fatalf("round %d, killed within %v", i, doing)
		}
		clear(o.results)
		clear(o.deleting)
	}
	must(t, os.RemoveAll(dir))
	return o
}

// readChores reads until the child is killed, and returns what it was doing then.
func (o *oracle) readChores(t *testing.T, c *child, after time.Duration) []string {
	t.Helper()
	doing := map[string]bool{}
	defer c.kill()
	for {
		l, ok := c.line()
		if !ok {
			return slices.Sorted(maps.Keys(doing))
		}
		what, rest, _ := strings.Cut(l, " ")
		switch what {
		case "ready":
			timer := time.AfterFunc(after, func() { c.cmd.Process.Kill() })
			defer timer.Stop()
		case "begin":
			doing[rest] = true
		case "end":
			delete(doing, rest)
		default:
			o.hear(t, l)
		}
	}
}

// verifyChores says what must hold besides: nobody who was erased is back, in any round
// before, and the next opening has finished what was begun.
func (o *oracle) verifyChores(t *testing.T, s *Store) {
	t.Helper()
	for id := range o.deleted {
		if _, err := s.Subject(id); agent.ErrorCode(err) != agent.CodeNotFound {
			t.Errorf("%s was erased, and is back: %v", id, err)
		}
		if _, err := s.Erased(id); err != nil {
			t.Errorf("the erasure of %s is forgotten: %v", id, err)
		}
	}
	for _, d := range s.files() {
		if old := s.oldStoreKeys(d); len(old) > 0 {
			t.Errorf("old store keys are left in %s", d.path)
		}
	}
	for _, k := range must1(s.Keys())(t) {
		if k.File == "templates" && k.Owners != must1(s.Stats())(t).Subjects {
			t.Errorf("%d subjects have keys of the newest round, of %d", k.Owners, must1(s.Stats())(t).Subjects)
		}
	}
	r := must1(s.VerifyAudit())(t)
	for _, p := range r.Problems {
		if !strings.Contains(p, "no checkpoint is kept") { // killed before the first
			t.Errorf("audit: %s", p)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Dir, "backup-*")); left != nil {
		t.Errorf("half a backup is left: %v", left)
	}
}

// childChores writes, and does one chore after the other.
func childChores(dir string) error {
	s, err := Open(choreOptions(dir))
	if err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	l := &loader{s: s, run: fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano())}
	var wg sync.WaitGroup
	wg.Go(func() { l.results(0) })
	wg.Go(func() { l.subjects(0) })
	wg.Go(l.chores)
	l.say("ready")
	wg.Wait()
	return nil
}

func (l *loader) chores() {
	all := map[string]func() error{
		"rotation of the root key":   func() error { _, err := l.s.Rotate(LevelRoot, ""); return err },
		"rotation of the store keys": func() error { _, err := l.s.Rotate(LevelStore, ""); return err },
		"rotation of all keys":       func() error { _, err := l.s.Rotate(LevelOwners, ""); return err },
		"compaction":                 func() error { return l.s.Compact() },
		"copy":                       func() error { _, err := l.s.Copy(); return err },
		"backup":                     func() error { _, err := l.s.Backup(io.Discard, ""); return err },
		"retention": func() error {
			_, err := l.s.Sweep(context.Background(), Sweeping{Default: retention.Policy{}, Synced: true})
			return err
		},
		"erasure": l.erasure,
	}
	names := slices.Sorted(maps.Keys(all))
	for {
		name := names[rand.IntN(len(names))]
		l.say("begin", name)
		l.check(all[name]())
		l.say("end", name)
	}
}

// erasure erases by every verb there is for it.
func (l *loader) erasure() error {
	for i, erase := range []func(id string) error{
		func(id string) error { _, _, err := l.s.Erase(id, ""); return err },
		func(id string) error {
			_, _, err := l.s.EraseUpTo(id, uint64(time.Now().UnixMicro()), "")
			return err
		},
		func(id string) error { _, err := l.s.EraseProved(id, ""); return err },
	} {
		id := fmt.Sprintf("%s-%d-e%d", l.run, time.Now().UnixNano(), i)
		_, _, err := l.s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: testTemplates(2)})
		if err != nil {
			return err
		}
		l.say("enrol", id, 2)
		l.say("deleting", id)
		if err := erase(id); err != nil {
			return err
		}
		l.say("deleted", id)
	}
	return nil
}

// TestKillRestore kills a process that restores a backup over and over: the folder is
// the one before or the restored one, whole either way, and who was erased after the
// backup is in neither.
func TestKillRestore(t *testing.T) {
	rounds := roundsOf(t, "TEST_KILL_ROUNDS", 20)
	dir := filepath.Join(t.TempDir(), "data")
	s := mustOpen(t, choreOptions(dir))
	enrolMany(t, s, 8)
	b := backupOf(t, s)
	must(t, os.WriteFile(dir+".backup", b, 0o600))
	_, _, err := s.Erase("s3", "")
	must(t, err)
	mustClose(t, s)
	restored := 0
	for range rounds {
		c := startChild(t, "restore", dir)
		timer := time.AfterFunc(time.Duration(10+rand.IntN(150))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for l, ok := c.line(); ok; l, ok = c.line() {
			if strings.HasPrefix(l, "error") {
				t.Error(l)
			}
			restored++
		}
		timer.Stop()
		c.kill()
		s := mustOpen(t, choreOptions(dir))
		if rs := s.Recovered(); len(rs) > 0 || s.Unconfirmed() {
			t.Errorf("recovered %+v, unconfirmed %v", rs, s.Unconfirmed())
		}
		for i := range 8 {
			ts, err := s.Templates(fmt.Sprint("s", i))
			if i == 3 {
				wantCode(t, err, agent.CodeNotFound)
			} else if err != nil || len(ts) != 3 {
				t.Errorf("s%d has %d templates: %v", i, len(ts), err)
			}
		}
		if st := must1(s.Stats())(t); st.Results != 8 {
			t.Errorf("%+v", st)
		}
		mustClose(t, s)
	}
	t.Logf("%d rounds, %d whole restores", rounds, restored)
}

func childRestore(dir string) error {
	b, err := os.ReadFile(dir + ".backup")
	for err == nil {
		if _, err = Restore(bytes.NewReader(b), choreOptions(dir), false); err == nil {
			fmt.Println("restored")
		}
	}
	return err
}

// TestKillMigration kills a process that opens a folder of a time before encryption,
// again and again: in the end every record is there, and encrypted.
func TestKillMigration(t *testing.T) {
	rounds := roundsOf(t, "TEST_KILL_ROUNDS", 10)
	plain := testOptions(t)
	const n = 200
	s := mustOpen(t, plain)
	enrolMany(t, s, n)
	mustClose(t, s)
	unencrypted(t, plain)
	killed := 0
	for range rounds {
		dir := filepath.Join(t.TempDir(), "data")
		must(t, os.CopyFS(dir, os.DirFS(plain.Dir)))
		for opened := false; !opened; {
			c := startChild(t, "hold", dir)
			timer := time.AfterFunc(time.Duration(5+rand.IntN(60))*time.Millisecond, func() { c.cmd.Process.Kill() })
			l, ok := c.line()
			if opened = ok && l == "open"; !opened && l != "" {
				t.Fatal(l)
			}
			timer.Stop()
			c.kill()
			if killed++; killed > 100*rounds {
				t.Fatal("it never comes to an end")
			}
			if !opened && rand.IntN(8) == 0 { // a slow machine gets there too
				break
			}
		}
		o := choreOptions(dir)
		s := mustOpen(t, o)
		wantMany(t, s, n)
		mustClose(t, s)
		if filesHold(t, dir, []byte("Margarete")) {
			t.Error("a record is not encrypted")
		}
		must(t, os.RemoveAll(dir))
	}
	t.Logf("%d folders, %d openings killed", rounds, killed)
}
