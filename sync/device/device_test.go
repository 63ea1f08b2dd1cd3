package device_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/bus"
	"postern/sync/bus/membus"
	"postern/sync/device"
	"postern/sync/uplink"
	"postern/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is an outbox of a device that has told everything.
type quiet struct{}

func (quiet) Epoch() string                              { return "e1" }
func (quiet) Position() (uint64, uint64, error)          { return 7, 7, nil }
func (quiet) Outbox(uint64, int) ([]agent.Result, error) { return nil, nil }
func (quiet) Ack(string, uint64) (int, error)            { return 0, nil }

// The hub sees a device come, stay, and end without a word; and which session it was.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &membus.Broker{}
		var mu sync.Mutex // guards heard
		var heard []wire.Health
		hub, err := broker.Dial(t.Context(), bus.Connect{ClientID: "HUB", Subscribe: []string{"fm/up/+/st"}, Handle: func(_ context.Context, m bus.Message) {
			_, msg, err := wire.Decode(m.Payload)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, *msg.(*wire.Health))
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		dialer := &remembering{Dialer: broker}
		l := &device.Link{Device: "door", Version: "1.2", Dialer: dialer, Uplink: &uplink.Uplink{Outbox: quiet{}}}
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(2*time.Minute + time.Second)
		mu.Lock()
		if len(heard) != 3 || !heard[0].Online || heard[0].Version != "1.2" || heard[0].Last != 7 || heard[0].Epoch != "e1" || heard[0].Session != heard[2].Session {
			t.Errorf("in two minutes the hub heard %+v", heard)
		}
		heard = nil
		mu.Unlock()
		dialer.cut()
		synctest.Wait()
		mu.Lock()
		if len(heard) != 1 || heard[0].Online || heard[0].Session == "" {
			t.Errorf("the last will is %+v", heard)
		}
		old := heard[0].Session
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		if last := heard[len(heard)-1]; !last.Online || last.Session == old {
			t.Errorf("after the cut: %+v, the old session was %s", last, old)
		}
		mu.Unlock()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		hub.Close(true)
	})
}

// remembering is a dialer that remembers the device's session, to end it and not the hub's.
type remembering struct {
	bus.Dialer
	mu   sync.Mutex // guards last
	last bus.Session
}

func (d *remembering) Dial(ctx context.Context, c bus.Connect) (bus.Session, error) {
	s, err := d.Dialer.Dial(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = s
	return s, err
}

func (d *remembering) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last.Close(false)
}

func TestBadName(t *testing.T) {
	l := &device.Link{Device: "Door 7", Uplink: &uplink.Uplink{Outbox: quiet{}}}
	if err := l.Run(t.Context()); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("Run = %v", err)
	}
}
