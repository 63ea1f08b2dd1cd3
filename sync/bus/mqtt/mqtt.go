// Package mqtt opens sessions with any MQTT 3.1.1 broker through
// paho.mqtt.golang, of which it uses as little as it can: one client a session, no
// reconnecting, no store on disk. Its tokens complete without an error for messages
// that nobody has, and for subscriptions that the broker has refused; what this
// package reports is checked against that.
package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"postern/agent"
	"postern/sync/bus"
)

// The protocol's times, when Dialer leaves them zero.
const (
	DefaultKeepAlive = 30 * time.Second
	DefaultTimeout   = 10 * time.Second
)

// Dialer opens sessions with one broker.
type Dialer struct {
	URL string // mqtt://host:1883 or mqtts://host:8883; paho's tcp and ssl also work

	Username string
	Password string
	TLS      *tls.Config // for mqtts; at least TLS 1.3 is asked for

	KeepAlive time.Duration // a silent connection is probed after this
	Timeout   time.Duration // for connecting, each write, and the answer to a probe
}

var _ bus.Dialer = (*Dialer)(nil)

// CheckURL tells what is wrong with a broker's address. Without TLS only this machine
// is accepted: what is sent tells who went where.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return badURL(raw, "write it as mqtts://host:8883")
	}
	switch u.Scheme {
	case "mqtts", "ssl", "tls":
		return nil
	case "mqtt", "tcp":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return nil
		}
		return badURL(raw, "use mqtts://, plain mqtt:// is for a broker on this machine")
	}
	return badURL(raw, "write it as mqtts://host:8883")
}

func badURL(raw, fix string) error {
	if u, err := url.Parse(raw); err == nil {
		raw = u.Redacted()
	}
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("broker address %q cannot be used", raw), Fix: fix}
}

// session is one paho client, which is never used again.
type session struct {
	client paho.Client
	ctx    context.Context // ends with the session
	end    context.CancelCauseFunc
	closed sync.Once

	mu   sync.Mutex     // guards conn, and wait against growing once ctx has ended
	wait sync.WaitGroup // handlers and confirmations
	conn net.Conn
}

// Dial connects and subscribes.
func (d *Dialer) Dial(ctx context.Context, c bus.Connect) (bus.Session, error) {
	if err := CheckURL(d.URL); err != nil {
		return nil, err
	}
	s := &session{}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	s.client = paho.NewClient(d.options(s, c))
	if err := s.start(ctx, d.timeout(), c); err != nil {
		s.end(err)
		s.Close(false)
		return nil, unavailable(d.URL, err)
	}
	return s, nil
}

func unavailable(raw string, err error) error {
	host := raw
	if u, e := url.Parse(raw); e == nil {
		host = u.Host
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: "broker " + host + " is not reachable", Err: err,
		Fix: "check the address, the network and the credentials; it is tried again"}
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout == 0 {
		return DefaultTimeout
	}
	return d.Timeout
}

func (d *Dialer) options(s *session, c bus.Connect) *paho.ClientOptions {
	keep, timeout := d.KeepAlive, d.timeout()
	if keep == 0 {
		keep = DefaultKeepAlive
	}
	handle := func(_ paho.Client, m paho.Message) { s.handle(c.Handle, m) }
	o := paho.NewClientOptions().AddBroker(d.URL).SetClientID(c.ClientID).
		SetUsername(d.Username).SetPassword(d.Password).
		SetProtocolVersion(4). // and not 3.1 when that is refused
		SetCleanSession(true).
		SetStore(paho.NewOrderedMemoryStore()).
		SetOrderMatters(false).           // an ordered handler that waits stops the pings
		SetDefaultPublishHandler(handle). // a message without a handler is never confirmed
		SetAutoReconnect(false).          // bus.Client does, with jitter and a new client
		SetConnectRetry(false).           //
		SetKeepAlive(keep).               //
		SetPingTimeout(timeout).          //
		SetWriteTimeout(timeout).         // 0 would wait for ever on a half-open connection
		SetConnectTimeout(timeout).       //
		SetCustomOpenConnectionFn(d.open(s)).
		SetConnectionLostHandler(func(_ paho.Client, err error) { s.end(err) })
	if c.Will != nil {
		o.SetBinaryWill(c.Will.Topic, c.Will.Payload, 1, c.Will.Retain)
	}
	return o
}

