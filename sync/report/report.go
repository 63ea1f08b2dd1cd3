// Package report tells the hub how the device is: measurements, which wait while there
// is no line and are the first to give way, and the end of its audit log.
package report

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"postern/sync/wire"
)

// Item is one message that waits.
type Item struct {
	Seq     uint64
	At      time.Time
	Payload []byte // of Pack
}

// Queue is where telemetry waits; the store's.
type Queue interface {
	// Put appends; the oldest give way to it where it must.
	Put(payload []byte) (uint64, error)
	// After lists what waits with a number above, oldest first.
	After(seq uint64, limit int) ([]Item, error)
	// Ack deletes those up to and including seq.
	Ack(seq uint64) error
	// Epoch names the numbering.
	Epoch() string
}

// Say is device.Say.
type Say = func(ctx context.Context, c wire.Channel, h wire.Header, m wire.Message) error

// Every is how often a device measures.
const Every = time.Minute

// Telemetry measures and tells. It is a part of a device's link. Set the fields first.
type Telemetry struct {
	Measure func() wire.Telemetry // what there is now
	Queue   Queue
	Every   time.Duration // default Every
	Resend  time.Duration // without an answer for so long: send again; default 30 s
	Log     *slog.Logger

	once sync.Once
	news chan struct{}
	acks chan uint64
}

// window is how many messages are under way.
const window = 20

func (t *Telemetry) init() {
	t.once.Do(func() {
		t.news, t.acks = make(chan struct{}, 1), make(chan uint64, window)
		if t.Every == 0 {
			t.Every = Every
		}
		if t.Resend == 0 {
			t.Resend = 30 * time.Second
		}
		if t.Log == nil {
			t.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Collect measures, whether there is a line or not, until ctx is done.
func (t *Telemetry) Collect(ctx context.Context) error {
	t.init()
	tick := time.NewTicker(t.Every)
	defer tick.Stop()
	for {
		if err := t.put(); err != nil {
			t.Log.Warn("measurements are not kept", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *Telemetry) put() error {
	m := t.Measure()
	payload, err := wire.Marshal(&m)
	if err != nil {
		return err
	}
	if _, err := t.Queue.Put(payload); err != nil {
		return err
	}
	select {
	case t.news <- struct{}{}:
	default:
	}
	return nil
}

// Channels implements device.Part.
func (t *Telemetry) Channels() []wire.Channel { return []wire.Channel{wire.ChanTelemetryAck} }

// Heard implements device.Part.
func (t *Telemetry) Heard(_ wire.Channel, _ wire.Header, m wire.Message) {
	t.init()
	if a, ok := m.(*wire.Ack); ok && a.Epoch == t.Queue.Epoch() {
		select {
		case t.acks <- a.Seq:
		default: // it is sent again, and answered again
		}
	}
}

// Run implements device.Part: it sends what waits, oldest first, a window at a time.
func (t *Telemetry) Run(ctx context.Context, say Say) {
	t.init()
	for {
		last, err := t.send(ctx, say)
		if err != nil && ctx.Err() == nil {
			t.Log.Warn("measurements are not sent; tried again", "err", err)
		}
		if last == 0 { // nothing waits
			select {
			case <-t.news:
			case <-time.After(t.Resend):
			case <-ctx.Done():
				return
			}
			continue
		}
		if !t.await(ctx, last) {
			return
		}
	}
}

// send hands over a window and gives the number of its last message.
func (t *Telemetry) send(ctx context.Context, say Say) (last uint64, err error) {
	items, err := t.Queue.After(0, window)
	if err != nil {
		return 0, err
	}
	for _, it := range items {
		m := &wire.Telemetry{}
		if err := wire.Unmarshal(it.Payload, m); err != nil {
			t.Log.Warn("a measurement cannot be read; it is left out", "seq", it.Seq, "err", err)
			m = &wire.Telemetry{}
		}
		m.Epoch, m.Seq, m.Taken = t.Queue.Epoch(), it.Seq, it.At.UnixMicro()
		if err := say(ctx, wire.ChanTelemetry, wire.Header{}, m); err != nil {
			return 0, err
		}
		last = it.Seq
	}
	return last, nil
}

// await waits until the hub has everything up to last, or for Resend; false: ctx is done.
func (t *Telemetry) await(ctx context.Context, last uint64) bool {
	timer := time.NewTimer(t.Resend)
	defer timer.Stop()
	for {
		select {
		case seq := <-t.acks:
			if err := t.Queue.Ack(min(seq, last)); err != nil {
				t.Log.Warn("measurements that the hub has are not deleted", "err", err)
			}
			if seq >= last {
				return true
			}
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// Audit tells the ends of the device's audit logs: when it connects, and when they have
// moved. It is a part of a device's link.
type Audit struct {
	Ends  func() ([]wire.Checkpoint, error)
	Every time.Duration // default 5 minutes
	Log   *slog.Logger
}

// Channels implements device.Part: nobody answers.
func (a *Audit) Channels() []wire.Channel { return nil }

// Heard implements device.Part.
func (a *Audit) Heard(wire.Channel, wire.Header, wire.Message) {}

// Run implements device.Part.
func (a *Audit) Run(ctx context.Context, say Say) {
	every := a.Every
	if every == 0 {
		every = 5 * time.Minute
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := map[string][]byte{}
	for {
		if err := a.tell(ctx, say, told); err != nil && ctx.Err() == nil {
			a.Log.Warn("the end of the audit log is not told; tried again", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Audit) tell(ctx context.Context, say Say, told map[string][]byte) error {
	ends, err := a.Ends()
	if err != nil {
		return err
	}
	for _, c := range ends {
		if bytes.Equal(told[c.Epoch], c.Hash) {
			continue
		}
		if err := say(ctx, wire.ChanCheckpoint, wire.Header{}, &c); err != nil {
			return err
		}
		told[c.Epoch] = c.Hash
	}
	return nil
}
