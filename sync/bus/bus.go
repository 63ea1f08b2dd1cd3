// Package bus keeps a client connected to an MQTT broker: it connects, subscribes,
// publishes within a window, and when the connection ends waits and connects anew.
//
// It promises little on purpose. A nil from Publish means that the message was
// handed to the connection, not that anybody has it; a message may arrive twice, late
// or out of order. What must not be lost is repeated by the caller until the hub's own
// acknowledgement (package wire) has come.
//
// How a connection is made is a Dialer: package mqtt has the one for brokers,
// package membus one in memory for tests. Package bustest holds both to the same.
package bus

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Message is one publication.
type Message struct {
	Topic   string
	Payload []byte
	Retain  bool // the broker keeps the last one and gives it to later subscribers

	// AtMostOnce spares the broker its store: QoS 0 instead of 1. For what is repeated
	// anyway when it was needed.
	AtMostOnce bool
}

// Connect is what a Dialer needs to open a session.
type Connect struct {
	ClientID  string
	Subscribe []string // filters; all of them granted, or Dial fails
	// AtMostOnce subscribes with QoS 0 instead of 1: what comes is not kept, confirmed
	// or held back, and costs the broker no state a client.
	AtMostOnce bool
	Will       *Message // published by the broker when the session ends without a word

	// Handle is called for each message, from several goroutines at once. It puts the
	// message into a queue; when that is full it may wait until ctx, the session's, is
	// done. What is not handled is not confirmed, so the broker then holds back.
	Handle func(ctx context.Context, m Message)
}

// Session is one connection, from its start to its end. Nothing of it outlives Close.
type Session interface {
	// Publish hands over a message; done is called once, when the broker has confirmed
	// it or the session has ended. It blocks while the connection takes nothing, at
	// most for a write timeout.
	Publish(m Message, done func(error))
	// Done is closed when the session has ended; Err says why.
	Done() <-chan struct{}
	Err() error
	// Close ends the session. With polite the broker is told, and publishes no will.
	Close(polite bool)
}

// Dialer opens sessions.
type Dialer interface {
	Dial(ctx context.Context, c Connect) (Session, error)
}

// ErrOffline is returned by Publish when there is no session.
var ErrOffline = errors.New("not connected to the broker")

// ErrStalled ends a session whose window stayed full.
var ErrStalled = errors.New("the broker has confirmed nothing for too long")

// The defaults of Client.
const (
	DefaultWindow   = 64
	DefaultMinDelay = time.Second
	DefaultMaxDelay = time.Minute
	DefaultStall    = time.Minute
)

// Client is a connection that comes back. Set the fields before Run.
type Client struct {
	Dialer Dialer
	// Connect is asked before each session.
	Connect func() Connect
	// Up is called when a session has begun, Down when it has ended; never at once, and
	// not for attempts that fail. ctx is the session's. Up must not block.
	Up   func(ctx context.Context)
	Down func(err error)

	Window   int           // messages handed over and not yet confirmed, at most
	MinDelay time.Duration // before the second attempt; doubles up to MaxDelay
	MaxDelay time.Duration
	Stall    time.Duration // a window that is full for so long ends the session

	Rand func() float64 // [0,1), for the jitter
	Log  *slog.Logger

	mu      sync.Mutex // guards current
	current *live
}

// live is a session with its window.
type live struct {
	Session
	window chan struct{}
}

// Run connects and stays connected until ctx is done; then it says goodbye to the
// broker and returns nil.
func (c *Client) Run(ctx context.Context) error {
	c.defaults()
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > c.MaxDelay {
			attempt = 0 // that was a good connection, not the next failure in a row
		}
		wait := c.delay(attempt)
		c.Log.Info("broker not connected", "err", err, "again_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (c *Client) defaults() {
	set(&c.Window, DefaultWindow)
	set(&c.MinDelay, DefaultMinDelay)
	set(&c.MaxDelay, DefaultMaxDelay)
	set(&c.Stall, DefaultStall)
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Up == nil {
		c.Up = func(context.Context) {}
	}
	if c.Down == nil {
		c.Down = func(error) {}
	}
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// delay is full jitter: a fleet that lost its broker does not return as one.
func (c *Client) delay(attempt int) time.Duration {
	most := c.MaxDelay
	if attempt < 20 {
		most = min(most, c.MinDelay<<attempt)
	}
	return time.Duration(c.Rand() * float64(most))
}

// session lives through one session and gives the reason of its end.
func (c *Client) session(ctx context.Context) error {
	s, err := c.Dialer.Dial(ctx, c.Connect())
	if err != nil {
		return err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.swap(&live{s, make(chan struct{}, c.Window)})
	c.Up(sctx)
	select {
	case <-s.Done():
		err = s.Err()
	case <-ctx.Done():
	}
	c.swap(nil)
	cancel()
	s.Close(err == nil)
	c.Down(err)
	return err
}

func (c *Client) swap(l *live) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = l
}

func (c *Client) present() *live {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// Publish hands a message to the present session when its window has room, and waits
// for room until ctx or the session ends. ErrOffline: there is none. A nil says
// nothing about delivery.
func (c *Client) Publish(ctx context.Context, m Message) error {
	l := c.present()
	if l == nil {
		return ErrOffline
	}
	stall := time.NewTimer(c.Stall)
	defer stall.Stop()
	select {
	case l.window <- struct{}{}:
	case <-l.Done():
		return ErrOffline
	case <-ctx.Done():
		return ctx.Err()
	case <-stall.C:
		c.Log.Warn("broker confirms nothing; connecting anew", "window", c.Window, "for", c.Stall)
		l.Close(false)
		return ErrStalled
	}
	l.Session.Publish(m, func(err error) {
		<-l.window
		if err != nil {
			c.Log.Debug("publication not confirmed", "topic", m.Topic, "err", err)
		}
	})
	return nil
}
