package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"postern/agent"
	"postern/agent/store"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/downlink"
	"postern/sync/hub"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// The oracle: agents, hub and broker are processes that are killed and stopped at
// random, on connections that are cut, stuck, slow and doubled. In the end every
// decision that was durable on a device is at the hub, exactly once, under its own
// number; and at no time has a device forgotten one that the hub had not committed.
// Meanwhile the hub enrols people, and hub and agents erase some: in the end every device
// knows exactly whom the hub knows, and nobody who was erased is anywhere.
//
// Rounds: TEST_ORACLE_ROUNDS, 25 by default; "make oracle" runs 1,000.

// envRole makes the test binary play a process of the fleet.
const envRole = "TEST_FLEET_CHILD"

// child is how a process is to play its role.
type child struct {
	Role, Dir, Device, URL, Listen string
	Quiet                          bool // an agent that only delivers
}

func TestMain(m *testing.M) {
	if text := os.Getenv(envRole); text != "" {
		var c child
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			panic(err)
		}
		if err := c.play(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// quickDialer notices a dead connection within a second or two.
func quickDialer(url string) *mqtt.Dialer {
	return &mqtt.Dialer{URL: url, KeepAlive: time.Second, Timeout: time.Second}
}

// quickClient comes back soon.
func quickClient() *bus.Client {
	return &bus.Client{MinDelay: 10 * time.Millisecond, MaxDelay: 200 * time.Millisecond, Stall: 2 * time.Second}
}

func (c child) play() error {
	ctx := context.Background() // the end is always kill
	if c.Role == "hub" {
		people, err := openFolder(c.people(), "hub")
		if err != nil {
			return err
		}
		if !c.Quiet {
			go c.enrol(people)
		}
		return RunHub(ctx, HubOptions{Data: c.Dir, Listen: c.Listen, Dialer: quickDialer(c.URL), Client: quickClient(), People: people})
	}
	st, err := c.openStore()
	if err != nil {
		return err
	}
	up := &uplink.Uplink{Outbox: Outbox(st), Resend: 700 * time.Millisecond, Poll: 20 * time.Millisecond}
	l := &device.Link{Device: c.Device, Version: "test", Dialer: quickDialer(c.URL), Uplink: up, Client: quickClient(),
		Parts: []device.Part{&downlink.Downlink{Device: c.Device, Store: Follower(st, nil), Retry: 700 * time.Millisecond}}}
	if !c.Quiet {
		go c.erase(st)
		go c.decide(st, up)
	}
	return l.Run(ctx)
}

// people is the folder of whom the hub knows.
func (c child) people() string { return c.Dir + "-people" }

// enrol enrols people at the hub, under ids that nobody ever has again, and erases some.
func (c child) enrol(st *store.Store) {
	for {
		id := uuid.NewString()
		e := make(agent.Embedding, 128)
		e[rand.IntN(len(e))] = 1
		_, _, err := st.Enrol(store.Enrolment{Subject: agent.Subject{ID: id}, Templates: []agent.Template{{ModelID: "m", Space: "s", Embedding: e}}})
		if err != nil {
			fmt.Fprintln(os.Stderr, "enrol:", err)
			os.Exit(1)
		}
		fmt.Printf("enrolled %s\n", id)
		if rand.IntN(2) == 0 {
			eraseOne(st)
		}
		time.Sleep(time.Duration(20+rand.IntN(100)) * time.Millisecond)
	}
}

// erase erases people on a device.
func (c child) erase(st *store.Store) {
	for {
		time.Sleep(time.Duration(100+rand.IntN(500)) * time.Millisecond)
		eraseOne(st)
	}
}

// eraseOne erases somebody, and says so before and after.
func eraseOne(st *store.Store) {
	subs, err := st.Subjects(uuid.NewString()[:2], 1)
	if err != nil || len(subs) == 0 {
		return
	}
	id := subs[0].ID
	fmt.Printf("erasing %s\n", id)
	if _, _, err := st.Erase(id, ""); err == nil {
		fmt.Printf("erased %s\n", id)
	} else if agent.ErrorCode(err) != agent.CodeNotFound { // another was quicker
		fmt.Fprintln(os.Stderr, "erase:", err)
		os.Exit(1)
	}
}

// openStore opens the agent's data folder, with its key in a folder beside it.
func (c child) openStore() (*store.Store, error) {
	return openFolder(c.Dir, c.Device)
}

// decide makes decisions, and tells of each one when it is durable.
func (c child) decide(st *store.Store, up *uplink.Uplink) {
	for {
		for range 1 + rand.IntN(5) {
			r, err := st.AppendResult(decision())
			if err != nil {
				fmt.Fprintln(os.Stderr, "append:", err)
				os.Exit(1)
			}
			fmt.Printf("durable %s %d %s\n", r.Epoch, r.Seq, r.ID)
		}
		up.Wake()
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	}
}

func decision() agent.Result {
	return agent.Result{Kind: agent.KindVerify, SubjectID: strconv.Itoa(rand.IntN(1000)), Source: "camera",
		Decision: agent.Decision{Status: agent.Declined, Score: float64(rand.IntN(50)), Scored: true, ModelID: "m", Calibration: "c", Frames: 3}}
}

// process is a child under way.
type process struct {
	c    child
	cmd  *exec.Cmd
	read sync.WaitGroup
}

// fleetUnderTest is all of it.
type fleetUnderTest struct {
	*testing.T
	dir     string
	brokerP *bustest.Proxy // agents to broker
	hubP    *bustest.Proxy // hub to broker
	hub     *process
	agents  []*process
	broker  *bustest.Process // nil: embedded in the hub
	port    int

	mu      sync.Mutex // guards durable
	durable map[string]string
	people  map[string]string // id to the last that was said of it: enrolled, erasing, erased
}

func (f *fleetUnderTest) start(c child) *process {
	f.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	p := &process{c: c, cmd: exec.Command(os.Args[0], "-test.run=^$")}
	p.cmd.Env = append(os.Environ(), envRole+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	p.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f.mu.Lock()
			if key, id, ok := parseDurable(c.Device, lines.Text()); ok {
				f.durable[key] = id
			} else if w := strings.Fields(lines.Text()); len(w) == 2 && len(w[1]) == 36 && f.people[w[1]] != "erased" {
				f.people[w[1]] = w[0]
			}
			f.mu.Unlock()
		}
	})
	return p
}

