package bustest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP relay that misbehaves on request.
type Proxy struct {
	target   string
	listener net.Listener

	mu      sync.Mutex // guards the fields below
	thawed  *sync.Cond
	conns   map[net.Conn]bool
	frozen  bool
	refuse  bool
	delay   time.Duration
	mirror  bool
	closed  bool
	running sync.WaitGroup
}

// NewProxy listens on a port of its own and relays to target until the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{target: target, listener: l, conns: map[net.Conn]bool{}}
	p.thawed = sync.NewCond(&p.mu)
	p.running.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) close() {
	p.set(func() { p.closed, p.frozen = true, false })
	p.listener.Close()
	p.Cut()
	p.running.Wait()
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.thawed.Broadcast()
}

// Freeze stops all bytes and accepts no connection, but closes nothing: half-open.
func (p *Proxy) Freeze() { p.set(func() { p.frozen = true }) }

// Thaw lets bytes pass again.
func (p *Proxy) Thaw() { p.set(func() { p.frozen = false }) }

// Refuse ends new connections at once, or no longer.
func (p *Proxy) Refuse(on bool) { p.set(func() { p.refuse = on }) }

// Delay holds each piece of data up for d.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Mirror sends what new clients say to the broker twice, over two connections.
func (p *Proxy) Mirror(on bool) { p.set(func() { p.mirror = on }) }

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, not a farewell
		}
		c.Close()
	}
	p.thawed.Broadcast()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(c) })
	}
}

// keep remembers a connection for Cut; false: it is over already.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refuse {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	server := p.dial()
	if server == nil {
		return
	}
	defer p.drop(server)
	to := []io.Writer{server}
	if p.mirrored() {
		if twin := p.dial(); twin != nil {
			defer p.drop(twin)
			go func() { _, _ = io.Copy(io.Discard, twin) }()
			to = append(to, quiet{twin})
		}
	}
	p.running.Go(func() { p.relay(client, server); client.Close() })
	p.relay(io.MultiWriter(to...), client)
}

// quiet is a writer whose failure is nobody's business.
type quiet struct{ io.Writer }

func (q quiet) Write(b []byte) (int, error) { _, _ = q.Writer.Write(b); return len(b), nil }

func (p *Proxy) mirrored() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mirror
}

func (p *Proxy) dial() net.Conn {
	c, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil || !p.keep(c) {
		return nil
	}
	return c
}

// relay copies until either side ends, and no faster than it is allowed to.
func (p *Proxy) relay(to io.Writer, from io.Reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if d := p.pause(); d > 0 {
			time.Sleep(d)
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pause waits while frozen and gives the delay.
func (p *Proxy) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen && !p.closed {
		p.thawed.Wait()
	}
	return p.delay
}
