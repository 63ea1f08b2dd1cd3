// Package broker runs an MQTT broker inside the hub: nats-server with JetStream, on a
// folder that may be lost. Nothing that matters is kept there: devices keep what the
// hub has not acknowledged, and the hub keeps what it has.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"postern/agent"
)

// Options say where the broker lives and whom it lets in.
type Options struct {
	Dir    string // of its store; made with mode 0700 when missing
	Listen string // host:port of MQTT; port 0 takes a free one
	TLS    *tls.Config
	Users  []User
	// Authorize judges everybody else who wants to connect. nil: only Users may, or
	// anybody where there are none.
	Authorize func(Login) (Grant, error)
	Log       *slog.Logger

	MaxStore int64 // bytes; default 1 GiB
	// SyncEvery is how often its store is synced; 0 is always, before a message is
	// confirmed.
	SyncEvery time.Duration
}

// User is somebody who may connect. Filters are MQTT's.
type User struct {
	Name, Password     string
	Publish, Subscribe []string
}

const defaultMaxStore = 1 << 30

// Broker is a running broker.
type Broker struct {
	s       *server.Server
	addr    string
	callout *callout // nil without Options.Authorize
	closing atomic.Bool
}

// Start starts a broker and waits until it accepts connections.
func Start(o Options) (*Broker, error) {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, failed(o, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, failed(o, err)
	}
	b := &Broker{}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.GetConfigForClient = b.turnAway
	}
	opts, err := options(o, host, port)
	if err != nil {
		return nil, failed(o, err)
	}
	var ask *callout
	if o.Authorize != nil {
		if ask, err = newCallout(o); err != nil {
			return nil, failed(o, err)
		}
		ask.configure(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, failed(o, err)
	}
	if o.Log != nil {
		s.SetLogger(serverLog{o.Log}, false, false)
	}
	s.Start()
	b.s, b.addr, b.callout = s, net.JoinHostPort(host, strconv.Itoa(opts.MQTT.Port)), ask
	if !b.ready() {
		b.Close()
		return nil, failed(o, fmt.Errorf("it was not ready within %s", readyWithin))
	}
	if ask != nil {
		if err := ask.start(s); err != nil {
			b.Close()
			return nil, failed(o, err)
		}
	}
	return b, nil
}

const readyWithin = 30 * time.Second

// ready waits for the MQTT listener.
func (b *Broker) ready() bool {
	if !b.s.ReadyForConnections(readyWithin) {
		return false
	}
	c, err := net.DialTimeout("tcp", b.addr, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func failed(o Options, err error) error {
	return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("the broker cannot be started at %s with its store in %q", o.Listen, o.Dir), Err: err,
		Fix: "choose another address or folder; what is in the folder may be deleted"}
}

func options(o Options, host, port string) (*server.Options, error) {
	n, err := takePort(host, port)
	if err != nil {
		return nil, err
	}
	opts := &server.Options{
		ServerName: "postern", NoSigs: true, NoLog: o.Log == nil, DontListen: true,
		JetStream: true, StoreDir: filepath.Join(o.Dir, "js"), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: o.MaxStore,
		SyncAlways: o.SyncEvery == 0, SyncInterval: o.SyncEvery,
		// The default of 1,000 is one for each of the first 1,000 devices only.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
		MQTT:            server.MQTTOpts{Host: host, Port: n, TLSConfig: o.TLS, TLSTimeout: 10},
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = defaultMaxStore
	}
	for _, u := range o.Users {
		opts.Users = append(opts.Users, user(u))
	}
	return opts, nil
}

// takePort finds out whether the port can be had, and which one 0 stands for: the
// server tells neither.
func takePort(host, port string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func user(u User) *server.User {
	return &server.User{Username: u.Name, Password: u.Password,
		AllowedConnectionTypes: map[string]struct{}{"MQTT": {}},
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: subjects(u.Publish)},
			Subscribe: &server.SubjectPermission{Allow: subjects(u.Subscribe)},
		}}
}

// subjects turns filters into the server's own. Only levels of wire.ValidDevice and
// wildcards appear in them, so nothing needs to be escaped. "a/#" also means "a".
func subjects(filters []string) []string {
	out := []string{}
	for _, f := range filters {
		s := strings.NewReplacer("/", ".", "+", "*", "#", ">").Replace(f)
		out = append(out, s)
		if base, ok := strings.CutSuffix(s, ".>"); ok {
			out = append(out, base)
		}
	}
	return out
}

// Addr is where MQTT clients connect, host:port.
func (b *Broker) Addr() string { return b.addr }

// Kick ends the connections of a client and tells how many there were. It may come
// back, where Options.Authorize still lets it in.
func (b *Broker) Kick(clientID string) (int, error) {
	z, err := b.s.Connz(&server.ConnzOptions{MQTTClient: clientID, Limit: 16})
	if err != nil {
		return 0, fmt.Errorf("find client %q: %w", clientID, err)
	}
	n := 0
	for _, c := range z.Conns {
		if c.MQTTClient == clientID && b.s.DisconnectClientByID(c.Cid) == nil {
			n++
		}
	}
	return n, nil
}

// Close stops the broker and waits for it.
func (b *Broker) Close() {
	if b.callout != nil {
		b.callout.close()
	}
	b.closing.Store(true)
	b.hangUp()
	b.s.Shutdown()
	b.s.WaitForShutdown()
}

// hangUp ends all connections. The server ends its event system before its listeners: a
// login that it reads in between asks that system, which is no more, and ends the process
// (nats-server 2.15.2). Who has just been hung up on does not log in at that moment.
func (b *Broker) hangUp() {
	z, err := b.s.Connz(&server.ConnzOptions{Limit: math.MaxInt32})
	if err != nil {
		return
	}
	for _, c := range z.Conns {
		_ = b.s.DisconnectClientByID(c.Cid) // it may be gone by itself
	}
}

// turnAway is what TLS asks for each connection: none begins once the broker is closing.
func (b *Broker) turnAway(*tls.ClientHelloInfo) (*tls.Config, error) {
	if b.closing.Load() {
		return nil, errors.New("the broker is closing")
	}
	return nil, nil
}

// serverLog passes the server's words on; only what is wrong is worth a reader's time.
type serverLog struct{ log *slog.Logger }

func (l serverLog) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
}

func (l serverLog) Noticef(f string, v ...any) { l.say(slog.LevelDebug, f, v) }
func (l serverLog) Warnf(f string, v ...any) {
	if !strings.HasPrefix(f, "Plaintext passwords") { // made at random for this process
		l.say(slog.LevelWarn, f, v)
	}
}
func (l serverLog) Errorf(f string, v ...any) {
	level := slog.LevelError
	if text := fmt.Sprintf(f, v...); strings.Contains(text, "TLS handshake error") || strings.Contains(text, "authentication error") {
		level = slog.LevelDebug // anybody can cause one; a refused login is the hub's to tell
	}
	l.say(level, f, v)
}
func (l serverLog) Fatalf(f string, v ...any) { l.say(slog.LevelError, f, v) }
func (l serverLog) Debugf(f string, v ...any) {}
func (l serverLog) Tracef(f string, v ...any) {}