func parseDurable(device, line string) (key, id string, ok bool) {
	w := strings.Fields(line)
	if len(w) != 4 || w[0] != "durable" {
		return "", "", false // cut off by the kill
	}
	return device + "/" + w[1] + "/" + w[2], w[3], len(w[3]) == 36
}

// kill ends a process as a power cut does, and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.read.Wait()
	_ = p.cmd.Wait()
}

// again starts a killed process anew.
func (f *fleetUnderTest) again(p *process) *process { p.kill(); return f.start(p.c) }

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func newFleet(t *testing.T, agents int, external bool) *fleetUnderTest {
	f := &fleetUnderTest{T: t, dir: t.TempDir(), port: bustest.FreePort(t), durable: map[string]string{}, people: map[string]string{}}
	addr := fmt.Sprintf("127.0.0.1:%d", f.port)
	h := child{Role: "hub", Dir: filepath.Join(f.dir, "hub"), Listen: addr}
	if external {
		f.broker = bustest.StartMosquitto(t, f.port)
		h.Listen = ""
	}
	f.brokerP, f.hubP = bustest.NewProxy(t, addr), bustest.NewProxy(t, addr)
	h.URL = "mqtt://" + f.hubP.Addr()
	f.hub = f.start(h)
	for i := range agents {
		name := fmt.Sprint("door-", i)
		f.agents = append(f.agents, f.start(child{Role: "agent", Dir: filepath.Join(f.dir, name), Device: name, URL: "mqtt://" + f.brokerP.Addr()}))
	}
	t.Cleanup(f.stop)
	return f
}

func (f *fleetUnderTest) stop() {
	for _, p := range append(f.agents, f.hub) {
		p.kill()
	}
	if f.broker != nil {
		f.broker.Kill()
	}
}

// fault does one thing to the fleet and gives its name.
func (f *fleetUnderTest) fault(rnd *rand.Rand) string {
	pause := func(most int) { time.Sleep(time.Duration(rnd.IntN(most)) * time.Millisecond) }
	proxy, i := f.brokerP, rnd.IntN(len(f.agents))
	if rnd.IntN(3) == 0 {
		proxy = f.hubP
	}
	switch rnd.IntN(10) {
	case 0, 1:
		f.agents[i] = f.again(f.agents[i])
		return "kill agent"
	case 2:
		f.hub = f.again(f.hub)
		return "kill hub"
	case 3:
		if f.broker == nil {
			f.hub = f.again(f.hub)
			return "kill hub and broker"
		}
		f.broker.Kill()
		pause(200)
		f.broker = bustest.StartMosquitto(f, f.port)
		return "kill broker"
	case 4:
		f.agents[i].signal(syscall.SIGSTOP)
		pause(400)
		f.agents[i].signal(syscall.SIGCONT)
		return "stop agent"
	case 5:
		f.hub.signal(syscall.SIGSTOP)
		pause(400)
		f.hub.signal(syscall.SIGCONT)
		return "stop hub"
	case 6:
		proxy.Cut()
		return "cut"
	case 7:
		proxy.Freeze()
		pause(1500)
		if rnd.IntN(2) == 0 {
			proxy.Cut()
		}
		proxy.Thaw()
		return "half-open"
	case 8:
		proxy.Delay(time.Duration(rnd.IntN(20)) * time.Millisecond)
		pause(300)
		proxy.Delay(0)
		return "slow"
	}
	f.brokerP.Mirror(true)
	f.brokerP.Cut()
	pause(300)
	f.brokerP.Mirror(false)
	f.brokerP.Cut()
	return "doubled connections"
}

