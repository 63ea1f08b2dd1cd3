// Package bustest holds every bus.Dialer to the same, be its broker real or not, and
// has a relay that does to connections what networks do.
package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/sync/bus"
)

// Fixture is a broker under test, with a network that can be disturbed.
type Fixture struct {
	Dialer    bus.Dialer
	Cut       func() // ends all connections without a word
	Freeze    func() // lets nothing pass
	Thaw      func()
	Forbidden string // a filter that the broker refuses; "" if it refuses none
}

// Run runs the suite; open makes a fresh broker.
func Run(t *testing.T, open func(testing.TB) Fixture) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Fixture)
	}{
		{"RoundTrip", testRoundTrip}, {"Filters", testFilters}, {"Retained", testRetained}, {"Will", testWill},
		{"Reconnect", testReconnect}, {"Window", testWindow}, {"SameClientID", testSameClientID},
		{"AtMostOnce", testAtMostOnce}, {"SlowHandler", testSlowHandler}, {"RefusedSubscription", testRefused}, {"Offline", testOffline},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Peer is a client that notes what it hears.
type Peer struct {
	*bus.Client
	tb   testing.TB
	stop context.CancelFunc
	done chan struct{}
	ups  chan context.Context
	down chan error

	mu  sync.Mutex
	got []bus.Message
}

// Start runs a client and waits for its first session.
func Start(tb testing.TB, d bus.Dialer, id string, change func(*bus.Connect, *bus.Client), filters ...string) *Peer {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &Peer{tb: tb, stop: stop, done: make(chan struct{}), ups: make(chan context.Context, 100), down: make(chan error, 100)}
	p.Client = &bus.Client{Dialer: d, MinDelay: time.Millisecond, MaxDelay: 50 * time.Millisecond,
		Up:   func(ctx context.Context) { p.ups <- ctx },
		Down: func(err error) { p.down <- err }}
	c := bus.Connect{ClientID: id, Subscribe: filters, Handle: p.hear}
	if change != nil {
		change(&c, p.Client)
	}
	p.Client.Connect = func() bus.Connect { return c }
	go func() {
		defer close(p.done)
		if err := p.Client.Run(ctx); err != nil {
			tb.Errorf("client %s: %v", id, err)
		}
	}()
	tb.Cleanup(p.Stop)
	p.WaitUp()
	return p
}

// Stop ends the client and waits for it.
func (p *Peer) Stop() { p.stop(); <-p.done }

func (p *Peer) hear(_ context.Context, m bus.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, m)
}

// WaitUp waits for the next session.
func (p *Peer) WaitUp() {
	p.tb.Helper()
	select {
	case <-p.ups:
	case <-time.After(20 * time.Second):
		p.tb.Fatal("no session within 20 s")
	}
}

// Heard gives the payloads heard on a topic so far, each once, sorted.
func (p *Peer) Heard(topic string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, m := range p.got {
		if m.Topic == topic {
			out = append(out, string(m.Payload))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// WaitFor waits until a condition holds.
func WaitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within 20 s", what)
		}
	}
}

func (p *Peer) say(topic, payload string, retain bool) {
	p.tb.Helper()
	if err := p.Publish(p.tb.Context(), bus.Message{Topic: topic, Payload: []byte(payload), Retain: retain}); err != nil {
		p.tb.Fatalf("publish to %s: %v", topic, err)
	}
}

func (p *Peer) waitHeard(topic string, want ...string) {
	p.tb.Helper()
	slices.Sort(want)
	WaitFor(p.tb, fmt.Sprintf("%q on %s", want, topic), func() bool { return slices.Equal(p.Heard(topic), want) })
}

func testRoundTrip(t *testing.T, f Fixture) {
	binary := make([]byte, 40000)
	for i := range binary {
		binary[i] = byte(i * 7)
	}
	in := Start(t, f.Dialer, "in", nil, "fm/up/+/res")
	out := Start(t, f.Dialer, "out", nil)
	for i := range 100 {
		out.say("fm/up/a/res", fmt.Sprint("m", i), false)
	}
	out.say("fm/up/b/res", string(binary), false)
	WaitFor(t, "100 messages", func() bool { return len(in.Heard("fm/up/a/res")) == 100 })
	WaitFor(t, "binary", func() bool { return len(in.Heard("fm/up/b/res")) == 1 })
	if !bytes.Equal([]byte(in.Heard("fm/up/b/res")[0]), binary) {
		t.Error("40,000 bytes came back changed")
	}
}

func testFilters(t *testing.T, f Fixture) {
	a := Start(t, f.Dialer, "a", nil, "fm/dn/a/ack", "fm/dn/a/cmd")
	b := Start(t, f.Dialer, "b", nil, "fm/dn/b/ack")
	hub := Start(t, f.Dialer, "hub", nil)
	hub.say("fm/dn/a/ack", "1", false)
	hub.say("fm/dn/a/cmd", "2", false)
	hub.say("fm/dn/a/hint", "3", false)
	hub.say("fm/dn/b/ack", "4", false)
	a.waitHeard("fm/dn/a/ack", "1")
	a.waitHeard("fm/dn/a/cmd", "2")
	b.waitHeard("fm/dn/b/ack", "4")
	if len(a.Heard("fm/dn/b/ack"))+len(a.Heard("fm/dn/a/hint"))+len(b.Heard("fm/dn/a/ack")) > 0 {
		t.Error("somebody heard what it did not subscribe to")
	}
}

