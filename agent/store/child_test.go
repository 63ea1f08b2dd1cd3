package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/agent"
)

// child is this test binary playing another process.
type child struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startChild(tb testing.TB, role, dir string) *child {
	tb.Helper()
	cmd := thisBinary()
	cmd.Env = append(os.Environ(), envChild+"="+role+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	c := &child{cmd, bufio.NewReader(out)}
	tb.Cleanup(c.kill)
	return c
}

// thisBinary runs this test binary again, through TEST_RUNNER where the kernel cannot
// start it: an emulator and its options.
func thisBinary() *exec.Cmd {
	runner := strings.Fields(os.Getenv("TEST_RUNNER"))
	if len(runner) == 0 {
		return exec.Command("/proc/self/exe")
	}
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exec.Command(runner[0], append(runner[1:], exe)...)
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// line returns the next complete line; a killed child may leave half of one.
func (c *child) line() (string, bool) {
	l, err := c.out.ReadString('\n')
	return strings.TrimSuffix(l, "\n"), err == nil
}

func childOptions(dir string) Options {
	return Options{Dir: dir, Device: testDevice, Timeout: 10 * time.Second, Command: "postern child", Root: fileRoot(dir)}
}

// childHold opens the folder, says so and waits to be killed.
func childHold(dir string) error {
	s, err := Open(childOptions(dir))
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("open")
	time.Sleep(time.Minute)
	return nil
}

// childNobody tries to open the folder as a user without rights in it.
func childNobody(dir string) error {
	if err := syscall.Setuid(65534); err != nil {
		fmt.Println("skip", err)
		return nil
	}
	s, err := Open(childOptions(dir))
	if err == nil {
		return s.Close()
	}
	fmt.Println(agent.ErrorCode(err), err)
	return nil
}

// childLimit appends until files must not grow any more, which is what a full
// disk looks like.
func childLimit(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	lim := syscall.Rlimit{Cur: 512 << 10, Max: 512 << 10}
	if strings.HasSuffix(dir, "tiny") {
		lim = syscall.Rlimit{Cur: 8 << 10, Max: 8 << 10}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
		return err
	}
	s, err := Open(childOptions(dir))
	if err != nil {
		fmt.Println("open", agent.ErrorCode(err), err)
		return nil
	}
	defer s.Close()
	n := 0
	for ; err == nil; n++ {
		_, err = s.AppendResult(testResult("a", agent.Approved))
	}
	fmt.Println("appended", n-1)
	fmt.Println("append", agent.ErrorCode(err), err)
	_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "late"}})
	fmt.Println("enrol", err)
	_, err = s.Results(ResultQuery{})
	fmt.Println("read", agent.ErrorCode(err))
	if _, err = s.Ack(s.Epoch(), uint64(n-1)); err == nil {
		_, err = s.AppendResult(testResult("a", agent.Approved))
	}
	fmt.Println("again", err)
	return nil
}

// childLoad writes as fast as it can and says what has been acknowledged.
func childLoad(dir string) error {
	s, err := Open(childOptions(dir))
	if err != nil {
		return err
	}
	return load(s)
}

// childCareless is childLoad without syncing anything, growing files neither.
func childCareless(dir string) error {
	s, err := Open(childOptions(dir))
	if err != nil {
		return err
	}
	for _, d := range s.files() {
		d.db.NoSync, d.db.NoGrowSync = true, true
	}
	return load(s)
}

func load(s *Store) error {
	if err := s.Check(); err != nil {
		return err
	}
	l := &loader{s: s, run: fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano())}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() { l.results(w) })
	}
	for w := range 2 {
		wg.Go(func() { l.subjects(w) })
	}
	wg.Go(l.acks)
	l.say("ready")
	wg.Wait()
	return nil
}

type loader struct {
	s   *Store
	run string
	mu  sync.Mutex // guards standard output: one line, one write
}

func (l *loader) say(args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Println(args...)
}

func (l *loader) check(err error) {
	if err != nil {
		l.say("error", err)
		os.Exit(1)
	}
}

func (l *loader) results(w int) {
	for i := 0; ; i++ {
		r := testResult(fmt.Sprint("s", i%7), agent.Approved)
		r.ID, r.Source = fmt.Sprintf("%s-%d-%d", l.run, w, i), strings.Repeat("x", rand.IntN(2000))
		r, err := l.s.AppendResult(r)
		l.check(err)
		l.say("result", r.Seq, r.ID, len(r.Source))
	}
}

func (l *loader) subjects(w int) {
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d-%d", l.run, w, i)
		n := rand.IntN(5)
		_, _, err := l.s.Enrol(Enrolment{Subject: agent.Subject{ID: id, Name: id}, Templates: testTemplates(n)})
		l.check(err)
		l.say("enrol", id, n)
		if i%3 == 0 {
			l.say("deleting", id)
			_, err := l.s.DeleteSubject(id)
			l.check(err)
			l.say("deleted", id)
		}
	}
}

func (l *loader) acks() {
	for {
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		st, err := l.s.Stats()
		l.check(err)
		_, err = l.s.Ack(l.s.Epoch(), st.LastSeq-st.LastSeq%50)
		l.check(err)
		l.say("acked", st.LastSeq-st.LastSeq%50)
	}
}
