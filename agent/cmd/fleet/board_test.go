package fleet

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/keys"
	"postern/agent/store"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/registry"
	"postern/sync/report"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// waiting is a queue of telemetry in memory.
type waiting struct {
	mu    sync.Mutex
	last  uint64
	items []report.Item
}

func (q *waiting) Put(p []byte) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	q.items = append(q.items, report.Item{Seq: q.last, At: time.Now(), Payload: p})
	return q.last, nil
}

func (q *waiting) After(seq uint64, limit int) (out []report.Item, _ error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.Seq > seq && len(out) < limit {
			out = append(out, it)
		}
	}
	return out, nil
}

func (q *waiting) Ack(seq uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && q.items[0].Seq <= seq {
		q.items = q.items[1:]
	}
	return nil
}

func (q *waiting) Epoch() string { return "e" }

// delivered tells whether all of at least one was acknowledged.
func (q *waiting) delivered() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last > 0 && len(q.items) == 0
}

// What a device measures reaches the hub's list and its metrics, by group.
func TestTelemetryReachesTheHub(t *testing.T) {
	dir := t.TempDir()
	reg := registry.Registry{Dir: filepath.Join(dir, "devices")}
	token, err := reg.Add("door", "north")
	if err != nil {
		t.Fatal(err)
	}
	metrics := freeAddr(t)
	addr := startHub(t, HubOptions{Data: dir, Devices: reg, Metrics: metrics})
	q := &waiting{}
	tel := &report.Telemetry{Queue: q, Measure: func() wire.Telemetry {
		return wire.Telemetry{Values: map[string]float64{"temperature_celsius": 51.5, "queue_oldest_seconds": 7, "Not a name": 1, "online": 7}, Labels: map[string]string{"model": "m1"}}
	}}
	out := &memory{epoch: "e"}
	l := &device.Link{Device: "door", Version: "v9", Dialer: &mqtt.Dialer{URL: "mqtt://" + addr, Username: "door", Password: token},
		Uplink: &uplink.Uplink{Outbox: out}, Client: quickClient(), Parts: []device.Part{tel}}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = tel.Collect(ctx) })
	running.Go(func() { _ = l.Run(ctx) })
	defer running.Wait()
	defer stop()
	bustest.WaitFor(t, "telemetry", q.delivered)
	var list []DeviceStatus
	bustest.WaitFor(t, "the list", func() bool {
		list = nil
		err := Ask(t.Context(), dir, http.MethodGet, "/devices", nil, &list)
		return err == nil && len(list) == 1 && list[0].Online && list[0].Values["temperature_celsius"] == 51.5
	})
	if d := list[0]; d.Group != "north" || d.Version != "v9" || d.Labels["model"] != "m1" || d.Behind != 0 || d.OldestUnsent != 0 || len(d.Odd) != 0 {
		t.Errorf("listed as %+v", d)
	}
	if off, ok := l.ClockOffset(); !ok || off > time.Second || off < -time.Minute {
		t.Errorf("clock offset %v, %v", off, ok)
	}
	text := get(t, "http://"+metrics+"/metrics")
	for _, want := range []string{`postern_device_temperature_celsius{device="door",group="north"} 51.5`, `postern_fleet_devices{group="north",state="online"} 1`,
		`postern_device_online{device="door",group="north"} 1`, `postern_device_info{calibration="",config="",device="door",group="north",model="m1",version="v9"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Not a name") {
		t.Error("a name that is none is in the metrics")
	}
	if err := Ask(t.Context(), t.TempDir(), http.MethodGet, "/devices", nil, nil); err == nil || !strings.Contains(err.Error(), "no hub") {
		t.Errorf("where no hub runs: %v", err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v\n%s", url, resp.StatusCode, err, text)
	}
	return string(text)
}

// bareBoard is one without a hub's other parts.
func bareBoard(t *testing.T) *board {
	t.Helper()
	dir := t.TempDir()
	f, err := boltstore.OpenFleet(dir)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := boltstore.Open(dir, boltstore.Sealing{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := rec.Close(); err != nil {
			t.Error(err)
		}
	})
	o := &HubOptions{Devices: registry.Registry{Dir: filepath.Join(dir, "devices")}, Log: discard()}
	if _, err := o.Devices.Add("door", ""); err != nil {
		t.Fatal(err)
	}
	return newBoard(o, f, rec, &hub.Hub{On: map[wire.Channel]func(context.Context, hub.Heard){}})
}

func (b *board) oddOf(t *testing.T) []string {
	t.Helper()
	list, err := b.status()
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0].Odd
}

// Two programs that take turns under one name are noticed; restarts, however many, and
// words that come late, are not taken for that.
func TestCloneIsNoticed(t *testing.T) {
	b := bareBoard(t)
	clock := int64(0)
	say := func(process string, at int64) {
		b.health(wire.Header{At: at}, hub.Health{Device: "door", Health: wire.Health{Online: true, Process: process}})
	}
	news := func(process string) { clock++; say(process, clock) }
	for range 40 { // restarted again and again
		news("p" + string(rune('a'+clock%26)) + time.Unix(clock, 0).String())
	}
	news("one")
	news("one")
	late := clock
	news("two")
	say("one", late) // redelivered
	if odd := b.oddOf(t); len(odd) != 0 {
		t.Errorf("before there was a clone: %q", odd)
	}
	for range 3 {
		news("one")
		news("two")
	}
	odd := b.oddOf(t)
	if len(odd) != 1 || !strings.Contains(odd[0], oddTwice) {
		t.Errorf("odd: %q", odd)
	}
}

// A device whose audit log was cut off, or is signed by somebody else, is noticed. The
// log is a true one, of a data folder that is put back from an old copy.
func TestAuditCutIsNoticed(t *testing.T) {
	b := bareBoard(t)
	root := keys.Options{Kind: keys.File, Dir: t.TempDir()}
	st, err := store.Open(store.Options{Dir: t.TempDir(), Device: "door", Root: func(existing bool) (store.Root, error) { return root.Open(existing) }})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	tell := func(c store.Checkpoint) {
		t.Helper()
		hash, err1 := hex.DecodeString(c.Hash)
		sig, err2 := hex.DecodeString(c.Signature)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		b.checkpoint(t.Context(), hub.Heard{Device: "door", Message: &wire.Checkpoint{File: c.File, Epoch: c.Epoch, Seq: c.Seq, Hash: hash, Sig: sig, Key: st.PublicKey()}})
	}
	end := func() store.Checkpoint {
		t.Helper()
		if err := st.Audit(agent.AuditEvent{Action: agent.AuditConfigure}); err != nil {
			t.Fatal(err)
		}
		cs, err := st.Checkpoints()
		if err != nil || len(cs) == 0 {
			t.Fatal(cs, err)
		}
		return cs[0]
	}
	old, later := end(), end()
	tell(old)
	tell(later)
	tell(later)
	if odd := b.oddOf(t); len(odd) != 0 {
		t.Errorf("of a whole log: %q", odd)
	}
	tell(old)
	if odd := b.oddOf(t); len(odd) != 1 || !strings.Contains(odd[0], "and was at") {
		t.Errorf("cut off: %q", odd)
	}
	forged := later
	forged.Seq += 5
	forged.Signature = hex.EncodeToString(make([]byte, ed25519.SignatureSize))
	tell(forged)
	if odd := b.oddOf(t); len(odd) != 2 || !strings.Contains(odd[1], "not signed") {
		t.Errorf("forged: %q", odd)
	}
	if kept, err := b.fleet.Checkpoints("door"); err != nil || len(kept) != 1 || kept[0].Seq != later.Seq {
		t.Errorf("kept %+v, %v", kept, err)
	}
}
