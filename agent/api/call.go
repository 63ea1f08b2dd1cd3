package api

import (
	"encoding/json"
	"net/http"

	"postern/agent/cases"
)

// call is one request to a case route while it is read. The first thing that is wrong
// with it sticks, and Err tells it: a handler reads all that it needs and asks once.
type call struct {
	*http.Request
	caller *Caller
	scope  cases.Scope
	body   *Object // what was read of it; the faults of its fields count too
	err    error
}

// on makes a handler out of what answers a call; with 204 there is no body.
func on(status int, answer func(*call) (any, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := answer(&call{Request: r, caller: CallerOf(r.Context()), scope: scopeOf(r.Context())})
		switch {
		case err != nil:
			return err
		case status == http.StatusNoContent:
			w.WriteHeader(status)
		default:
			WriteJSON(w, status, v)
		}
		return nil
	}
}

// id reads a UUID of the path. What is not one names nothing.
func (c *call) id(name string) string {
	id := c.PathValue(name)
	if c.err == nil && !IsUUID(id) {
		c.err = NotFound()
	}
	return id
}

// object reads the body.
func (c *call) object() *Object {
	c.body = &Object{raw: map[string]json.RawMessage{}, asked: map[string]bool{}, Fields: Fields{}}
	if c.err != nil {
		return c.body
	}
	if o, err := ReadObject(c.Request); err != nil {
		c.err = err
	} else {
		c.body = o
	}
	return c.body
}

// metadata reads a field that is kept as it is.
func (c *call) metadata(name string) json.RawMessage {
	m, err := cases.ParseMetadata(name, c.body.Raw(name, maxCreate))
	if c.err == nil {
		c.err = err
	}
	return m
}

// page reads limit and offset of the query.
func (c *call) page() Page {
	faults := Fields{}
	p := ParsePage(c.URL.Query(), faults)
	if c.err == nil {
		c.err = faults.Err()
	}
	return p
}

// Err is the first fault.
func (c *call) Err() error {
	if c.err == nil && c.body != nil {
		return c.body.Err()
	}
	return c.err
}
