// Package uplink tells the hub what the device has decided, until the hub says that it
// has it.
//
// Rows leave the device's outbox by the hub's cumulative acknowledgement and by
// nothing else: not by a broker's confirmation, not by time. What is not acknowledged
// is sent again after a while and after every new connection, so the hub sees rows
// twice and must know them. News goes before history (lanes.go), and history yields
// to the line's speed (pace.go).
package uplink

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"postern/agent"
	"postern/sync/bus"
	"postern/sync/wire"
)

// Outbox is what the device still has to tell; the store's.
type Outbox interface {
	// Epoch names the numbering of rows; it changes when the store is made anew.
	Epoch() string
	// Position gives the newest row that the hub has and the newest there is.
	Position() (acked, last uint64, err error)
	// Outbox returns rows from the given one on, oldest first, without changing
	// anything. A number that is missing was deleted.
	Outbox(from uint64, limit int) ([]agent.Result, error)
	// Ack deletes the rows of the epoch up to and including seq. It may be repeated.
	Ack(epoch string, seq uint64) (int, error)
}

// publisher is the connection to the broker; *bus.Client is one.
type publisher interface {
	Publish(ctx context.Context, m bus.Message) error
}

// Defaults of Uplink.
const (
	DefaultResend = 30 * time.Second
	DefaultPoll   = 250 * time.Millisecond
)

// batch limits: whichever comes first.
const (
	maxRows  = 256
	maxBytes = 32 << 10
)

// Uplink sends one device's outbox. Set the fields before Run.
type Uplink struct {
	Device string
	Outbox Outbox
	Bus    publisher

	Resend time.Duration    // without an acknowledgement for so long: send again
	Poll   time.Duration    // how often to look for new rows when nobody calls Wake
	Now    func() time.Time // the sender's clock in messages

	// Poison is told of rows that cannot be read or sent, and of those that the hub has
	// set aside. The rows stay in the device's results.
	Poison func(seq uint64, reason string)
	Log    *slog.Logger

	wake  chan struct{}
	acks  chan struct{} // there is a pending acknowledgement
	state sync.Once

	// Owned by Run.
	lanes    lanes
	pace     pace
	epoch    string
	progress time.Time // the last time that something was acknowledged, or nothing was waiting

	mu      sync.Mutex // guards the fields below
	report  Stats
	pending *wire.Ack // heard and not yet worked in
}

// Stats is how far the hub is behind.
type Stats struct {
	Acked, Last uint64 // newest row that the hub has, newest there is
	Replaying   bool   // a backlog is being sent
	Resent      uint64 // times that something was sent again for want of an acknowledgement
	Poison      uint64 // rows that could not be read or sent, or that the hub has set aside
}

