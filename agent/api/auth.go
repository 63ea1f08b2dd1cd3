package api

import (
	"context"
	"net/http"
	"net/netip"

	"postern/agent"
)

// Caller is who a request comes from.
type Caller struct{ agent.APIKey }

type callerKey struct{}

func withCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the authenticated caller of a route that is not Open.
func CallerOf(ctx context.Context) *Caller {
	c, ok := ctx.Value(callerKey{}).(*Caller)
	if !ok {
		panic("a handler asked for the caller of an open route")
	}
	return c
}

// The answers to a request that is not let in. A wrong, a revoked and an expired key
// look alike.
var (
	errNoKey = Detail(http.StatusForbidden, "Authentication credentials were not provided.")
	errKey   = Detail(http.StatusUnauthorized, "Authentication credentials were not provided or are invalid.")
	errFrom  = Detail(http.StatusForbidden, "You do not have permission to perform this action.")
)

// failedAuth is how many wrong keys an address may try in a minute.
const failedAuth = 300

// authenticate finds the caller before anything else is looked up.
func (s *Server) authenticate(r *http.Request) (*Caller, error) {
	tokens := r.Header.Values("X-Api-Key")
	if len(tokens) == 0 || tokens[0] == "" {
		return nil, errNoKey
	}
	from := remote(r)
	id, ok := agent.KeyIDOf(tokens[0])
	if len(tokens) > 1 || !ok {
		return nil, s.refuseKey(from)
	}
	k, err := s.Keys.APIKey(id)
	switch {
	case agent.ErrorCode(err) == agent.CodeNotFound:
		k = agent.APIKey{} // its empty digest equals none; the comparison takes place all the same
	case err != nil:
		return nil, err
	}
	if !k.Opens(tokens[0], s.Now()) {
		return nil, s.refuseKey(from)
	}
	if !k.AllowsFrom(from) {
		return nil, errFrom
	}
	return &Caller{k}, nil
}

// refuseKey is 401, or 429 for an address that keeps trying.
func (s *Server) refuseKey(from netip.Addr) error {
	if err := s.limiter.take(http.Header{}, "address "+from.String(), "refused", failedAuth); err != nil {
		return err
	}
	return errKey
}

// remote is the address at the other end of the connection. Forwarding headers are
// not believed: anybody can write them.
func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
