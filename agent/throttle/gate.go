package throttle

import (
	"context"
	"sync"
)

// Policy is the rules of a device.
type Policy struct {
	Subject Limits // for each subject
	Device  Limits // for all attempts on this device together
}

// Gate lets attempts pass one by one as far as the rules ask for it, so that several
// at once get no more tries than one after the other. Fill the fields before use.
type Gate struct {
	Policy Policy
	Now    func() Mark
	// State reads what is remembered about a subject; "" is the device.
	State func(subject string) (State, error)

	mu       sync.Mutex // guards the fields below
	underWay map[string]int
	left     chan struct{} // closed when an attempt has ended
}

// Enter returns when an attempt may be made, for a subject or, with "", for whoever
// it may be. It waits only for attempts under way, and only as long as ctx lasts; what
// has to wait for the clock is refused with agent.CodeThrottled. Call leave when the
// result is stored, or there will be none.
func (g *Gate) Enter(ctx context.Context, subject string) (leave func(), err error) {
	for {
		wait, err := g.try(subject)
		if err != nil {
			return nil, err
		}
		if wait == nil {
			return sync.OnceFunc(func() { g.leave(subject) }), nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Allow tells whether an attempt would have to wait or be refused, without making one.
func (g *Gate) Allow(subject string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := g.judge(subject)
	return err
}

// try counts an attempt in, or returns what to wait for.
func (g *Gate) try(subject string) (wait <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	busy, err := g.judge(subject)
	if err != nil {
		return nil, err
	}
	if busy {
		if g.left == nil {
			g.left = make(chan struct{})
		}
		return g.left, nil
	}
	if g.underWay == nil {
		g.underWay = map[string]int{}
	}
	for _, k := range keys(subject) {
		g.underWay[k]++
	}
	return nil, nil
}

// judge asks the rules of the subject and of the device.
func (g *Gate) judge(subject string) (busy bool, err error) {
	for _, k := range keys(subject) {
		l := g.Policy.Device
		if k != "" {
			l = g.Policy.Subject
		}
		s, err := g.State(k)
		if err != nil {
			return false, err
		}
		switch v := l.Judge(s, g.underWay[k], g.Now()); v.Answer {
		case Allowed:
		case Busy:
			busy = true
		default:
			return false, refusal(k, s, v)
		}
	}
	return busy, nil
}

func (g *Gate) leave(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys(subject) {
		if g.underWay[k]--; g.underWay[k] == 0 {
			delete(g.underWay, k)
		}
	}
	if g.left != nil {
		close(g.left)
		g.left = nil
	}
}

// keys are what an attempt counts for. The subject comes first: its refusal says more.
func keys(subject string) []string {
	if subject == "" {
		return []string{""}
	}
	return []string{subject, ""}
}
