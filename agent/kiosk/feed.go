package kiosk

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"postern/agent"
	"postern/agent/watch"
)

// feed fans the loop's updates out to the open pages. A page that is slow skips
// updates, never results: it is told of every result by its number.
type feed struct {
	mu      sync.Mutex // guards all below
	last    watch.Update
	have    bool
	results []numbered
	count   int
	pages   map[chan struct{}]bool
}

// numbered is a result with its position in this run, from 1.
type numbered struct {
	n int
	r agent.Result
}

func (f *feed) publish(u watch.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.have = u, true
	if u.Result != nil {
		f.count++
		f.results = append(f.results, numbered{f.count, *u.Result})
		f.results = f.results[max(0, len(f.results)-recentResults):]
	}
	for c := range f.pages {
		select {
		case c <- struct{}{}:
		default: // the page has a wake-up waiting already
		}
	}
}

func (f *feed) latest() (watch.Update, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.have
}

// since returns the newest update, if there is one, and the results after number n.
func (f *feed) since(n int) (u watch.Update, have bool, results []numbered) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []numbered
	for _, r := range f.results {
		if r.n > n {
			out = append(out, r)
		}
	}
	return f.last, f.have, out
}

func (f *feed) join() (wake chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pages == nil {
		f.pages = map[chan struct{}]bool{}
	}
	f.pages[c] = true
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.pages, c)
	}
}

// writeTimeout bounds how long a page may take to read one event.
const writeTimeout = 10 * time.Second

// events streams updates (event "update") and decisions (event "result"). It
// starts with the last results again, so that none is lost between two
// connections; the page knows them by their ids.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	wake, leave := s.feed.join()
	defer leave()
	seen := 0
	beat := time.NewTicker(5 * time.Second)
	defer beat.Stop()
	for {
		u, have, results := s.feed.since(seen)
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		for _, n := range results {
			seen = n.n
			if send(w, "result", n.r) != nil {
				return
			}
		}
		if have && send(w, "update", u) != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-wake:
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
	}
}

func send(w http.ResponseWriter, event string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, body)
	return err
}