func rounds(tb testing.TB) int {
	tb.Helper()
	text := os.Getenv("TEST_ORACLE_ROUNDS")
	if text == "" {
		return 25
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("TEST_ORACLE_ROUNDS=%q is not a number of rounds", text)
	}
	return n
}

func TestOracleNATS(t *testing.T)      { oracle(t, false) }
func TestOracleMosquitto(t *testing.T) { oracle(t, true) }

func oracle(t *testing.T, external bool) {
	if testing.Short() && os.Getenv("TEST_ORACLE_ROUNDS") == "" {
		t.Skip("a test of half a minute: not with -short")
	}
	seed := uint64(time.Now().UnixNano())
	rnd, n := rand.New(rand.NewPCG(seed, 1)), rounds(t)
	f := newFleet(t, 3, external)
	counts := map[string]int{}
	for i := range n {
		counts[f.fault(rnd)]++
		time.Sleep(time.Duration(rnd.IntN(120)) * time.Millisecond)
		if (i+1)%50 == 0 {
			t.Logf("round %d of %d", i+1, n)
			f.compare(false)
		}
	}
	t.Logf("seed %d, %d rounds: %v", seed, n, counts)
	f.drain()
	f.compare(true)
	f.settle()
}

// settle lets desired state arrive, and compares it.
func (f *fleetUnderTest) settle() {
	f.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		f.hub = f.start(f.hub.c)
		for i, p := range f.agents {
			f.agents[i] = f.start(p.c)
		}
		time.Sleep(3 * time.Second)
		wrong := f.comparePeople()
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.Errorf("after two minutes of peace: %q", wrong[:min(10, len(wrong))])
			return
		}
	}
}

// comparePeople kills everybody and says what is not as it should be.
func (f *fleetUnderTest) comparePeople() (wrong []string) {
	f.Helper()
	for _, p := range append(f.agents, f.hub) {
		p.kill()
	}
	ids := func(dir, name string) map[string]bool {
		st, err := openFolder(dir, name)
		if err != nil {
			f.Fatal(err)
		}
		defer st.Close()
		out := map[string]bool{}
		for after := ""; ; {
			page, err := st.Subjects(after, 1000)
			if err != nil {
				f.Fatal(err)
			}
			for _, s := range page {
				out[s.ID], after = true, s.ID
			}
			if len(page) < 1000 {
				return out
			}
		}
	}
	at := ids(f.hub.c.people(), "hub")
	gone := 0
	for id, said := range f.people {
		if said == "enrolled" && !at[id] {
			wrong = append(wrong, id+" was enrolled and is not at the hub")
		}
		if said == "erased" {
			gone++
			if at[id] {
				wrong = append(wrong, id+" was erased and is at the hub")
			}
		}
	}
	for _, p := range f.agents {
		here := ids(p.c.Dir, p.c.Device)
		for id := range here {
			if !at[id] || f.people[id] == "erased" {
				wrong = append(wrong, fmt.Sprint(id, " is at ", p.c.Device, " and not at the hub; ", f.people[id]))
			}
		}
		for id := range at {
			if !here[id] {
				wrong = append(wrong, id+" is at the hub and not at "+p.c.Device)
			}
		}
	}
	if len(wrong) == 0 {
		f.Logf("%d people are at the hub and at every device, %d were erased and are nowhere", len(at), gone)
	}
	return wrong
}

