package fleet

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"postern/sync/authority"
	"postern/sync/device"
	"postern/sync/hub"
	"postern/sync/identity"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// The simulated fleet: devices, broker and hub in one process, over TLS on loopback with
// a certificate each; every row and every message of the broker is synced to disk.
//
//	make fleet-sim DEVICES=1000
//
// prints a table for 10, 100 and so on up to DEVICES. It asserts nothing about speed.

const (
	envDevices = "TEST_FLEET_DEVICES"
	burst      = 20               // results that each device has at once
	pacedEvery = 10 * time.Second // of each device, afterwards
	pacedFor   = 30 * time.Second
)

// simDevice is one of them.
type simDevice struct {
	out  *timed
	link *device.Link
}

// timed is an outbox in memory that measures from decision to acknowledgement.
type timed struct {
	memory
	acks *latencies
}

func (o *timed) Ack(epoch string, seq uint64) (int, error) {
	o.mu.Lock()
	now := time.Now()
	for i := o.acked; i < seq && i < uint64(len(o.results)); i++ {
		o.acks.add(now.Sub(o.results[i].At))
	}
	o.mu.Unlock()
	return o.memory.Ack(epoch, seq)
}

type latencies struct {
	mu  sync.Mutex // guards all
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// take gives what was measured, in order, and forgets it.
func (l *latencies) take() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.all
	l.all = nil
	slices.Sort(out)
	return out
}

func share(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(p*float64(len(sorted)-1))].Round(time.Millisecond)
}

func TestFleetSim(t *testing.T) {
	most, err := strconv.Atoi(os.Getenv(envDevices))
	if err != nil {
		t.Skip("run by: make fleet-sim DEVICES=1000")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "devices\tconnected in\tresults/s\tack p50\tack p99\tmemory a device\t")
	for n := min(10, most); ; n = min(10*n, most) {
		t.Run(fmt.Sprint(n), func(t *testing.T) { simulate(t, n, w) })
		w.Flush()
		if n == most {
			break
		}
	}
}

func simulate(t *testing.T, n int, w *tabwriter.Writer) {
	dir := t.TempDir()
	reg := registry.Registry{Dir: filepath.Join(dir, "devices")}
	auth := newAuthority(t, dir)
	ids := certify(t, reg, auth, n)
	var online atomic.Int64
	url := "mqtts://" + startHub(t, HubOptions{Data: dir, Devices: reg, Authority: auth, Committed: func(hub.Batch, hub.Position) {}})
	before := memoryInUse()
	acks := &latencies{}
	fleet := make([]simDevice, n)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	began := time.Now()
	for i, id := range ids {
		id.Hub = url
		out := &timed{memory: memory{epoch: "e"}, acks: acks}
		r := identity.NewRenewer(id, filepath.Join(dir, "ids", id.Device), nil, slog.New(slog.DiscardHandler))
		l := &device.Link{Device: id.Device, Dialer: Certified(r), Uplink: &uplink.Uplink{Outbox: out, Resend: 2 * time.Minute},
			Parts: []device.Part{r, counter{&online}}} // with the waits of a real one: all at once would not get in
		fleet[i] = simDevice{out, l}
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "all connected", func() bool { return online.Load() == int64(n) })
	connected := time.Since(began)
	each := float64(memoryInUse()-before) / float64(n) / 1024

	began = time.Now()
	for _, d := range fleet {
		d.out.add(burst)
		d.link.Uplink.Wake()
	}
	until(t, "all acknowledged", func() bool { return !slices.ContainsFunc(fleet, func(d simDevice) bool { return d.out.depth() > 0 }) })
	rate := float64(n*burst) / time.Since(began).Seconds()
	acks.take()

	paced(fleet)
	until(t, "all acknowledged", func() bool { return !slices.ContainsFunc(fleet, func(d simDevice) bool { return d.out.depth() > 0 }) })
	times := acks.take()
	fmt.Fprintf(w, "%d\t%.1f s\t%.0f\t%v\t%v\t%.0f KiB\t\n", n, connected.Seconds(), rate, share(times, 0.5), share(times, 0.99), each)
}

// paced lets each device decide now and then, spread evenly.
func paced(fleet []simDevice) {
	gap := pacedEvery / time.Duration(len(fleet))
	tick := time.NewTicker(gap)
	defer tick.Stop()
	end := time.Now().Add(pacedFor)
	for i := 0; time.Now().Before(end); i++ {
		<-tick.C
		d := fleet[i%len(fleet)]
		d.out.add(1)
		d.link.Uplink.Wake()
	}
}

// counter counts connections.
type counter struct{ n *atomic.Int64 }

func (c counter) Channels() []wire.Channel                      { return nil }
func (c counter) Heard(wire.Channel, wire.Header, wire.Message) {}
func (c counter) Run(ctx context.Context, _ device.Say) {
	c.n.Add(1)
	<-ctx.Done()
	c.n.Add(-1)
}

// memoryInUse is what heap and stacks take: of the devices, and of the broker's and the
// hub's part for them.
func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 minutes", what)
		}
	}
}

// certify makes n devices that have joined.
func certify(t *testing.T, reg registry.Registry, auth *authority.Authority, n int) []*identity.Identity {
	t.Helper()
	var out []*identity.Identity
	for i := range n {
		name := fmt.Sprintf("door-%04d", i)
		secret, _, err := reg.NewClaim(name, "sim", time.Hour, false)
		if err != nil {
			t.Fatal(err)
		}
		id, err := identity.Join(t.Context(), identity.Claim{Device: name, Secret: secret, Pin: auth.Pin()}, identity.Identity{},
			func(_ context.Context, j *wire.Join) (wire.Header, *wire.Certificate, error) {
				leaf, err := reg.Redeem(name, secret, name, func() (*x509.Certificate, error) { return auth.Issue(name, j.Request, time.Now()) })
				if err != nil {
					return wire.Header{}, nil, err
				}
				return wire.Header{}, &wire.Certificate{Leaf: leaf.Raw, Authority: auth.CA.Raw, HubKey: auth.Signing, ServerName: authority.ServerName}, nil
			})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	return out
}
