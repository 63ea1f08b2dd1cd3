// Package device is the agent's side of the fleet: one connection on which the
// device's health is told, its results are sent, and the hub's words are heard.
package device

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"postern/sync/bus"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// Link connects a device with its hub. Set the fields before Run.
type Link struct {
	Device  string // a wire.ValidDevice name; also the client id
	Version string // of the program
	Dialer  bus.Dialer
	Uplink  *uplink.Uplink // its Device and Bus are set by Run
	Parts   []Part         // what else goes over the link
	Now     func() time.Time
	Log     *slog.Logger
	Client  *bus.Client // its waits may be set; the rest is Run's

	mu      sync.Mutex // guards session and offset
	session string
	process string // random, for Health
	online  atomic.Bool
	offset  *time.Duration
}

// ClockOffset tells by how much the hub's clock was ahead of this one when the hub last
// said something, the time that it took to arrive included.
func (l *Link) ClockOffset() (d time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offset == nil {
		return 0, false
	}
	return *l.offset, true
}

func (l *Link) noteClock(head wire.Header) {
	if head.At == 0 {
		return
	}
	d := time.UnixMicro(head.At).Sub(l.Now())
	l.mu.Lock()
	l.offset = &d
	l.mu.Unlock()
}

// Say tells the hub something: whether it hears is not known. It waits for room on the
// connection, and fails where there is none. The header's clock is set.
type Say = func(ctx context.Context, c wire.Channel, h wire.Header, m wire.Message) error

// Part is something else that a device and its hub do with each other.
type Part interface {
	// Channels are those on which the hub speaks to this part.
	Channels() []wire.Channel
	// Heard takes what the hub has said. It must not wait.
	Heard(c wire.Channel, h wire.Header, m wire.Message)
	// Run lasts as long as a connection: until ctx is done.
	Run(ctx context.Context, say Say)
}

// Online tells whether the hub's broker is connected now.
func (l *Link) Online() bool { return l.online.Load() }

// healthEvery is how often health is told anew while connected: a broker that lost
// its store knows it again, and a late will of an old session does not stay.
const healthEvery = time.Minute

// Run stays connected until ctx is done. An error says that the device's name cannot be
// used.
func (l *Link) Run(ctx context.Context) error {
	if err := wire.CheckDevice(l.Device); err != nil {
		return err
	}
	if l.Now == nil {
		l.Now = time.Now
	}
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	if l.Client == nil {
		l.Client = &bus.Client{}
	}
	l.process = uuid.NewString()
	c := l.Client
	c.Dialer, c.Connect, c.Log = l.Dialer, l.connect, l.Log
	l.Uplink.Device, l.Uplink.Bus = l.Device, c

	var session sync.WaitGroup // what runs for the present session
	c.Up = func(sctx context.Context) {
		l.Log.Info("connected to the hub's broker")
		l.online.Store(true)
		session.Go(func() { l.tellHealth(sctx) })
		session.Go(func() { l.sendResults(sctx) })
		for _, p := range l.Parts {
			session.Go(func() { p.Run(sctx, l.say) })
		}
	}
	c.Down = func(error) {
		l.online.Store(false)
		session.Wait()
	}
	return c.Run(ctx)
}

// sendResults runs the uplink for a session. An outbox that fails is told and tried
// again: the door goes on, and its own store refuses decisions that it cannot keep.
func (l *Link) sendResults(ctx context.Context) {
	for {
		err := l.Uplink.Run(ctx)
		if err == nil {
			return
		}
		l.Log.Error("results cannot be sent; tried again", "err", err, "in", outboxRetry)
		select {
		case <-time.After(outboxRetry):
		case <-ctx.Done():
			return
		}
	}
}

const outboxRetry = 30 * time.Second

// connect describes the next session. Its will says that this very session is over.
func (l *Link) connect() bus.Connect {
	id := uuid.NewString()
	l.mu.Lock()
	l.session = id
	l.mu.Unlock()
	c := bus.Connect{ClientID: l.Device, Subscribe: []string{wire.Down(l.Device, wire.ChanAck)}, AtMostOnce: true, Handle: l.handle}
	for _, p := range l.Parts {
		for _, channel := range p.Channels() {
			c.Subscribe = append(c.Subscribe, wire.Down(l.Device, channel))
		}
	}
	if m, err := l.health(false); err == nil {
		c.Will = &m
	}
	return c
}

func (l *Link) health(online bool) (bus.Message, error) {
	l.mu.Lock()
	h := &wire.Health{Online: online, Version: l.Version, Session: l.session, Epoch: l.Uplink.Outbox.Epoch(), Process: l.process}
	l.mu.Unlock()
	if online {
		_, last, err := l.Uplink.Outbox.Position()
		if err != nil {
			return bus.Message{}, err
		}
		h.Last = last
	}
	p, err := wire.Encode(wire.Header{At: l.Now().UnixMicro()}, h)
	return bus.Message{Topic: wire.Up(l.Device, wire.ChanHealth), Payload: p, Retain: true}, err
}

func (l *Link) tellHealth(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		m, err := l.health(true)
		if err == nil {
			err = l.Client.Publish(ctx, m)
		}
		if err != nil {
			l.Log.Debug("health not told", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Link) say(ctx context.Context, c wire.Channel, h wire.Header, m wire.Message) error {
	h.At = l.Now().UnixMicro()
	p, err := wire.Encode(h, m)
	if err != nil {
		return err
	}
	return l.Client.Publish(ctx, bus.Message{Topic: wire.Up(l.Device, c), Payload: p})
}

// handle takes the hub's words. What cannot be read is passed over: the hub may be
// newer, and nothing is deleted for it.
func (l *Link) handle(_ context.Context, m bus.Message) {
	name, channel, ok := wire.ParseDown(m.Topic)
	if !ok || name != l.Device {
		l.Log.Warn("message for somebody else", "topic", m.Topic)
		return
	}
	head, msg, err := wire.Decode(m.Payload)
	if err != nil {
		l.Log.Warn("message passed over", "topic", m.Topic, "err", err)
		return
	}
	l.noteClock(head)
	if a, ok := msg.(*wire.Ack); ok && channel == wire.ChanAck {
		l.Uplink.Acknowledge(*a)
		return
	}
	for _, p := range l.Parts {
		if slices.Contains(p.Channels(), channel) {
			p.Heard(channel, head, msg)
		}
	}
}
