package broker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(tb testing.TB, o broker.Options) *broker.Broker {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	b, err := broker.Start(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	return b
}

// A device reads and writes nothing of another's.
func TestPermissions(t *testing.T) {
	device := func(name string) broker.User {
		return broker.User{Name: name, Password: "pw-" + name, Publish: []string{"fm/up/" + name + "/#"}, Subscribe: []string{"fm/dn/" + name + "/#"}}
	}
	hub := broker.User{Name: "hub", Password: "pw-hub", Publish: []string{"fm/dn/#"}, Subscribe: []string{"fm/up/#"}}
	b := start(t, broker.Options{Users: []broker.User{device("a"), device("b"), hub}})
	as := func(name string) *mqtt.Dialer {
		return &mqtt.Dialer{URL: "mqtt://" + b.Addr(), Username: name, Password: "pw-" + name, Timeout: 5 * time.Second}
	}
	h := bustest.Start(t, as("hub"), "hub", nil, "fm/up/+/res")
	a := bustest.Start(t, as("a"), "a", nil, "fm/dn/a/ack")
	for _, filter := range []string{"fm/dn/b/ack", "fm/dn/+/ack", "fm/up/b/res", "#", "fm/dn/#"} {
		if s, err := as("a").Dial(t.Context(), bus.Connect{ClientID: "a2", Subscribe: []string{filter}}); err == nil {
			s.Close(true)
			t.Errorf("device a may subscribe to %s", filter)
		}
	}
	for _, topic := range []string{"fm/up/b/res", "fm/up/a/res"} { // the first is dropped
		if err := a.Publish(t.Context(), bus.Message{Topic: topic, Payload: []byte(topic)}); err != nil {
			t.Fatal(err)
		}
	}
	bustest.WaitFor(t, "a's own", func() bool { return len(h.Heard("fm/up/a/res")) == 1 })
	if got := h.Heard("fm/up/b/res"); len(got) > 0 {
		t.Errorf("device a spoke as device b: %q", got)
	}
	for _, d := range []*mqtt.Dialer{{Username: "a", Password: "pw-b"}, {}, {Username: "c", Password: "x"}} {
		d.URL = "mqtt://" + b.Addr()
		if s, err := d.Dial(t.Context(), bus.Connect{ClientID: "x"}); err == nil {
			s.Close(true)
			t.Errorf("%q with password %q got in", d.Username, d.Password)
		}
	}
}

func TestFailures(t *testing.T) {
	first := start(t, broker.Options{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]broker.Options{
		"no port":         {Listen: "127.0.0.1", Dir: t.TempDir()},
		"named port":      {Listen: "127.0.0.1:no-such-port", Dir: t.TempDir()},
		"address in use":  {Listen: first.Addr(), Dir: t.TempDir()},
		"folder a file":   {Listen: "127.0.0.1:0", Dir: file},
		"foreign address": {Listen: "192.0.2.1:0", Dir: t.TempDir()},
	} {
		if b, err := broker.Start(o); agent.ErrorCode(err) != agent.CodeUnavailable || !strings.Contains(err.Error(), o.Listen) {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
}

// A store that is lost costs nothing but the sessions.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	b := start(t, broker.Options{Dir: dir})
	addr := b.Addr()
	d := &mqtt.Dialer{URL: "mqtt://" + addr, Timeout: 5 * time.Second}
	in := bustest.Start(t, d, "in", nil, "fm/up/+/res")
	for i := range 2 {
		b.Close()
		if i == 1 {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		b = start(t, broker.Options{Dir: dir, Listen: addr})
		in.WaitUp()
		out := bustest.Start(t, d, "out", nil)
		if err := out.Publish(t.Context(), bus.Message{Topic: "fm/up/a/res", Payload: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
		bustest.WaitFor(t, "a message", func() bool { return len(in.Heard("fm/up/a/res")) == i+1 })
		out.Stop()
	}
}
