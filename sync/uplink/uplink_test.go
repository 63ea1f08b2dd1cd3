package uplink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/bus"
	"postern/sync/bus/membus"
	"postern/sync/uplink"
	"postern/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outbox is an outbox in memory.
type outbox struct {
	mu      sync.Mutex
	epoch   string
	results []agent.Result // all there ever were
	acked   uint64
	bad     uint64 // a row that cannot be read
	gone    map[uint64]bool
	broken  error
}

func (o *outbox) Epoch() string { return o.epoch }

func (o *outbox) Position() (uint64, uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.acked, uint64(len(o.results)), o.broken
}

func (o *outbox) Outbox(from uint64, limit int) ([]agent.Result, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		return nil, o.broken
	}
	from = max(from, o.acked+1)
	out := []agent.Result{}
	for n := from; n <= uint64(len(o.results)) && len(out) < limit; n++ {
		if n == o.bad {
			return nil, errors.New("damaged")
		}
		if !o.gone[n] {
			out = append(out, o.results[n-1])
		}
	}
	return out, nil
}

func (o *outbox) Ack(epoch string, seq uint64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch != o.epoch || seq > uint64(len(o.results)) {
		return 0, fmt.Errorf("ack %s/%d", epoch, seq)
	}
	n := max(seq, o.acked) - o.acked
	o.acked += n
	return int(n), nil
}

func (o *outbox) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		seq := uint64(len(o.results) + 1)
		o.results = append(o.results, agent.Result{ID: fmt.Sprint("r", seq), Seq: seq, Kind: agent.KindVerify, At: time.Now().UTC(),
			Decision: agent.Decision{Status: agent.Declined, Warnings: []agent.Warning{}}})
	}
}

// peer is the other side: it notes rows and acknowledges as it is told.
type peer struct {
	tb testing.TB
	up *uplink.Uplink

	mu      sync.Mutex
	seen    map[uint64]int
	hist    map[uint64]bool // of the first arrival
	kinds   map[uint64]wire.RowKind
	batches []int
	mute    bool // do not acknowledge
	drop    int  // lose so many messages
	ask     bool // say Resend with gaps
	acked   uint64
}

func (p *peer) handle(_ context.Context, m bus.Message) {
	_, msg, err := wire.Decode(m.Payload)
	if err != nil {
		p.tb.Error(err)
		return
	}
	r := msg.(*wire.Results)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drop > 0 {
		p.drop--
		return
	}
	p.batches = append(p.batches, len(r.Rows))
	for _, row := range r.Rows {
		if p.seen[row.Seq]++; p.seen[row.Seq] == 1 {
			p.hist[row.Seq], p.kinds[row.Seq] = r.Historical, row.Kind
		}
	}
	for p.seen[p.acked+1] > 0 {
		p.acked++
	}
	if !p.mute {
		p.up.Acknowledge(wire.Ack{Epoch: r.Epoch, Seq: p.acked, Resend: p.ask && len(p.seen) > int(p.acked)})
	}
}

// world is a device and its hub on a bus in memory, under a fake clock.
type world struct {
	*testing.T
	broker *membus.Broker
	out    *outbox
	up     *uplink.Uplink
	peer   *peer
	failed chan error
	stop   func()

	mu   sync.Mutex // guards told
	told []uint64   // of which rows the device was told that they are poison
}

func (w *world) poison(seq uint64, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, seq)
}

func (w *world) poisoned() []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told)
}

func run(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, broker: &membus.Broker{}, out: &outbox{epoch: "e1"}, failed: make(chan error, 10)}
		w.up = &uplink.Uplink{Device: "door", Outbox: w.out, Poison: w.poison}
		w.peer = &peer{tb: t, up: w.up, seen: map[uint64]int{}, hist: map[uint64]bool{}, kinds: map[uint64]wire.RowKind{}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		client := func(id string, handle func(context.Context, bus.Message), filters []string, up func(context.Context), down func(error), before func(*bus.Client)) {
			c := &bus.Client{Dialer: w.broker, Connect: func() bus.Connect { return bus.Connect{ClientID: id, Subscribe: filters, Handle: handle} }, Up: up, Down: down}
			before(c)
			wg.Go(func() { _ = c.Run(ctx) })
		}
		client("hub", w.peer.handle, []string{wire.AllUp(wire.ChanResults)}, nil, nil, func(*bus.Client) {})
		synctest.Wait()
		var session sync.WaitGroup
		w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
		start := func() {
			client("door", nil, nil,
				func(ctx context.Context) { session.Go(func() { w.failed <- w.up.Run(ctx) }) }, func(error) { session.Wait() },
				func(c *bus.Client) { w.up.Bus = c })
		}
		w.start(start, test)
		w.stop()
	})
}