// drain lets everything arrive, without further decisions.
func (f *fleetUnderTest) drain() {
	f.Helper()
	for i, p := range f.agents {
		p.c.Quiet = true
		f.agents[i] = f.again(p)
	}
	f.hub.c.Quiet = true
	f.hub = f.again(f.hub)
	want := map[string]uint64{}
	for i, p := range f.agents { // what is durable, known while nobody holds the folder
		p.kill()
		st := f.open(p)
		s, err := st.Stats()
		if err != nil {
			f.Fatal(err)
		}
		want[p.c.Device] = s.LastSeq
		if err := st.Close(); err != nil {
			f.Fatal(err)
		}
		f.agents[i] = f.start(p.c)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for !f.delivered() {
		if time.Now().After(deadline) {
			f.Error("the outboxes are not empty after two minutes of peace")
			return
		}
	}
}

// delivered looks into the outboxes, for which the agents have to be stopped.
func (f *fleetUnderTest) delivered() bool {
	time.Sleep(2 * time.Second)
	all := true
	for i, p := range f.agents {
		p.kill()
		st := f.open(p)
		depth, err := st.OutboxDepth()
		if err != nil {
			f.Fatal(err)
		}
		if err := st.Close(); err != nil {
			f.Fatal(err)
		}
		all = all && depth == 0
		f.agents[i] = f.start(p.c)
	}
	return all
}

func (f *fleetUnderTest) open(p *process) *store.Store {
	f.Helper()
	st, err := p.c.openStore()
	if err != nil {
		f.Fatal(err)
	}
	return st
}

// compare holds the hub's record against the devices' own. In the end they are equal.
func (f *fleetUnderTest) compare(end bool) {
	f.Helper()
	for _, p := range append(f.agents, f.hub) {
		p.kill()
	}
	people, err := openFolder(f.hub.c.people(), "hub")
	if err != nil {
		f.Fatal(err)
	}
	hs, err := OpenRecord(f.hub.c.Dir, people)
	if err != nil {
		f.Fatal(err)
	}
	streams, err := hs.Streams()
	if err != nil {
		f.Fatal(err)
	}
	at := map[string]hub.Stream{}
	for _, s := range streams {
		at[s.Device+"/"+s.Epoch] = s
	}
	total := 0
	for _, p := range f.agents {
		total += f.compareDevice(hs, at, p, end)
	}
	if end && len(at) != len(f.agents) {
		f.Errorf("the hub has %d streams, want %d", len(at), len(f.agents))
	}
	if err := errors.Join(hs.Close(), people.Close()); err != nil {
		f.Error(err)
	}
	f.Logf("%d decisions compared", total)
	if end {
		return
	}
	f.hub = f.start(f.hub.c)
	for i, p := range f.agents {
		f.agents[i] = f.start(p.c)
	}
}

func (f *fleetUnderTest) compareDevice(hs hub.Store, at map[string]hub.Stream, p *process, end bool) int {
	f.Helper()
	st := f.open(p)
	defer st.Close()
	stats, err := st.Stats()
	if err != nil {
		f.Fatal(err)
	}
	s := at[p.c.Device+"/"+st.Epoch()]
	if s.Acked < stats.AckedSeq {
		f.Errorf("%s has forgotten up to %d, the hub has up to %d", p.c.Device, stats.AckedSeq, s.Acked)
	}
	if s.Lost != 0 || s.Refused != 0 {
		f.Errorf("%s: %d lost, %d refused", p.c.Device, s.Lost, s.Refused)
	}
	rows, err := hs.Rows(p.c.Device, st.Epoch(), 0, 1<<30)
	if err != nil {
		f.Fatal(err)
	}
	if uint64(len(rows)) != s.Rows || end && (s.Rows != stats.LastSeq || s.Acked != stats.LastSeq) {
		f.Errorf("%s: the hub has %d rows, counts %+v; the device has %d", p.c.Device, len(rows), s.Position, stats.LastSeq)
	}
	own := map[uint64]string{}
	for before := uint64(0); ; {
		page, err := st.Results(store.ResultQuery{Before: before, Limit: 1000})
		if err != nil {
			f.Fatal(err)
		}
		for _, r := range page {
			own[r.Seq], before = r.ID, r.Seq
		}
		if len(page) < 1000 {
			break
		}
	}
	last := uint64(0)
	for _, row := range rows {
		if row.Seq <= last {
			f.Errorf("%s: row %d after row %d", p.c.Device, row.Seq, last)
		}
		last = row.Seq
		r, err := wireResult(row)
		if err != nil || r.ID != own[row.Seq] {
			f.Errorf("%s: row %d is %q at the hub, %q on the device (%v)", p.c.Device, row.Seq, r.ID, own[row.Seq], err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, id := range f.durable {
		rest, ok := strings.CutPrefix(key, p.c.Device+"/"+st.Epoch()+"/")
		if n, err := strconv.ParseUint(rest, 10, 64); ok && (err != nil || own[n] != id) {
			f.Errorf("%s said that %s is durable as %s; its store has %q", p.c.Device, id, rest, own[n])
		}
	}
	return len(rows)
}

func wireResult(r hub.Row) (agent.Result, error) {
	return wire.Row{Seq: r.Seq, Kind: r.Kind, Body: r.Body}.Result()
}
