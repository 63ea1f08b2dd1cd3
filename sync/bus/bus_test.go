package bus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postern/sync/bus"
	"postern/sync/bus/membus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialer fails until it is told not to, and notes when it was asked.
type dialer struct {
	membus.Broker
	asked []time.Time
	fails int
}

func (d *dialer) Dial(ctx context.Context, c bus.Connect) (bus.Session, error) {
	d.asked = append(d.asked, time.Now())
	if len(d.asked) <= d.fails {
		return nil, errors.New("refused")
	}
	return d.Broker.Dial(ctx, c)
}

// The waits double to the most there is, each by a share drawn anew; after a good
// session they start again.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dialer{fails: 9}
		up := make(chan context.Context, 10)
		c := &bus.Client{Dialer: d, Connect: func() bus.Connect { return bus.Connect{ClientID: "c"} },
			Rand: func() float64 { return 0.5 }, Up: func(ctx context.Context) { up <- ctx }}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		session := <-up
		for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second} {
			if got := d.asked[i+1].Sub(d.asked[i]); got != want {
				t.Errorf("wait %d: %s, want %s", i, got, want)
			}
		}
		time.Sleep(2 * time.Minute)
		cut := time.Now()
		d.Cut()
		<-up
		if got := d.asked[len(d.asked)-1].Sub(cut); got != 500*time.Millisecond {
			t.Errorf("after a good session it waits %s", got)
		}
		if session.Err() == nil {
			t.Error("the context of a session outlives it")
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// Run ends at once wherever it is.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &bus.Client{Dialer: &dialer{fails: 1 << 30}, Connect: func() bus.Connect { return bus.Connect{} }}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}
