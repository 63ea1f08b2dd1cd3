package flow

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"

	"postern/agent"
	"postern/agent/cases"
)

// index holds in memory what searches look at: the faces of lists, those of former
// sessions up to a limit, and the vendor_data that are blocked.
type index struct {
	limit int

	mu       sync.RWMutex // guards the fields below
	entries  map[string]listed
	sessions map[string]string  // their applications
	order    []string           // of sessions, oldest first; may name ones that are gone
	blocked  map[string]blocked // by entry
	faces    faces              // of entries and sessions, by their owners
}

// listed is a face of a list.
type listed struct {
	entry       cases.Entry
	kind        string // of the list
	application string
}

// blocked is a person who may not have a session.
type blocked struct{ vendor, application string }

// defaultSearchLimit keeps the sessions' faces within some 20 MB.
const defaultSearchLimit = 10_000

func newIndex(limit int) *index {
	if limit <= 0 {
		limit = defaultSearchLimit
	}
	return &index{limit: limit, entries: map[string]listed{}, sessions: map[string]string{}, blocked: map[string]blocked{}, faces: newFaces()}
}

// loadIndex reads lists and faces from the store.
func (s *Service) loadIndex() error {
	all, err := s.Store.Lists()
	if err != nil {
		return err
	}
	for _, l := range all {
		entries, err := s.Store.Entries(l.UUID)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.indexEntry(&l, e); err != nil {
				return err
			}
		}
	}
	return s.Store.EachFace(func(t agent.Template) error {
		id, ok := strings.CutPrefix(t.SubjectID, "session/")
		if !ok || t.ID != cases.FaceCapture {
			return nil
		}
		v, err := s.Store.Session(id)
		if err == nil && v.Environment == cases.Live && v.Decided() {
			s.index.addSession(&v, t.Embedding)
		}
		if agent.ErrorCode(err) == agent.CodeNotFound {
			return nil
		}
		return err
	})
}

func (s *Service) indexEntry(l *cases.List, e cases.Entry) error {
	if l.Type == cases.Blocklist && l.EntryType == cases.EntryUser {
		s.index.mu.Lock()
		s.index.blocked[e.UUID] = blocked{e.Value, agent.ApplicationOr(l.Application)}
		s.index.mu.Unlock()
		return nil
	}
	if l.EntryType != cases.EntryFace || l.Type == cases.Custom {
		return nil
	}
	t, err := s.Store.Face(entryOwner(e.UUID), e.UUID)
	if agent.ErrorCode(err) == agent.CodeNotFound { // a recovery has set it aside
		s.Log.Error("an entry of a list has lost its face and finds nobody: delete it and add it anew", "list", l.Name, "entry", e.UUID)
		return nil
	}
	if err != nil {
		return err
	}
	defer clear(t.Embedding)
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.entries[e.UUID] = listed{e, l.Type, agent.ApplicationOr(l.Application)}
	s.index.faces.set(entryOwner(e.UUID), t.Embedding)
	return nil
}

func entryOwner(id string) string { return "entry/" + id }

// addSession copies the face of a session in.
func (x *index) addSession(v *cases.Session, e agent.Embedding) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, there := x.sessions[v.ID]; !there {
		x.order = append(x.order, v.ID)
	}
	x.sessions[v.ID] = agent.ApplicationOr(v.Application)
	x.faces.set(owner(v.ID), e)
	for len(x.sessions) > x.limit {
		delete(x.sessions, x.order[0])
		x.faces.drop(owner(x.order[0]))
		x.order = x.order[1:]
	}
}

func (x *index) dropSession(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, there := x.sessions[id]; there {
		delete(x.sessions, id)
		x.faces.drop(owner(id))
		x.order = slices.DeleteFunc(x.order, func(o string) bool { return o == id })
	}
}

func (x *index) dropEntry(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.entries, id)
	delete(x.blocked, id)
	x.faces.drop(entryOwner(id))
}

// close wipes the faces from memory.
func (x *index) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.faces.close()
	clear(x.entries)
	clear(x.sessions)
	x.order = nil
}