func (w *world) start(start func(), test func(*world)) {
	w.out.add(1) // there is always a past
	start()
	test(w)
}

func (w *world) settle(d time.Duration) { time.Sleep(d); synctest.Wait() }

// all fails unless every row has arrived and was acknowledged.
func (w *world) all(n int) {
	w.Helper()
	w.peer.mu.Lock()
	defer w.peer.mu.Unlock()
	acked, last, _ := w.out.Position()
	if int(last) != n || int(acked) != n || len(w.peer.seen) != n {
		w.Errorf("%d rows, %d acknowledged, %d arrived, want %d", last, acked, len(w.peer.seen), n)
	}
}

func TestLive(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.all(1)
		w.out.add(3)
		w.up.Wake()
		synctest.Wait()
		w.all(4)
		w.out.add(1)
		w.settle(uplink.DefaultPoll) // nobody called Wake
		w.all(5)
		if !w.peer.hist[1] || w.peer.hist[2] || w.peer.hist[5] {
			t.Errorf("historical: %v", w.peer.hist)
		}
		for n, times := range w.peer.seen {
			if times != 1 {
				t.Errorf("row %d came %d times", n, times)
			}
		}
		if st := w.up.Stats(); st != (uplink.Stats{Acked: 5, Last: 5}) {
			t.Errorf("stats %+v", st)
		}
	})
}

// News overtakes a backlog.
func TestLiveBeforeReplay(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.broker.SetDown(true)
		w.settle(time.Second)
		w.out.add(20000)
		w.peer.mu.Lock()
		w.peer.mute = true // nothing is acknowledged: the pace stops the replay
		w.peer.mu.Unlock()
		w.broker.SetDown(false)
		w.settle(2 * time.Minute)
		w.peer.mu.Lock()
		if n := len(w.peer.seen); n < 100 || n > 10000 {
			t.Errorf("%d rows of the backlog are under way without any acknowledgement", n)
		}
		w.peer.mu.Unlock()
		w.out.add(1)
		w.up.Wake()
		synctest.Wait()
		w.peer.mu.Lock()
		if w.peer.seen[20002] != 1 || w.peer.hist[20002] {
			t.Error("news waits behind history")
		}
		w.peer.mute = false
		w.peer.mu.Unlock()
		w.settle(2 * time.Minute)
		w.all(20002)
		if !w.peer.hist[2] || !w.peer.hist[20001] {
			t.Error("history is not marked")
		}
		if slices.Max(w.peer.batches) > 256 {
			t.Errorf("a batch of %d rows", slices.Max(w.peer.batches))
		}
	})
}

// A message that a broker has confirmed and lost is sent again.
func TestLost(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.peer.mu.Lock()
		w.peer.drop = 2
		w.peer.mu.Unlock()
		w.out.add(1)
		w.settle(time.Second)
		w.out.add(1)
		w.settle(uplink.DefaultResend + 2*time.Second)
		w.all(3)
		if st := w.up.Stats(); st.Resent != 1 {
			t.Errorf("resent %d times", st.Resent)
		}
	})
}

// A gap that the hub sees is closed sooner.
func TestAsked(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.peer.mu.Lock()
		w.peer.drop, w.peer.ask = 1, true
		w.peer.mu.Unlock()
		w.out.add(1)
		w.settle(4 * time.Second)
		w.out.add(1)
		w.settle(time.Second)
		w.all(3)
	})
}

