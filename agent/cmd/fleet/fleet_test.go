package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/agent"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/hub/boltstore"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// memory is an outbox in memory.
type memory struct {
	mu      sync.Mutex
	epoch   string
	results []agent.Result
	acked   uint64
}

func (m *memory) Epoch() string { return m.epoch }

func (m *memory) Position() (uint64, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked, uint64(len(m.results)), nil
}

func (m *memory) Outbox(from uint64, limit int) ([]agent.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from = min(max(from, m.acked+1), uint64(len(m.results))+1)
	to := min(from-1+uint64(limit), uint64(len(m.results)))
	return slices.Clone(m.results[from-1 : to]), nil
}

func (m *memory) Ack(_ string, seq uint64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := max(seq, m.acked) - m.acked
	m.acked += n
	return int(n), nil
}

func (m *memory) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		r := decision()
		r.Seq, r.At = uint64(len(m.results)+1), time.Now().UTC()
		r.ID = fmt.Sprintf("0193611e-8f00-7000-8000-%012d", r.Seq)
		r.Decision.Warnings = []agent.Warning{}
		m.results = append(m.results, r)
	}
}

func (m *memory) depth() int {
	acked, last, _ := m.Position()
	return int(last - acked)
}

// startHub runs a hub until the test ends and gives the address of its broker.
func startHub(tb testing.TB, o HubOptions) string {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	addr, ended := make(chan string, 1), make(chan error, 1)
	o.Listen, o.Started = "127.0.0.1:0", func(a string) { addr <- a }
	go func() { ended <- RunHub(ctx, o) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			tb.Errorf("hub: %v", err)
		}
	})
	select {
	case a := <-addr:
		return a
	case err := <-ended:
		ended <- nil
		tb.Fatalf("hub: %v", err)
	}
	return ""
}

// startDevice runs a device's link until the test ends.
func startDevice(tb testing.TB, name string, d *mqtt.Dialer, out uplink.Outbox) *uplink.Uplink {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &device.Link{Device: name, Dialer: d, Uplink: &uplink.Uplink{Outbox: out, Resend: 2 * time.Second}, Client: quickClient()}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			tb.Errorf("device %s: %v", name, err)
		}
	})
	return l.Uplink
}

// A device that the hub knows gets through with TLS; an unknown, a wrong secret and a
// revoked one do not.
func TestDevicesOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, pool := selfSigned(t)
	reg := registry.Registry{Dir: filepath.Join(dir, "devices")}
	addr := startHub(t, HubOptions{Data: dir, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Devices: reg})
	token, err := reg.Add("door", "")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := reg.Add("gone", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Revoke("gone"); err != nil {
		t.Fatal(err)
	}
	dial := func(name, secret string) *mqtt.Dialer {
		return &mqtt.Dialer{URL: "mqtts://" + addr, Username: name, Password: secret, TLS: &tls.Config{RootCAs: pool}, Timeout: 3 * time.Second}
	}
	outs := map[string]*memory{}
	for name, d := range map[string]*mqtt.Dialer{"door": dial("door", token), "gone": dial("gone", gone), "stranger": dial("stranger", token), "liar": dial("door", gone)} {
		outs[name] = &memory{epoch: "e"}
		outs[name].add(3)
		startDevice(t, name, d, outs[name])
	}
	bustest.WaitFor(t, "the known device's results", func() bool { return outs["door"].depth() == 0 })
	time.Sleep(300 * time.Millisecond) // the others have tried by now
	for _, name := range []string{"gone", "stranger", "liar"} {
		if outs[name].depth() != 3 {
			t.Errorf("%s was let in", name)
		}
	}
}

func selfSigned(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestName(t *testing.T) {
	for in, want := range map[string]string{"door-7": "door-7", "Kiosk.Lobby_1": "kiosk-lobby_1", "ä b": "--b"} {
		if got := Name(in); got != want || !wire.ValidDevice(got) {
			t.Errorf("Name(%q) = %q, want %q", in, got, want)
		}
	}
}

// The network is not let in unguarded.
func TestUnguardedIsRefused(t *testing.T) {
	reg := registry.Registry{Dir: t.TempDir()}
	for name, o := range map[string]HubOptions{
		"no certificate": {Listen: "0.0.0.0:0", Devices: reg},
		"any address":    {Listen: ":0", Devices: reg},
		"no devices":     {Listen: "0.0.0.0:0", TLS: &tls.Config{}},
		"no broker":      {},
		"plain broker":   {Dialer: &mqtt.Dialer{URL: "mqtt://example.com"}},
	} {
		o.Data = t.TempDir()
		if err := RunHub(t.Context(), o); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A hub that was restored from an old copy says what it lacks, and goes on.
func TestRestoredHub(t *testing.T) {
	dir := t.TempDir()
	t.Run("run", func(t *testing.T) {
		out := &memory{epoch: "e"}
		out.add(20)
		out.acked = 15 // by the hub, before it was restored from a copy of its first day
		addr := startHub(t, HubOptions{Data: dir})
		startDevice(t, "door", &mqtt.Dialer{URL: "mqtt://" + addr}, out)
		bustest.WaitFor(t, "the rest", func() bool { return out.depth() == 0 })
	})
	st, err := boltstore.Open(dir, boltstore.Sealing{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	streams, err := st.Streams()
	if err != nil || len(streams) != 1 || streams[0].Lost != 15 || streams[0].Rows != 5 || streams[0].Acked != 20 {
		t.Errorf("streams %+v, %v", streams, err)
	}
}
