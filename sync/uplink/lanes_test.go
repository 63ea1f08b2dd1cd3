package uplink

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLanes: whatever happens, every row up to the newest is acknowledged, or sent and
// waiting, or in a lane; none is forgotten.
func TestLanes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var l lanes
		sent := map[uint64]bool{} // since the last restart or rewind
		l.restart(0, 0)
		rt.Repeat(map[string]func(*rapid.T){
			"row": func(rt *rapid.T) { l.grow(l.last + rapid.Uint64Range(1, 5).Draw(rt, "n")) },
			"live": func(rt *rapid.T) {
				seq := l.nextLive()
				if seq == 0 {
					rt.Skip()
				}
				end := rapid.Uint64Range(seq, l.last).Draw(rt, "end")
				for n := seq; n <= end; n++ {
					sent[n] = true
				}
				l.sent(true, end)
			},
			"replay": func(rt *rapid.T) {
				seq := l.nextReplay()
				if seq == 0 {
					rt.Skip()
				}
				end := rapid.Uint64Range(seq, l.until-1).Draw(rt, "end")
				for n := seq; n <= end; n++ {
					sent[n] = true
				}
				l.sent(false, end)
			},
			"ack": func(rt *rapid.T) {
				before := l.acked
				seq := rapid.Uint64Range(0, l.last).Draw(rt, "seq")
				if news := l.ack(seq); news != (seq > before) || l.acked != max(before, seq) {
					rt.Fatalf("ack %d after %d: news %v, now %d", seq, before, news, l.acked)
				}
			},
			"restart": func(rt *rapid.T) { l.restart(l.acked, l.last); clear(sent) },
			"rewind": func(rt *rapid.T) {
				live := l.live
				l.rewind()
				for n := range sent {
					if n < live {
						delete(sent, n)
					}
				}
			},
			"": func(rt *rapid.T) {
				if err := l.check(); err != nil {
					rt.Fatal(err)
				}
				waits := false
				for n := l.acked + 1; n <= l.last; n++ {
					inLane := n >= l.replay && n < l.until || n >= l.live
					if !inLane && !sent[n] {
						rt.Fatalf("row %d is forgotten: %+v", n, l)
					}
					waits = waits || !inLane
				}
				if l.waiting() != waits {
					rt.Fatalf("waiting = %v, want %v: %+v", l.waiting(), waits, l)
				}
			},
		})
	})
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(0, 0)
	if got := p.room(); got != 32<<10 {
		t.Errorf("room at first %d", got)
	}
	slow := func(took time.Duration) {
		n := p.room()
		p.sent(1, n, now)
		now = now.Add(took)
		p.acked(1, now)
	}
	for range 20 {
		slow(2 * time.Second)
	}
	if p.budget != minBudget || p.room() != minBudget || p.flying != 0 {
		t.Errorf("on a slow line: %+v", p)
	}
	for range 40 {
		slow(10 * time.Millisecond)
	}
	if p.budget != maxBudget {
		t.Errorf("on a quick line: %+v", p)
	}
	p.sent(2, maxBudget-minBudget+1, now)
	if p.room() != 0 {
		t.Error("more than the budget is let out")
	}
	p.lost()
	if p.room() != maxBudget/2 {
		t.Errorf("after a loss: %+v", p)
	}
	p.acked(5, now) // of something forgotten
}
