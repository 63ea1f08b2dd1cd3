package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"postern/agent"
)

// ServeOptions bound what connections may cost.
type ServeOptions struct {
	MaxConnections int // open at once; more wait in the system's queue
	CertFile       string
	KeyFile        string // with CertFile: TLS 1.3 only; both are read again when they change
	Log            *slog.Logger
}

// The time that a client has for each part of a request.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second // header and body together
	idleTimeout   = 60 * time.Second
	maxHeader     = 16 << 10
	shutdownGrace = 3 * time.Second
)

// Serve answers on l until ctx ends; open streams end with it.
func Serve(ctx context.Context, l net.Listener, h http.Handler, o ServeOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), // peers' faults, in any number
	}
	l = newLimited(l, o.MaxConnections)
	if o.CertFile != "" {
		c := &certificate{certFile: o.CertFile, keyFile: o.KeyFile, log: o.Log, now: time.Now}
		if _, err := c.get(nil); err != nil {
			return &agent.Error{Code: agent.CodeInvalid, Message: "the certificate of http.tls_cert and http.tls_key cannot be used", Err: err}
		}
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.get}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close() // a client that holds a connection open is no reason to fail
		}
	}()
	err := serve(srv, l)
	cancel()
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func serve(srv *http.Server, l net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(l)
}

// limited is a listener that has at most so many connections open. Those beyond wait
// in the system's queue until one closes, which the timeouts see to.
type limited struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newLimited(l net.Listener, n int) net.Listener {
	if n <= 0 {
		return l
	}
	return &limited{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, free: l.slots}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.free })
	return err
}

// recheck is how often the certificate's files are looked at.
const recheck = 5 * time.Second

// certificate is a key pair that follows its files. A new pair that cannot be read is
// logged, and the old one stays in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex // guards the fields below
	pair    *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.pair != nil && now.Sub(c.checked) < recheck && now.Sub(c.checked) >= 0 {
		return c.pair, nil
	}
	c.checked = now
	stamp, err := c.stamps()
	if err == nil && (c.pair == nil || stamp != c.stamp) {
		err = c.load(stamp)
	}
	if err != nil && c.pair != nil {
		c.log.Error("the new certificate cannot be used, the old one stays", "err", err)
		err = nil
	}
	return c.pair, err
}

func (c *certificate) load(stamp [2]time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.pair, c.stamp = &pair, stamp
	return nil
}

func (c *certificate) stamps() (out [2]time.Time, err error) {
	for i, f := range []string{c.certFile, c.keyFile} {
		st, err := os.Stat(f)
		if err != nil {
			return out, err
		}
		out[i] = st.ModTime()
	}
	return out, nil
}
