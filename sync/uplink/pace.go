package uplink

import "time"

// pace limits how many bytes of the replay lane are under way to the hub and not yet
// acknowledged, so that news never queues behind much history: on a slow line the
// budget shrinks to one small batch, on a quick one it grows.
type pace struct {
	budget int
	out    []flight // oldest first
	flying int      // their bytes
}

// flight is a batch of the replay lane under way.
type flight struct {
	last  uint64
	bytes int
	at    time.Time
}

const (
	minBudget = 4 << 10
	maxBudget = 256 << 10
	quick     = 500 * time.Millisecond // an acknowledgement within this lets the budget grow
)

// room is how many bytes the next batch may have; 0: wait.
func (p *pace) room() int {
	if p.budget == 0 {
		p.budget = 32 << 10
	}
	if p.flying > 0 && p.budget-p.flying < minBudget {
		return 0
	}
	return max(p.budget-p.flying, minBudget)
}

func (p *pace) sent(last uint64, bytes int, now time.Time) {
	p.out = append(p.out, flight{last, bytes, now})
	p.flying += bytes
}

// acked takes what has arrived off the list. The oldest one's time sets the budget.
func (p *pace) acked(seq uint64, now time.Time) {
	n := 0
	for n < len(p.out) && p.out[n].last <= seq {
		p.flying -= p.out[n].bytes
		n++
	}
	if n == 0 {
		return
	}
	if now.Sub(p.out[0].at) <= quick {
		p.budget = min(p.budget+p.budget/4+1<<10, maxBudget)
	} else {
		p.budget = max(p.budget/2, minBudget)
	}
	p.out = p.out[n:]
}

// lost forgets what was under way.
func (p *pace) lost() {
	p.out, p.flying = nil, 0
	p.budget = max(p.budget/2, minBudget)
}
