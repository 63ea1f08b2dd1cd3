package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// queue is what the deliverer needs from the store.
type queue interface {
	DueDeliveries(now time.Time, busy map[string]bool, limit int) (due []cases.Due, next time.Time, err error)
	RecordDelivery(uuid string, t cases.Try, then func(*cases.Delivery)) (cases.Delivery, error)
}

// Schedule is how long after each failed attempt the next one comes. The first two
// are those of the contract; the rest carry a delivery over a day and a half without
// a receiver. Each is spread by a fifth either way, so that a receiver that comes
// back is not met by all at once.
var Schedule = []time.Duration{time.Minute, 4 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 15 * time.Hour}

// spread is the share of a wait by which it is spread either way.
const spread = 0.2

// MaxBody bounds a delivery: published receivers refuse more than 1 MiB.
const MaxBody = 1 << 20

// Deliverer sends what the queue holds. Fill Queue, Links and Now, then call Run.
type Deliverer struct {
	Queue    queue
	Links    cases.Links // of the pictures in what is sent
	Now      func() time.Time
	Random   func() float64 // 0 to below 1, for the spread
	Loopback bool           // receivers on this machine are allowed
	Workers  int            // destinations served at once; default 4
	Log      *slog.Logger

	client *http.Client
	wake   chan struct{}

	mu   sync.Mutex // guards busy
	busy map[string]bool
}

// Init makes the deliverer usable; Run and Wake need it.
func (d *Deliverer) Init() {
	d.client = newClient(d.Loopback)
	d.wake = make(chan struct{}, 1)
	d.busy = map[string]bool{}
	if d.Workers < 1 {
		d.Workers = 4
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
}

// Wake tells the deliverer that the queue has something new. It never waits.
func (d *Deliverer) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// poll is how long the deliverer sleeps at most: it looks again even if nobody woke it.
const poll = 15 * time.Second

// Run delivers until ctx ends and then waits for the attempts that are under way.
// What they came to is recorded, or they are made again by the next process.
func (d *Deliverer) Run(ctx context.Context) error {
	var working sync.WaitGroup
	defer func() {
		working.Wait()
		d.client.CloseIdleConnections()
	}()
	for ctx.Err() == nil {
		next, err := d.start(ctx, &working)
		if err != nil {
			d.Log.Error("webhook queue cannot be read", "err", err)
		}
		d.sleep(ctx, next)
	}
	return nil
}

// start begins attempts for what is due, one a destination, and returns when the
// next is.
func (d *Deliverer) start(ctx context.Context, working *sync.WaitGroup) (time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	due, next, err := d.Queue.DueDeliveries(d.Now(), d.busy, d.Workers-len(d.busy))
	for _, one := range due {
		d.busy[one.Destination.UUID] = true
		working.Go(func() {
			d.attempt(ctx, one)
			d.mu.Lock()
			delete(d.busy, one.Destination.UUID)
			d.mu.Unlock()
			d.Wake()
		})
	}
	return next, err
}

func (d *Deliverer) sleep(ctx context.Context, next time.Time) {
	wait := poll
	if until := next.Sub(d.Now()); !next.IsZero() && until < wait {
		wait = max(until, 10*time.Millisecond)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-d.wake:
	case <-t.C:
	}
}

// attempt makes one delivery once and records it.
func (d *Deliverer) attempt(ctx context.Context, due cases.Due) {
	at := d.Now()
	res := d.send(ctx, due, at)
	if ctx.Err() != nil && res.status == 0 {
		return // stopped half way: the next process makes it again
	}
	t := cases.Try{At: at, Status: res.status, MS: res.took.Milliseconds()}
	if res.err != nil {
		t.Error = clip(res.err.Error())
	}
	_, err := d.Queue.RecordDelivery(due.Delivery.UUID, t, func(v *cases.Delivery) { d.decide(v, res) })
	if err != nil && agent.ErrorCode(err) != agent.CodeNotFound {
		d.Log.Error("webhook delivery cannot be recorded", "delivery", due.Delivery.UUID, "err", err)
		d.pause(ctx)
	}
}

// pause keeps a delivery that cannot be recorded from being sent over and over.
func (d *Deliverer) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(poll):
	}
}

func clip(s string) string {
	if len(s) > 300 {
		s = s[:300]
	}
	return string(bytes.ToValidUTF8([]byte(s), []byte("?")))
}

// result is what an attempt came to.
type result struct {
	status int
	took   time.Duration
	after  time.Duration // the receiver's own wish, if any
	err    error
	final  bool // sending it again cannot help
}