// open connects, and keeps the connection: closing it is the only way to end a paho
// client that waits, and the only way to end one without a goodbye.
func (d *Dialer) open(s *session) paho.OpenConnectionFunc {
	return func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(s.ctx, d.timeout())
		defer cancel()
		conn, err := d.connect(ctx, u)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ctx.Err() != nil {
			conn.Close()
			return nil, context.Cause(s.ctx)
		}
		s.conn = conn
		return conn, nil
	}
}

func (d *Dialer) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	plain := &net.Dialer{KeepAlive: d.KeepAlive}
	port := u.Port()
	switch u.Scheme {
	case "mqtt", "tcp":
		if port == "" {
			port = "1883"
		}
		return plain.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	}
	if port == "" {
		port = "8883"
	}
	t := &tls.Config{}
	if d.TLS != nil {
		t = d.TLS.Clone()
	}
	t.MinVersion = tls.VersionTLS13
	return (&tls.Dialer{NetDialer: plain, Config: t}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
}

func (s *session) start(ctx context.Context, timeout time.Duration, c bus.Connect) error {
	filters := c.Subscribe
	if err := s.await(ctx, timeout, s.client.Connect()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if len(filters) == 0 {
		return nil
	}
	wanted := make(map[string]byte, len(filters))
	for _, f := range filters {
		wanted[f] = qos(c.AtMostOnce)
	}
	t := s.client.SubscribeMultiple(wanted, nil)
	if err := s.await(ctx, timeout, t); err != nil {
		return fmt.Errorf("subscribe to %s: %w", strings.Join(filters, ", "), err)
	}
	return refused(t)
}

// refused looks at what was granted: the token has no error when the broker refuses.
func refused(t paho.Token) error {
	sub, ok := t.(*paho.SubscribeToken)
	if !ok {
		return errors.New("subscribe: no answer to read")
	}
	var bad []string
	for filter, code := range sub.Result() {
		if code > 2 {
			bad = append(bad, filter)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("the broker refuses the subscription to %s", strings.Join(bad, ", "))
}

// await waits for a token, but not for ever.
func (s *session) await(ctx context.Context, timeout time.Duration, t paho.Token) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no answer within %s", timeout)
	}
}

func (s *session) handle(h func(context.Context, bus.Message), m paho.Message) {
	if h == nil || !s.enter() {
		return
	}
	defer s.wait.Done()
	h(s.ctx, bus.Message{Topic: m.Topic(), Payload: m.Payload(), Retain: m.Retained()})
}

// enter counts something that Close has to wait for; false: it is too late.
func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.wait.Add(1)
	return true
}

func qos(atMostOnce bool) byte {
	if atMostOnce {
		return 0
	}
	return 1
}

// Publish implements bus.Session.
func (s *session) Publish(m bus.Message, done func(error)) {
	if !s.enter() {
		done(context.Cause(s.ctx))
		return
	}
	t := s.client.Publish(m.Topic, qos(m.AtMostOnce), m.Retain, m.Payload)
	go func() {
		defer s.wait.Done()
		select {
		case <-t.Done():
			done(t.Error())
		case <-s.ctx.Done():
			done(context.Cause(s.ctx))
		}
	}()
}

// Done implements bus.Session.
func (s *session) Done() <-chan struct{} { return s.ctx.Done() }

// Err implements bus.Session.
func (s *session) Err() error { return context.Cause(s.ctx) }

// errClosing is the cause of a session that was closed from this side.
var errClosing = errors.New("closed")

// Close implements bus.Session. A client that is not told to disconnect would keep
// its goroutines.
func (s *session) Close(polite bool) {
	s.closed.Do(func() {
		quiesce := uint(0)
		if polite {
			quiesce = 250 // milliseconds for what is under way
		} else {
			s.drop()
		}
		s.client.Disconnect(quiesce)
		s.drop()
	})
	s.wait.Wait()
}

// drop ends the session and closes the connection without a word.
func (s *session) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(errClosing)
	if s.conn != nil {
		s.conn.Close()
	}
}
