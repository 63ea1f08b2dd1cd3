// Package hub takes in what devices tell: it commits each record once, whatever
// arrives twice, and only then tells the device that it may forget it.
package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"postern/sync/bus"
	"postern/sync/wire"
)

// publisher is the connection to the broker; *bus.Client is one.
type publisher interface {
	Publish(ctx context.Context, m bus.Message) error
}

// Hub ingests. Set the fields before Run.
type Hub struct {
	Store Store
	Bus   publisher
	Now   func() time.Time
	Log   *slog.Logger

	// Committed is told of each batch when it is on disk, before the device is. Some of
	// its rows may have been there already. It must be quick; nil is allowed.
	Committed func(b Batch, p Position)

	// Told is told of each health as it is kept; it must be quick. nil is allowed.
	Told func(head wire.Header, h Health)

	// On has who is told of what devices say on other channels, one after the other.
	On map[wire.Channel]func(ctx context.Context, m Heard)

	queue chan bus.Message
	once  sync.Once
	mu    sync.Mutex // guards stats
	stats Stats
}

// Heard is a message of a device, read and found valid.
type Heard struct {
	Device  string
	Channel wire.Channel
	Header  wire.Header
	Message wire.Message
}

// Stats counts since the start.
type Stats struct {
	Messages uint64 // taken from the broker
	Rows     uint64 // in them, before those known already are passed over
	Bad      uint64 // messages that could not be read
	Commits  uint64 // transactions
}

// A transaction takes what has come meanwhile, up to this many messages.
const (
	groupMessages = 64
	queueLength   = 256
)

