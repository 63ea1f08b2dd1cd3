package store

import (
	"sync"

	"postern/agent"
)

// maxGroup bounds how many results share a transaction.
const maxGroup = 128

// group lets appends that arrive while the disk is busy share the next commit.
// The first caller commits for all that wait and then hands over to the first
// that arrived meanwhile. So a lone append waits for nothing, and nobody commits
// for others for ever. bbolt's own Batch is not used: it delays a lone call, runs
// functions again after a failure, and runs them on a goroutine where a bad page
// would end the process.
type group struct {
	mu      sync.Mutex // guards the fields below
	busy    bool       // somebody is committing or has been told to
	waiting []*appending
}

// appending is one result on its way into the file.
type appending struct {
	result  agent.Result
	payload []byte // encoded without the position, which the transaction assigns
	err     error

	turn chan bool // true: commit for the group; false: it is done
}

// submit queues a and returns when it has been committed or refused.
func (g *group) submit(a *appending, commit func([]*appending)) {
	g.mu.Lock()
	g.waiting = append(g.waiting, a)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if lead || <-a.turn {
		g.lead(a, commit)
	}
}

// lead commits for a, which is the first of those waiting, and who waits with it.
func (g *group) lead(a *appending, commit func([]*appending)) {
	g.mu.Lock()
	n := min(len(g.waiting), maxGroup)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()

	commit(batch)
	for _, b := range batch {
		if b != a {
			b.turn <- false
		}
	}
	g.handOver()
}

func (g *group) handOver() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.waiting, g.busy = nil, false
		return
	}
	g.waiting[0].turn <- true
}
