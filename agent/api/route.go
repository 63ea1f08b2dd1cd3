package api

import (
	"net/http"
	"slices"
	"strings"

	"postern/agent"
)

// Budget names a rate limit that routes share.
type Budget string

// The budgets.
const (
	BudgetRead       Budget = "read"
	BudgetWrite      Budget = "write"
	BudgetCreate     Budget = "create" // sessions
	BudgetPDF        Budget = "pdf"
	BudgetBiometrics Budget = "biometrics"
)

// Route is one endpoint. Path ends in a slash; the form without it is served too,
// directly. A wildcard {name} is read with r.PathValue.
type Route struct {
	Method   string
	Path     string
	Resource agent.Resource // "" with Open
	Access   agent.Access
	Budget   Budget // "": read for GET, else write
	MaxBody  int64  // 0: 1 MiB
	Open     bool   // no key is asked for
	Handle   func(w http.ResponseWriter, r *http.Request) error
}

func (rt *Route) budget() Budget {
	switch {
	case rt.Budget != "":
		return rt.Budget
	case rt.Method == http.MethodGet || rt.Method == http.MethodHead:
		return BudgetRead
	}
	return BudgetWrite
}

const defaultMaxBody = 1 << 20

func (rt *Route) maxBody() int64 {
	if rt.MaxBody > 0 {
		return rt.MaxBody
	}
	return defaultMaxBody
}

// methods serves the routes of one path.
type methods struct {
	server *Server
	path   string
	routes map[string]*Route
}

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	noteRoute(w, m.path)
	rt := m.routes[r.Method]
	if rt == nil && r.Method == http.MethodHead {
		rt = m.routes[http.MethodGet]
	}
	if rt == nil {
		w.Header().Set("Allow", m.allowed())
		fail(w, m.server.Log, Detail(http.StatusMethodNotAllowed, "Method \""+short(r.Method)+"\" not allowed."))
		return
	}
	m.server.serve(rt, w, r)
}

func (m methods) allowed() string {
	var names []string
	for name := range m.routes {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// router groups routes by path. The standard mux would redirect what is not clean
// or lacks a slash; handler never lets it.
func (s *Server) router() *http.ServeMux {
	byPath := map[string]methods{}
	for i := range s.routes {
		rt := &s.routes[i]
		m, ok := byPath[rt.Path]
		if !ok {
			m = methods{server: s, path: rt.Path, routes: map[string]*Route{}}
			byPath[rt.Path] = m
		}
		if m.routes[rt.Method] != nil {
			panic("two routes for " + rt.Method + " " + rt.Path)
		}
		m.routes[rt.Method] = rt
	}
	mux := http.NewServeMux()
	for path, m := range byPath {
		bare := strings.TrimSuffix(path, "/")
		mux.Handle(bare+"/{$}", m)
		if bare != "" {
			mux.Handle(bare, m)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fail(w, s.Log, NotFound()) })
	return mux
}

// Routes lists what is served.
func (s *Server) Routes() []Route { return slices.Clone(s.routes) }

// short keeps what is echoed of a request within bounds.
func short(v string) string {
	if len(v) > 40 {
		v = v[:40]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, v)
}
