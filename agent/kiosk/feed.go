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

// shown is a result as the pages get it, with the name of who was recognised.
type shown struct {
	agent.Result
	Name string `json:"name,omitempty"`
}

func (s *Server) shown(r agent.Result) shown {
	out := shown{Result: r}
	if s.Names != nil && r.SubjectID != "" && r.Decision.Status == agent.Approved {
		out.Name = s.Names(r.SubjectID)
	}
	return out
}

// beatEvery is how often a stream that has nothing to say says so: a page that hears
// nothing for three times as long counts the connection as lost.
const beatEvery = 2 * time.Second

// events streams decisions (event "result"), updates (event "update") and conditions
// (event "status"). It starts with the last results again, so that none is lost between
// two connections; the page knows them by their ids. What comes before the first status
// is from before the page.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	wake, leave := s.feed.join()
	defer leave()
	seen, last := 0, []Condition(nil)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if s.sendNews(w, &seen, &last) != nil || rc.Flush() != nil {
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

// sendNews sends the results after number seen, the newest update, and the conditions
// where they are others than last.
func (s *Server) sendNews(w http.ResponseWriter, seen *int, last *[]Condition) error {
	u, have, results := s.feed.since(*seen)
	for _, n := range results {
		*seen = n.n
		if err := send(w, "result", s.shown(n.r)); err != nil {
			return err
		}
	}
	if have {
		if err := send(w, "update", u); err != nil {
			return err
		}
	}
	if now := s.conditions(); !same(*last, now) {
		*last = now
		return send(w, "status", report{now})
	}
	if !have {
		return send(w, "beat", struct{}{})
	}
	return nil
}

func send(w http.ResponseWriter, event string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, body)
	return err
}
