package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

// Whatever the body, a form is read within its limits or refused with a 4xx.
func FuzzForm(f *testing.F) {
	ct, body := form(f, file("user_image", "a.jpg", []byte("x")), textField("metadata", `{"a":1}`), textField("vendor_data", "é"))
	boundary := strings.TrimPrefix(ct, "multipart/form-data; boundary=")
	f.Add(body)
	f.Add(body[:len(body)-9])
	f.Add([]byte("--" + boundary + "\r\nContent-Disposition: form-data; name=\"user_image\"; filename=\"..\\..\\x.jpg\"\r\n\r\nx\r\n--" + boundary + "--"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(data))
		r.Header.Set("Content-Type", ct)
		form, err := readForm(r, matchForm)
		if err != nil {
			if e := answerFor(err); e.Status < 400 || e.Status >= 500 {
				t.Errorf("%v", err)
			}
			return
		}
		readCommon(form, &Caller{})
		form.number(thresholdField, 30, 0, 100)
		for name, u := range form.files {
			if len(u.Data) > MaxImage+1 || strings.Contains(u.Name, "/") && u.Name != "/" {
				t.Errorf("%s: %d bytes named %q", name, len(u.Data), u.Name)
			}
		}
	})
}

// Whatever the text, reading JSON ends with a value or a 4xx.
func FuzzObject(f *testing.F) {
	f.Add(`{"a":[1,{"b":"c"}]}`)
	f.Add(`{"a":1,"a":2}`)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		o, err := ReadObject(r)
		if err != nil {
			if e := answerFor(err); e.Status < 400 || e.Status >= 500 {
				t.Errorf("%v", err)
			}
			return
		}
		o.String("a", 10)
		o.Number("a", 0, 0, 1)
		o.Objects("a", false, 3)
		o.RefuseUnknown()
	})
}

// Only a token that NewAPIKey made opens a key.
func FuzzToken(f *testing.F) {
	k, token, err := agent.NewAPIKey(agent.APIKey{}, randomness{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("postern_test_" + strings.Repeat("a", 63))
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := agent.KeyIDOf(s)
		if ok && (len(id) != 10 || !strings.Contains(s, id)) {
			t.Errorf("id %q of %q", id, s)
		}
		if k.Opens(s, time.Now()) != (s == token) {
			t.Errorf("%q opens the key", s)
		}
	})
}

// No query but the signed one opens a picture, and only while it lives.
func FuzzLink(f *testing.F) {
	at := time.Unix(1_700_000_000, 0)
	l := &Links{Key: []byte("key"), Life: time.Hour, Now: func() time.Time { return at }}
	good, err := url.Parse(l.URL("http://x", "abc"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("abc", good.RawQuery)
	f.Add("abc", good.RawQuery+"&exp=9999999999")
	f.Add("../abc", good.RawQuery)
	f.Fuzz(func(t *testing.T, id, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if l.Check(id, q) == nil && (id != "abc" || q.Get("exp") != good.Query().Get("exp") || q.Get("sig") != good.Query().Get("sig")) {
			t.Errorf("%q %q opens", id, query)
		}
	})
}