// decide sets the state and the next time of a delivery after an attempt.
func (d *Deliverer) decide(v *cases.Delivery, r result) {
	v.NextAt = time.Time{}
	switch {
	case r.err == nil && r.status >= 200 && r.status < 300:
		v.State = cases.Delivered
	case r.final || !repeatable(r.status) || v.Attempts > len(Schedule):
		v.State = cases.Failed
	default:
		v.State = cases.Pending
		v.NextAt = d.Now().Add(d.wait(v.Attempts, r.after))
	}
}

// repeatable tells which answers are worth another attempt: none at all, trouble on
// the receiver's side, and those that say "not now". A redirect, a refusal of the
// body or of the signature stays what it is.
func repeatable(status int) bool {
	switch status {
	case 0, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// wait is the time to the attempt after this many. A receiver may ask for more than
// the schedule, up to the schedule's last step.
func (d *Deliverer) wait(attempts int, asked time.Duration) time.Duration {
	w := Schedule[min(max(attempts, 1), len(Schedule))-1]
	w = time.Duration(float64(w) * (1 - spread + 2*spread*d.Random()))
	return max(w, min(asked, Schedule[len(Schedule)-1]))
}

// send makes the request.
func (d *Deliverer) send(ctx context.Context, due cases.Due, at time.Time) result {
	s, err := d.compose(due, at)
	if err != nil {
		return result{err: err, final: true}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, due.Destination.URL, bytes.NewReader(s.body))
	if err != nil {
		return result{err: errors.New("the address cannot be used"), final: true}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Postern-Webhook/1.0")
	if due.Delivery.Test {
		req.Header.Set(HeaderTest, "true")
	}
	current, next := due.Destination.Secrets(at)
	s.sign(req.Header, current, next)
	start := time.Now()
	res, err := d.client.Do(req)
	took := time.Since(start)
	if err != nil {
		return result{took: took, err: plainError(err), final: errors.Is(err, ErrPrivate)}
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // lets the connection be used again
	out := result{status: res.StatusCode, took: took, after: retryAfter(res.Header.Get("Retry-After"), at)}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		out.err = fmt.Errorf("the receiver answered %d", res.StatusCode)
	}
	return out
}

// plainError drops the address from an error: it may hold the receiver's secrets.
func plainError(err error) error {
	var timed interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrPrivate):
		return ErrPrivate
	case errors.As(err, &timed) && timed.Timeout():
		return errors.New("no answer within 5 seconds")
	}
	for u := errors.Unwrap(err); u != nil; u = errors.Unwrap(err) {
		err = u
	}
	return err
}

// retryAfter reads seconds or a date; 0 when there is none.
func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(v); err == nil && n > 0 && n < math.MaxInt32 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// compose makes the body and what its signatures are over. Both times are those of
// this attempt: receivers refuse what is older than five minutes.
func (d *Deliverer) compose(due cases.Due, at time.Time) (*signed, error) {
	body, err := Canonical(envelope(due, d.Links, at))
	if err != nil {
		return nil, err
	}
	if len(body) >= MaxBody {
		return nil, fmt.Errorf("the event has %d bytes, more than receivers take", len(body))
	}
	s := &signed{body: body, timestamp: at.Unix(), kind: due.Delivery.Type}
	if !due.Delivery.Test {
		s.session, s.status = due.Event.Session.ID, string(due.Event.Session.Status)
	} else {
		s.session, s.status = testSession, string(cases.Approved)
	}
	return s, nil
}

// testSession is the session that test deliveries are about.
const testSession = "00000000-0000-0000-0000-000000000000"

// envelope is the body as a JSON value.
func envelope(due cases.Due, l cases.Links, at time.Time) map[string]any {
	s := due.Event.Session
	if due.Delivery.Test {
		s = cases.Session{ID: testSession, Status: cases.Approved, Environment: cases.Live, CreatedAt: at}
	}
	d := s.Decision(l, false)
	e := map[string]any{
		"event_id": due.Event.ID, "webhook_type": due.Delivery.Type, "application_id": agent.ApplicationOr(s.Application), "timestamp": at.Unix(), "created_at": at.Unix(),
		"session_id": s.ID, "session_kind": "user", "session_number": s.Number, "status": s.Status, "workflow_id": d["workflow_id"],
		"workflow_version": s.Version, "vendor_data": d["vendor_data"], "metadata": onlyObject(s.Metadata), "environment": s.Environment,
		"decision": d,
	}
	if info, ok := d["resubmit_info"]; ok {
		e["resubmit_info"] = info
	}
	return e
}

// onlyObject keeps metadata out of the envelope unless it is an object: published
// receivers refuse anything else there. The decision has it as it is.
func onlyObject(m json.RawMessage) json.RawMessage {
	if t := bytes.TrimSpace(m); len(t) == 0 || t[0] != '{' {
		return json.RawMessage("null")
	}
	return m
}
