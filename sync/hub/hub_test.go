package hub_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/membus"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failing is a store that cannot commit.
type failing struct{ hub.Store }

var errDisk = errors.New("disk")

func (failing) Ingest([]hub.Batch) ([]hub.Position, error) { return nil, errDisk }

// bench is a hub with one device's client beside it.
type bench struct {
	*testing.T
	store  hub.Store
	hub    *hub.Hub
	device *bustest.Peer
	ended  chan error
	stop   context.CancelFunc
}

func start(t *testing.T, wrap func(hub.Store) hub.Store) *bench {
	st, err := boltstore.Open(t.TempDir(), boltstore.Sealing{})
	if err != nil {
		t.Fatal(err)
	}
	broker := &membus.Broker{}
	b := &bench{T: t, store: st, ended: make(chan error, 1)}
	b.hub = &hub.Hub{Store: wrap(st)}
	client := bustest.Start(t, broker, "HUB", func(c *bus.Connect, _ *bus.Client) { c.Handle = b.hub.Handle }, b.hub.Filters()...)
	b.hub.Bus = client
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	var running sync.WaitGroup
	running.Go(func() { b.ended <- b.hub.Run(ctx) })
	b.device = bustest.Start(t, broker, "door", nil, "fm/dn/door/ack")
	t.Cleanup(func() {
		stop()
		running.Wait()
		client.Stop()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func same(s hub.Store) hub.Store { return s }

func (b *bench) say(topic string, payload []byte) {
	b.Helper()
	if err := b.device.Publish(b.Context(), bus.Message{Topic: topic, Payload: payload}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) results(rows ...wire.Row) {
	b.Helper()
	m, err := wire.Pack("e1", false, rows)
	if err != nil {
		b.Fatal(err)
	}
	b.say("fm/up/door/res", b.encode(m))
}

func (b *bench) encode(m wire.Message) []byte {
	b.Helper()
	p, err := wire.Encode(wire.Header{At: 1}, m)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// acks gives what the device has been told.
func (b *bench) acks() (out []wire.Ack) {
	for _, p := range b.device.Heard("fm/dn/door/ack") {
		_, m, err := wire.Decode([]byte(p))
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, *m.(*wire.Ack))
	}
	return out
}

// waitAck waits until the hub has acknowledged seq, and gives that acknowledgement.
func (b *bench) waitAck(seq uint64) (a wire.Ack) {
	b.Helper()
	bustest.WaitFor(b, "acknowledgement", func() bool {
		all := b.acks()
		i := slices.IndexFunc(all, func(a wire.Ack) bool { return a.Seq == seq })
		if i >= 0 {
			a = all[i]
		}
		return i >= 0
	})
	return a
}

func row(t testing.TB, seq uint64) wire.Row {
	t.Helper()
	r, err := wire.ResultRow(agent.Result{ID: "r", Seq: seq, Kind: agent.KindVerify, At: time.Unix(1, 0), Decision: agent.Decision{Status: agent.Approved}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What nobody can read is passed over and counted, and holds nothing up.
func TestBadMessages(t *testing.T) {
	b := start(t, same)
	b.say("fm/up/door/res", nil)
	b.say("fm/up/door/res", []byte{2, 0xa0})
	b.say("fm/up/door/res", []byte("hello"))
	b.say("fm/up/door/res", b.encode(&wire.Health{Online: true, Session: "s"}))
	b.say("fm/up/Door/res", b.encode(&wire.Hint{}))
	b.say("fm/up/door/st", b.encode(&wire.Ack{Epoch: "e"}))
	b.results(row(t, 1))
	b.waitAck(1)
	if st := b.hub.Stats(); st.Bad != 6 || st.Rows != 1 {
		t.Errorf("stats %+v", st)
	}
	if hs, err := b.store.Healths(); err != nil || len(hs) != 0 {
		t.Errorf("health from the wrong topic: %+v, %v", hs, err)
	}
}

// A row that is not what it says is kept aside, and the device is told which.
func TestRefusedRow(t *testing.T) {
	b := start(t, same)
	nonsense, err := wire.Marshal("nonsense")
	if err != nil {
		t.Fatal(err)
	}
	b.results(row(t, 1), wire.Row{Seq: 2, Kind: wire.RowResult, Body: nonsense}, wire.UnreadableRow(3, "damaged"), wire.Row{Seq: 4, Kind: 99, Body: nonsense})
	a := b.waitAck(4)
	if len(a.Refused) != 1 || a.Refused[0].Seq != 2 || a.Refused[0].Reason == "" {
		t.Errorf("refused %+v", a.Refused)
	}
	rows, err := b.store.Rows("door", "e1", 1, 10)
	if err != nil || len(rows) != 4 || rows[0].Refused != "" || rows[1].Refused == "" || rows[2].Refused == "" || rows[3].Refused != "" || string(rows[1].Body) != string(nonsense) {
		t.Errorf("rows %+v, %v", rows, err)
	}
}

// A gap is asked for, and a replay closes it.
func TestGapIsAskedFor(t *testing.T) {
	b := start(t, same)
	b.results(row(t, 1))
	b.waitAck(1)
	b.results(row(t, 3))
	bustest.WaitFor(t, "a request for a replay", func() bool {
		return slices.ContainsFunc(b.acks(), func(a wire.Ack) bool { return a.Seq == 1 && a.Resend })
	})
	b.results(row(t, 2), row(t, 3))
	if a := b.waitAck(3); a.Resend {
		t.Error("it asks for a replay of nothing")
	}
}

// What is not committed is not acknowledged.
func TestStoreFails(t *testing.T) {
	b := start(t, func(s hub.Store) hub.Store { return failing{s} })
	b.results(row(t, 1))
	if err := <-b.ended; !errors.Is(err, errDisk) {
		t.Errorf("Run = %v", err)
	}
	b.ended <- nil
	if got := b.acks(); len(got) > 0 {
		t.Errorf("acknowledged without a commit: %+v", got)
	}
}

func TestHealth(t *testing.T) {
	b := start(t, same)
	b.say("fm/up/door/st", b.encode(&wire.Health{Online: true, Session: "s1", Version: "9", Last: 12}))
	bustest.WaitFor(t, "health", func() bool {
		hs, err := b.store.Healths()
		return err == nil && len(hs) == 1 && hs[0].Online && hs[0].Last == 12 && hs[0].Device == "door"
	})
}