// Forget wipes from memory the faces of sessions and list entries that are not stored
// any more: an erasure and retention delete them past this service.
func (s *Service) Forget() error {
	s.index.mu.RLock()
	ids := slices.Collect(maps.Keys(s.index.sessions))
	s.index.mu.RUnlock()
	for _, id := range ids {
		_, err := s.Store.Session(id)
		if agent.ErrorCode(err) == agent.CodeNotFound {
			s.index.dropSession(id)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Close wipes the faces that searches look at from memory; a search finds nobody then.
func (s *Service) Close() { s.index.close() }

// blocks tells whether an application gives somebody with this vendor_data no session.
func (x *index) blocks(application, vendor string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, b := range x.blocked {
		if b == (blocked{vendor, agent.ApplicationOr(application)}) {
			return true
		}
	}
	return false
}

// Screening are the limits of a search for blocked and duplicated faces where no
// workflow sets them: the scores that stand for false match rates of 1 in 100,000 for
// a sure hit, and 1 in 10,000 for a possible one, for each face that is looked at.
var Screening = agent.Thresholds{Review: 90, Decline: 70}

// SearchQuery asks who a face might be.
type SearchQuery struct {
	Application string // whose lists and sessions are searched
	Embedding   agent.Embedding
	Space       string
	Limits      agent.Thresholds // at or below Decline it is nobody; above Review it is sure
	Vendor      string           // sessions of the same are no duplicates
	Session     string           // nor is the session itself
	ListsOnly   bool
	Max         int // default 5
}

// MaxMatches is how many faces a search tells.
const MaxMatches = 5

type hit struct {
	cosine  float32
	entry   *listed
	session string
}

// Search finds the faces most like one: those of blocklist and allowlist first of
// equals, then those of former sessions.
func (s *Service) Search(q SearchQuery) ([]cases.Match, error) {
	if q.Max <= 0 || q.Max > MaxMatches {
		q.Max = MaxMatches
	}
	out := []cases.Match{}
	for _, h := range s.index.search(&q, s.curve().Cosine(q.Limits.Decline)) {
		if len(out) == q.Max {
			break
		}
		score := s.curve().Score(h.cosine)
		if !(score > q.Limits.Decline) {
			continue
		}
		m, ok, err := s.match(&q, h)
		if err != nil {
			return nil, err
		}
		if ok {
			m.Similarity = score
			out = append(out, m)
		}
	}
	return out, nil
}

// search returns all that may be above a cosine, the most similar first.
func (x *index) search(q *SearchQuery, floor float32) []hit {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var hits []hit
	whose := agent.ApplicationOr(q.Application)
	for id, l := range x.entries {
		if c, ok := x.faces.cosine(entryOwner(id), q.Embedding); ok && l.application == whose && c >= floor {
			one := l
			hits = append(hits, hit{c, &one, ""})
		}
	}
	if !q.ListsOnly {
		for id, application := range x.sessions {
			if c, ok := x.faces.cosine(owner(id), q.Embedding); ok && application == whose && c >= floor && id != q.Session {
				hits = append(hits, hit{c, nil, id})
			}
		}
	}
	sort.Slice(hits, func(i, j int) bool {
		if hits[i].cosine != hits[j].cosine {
			return hits[i].cosine > hits[j].cosine
		}
		return hits[i].entry != nil && hits[j].entry == nil
	})
	return hits
}

// match tells who a hit is; false where it is the same person by vendor_data, or gone.
func (s *Service) match(q *SearchQuery, h hit) (cases.Match, bool, error) {
	if h.entry != nil {
		e := &h.entry.entry
		return cases.Match{Source: "list_entry", EntryID: e.UUID, SessionID: e.SessionID, Number: e.Number, At: e.CreatedAt, Media: e.Media,
			Blocklisted: h.entry.kind == cases.Blocklist, Allowlisted: h.entry.kind == cases.Allowlist}, true, nil
	}
	v, err := s.Store.Session(h.session)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		s.index.dropSession(h.session) // erased by another way than this service
		return cases.Match{}, false, nil
	}
	if err != nil {
		return cases.Match{}, false, err
	}
	if q.Vendor != "" && v.VendorData == q.Vendor {
		return cases.Match{}, false, nil
	}
	return cases.Match{Source: "session", SessionID: v.ID, Number: v.Number, VendorData: v.VendorData, At: v.CreatedAt, Media: v.Capture.Media,
		Status: v.Status, API: v.API}, true, nil
}