func (u *Uplink) init() {
	u.state.Do(func() {
		u.wake = make(chan struct{}, 1)
		u.acks = make(chan struct{}, 1)
		if u.Resend == 0 {
			u.Resend = DefaultResend
		}
		if u.Poll == 0 {
			u.Poll = DefaultPoll
		}
		if u.Now == nil {
			u.Now = time.Now
		}
		if u.Poison == nil {
			u.Poison = func(uint64, string) {}
		}
		if u.Log == nil {
			u.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Wake says that there is a new row. It never blocks.
func (u *Uplink) Wake() {
	u.init()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Acknowledge hands over an acknowledgement of the hub. It never blocks; several that
// wait become one.
func (u *Uplink) Acknowledge(a wire.Ack) {
	u.init()
	u.mu.Lock()
	if p := u.pending; p != nil && p.Epoch == a.Epoch {
		a.Refused = append(p.Refused, a.Refused...)
		if p.Seq > a.Seq {
			a.Seq, a.Resend = p.Seq, p.Resend
		}
	}
	u.pending = &a
	u.mu.Unlock()
	select {
	case u.acks <- struct{}{}:
	default:
	}
}

func (u *Uplink) takeAck() *wire.Ack {
	u.mu.Lock()
	defer u.mu.Unlock()
	a := u.pending
	u.pending = nil
	return a
}

// Stats tells how far the hub is behind.
func (u *Uplink) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.report
}

// Run sends for as long as the session lasts: until ctx is done or the bus is
// offline. Call it anew for each session. An error means that the outbox cannot be
// used; it has been left as it was.
func (u *Uplink) Run(ctx context.Context) error {
	u.init()
	if err := u.begin(); err != nil {
		return err
	}
	tick := time.NewTicker(u.Poll)
	defer tick.Stop()
	for {
		switch err := u.send(ctx); {
		case errors.Is(err, bus.ErrOffline) || errors.Is(err, bus.ErrStalled) || ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-u.acks:
			if err := u.acknowledged(u.takeAck()); err != nil {
				return err
			}
		case <-u.wake:
		case <-tick.C:
			u.overdue()
		}
		if err := u.look(); err != nil {
			return err
		}
	}
}

// begin starts a session where the hub's last acknowledgement has left off.
func (u *Uplink) begin() error {
	acked, last, err := u.Outbox.Position()
	if err != nil {
		return err
	}
	u.epoch = u.Outbox.Epoch()
	u.lanes.restart(acked, last)
	u.pace = pace{} // another line, perhaps
	u.progress = time.Now()
	u.note()
	return nil
}

// look finds out how many rows there are.
func (u *Uplink) look() error {
	_, last, err := u.Outbox.Position()
	if err != nil {
		return err
	}
	u.lanes.grow(last)
	u.note()
	return nil
}

func (u *Uplink) note() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.report.Acked, u.report.Last = u.lanes.acked, u.lanes.last
	u.report.Replaying = u.lanes.replay < u.lanes.until
}

// send hands over all news, then as much history as the pace allows; between two
// batches of history it looks for news.
func (u *Uplink) send(ctx context.Context) error {
	for {
		for seq := u.lanes.nextLive(); seq != 0; seq = u.lanes.nextLive() {
			if _, err := u.batch(ctx, true, seq, maxBytes); err != nil {
				return err
			}
		}
		seq := u.lanes.nextReplay()
		room := u.pace.room()
		if seq == 0 || room == 0 {
			return nil
		}
		n, err := u.batch(ctx, false, seq, min(room, maxBytes))
		if err != nil {
			return err
		}
		u.pace.sent(u.lanes.replay-1, n, time.Now())
		if err := u.look(); err != nil {
			return err
		}
	}
}

// batch sends rows from seq on in one message and tells how many bytes it took.
func (u *Uplink) batch(ctx context.Context, live bool, seq uint64, bytes int) (int, error) {
	end := u.lanes.last
	if !live {
		end = u.lanes.until - 1
	}
	rows, err := u.rows(seq, min(end, seq+maxRows-1))
	if err != nil {
		return 0, err
	}
	rows = cut(rows, bytes)
	r, err := wire.Pack(u.epoch, !live, rows)
	if err != nil {
		return 0, err
	}
	r.Floor = u.lanes.acked + 1
	payload, err := wire.Encode(wire.Header{At: u.Now().UnixMicro()}, r)
	if err != nil {
		return 0, err
	}
	if !u.lanes.waiting() {
		u.progress = time.Now()
	}
	if err := u.Bus.Publish(ctx, bus.Message{Topic: wire.Up(u.Device, wire.ChanResults), Payload: payload}); err != nil {
		return 0, err
	}
	u.lanes.sent(live, rows[len(rows)-1].Seq)
	return len(payload), nil
}

// cut keeps the first rows that fit, at least one.
func cut(rows []wire.Row, bytes int) []wire.Row {
	size := 0
	for i, r := range rows {
		if size += r.Size(); i > 0 && size > bytes {
			return rows[:i]
		}
	}
	return rows
}

// rows reads the rows from seq to end, both of which there are or were. A row that
// cannot be read is replaced by one that says so, but only when a later one can be:
// else it is the store that fails, and then nothing is given up.
func (u *Uplink) rows(seq, end uint64) ([]wire.Row, error) {
	results, err := u.Outbox.Outbox(seq, int(end-seq+1))
	if err == nil {
		return u.encode(seq, end, results), nil
	}
	for n := (end - seq) / 2; n > 0; n /= 2 { // those before it first
		if results, e := u.Outbox.Outbox(seq, int(n)); e == nil {
			return u.encode(seq, seq+n-1, results), nil
		}
	}
	for n := seq + 1; n <= min(u.lanes.last, seq+maxDamaged); n++ {
		if _, e := u.Outbox.Outbox(n, 1); e == nil {
			return u.unreadable(seq, n, err), nil
		}
	}
	return nil, err
}

// maxDamaged is how many rows in a row may be unreadable before the store is held to
// have failed.
const maxDamaged = 16

// unreadable makes the rows that stand for those from seq up to, but not including, end.
func (u *Uplink) unreadable(seq, end uint64, err error) (rows []wire.Row) {
	for ; seq < end; seq++ {
		u.poison(seq, "unreadable on the device: "+err.Error())
		rows = append(rows, wire.UnreadableRow(seq, "unreadable on the device"))
	}
	return rows
}

// encode makes the rows from seq to end of what the outbox has of them.
func (u *Uplink) encode(seq, end uint64, results []agent.Result) []wire.Row {
	rows := make([]wire.Row, 0, end-seq+1)
	for _, r := range results {
		if r.Seq > end {
			break
		}
		for ; seq < r.Seq; seq++ {
			rows = append(rows, wire.AbsentRow(seq))
		}
		row, err := wire.ResultRow(r)
		if err != nil {
			u.poison(seq, "cannot be sent: "+err.Error())
		}
		rows, seq = append(rows, row), seq+1
	}
	for ; seq <= end; seq++ {
		rows = append(rows, wire.AbsentRow(seq))
	}
	return rows
}

func (u *Uplink) poison(seq uint64, reason string) {
	u.mu.Lock()
	u.report.Poison++
	u.mu.Unlock()
	u.Log.Error("result cannot reach the hub; it stays on the device", "seq", seq, "reason", reason)
	u.Poison(seq, reason)
}

// acknowledged takes the hub's word for what it has. Only then are rows deleted.
func (u *Uplink) acknowledged(a *wire.Ack) error {
	if a == nil {
		return nil
	}
	if a.Epoch != u.epoch {
		u.Log.Debug("acknowledgement of another epoch", "epoch", a.Epoch)
		return nil
	}
	if a.Seq > u.lanes.last {
		// A hub that has rows which this device has not made: it was cloned or restored.
		u.Log.Error("the hub acknowledges results that this device does not have; nothing was deleted",
			"acknowledged", a.Seq, "newest", u.lanes.last)
		return nil
	}
	for _, r := range a.Refused {
		u.poison(r.Seq, "set aside by the hub: "+r.Reason)
	}
	if u.lanes.ack(a.Seq) {
		if _, err := u.Outbox.Ack(a.Epoch, a.Seq); err != nil {
			return err
		}
		u.pace.acked(a.Seq, time.Now())
		u.progress = time.Now()
	}
	if a.Resend && a.Seq == u.lanes.acked && time.Since(u.progress) >= u.Resend/10 {
		u.again("the hub asks for it")
	}
	return nil
}

// overdue sends again what the hub should have acknowledged by now.
func (u *Uplink) overdue() {
	if u.lanes.waiting() && time.Since(u.progress) >= u.Resend {
		u.again("no acknowledgement")
	}
}

func (u *Uplink) again(why string) {
	u.Log.Info("sending again", "from", u.lanes.acked+1, "to", u.lanes.live-1, "why", why)
	u.lanes.rewind()
	u.pace.lost()
	u.progress = time.Now()
	u.mu.Lock()
	u.report.Resent++
	u.mu.Unlock()
}