// Acknowledgements that are late, twice, of another epoch, or of rows that do not
// exist delete nothing.
func TestForeignAcks(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.peer.mu.Lock()
		w.peer.mute = true
		w.peer.mu.Unlock()
		w.out.add(5)
		w.settle(time.Second)
		for _, a := range []wire.Ack{{Epoch: "e0", Seq: 6}, {Epoch: "e1", Seq: 7}, {Epoch: "e1", Seq: 1}, {Epoch: "e1"}} {
			w.up.Acknowledge(a)
			synctest.Wait()
			if acked, _, _ := w.out.Position(); acked != 1 {
				t.Errorf("after %+v: acknowledged up to %d", a, acked)
			}
		}
		w.up.Acknowledge(wire.Ack{Epoch: "e1", Seq: 3})
		w.up.Acknowledge(wire.Ack{Epoch: "e1", Seq: 2})
		synctest.Wait()
		if acked, _, _ := w.out.Position(); acked != 3 {
			t.Errorf("acknowledged up to %d, want 3", acked)
		}
	})
}

// A row that cannot be read is told as such, and does not hold up the others.
func TestPoison(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.broker.SetDown(true)
		w.settle(time.Second)
		w.out.add(9)
		w.out.mu.Lock()
		w.out.bad = 5
		w.out.mu.Unlock()
		w.broker.SetDown(false)
		w.settle(time.Minute)
		w.all(10)
		if told := slices.Compact(w.poisoned()); !slices.Equal(told, []uint64{5}) {
			t.Errorf("told of %v", told)
		}
		w.up.Acknowledge(wire.Ack{Epoch: "e1", Seq: 10, Refused: []wire.Refusal{{Seq: 7, Reason: "nonsense"}}})
		synctest.Wait()
		if told := w.poisoned(); !slices.Contains(told, 7) {
			t.Errorf("told of %v, not of the one that the hub set aside", told)
		}
	})
}

// Rows that the device's retention has deleted are told as such: the hub would ask for
// their numbers for ever.
func TestAbsent(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.broker.SetDown(true)
		w.settle(time.Second)
		w.out.add(700)
		w.out.mu.Lock()
		w.out.gone = map[uint64]bool{2: true, 700: true, 701: true}
		for n := uint64(100); n < 500; n++ {
			w.out.gone[n] = true
		}
		w.out.bad = 600
		w.out.mu.Unlock()
		w.broker.SetDown(false)
		w.settle(time.Minute)
		w.all(701)
		for n, kind := range map[uint64]wire.RowKind{1: wire.RowResult, 2: wire.RowAbsent, 99: wire.RowResult, 100: wire.RowAbsent,
			499: wire.RowAbsent, 500: wire.RowResult, 600: wire.RowUnreadable, 601: wire.RowResult, 699: wire.RowResult, 700: wire.RowAbsent, 701: wire.RowAbsent} {
			if got := w.peer.kinds[n]; got != kind {
				t.Errorf("row %d is of kind %d, want %d", n, got, kind)
			}
		}
	})
}

// A store that fails is not taken for a bad row: nothing is given up, and Run says so.
func TestBrokenStore(t *testing.T) {
	run(t, func(w *world) {
		w.settle(time.Second)
		w.out.mu.Lock()
		w.out.broken = errors.New("disk")
		w.out.mu.Unlock()
		w.settle(time.Second)
		if err := <-w.failed; err == nil || err.Error() != "disk" {
			t.Errorf("Run = %v", err)
		}
	})
}

// Through cuts, outages and a stuck line everything arrives.
func TestDisturbed(t *testing.T) {
	run(t, func(w *world) {
		n := 1
		for i := range 30 {
			w.out.add(i)
			n += i
			switch i % 4 {
			case 0:
				w.broker.Cut()
			case 1:
				w.broker.SetDown(true)
				w.settle(3 * time.Second)
				w.broker.SetDown(false)
			case 2:
				w.broker.Freeze()
				w.settle(90 * time.Second)
				w.broker.Thaw()
			}
			w.settle(time.Duration(i) * 100 * time.Millisecond)
		}
		w.settle(5 * time.Minute)
		w.all(n)
	})
}
