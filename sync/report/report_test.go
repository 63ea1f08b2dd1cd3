package report_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/sync/bus/bustest"
	"postern/sync/report"
	"postern/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is one in memory.
type queue struct {
	mu    sync.Mutex
	last  uint64
	items []report.Item
}

func (q *queue) Put(p []byte) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	q.items = append(q.items, report.Item{Seq: q.last, At: time.Unix(int64(q.last), 0), Payload: p})
	return q.last, nil
}

func (q *queue) After(seq uint64, limit int) (out []report.Item, _ error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.Seq > seq && len(out) < limit {
			out = append(out, it)
		}
	}
	return out, nil
}

func (q *queue) Ack(seq uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && q.items[0].Seq <= seq {
		q.items = q.items[1:]
	}
	return nil
}

func (q *queue) Epoch() string { return "e" }

func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// What waits is sent in order, again when it was lost, and goes when the hub has it.
func TestTelemetry(t *testing.T) {
	q := &queue{}
	tel := &report.Telemetry{Queue: q, Resend: 20 * time.Millisecond, Every: time.Hour,
		Measure: func() wire.Telemetry { return wire.Telemetry{Values: map[string]float64{"a": 1}} }}
	off, stopOff := context.WithCancel(t.Context())
	stopOff()
	for range 50 { // measured without a line
		if err := tel.Collect(off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Put([]byte("damaged")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard []uint64
	lost := 0
	say := func(_ context.Context, c wire.Channel, _ wire.Header, m wire.Message) error {
		mu.Lock()
		defer mu.Unlock()
		tm := m.(*wire.Telemetry)
		if lost++; lost <= 20 { // the line loses the first window
			return nil
		}
		if c != wire.ChanTelemetry || tm.Epoch != "e" || tm.Taken != int64(tm.Seq)*1e6 {
			return errors.New("not as it was put")
		}
		heard = append(heard, tm.Seq)
		tel.Heard(wire.ChanTelemetryAck, wire.Header{}, &wire.Ack{Epoch: "another", Seq: 1 << 40})
		tel.Heard(wire.ChanTelemetryAck, wire.Header{}, &wire.Ack{Epoch: "e", Seq: tm.Seq})
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { tel.Run(ctx, say); close(done) }()
	bustest.WaitFor(t, "all sent", func() bool { return q.depth() == 0 })
	stop()
	<-done
	seen := map[uint64]bool{}
	for _, seq := range heard {
		seen[seq] = true
	}
	if len(seen) != 51 {
		t.Errorf("%d of 51 were heard", len(seen))
	}
}

// The end of a log is told at each connection and when it has moved.
func TestAudit(t *testing.T) {
	var mu sync.Mutex
	seq, told := uint64(1), []uint64{}
	a := &report.Audit{Every: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Ends: func() ([]wire.Checkpoint, error) {
		mu.Lock()
		defer mu.Unlock()
		hash := make([]byte, 32)
		hash[0] = byte(seq)
		return []wire.Checkpoint{{Epoch: "e", Seq: seq, Hash: hash}}, nil
	}}
	say := func(_ context.Context, _ wire.Channel, _ wire.Header, m wire.Message) error {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, m.(*wire.Checkpoint).Seq)
		seq = min(seq+1, 3)
		return nil
	}
	run := func(want int) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { a.Run(ctx, say); close(done) }()
		bustest.WaitFor(t, "told", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) >= want })
		time.Sleep(20 * time.Millisecond)
		stop()
		<-done
	}
	run(3)
	run(4)
	if len(told) != 4 || told[2] != 3 || told[3] != 3 {
		t.Errorf("told %v", told)
	}
}
