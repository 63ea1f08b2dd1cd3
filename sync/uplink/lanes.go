package uplink

import "fmt"

// lanes says which rows to send next. Rows are numbered from 1 without gaps. What the
// hub has acknowledged is a prefix; behind it lies what is still to be sent or to be
// acknowledged:
//
//	1 … acked │ acked+1 … replay-1 │ replay … until-1 │ until … live-1 │ live … last
//	  done    │ sent, waiting      │ replay lane      │ sent, waiting  │ live lane
//
// Rows that are new while a backlog drains overtake it in the live lane. The hub
// stores them, but acknowledges them only when all before them have come.
type lanes struct {
	acked  uint64 // the hub has all up to this
	replay uint64 // first row of the replay lane
	until  uint64 // first row behind the replay lane
	live   uint64 // first row of the live lane
	last   uint64 // newest row there is
}

// restart begins a session: everything that is not acknowledged is replayed.
func (l *lanes) restart(acked, last uint64) {
	*l = lanes{acked: acked, replay: acked + 1, until: last + 1, live: last + 1, last: last}
}

// rewind sends again what was sent and not acknowledged.
func (l *lanes) rewind() { l.replay, l.until = l.acked+1, l.live }

// grow notes that there are newer rows.
func (l *lanes) grow(last uint64) { l.last = max(l.last, last) }

// ack notes the hub's acknowledgement; it is cumulative and may come late or twice.
// It tells whether it was news.
func (l *lanes) ack(seq uint64) bool {
	seq = min(seq, l.last)
	if seq <= l.acked {
		return false
	}
	l.acked = seq
	l.replay = max(l.replay, seq+1)
	l.live = max(l.live, seq+1)
	if l.until < l.replay {
		l.until = l.replay
	}
	return true
}

// nextLive gives the first row to send as news; 0: none.
func (l *lanes) nextLive() uint64 {
	if l.live > l.last {
		return 0
	}
	return l.live
}

// nextReplay gives the first row to send again, or to send at last; 0: none.
func (l *lanes) nextReplay() uint64 {
	if l.replay >= l.until {
		return 0
	}
	return l.replay
}

// sent notes that rows up to and including seq were handed over in a lane.
func (l *lanes) sent(live bool, seq uint64) {
	if !live {
		l.replay = max(l.replay, seq+1)
		return
	}
	if l.replay >= l.until && l.until == l.live {
		// No replay under way: both fronts move as one.
		l.replay, l.until = seq+1, seq+1
	}
	l.live = max(l.live, seq+1)
}

// waiting tells whether something was sent that is not acknowledged.
func (l *lanes) waiting() bool { return l.replay > l.acked+1 || l.live > l.until }

// check holds the picture above; tests call it after every step.
func (l *lanes) check() error {
	if l.acked < l.replay && l.replay <= l.until && l.until <= l.live && l.live <= l.last+1 && l.acked <= l.last {
		return nil
	}
	return fmt.Errorf("lanes out of order: %+v", *l)
}