func (h *Hub) init() {
	h.once.Do(func() {
		h.queue = make(chan bus.Message, queueLength)
		if h.Now == nil {
			h.Now = time.Now
		}
		if h.Log == nil {
			h.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Filters is what the hub's connection subscribes to.
func (h *Hub) Filters() []string {
	out := []string{wire.AllUp(wire.ChanResults), wire.AllUp(wire.ChanHealth)}
	for c := range h.On {
		out = append(out, wire.AllUp(c))
	}
	return out
}

// Handle takes a message from the broker. When the hub falls behind it waits, and the
// broker holds back.
func (h *Hub) Handle(ctx context.Context, m bus.Message) {
	h.init()
	select {
	case h.queue <- m:
	case <-ctx.Done():
	}
}

// Stats tells what was taken in.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// Run commits until ctx is done. An error is the store's: nothing was acknowledged
// that is not committed, and devices send it again.
func (h *Hub) Run(ctx context.Context) error {
	h.init()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-h.queue:
			if err := h.commit(ctx, h.gather(m)); err != nil {
				return err
			}
		}
	}
}

// gather takes what else is waiting, without waiting for more: while one transaction
// is under way the next group collects.
func (h *Hub) gather(first bus.Message) []bus.Message {
	group := []bus.Message{first}
	for len(group) < groupMessages {
		select {
		case m := <-h.queue:
			group = append(group, m)
		default:
			return group
		}
	}
	return group
}

func (h *Hub) commit(ctx context.Context, group []bus.Message) error {
	var batches []Batch
	rows := 0
	for _, m := range group {
		b, err := h.read(ctx, m)
		if err != nil {
			return err
		}
		if b != nil {
			batches = append(batches, *b)
			rows += len(b.Rows)
		}
	}
	h.count(func(s *Stats) { s.Messages += uint64(len(group)); s.Rows += uint64(rows) })
	if len(batches) == 0 {
		return nil
	}
	positions, err := h.Store.Ingest(batches)
	if err != nil {
		return err
	}
	h.count(func(s *Stats) { s.Commits++ })
	if h.Committed != nil {
		for i, b := range batches {
			h.Committed(b, positions[i])
		}
	}
	h.acknowledge(ctx, batches, positions)
	return nil
}

func (h *Hub) count(change func(*Stats)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.stats)
}

// read understands one message. What cannot be read is told and passed over: it
// would not become readable by being sent again. Who sent it is the topic's to say.
func (h *Hub) read(ctx context.Context, m bus.Message) (*Batch, error) {
	device, channel, ok := wire.ParseUp(m.Topic)
	if !ok {
		h.bad(m, "unknown", errors.New("not a topic of this fleet"))
		return nil, nil
	}
	head, msg, err := wire.Decode(m.Payload)
	if err != nil {
		h.bad(m, device, err)
		return nil, nil
	}
	if on := h.On[channel]; on != nil {
		on(ctx, Heard{device, channel, head, msg})
		return nil, nil
	}
	switch msg := msg.(type) {
	case *wire.Results:
		if channel == wire.ChanResults {
			return h.batch(device, msg), nil
		}
	case *wire.Health:
		if channel == wire.ChanHealth {
			told := Health{Device: device, At: h.Now(), Health: *msg}
			if h.Told != nil {
				h.Told(head, told)
			}
			return nil, h.Store.PutHealth(told)
		}
	}
	h.bad(m, device, errors.New("a message of type "+head.Type.String()+" does not belong here"))
	return nil, nil
}

func (h *Hub) bad(m bus.Message, device string, err error) {
	h.count(func(s *Stats) { s.Bad++ })
	h.Log.Error("message passed over", "device", device, "topic", m.Topic, "bytes", len(m.Payload), "err", err)
}

func (h *Hub) batch(device string, r *wire.Results) *Batch {
	b := &Batch{Device: device, Epoch: r.Epoch, Historical: r.Historical, Floor: r.Floor, At: h.Now(), Rows: r.Rows}
	for _, row := range r.Rows {
		why := ""
		switch row.Kind {
		case wire.RowResult:
			if _, err := row.Result(); err != nil {
				why = err.Error()
			}
		case wire.RowUnreadable:
			why = "the device could not read it"
		}
		if why != "" {
			if b.Refused == nil {
				b.Refused = map[uint64]string{}
			}
			b.Refused[row.Seq] = why
			h.Log.Error("row set aside", "device", device, "epoch", r.Epoch, "seq", row.Seq, "reason", why)
		}
	}
	return b
}

type stream struct{ device, epoch string }

// acknowledge tells each device once what a group has brought. An acknowledgement
// that is lost is repeated when the device sends again.
func (h *Hub) acknowledge(ctx context.Context, batches []Batch, positions []Position) {
	acks := map[stream]*wire.Ack{}
	var order []stream
	for i, b := range batches {
		key := stream{b.Device, b.Epoch}
		a := acks[key]
		if a == nil {
			a = &wire.Ack{Epoch: b.Epoch}
			acks[key], order = a, append(order, key)
		}
		p := positions[i]
		a.Seq, a.Resend = p.Acked, p.Gap()
		for _, row := range b.Rows { // in the order of rows
			if why, ok := b.Refused[row.Seq]; ok && row.Kind != wire.RowUnreadable && len(a.Refused) < 100 {
				a.Refused = append(a.Refused, wire.Refusal{Seq: row.Seq, Reason: short(why)})
			}
		}
		if p.Lost > 0 {
			h.Log.Error("rows are gone that were acknowledged: the hub's store was restored from a copy", "device", b.Device, "epoch", b.Epoch, "rows", p.Lost)
		}
	}
	for _, key := range order {
		h.say(ctx, key.device, acks[key])
	}
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200]
	}
	return s
}

func (h *Hub) say(ctx context.Context, device string, a *wire.Ack) {
	if err := h.Say(ctx, device, wire.ChanAck, wire.Header{}, a); err != nil {
		h.Log.Debug("acknowledgement not sent; the device will ask by sending again", "device", device, "err", err)
	}
}

// Say tells a device something, once: whether it hears is not known. The header's clock
// is set.
func (h *Hub) Say(ctx context.Context, device string, c wire.Channel, head wire.Header, m wire.Message) error {
	h.init()
	head.At = h.Now().UnixMicro()
	p, err := wire.Encode(head, m)
	if err != nil {
		return err
	}
	return h.Bus.Publish(ctx, bus.Message{Topic: wire.Down(device, c), Payload: p, AtMostOnce: true})
}
