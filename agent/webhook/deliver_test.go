package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent/cases"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPublicAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "::ffff:93.184.216.34": true,
		"127.0.0.1": false, "127.8.8.8": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "169.254.169.254": false, "::ffff:169.254.169.254": false,
		"100.64.0.1": false, "192.0.2.1": false, "198.18.0.1": false, "198.51.100.7": false, "203.0.113.9": false, "224.0.0.1": false, "240.0.0.1": false,
		"255.255.255.255": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd12::1": false, "ff02::1": false, "64:ff9b::a9fe:a9fe": false,
		"2002:7f00:1::": false, "2001:db8::1": false, "2001::1": false, "::7f00:1": false, "fec0::1": false,
	} {
		a := netip.MustParseAddr(address)
		if got := public(a, false); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
		if got := public(a, true); got != (want || a.Unmap().IsLoopback()) {
			t.Errorf("%s with loopback allowed: %v", address, got)
		}
	}
}

// memory is a queue of one destination.
type memory struct {
	mu  sync.Mutex // guards due
	due cases.Due
}

func (m *memory) DueDeliveries(now time.Time, busy map[string]bool, limit int) ([]cases.Due, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.due.Delivery.State != cases.Pending || len(busy) > 0 {
		return nil, time.Time{}, nil
	}
	if m.due.Delivery.NextAt.After(now) {
		return nil, m.due.Delivery.NextAt, nil
	}
	return []cases.Due{m.due}, time.Time{}, nil
}

func (m *memory) RecordDelivery(_ string, t cases.Try, then func(*cases.Delivery)) (cases.Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.due.Delivery.Record(t)
	then(&m.due.Delivery)
	return m.due.Delivery, nil
}

func (m *memory) state() cases.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.due.Delivery
}

// clock is a time that jumps whenever the deliverer would wait for the next attempt.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_700_000_000+c.offset.Load(), 0) }

// run delivers until the delivery is done, moving the clock to each next attempt, and
// returns the waits in seconds.
func run(t *testing.T, url string, loopback bool) (cases.Delivery, []int64) {
	t.Helper()
	m := &memory{due: cases.Due{Destination: cases.Destination{UUID: "d", URL: url, Secret: "s"},
		Event:    cases.Event{ID: "e", Type: cases.EventStatus, Session: cases.Session{ID: "x", Status: cases.Approved}},
		Delivery: cases.Delivery{UUID: "v", EventID: "e", Type: cases.EventStatus, SessionID: "x", State: cases.Pending}}}
	c := &clock{}
	d := &Deliverer{Queue: m, Now: c.now, Random: func() float64 { return 0.5 }, Loopback: loopback}
	d.Init()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	var waits []int64
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		v := m.state()
		if v.State != cases.Pending {
			return v, waits
		}
		if wait := v.NextAt.Unix() - c.now().Unix(); !v.NextAt.IsZero() && wait > 0 && v.Attempts == len(waits)+1 {
			waits = append(waits, wait)
			c.offset.Add(wait)
			d.Wake()
		}
	}
	t.Fatalf("not done: %+v", m.state())
	return cases.Delivery{}, nil
}

func TestDeliveryOutcomes(t *testing.T) {
	for _, c := range []struct {
		name     string
		answers  []int // then the last one again
		want     string
		attempts int
	}{
		{"at once", []int{200}, cases.Delivered, 1},
		{"204", []int{204}, cases.Delivered, 1},
		{"after trouble", []int{500, 503, 404, 429, 408, 409, 200}, cases.Delivered, 7},
		{"bad signature, they say", []int{401}, cases.Failed, 1},
		{"bad body", []int{400}, cases.Failed, 1},
		{"gone", []int{410}, cases.Failed, 1},
		{"for ever", []int{500}, cases.Failed, 1 + len(Schedule)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int64
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(c.answers[min(int(n.Add(1))-1, len(c.answers)-1)])
			}))
			defer h.Close()
			d, waits := run(t, h.URL, true)
			if d.State != c.want || d.Attempts != c.attempts || int(n.Load()) != c.attempts {
				t.Errorf("%s after %d attempts, %d seen", d.State, d.Attempts, n.Load())
			}
			for i, w := range waits {
				if want := int64(Schedule[i] / time.Second); w != want {
					t.Errorf("wait %d is %d s, want %d", i, w, want)
				}
			}
		})
	}
}

// A redirect is not followed, wherever it leads.
func TestNoRedirects(t *testing.T) {
	var reached atomic.Bool
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer inner.Close()
	h := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer h.Close()
	if d, _ := run(t, h.URL, true); d.State != cases.Failed || d.Tries[0].Status != http.StatusTemporaryRedirect || reached.Load() {
		t.Errorf("delivery %+v, reached %v", d, reached.Load())
	}
}

// The guard looks at the address that a name has resolved to, not at the name.
func TestPrivateAddressesAreNotDialled(t *testing.T) {
	var reached atomic.Bool
	h := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer h.Close()
	for _, u := range []string{h.URL, strings.Replace(h.URL, "127.0.0.1", "localhost", 1), strings.Replace(h.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		if d, _ := run(t, u, false); d.State != cases.Failed || !strings.Contains(d.Tries[0].Error, "private") || reached.Load() {
			t.Errorf("%s: %+v, reached %v", u, d, reached.Load())
		}
	}
	if _, err := newClient(true).Get("http://10.255.255.1:9/"); !errors.Is(err, ErrPrivate) {
		t.Errorf("loopback allowed lets other private addresses through: %v", err)
	}
}

func TestRetryAfterAndSpread(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for v, want := range map[string]time.Duration{"": 0, "x": 0, "-4": 0, "5": 5 * time.Second,
		now.Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).UTC().Format(http.TimeFormat): 0} {
		if got := retryAfter(v, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", v, got, want)
		}
	}
	lowest, highest := &Deliverer{Random: func() float64 { return 0 }}, &Deliverer{Random: func() float64 { return 0.999999 }}
	for i, s := range Schedule {
		lo, hi := lowest.wait(i+1, 0), highest.wait(i+1, 0)
		if lo < s*79/100 || hi > s*121/100 || lo >= hi {
			t.Errorf("wait %d is %v to %v around %v", i, lo, hi, s)
		}
	}
	if got := lowest.wait(1, 10*time.Minute); got != 10*time.Minute {
		t.Errorf("a receiver that asks for ten minutes gets %v", got)
	}
	if got := lowest.wait(1, 1000*time.Hour); got != Schedule[len(Schedule)-1] {
		t.Errorf("a receiver that asks for ever gets %v", got)
	}
}
