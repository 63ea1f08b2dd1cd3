package api

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// limiter counts requests in windows of a minute.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex // guards the fields below
	window int64      // the present one, in minutes since 1970
	counts map[counted]int
}

type counted struct {
	who    string
	budget Budget
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, counts: map[counted]int{}}
}

const window = time.Minute

// maxCounted bounds the memory: with so many different callers in one minute the
// newcomers are refused.
const maxCounted = 100_000

// take counts one request against a budget of limit a minute, writes the documented
// headers and returns 429 when the budget is spent. A limit of 0 is none.
func (l *limiter) take(h http.Header, who string, b Budget, limit int) error {
	if limit <= 0 {
		return nil
	}
	n, reset := l.count(counted{who, b})
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, limit-n)))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
	if n <= limit {
		return nil
	}
	return &Error{Status: http.StatusTooManyRequests, RetryAfter: max(time.Second, reset.Sub(l.now())),
		Body: map[string]string{"detail": "Request was throttled. The budget is " + strconv.Itoa(limit) + " requests a minute."}}
}

func (l *limiter) count(c counted) (int, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if w := now.Unix() / int64(window/time.Second); w != l.window {
		l.window = w
		clear(l.counts)
	}
	reset := time.Unix((l.window+1)*int64(window/time.Second), 0)
	if _, known := l.counts[c]; !known && len(l.counts) >= maxCounted {
		return 1 << 30, reset
	}
	l.counts[c]++
	return l.counts[c], reset
}

// gate bounds the expensive work: so many requests are at it, so many wait, the
// others are sent away at once. A request holds its ticket from before its body is
// read, so the memory of all bodies is bounded too.
type gate struct {
	tickets chan struct{}
	slots   chan struct{}
}

func newGate(workers, queue int) *gate {
	return &gate{tickets: make(chan struct{}, workers+queue), slots: make(chan struct{}, workers)}
}

// enter takes a ticket; leave gives it back.
func (g *gate) enter() (leave func(), err error) {
	select {
	case g.tickets <- struct{}{}:
		return func() { <-g.tickets }, nil
	default:
		return nil, &Error{Status: http.StatusServiceUnavailable, RetryAfter: time.Second,
			Body: map[string]string{"detail": "Too many requests are being worked on. Try again in a moment."}}
	}
}

// work waits for a slot and runs fn.
func (g *gate) work(ctx context.Context, fn func() error) error {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
		return fn()
	case <-ctx.Done():
		return errLate()
	}
}

// errLate is for a request whose time is over, or whose caller has gone: that is no fault
// of this server's, which has more to do than it can.
func errLate() error {
	return &Error{Status: http.StatusServiceUnavailable, RetryAfter: time.Second,
		Body: map[string]string{"detail": "The request waited too long for its turn. Try again in a moment."}}
}
