package api

import (
	"net/http"
	"net/url"
	"strconv"
)

// The limits of a page of a list.
const (
	DefaultPage = 50
	MaxPage     = 100
	maxOffset   = 1 << 31
)

// Page is the part of a list that a request asks for.
type Page struct {
	Limit, Offset int
}

// ParsePage reads limit (1..100, default 50; more is cut to 100) and offset. What is
// not a number of that kind is noted in f.
func ParsePage(q url.Values, f Fields) Page {
	p := Page{Limit: DefaultPage}
	if v := q.Get("limit"); q.Has("limit") {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			f.Add("limit", "A valid integer of at least 1 is required.")
		}
		p.Limit = min(n, MaxPage)
	}
	if v := q.Get("offset"); q.Has("offset") {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxOffset {
			f.Add("offset", "A valid integer of at least 0 is required.")
		}
		p.Offset = n
	}
	return p
}

// Listing is the envelope of every list.
type Listing struct {
	Count    int     `json:"count"`
	Next     *string `json:"next"`
	Previous *string `json:"previous"`
	Results  any     `json:"results"`
}

// Listing wraps one page of a list of count things. results must not be a nil slice.
func (s *Server) Listing(r *http.Request, p Page, count int, results any) Listing {
	l := Listing{Count: count, Results: results}
	if end := p.Offset + p.Limit; end < count {
		l.Next = s.pageURL(r, p.Limit, end)
	}
	if p.Offset > 0 {
		l.Previous = s.pageURL(r, p.Limit, max(0, p.Offset-p.Limit))
	}
	return l
}

func (s *Server) pageURL(r *http.Request, limit, offset int) *string {
	q := r.URL.Query()
	q.Set("limit", strconv.Itoa(limit))
	q.Del("offset")
	if offset > 0 {
		q.Set("offset", strconv.Itoa(offset))
	}
	u := s.Base(r) + r.URL.EscapedPath() + "?" + q.Encode()
	return &u
}