func testRetained(t *testing.T, f Fixture) {
	dev := Start(t, f.Dialer, "dev", nil)
	first := Start(t, f.Dialer, "first", nil, "fm/up/+/st")
	dev.say("fm/up/dev/st", "old", true)
	dev.say("fm/up/dev/st", "new", true)
	first.waitHeard("fm/up/dev/st", "new", "old")
	late := Start(t, f.Dialer, "late", nil, "fm/up/+/st")
	late.waitHeard("fm/up/dev/st", "new")
}

func testWill(t *testing.T, f Fixture) {
	will := func(c *bus.Connect, _ *bus.Client) {
		c.Will = &bus.Message{Topic: "fm/up/" + c.ClientID + "/st", Payload: []byte("gone"), Retain: true}
	}
	// Its own broker connection is not disturbed: the watcher comes later.
	Start(t, f.Dialer, "dead", will)
	f.Cut()
	polite := Start(t, f.Dialer, "polite", will)
	polite.Stop()
	watcher := Start(t, f.Dialer, "watcher", nil, "fm/up/+/st")
	watcher.waitHeard("fm/up/dead/st", "gone")
	if got := watcher.Heard("fm/up/polite/st"); len(got) > 0 {
		t.Errorf("the will of a client that said goodbye was published: %q", got)
	}
}

func testReconnect(t *testing.T, f Fixture) {
	in := Start(t, f.Dialer, "in", nil, "fm/up/+/res")
	out := Start(t, f.Dialer, "out", nil)
	for i := range 3 {
		f.Cut()
		if err := <-out.down; err == nil {
			t.Error("a session that was cut has no reason")
		}
		in.WaitUp()
		out.WaitUp()
		out.say("fm/up/a/res", fmt.Sprint(i), false)
		WaitFor(t, "a message after the cut", func() bool { return len(in.Heard("fm/up/a/res")) == i+1 })
	}
}

// A connection that takes bytes and answers nothing fills the window, and is given up.
func testWindow(t *testing.T, f Fixture) {
	out := Start(t, f.Dialer, "out", func(_ *bus.Connect, c *bus.Client) { c.Window, c.Stall = 4, 300*time.Millisecond })
	f.Freeze()
	defer f.Thaw()
	handed := 0
	for ; handed < 50; handed++ {
		err := out.Publish(t.Context(), bus.Message{Topic: "fm/up/a/res", Payload: []byte("x")})
		if err == nil {
			continue
		}
		if !errors.Is(err, bus.ErrStalled) && !errors.Is(err, bus.ErrOffline) {
			t.Fatalf("publish into a full window: %v", err)
		}
		break
	}
	if handed > 4 {
		t.Errorf("%d messages under way, the window is 4", handed)
	}
	<-out.down
	f.Thaw()
	out.WaitUp()
	out.say("fm/up/a/res", "y", false)
}

// QoS 0 on both sides passes through, and leaves the window as it was.
func testAtMostOnce(t *testing.T, f Fixture) {
	in := Start(t, f.Dialer, "in", func(c *bus.Connect, _ *bus.Client) { c.AtMostOnce = true }, "fm/dn/+/ack")
	out := Start(t, f.Dialer, "out", func(_ *bus.Connect, c *bus.Client) { c.Window = 4 })
	for i := range 50 {
		if err := out.Publish(t.Context(), bus.Message{Topic: "fm/dn/a/ack", Payload: fmt.Append(nil, i), AtMostOnce: true}); err != nil {
			t.Fatal(err)
		}
	}
	WaitFor(t, "50 messages", func() bool { return len(in.Heard("fm/dn/a/ack")) == 50 })
}

func testSameClientID(t *testing.T, f Fixture) {
	first := Start(t, f.Dialer, "twin", nil)
	second := Start(t, f.Dialer, "twin", func(_ *bus.Connect, c *bus.Client) { c.MinDelay, c.MaxDelay = time.Hour, time.Hour })
	select {
	case <-first.down:
	case <-time.After(20 * time.Second):
		t.Error("two sessions with one client id")
	}
	first.Stop()
	second.Stop()
}

// What a handler has not taken is held back, not lost and not dropped.
func testSlowHandler(t *testing.T, f Fixture) {
	queue := make(chan string, 1)
	Start(t, f.Dialer, "slow", func(c *bus.Connect, _ *bus.Client) {
		c.Handle = func(ctx context.Context, m bus.Message) {
			select {
			case queue <- string(m.Payload):
			case <-ctx.Done():
			}
		}
	}, "fm/up/+/res")
	out := Start(t, f.Dialer, "out", nil)
	const n = 300
	go func() {
		for i := range n {
			_ = out.Publish(t.Context(), bus.Message{Topic: "fm/up/a/res", Payload: fmt.Append(nil, i)})
		}
	}()
	seen := map[string]bool{}
	for len(seen) < n {
		select {
		case m := <-queue:
			seen[m] = true
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d messages", len(seen), n)
		}
	}
}

func testRefused(t *testing.T, f Fixture) {
	if f.Forbidden == "" {
		t.Skip("this broker grants every subscription and filters on delivery")
	}
	s, err := f.Dialer.Dial(t.Context(), bus.Connect{ClientID: "c", Subscribe: []string{"fm/dn/c/ack", f.Forbidden}})
	if err == nil {
		s.Close(true)
		t.Fatalf("a session without the subscription to %s", f.Forbidden)
	}
}

func testOffline(t *testing.T, f Fixture) {
	c := &bus.Client{Dialer: f.Dialer, Connect: func() bus.Connect { return bus.Connect{ClientID: "x"} }}
	if err := c.Publish(t.Context(), bus.Message{Topic: "fm/up/x/res"}); !errors.Is(err, bus.ErrOffline) {
		t.Errorf("publish without a session: %v", err)
	}
}
