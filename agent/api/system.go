package api

import (
	"net/http"
)

// systemRoutes are those without a key.
func (s *Server) systemRoutes() []Route {
	open := func(path string, h func(http.ResponseWriter, *http.Request) error) Route {
		return Route{Method: http.MethodGet, Path: path, Open: true, Handle: h}
	}
	return []Route{
		open("/system/healthcheck/", s.state(s.Health)),
		open("/system/ready/", s.state(s.Ready)),
	}
}

// state answers 200 while check passes, else 503. Why it does not is for the log:
// anybody may ask.
func (s *Server) state(check func() error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		status, word := http.StatusOK, "ok"
		if check != nil {
			if err := check(); err != nil {
				s.Log.Warn("not healthy", "err", err)
				status, word = http.StatusServiceUnavailable, "unhealthy"
			}
		}
		WriteJSON(w, status, map[string]string{"status": word, "timestamp": s.Now().UTC().Format("2006-01-02T15:04:05.000Z")})
		return nil
	}
}
