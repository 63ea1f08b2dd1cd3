package api

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// contract is the served document, compiled.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	paths    []pathPattern
}

type pathPattern struct {
	path string
	re   *regexp.Regexp
}

var theContract = sync.OnceValues(func() (*contract, error) {
	doc, err := document()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(doc) // to the types that JSON has
	if err != nil {
		return nil, err
	}
	plain, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	c := &contract{doc: plain.(map[string]any), compiler: jsonschema.NewCompiler()}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := c.compiler.AddResource("openapi.json", plain); err != nil {
		return nil, err
	}
	wildcard := regexp.MustCompile(`\\\{[a-z_]+\\\}`)
	for p := range sub(c.doc, "paths") {
		re := wildcard.ReplaceAllString(regexp.QuoteMeta(strings.TrimSuffix(p, "/")), "[^/]+")
		c.paths = append(c.paths, pathPattern{p, regexp.MustCompile("^" + re + "/?$")})
	}
	return c, nil
})

// checkAnswer holds an answer against the document: status, content type, body.
func checkAnswer(tb testing.TB, r *http.Request, w *httptest.ResponseRecorder) {
	tb.Helper()
	c, err := theContract()
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range c.paths {
		op := sub(sub(sub(c.doc, "paths"), p.path), strings.ToLower(r.Method))
		if len(op) == 0 || !p.re.MatchString(r.URL.EscapedPath()) || strings.Contains(p.path, "{") && c.literal(r.URL.Path) {
			continue
		}
		if err := c.check(op, w); err != nil {
			tb.Errorf("%s %s answered %d %.300s\nnot as documented: %v", r.Method, p.path, w.Code, w.Body, err)
		}
		return
	}
}

// literal reports whether a path is documented without wildcards.
func (c *contract) literal(path string) bool {
	for _, p := range c.paths {
		if !strings.Contains(p.path, "{") && p.re.MatchString(path) {
			return true
		}
	}
	return false
}

func (c *contract) check(op map[string]any, w *httptest.ResponseRecorder) error {
	status := fmt.Sprint(w.Code)
	answers := sub(op, "responses")
	if answers[status] == nil {
		return fmt.Errorf("status %s is not documented", status)
	}
	answer := resolve(c.doc, answers[status])
	content := sub(answer, "content")
	if len(content) == 0 {
		return nil
	}
	ct, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil || content[ct] == nil {
		return fmt.Errorf("content type %q is not documented", ct)
	}
	schema := sub(sub(content, ct), "schema")
	if len(schema) == 0 {
		return nil
	}
	ref := text(schema, "$ref")
	if ref == "" {
		return fmt.Errorf("the schema of %s is not a named one", status)
	}
	sch, err := c.compiler.Compile("openapi.json" + ref)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(w.Body.String()))
	if err != nil {
		return err
	}
	return sch.Validate(v)
}

// Every route is documented, and nothing else is.
func TestDocumentListsTheRoutes(t *testing.T) {
	b := newBench(t)
	b.AddCases(nil, nil) // for the list of routes alone
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, r := range b.Routes() {
		if strings.HasPrefix(r.Path, "/docs/") || r.Path == "/openapi.json" {
			continue
		}
		served[r.Method+" "+r.Path] = true
		if len(sub(sub(sub(c.doc, "paths"), r.Path), strings.ToLower(r.Method))) == 0 {
			t.Errorf("%s %s is served and not documented", r.Method, r.Path)
		}
	}
	for p, item := range sub(c.doc, "paths") {
		for m := range item.(map[string]any) {
			if m != "parameters" && !served[strings.ToUpper(m)+" "+p] {
				t.Errorf("%s %s is documented and not served", strings.ToUpper(m), p)
			}
		}
	}
}

// Every reference leads somewhere, every schema compiles.
func TestDocumentIsSound(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	var walk func(v any, at string)
	walk = func(v any, at string) {
		switch v := v.(type) {
		case map[string]any:
			if ref := text(v, "$ref"); ref != "" && resolve(c.doc, v) == nil {
				t.Errorf("%s: %s leads nowhere", at, ref)
			}
			for k, x := range v {
				walk(x, at+"/"+k)
			}
		case []any:
			for _, x := range v {
				walk(x, at)
			}
		}
	}
	walk(c.doc, "")
	for name := range sub(sub(c.doc, "components"), "schemas") {
		if _, err := c.compiler.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	if v := c.doc["openapi"]; v != "3.1.0" {
		t.Errorf("version %v", v)
	}
}

func TestDocumentIsServed(t *testing.T) {
	b := newBench(t)
	for path, ct := range map[string]string{"/openapi.json": "application/json", "/docs/": "text/html; charset=utf-8", "/docs/style.css": "text/css; charset=utf-8"} {
		w := b.get(path, "")
		if w.Code != 200 || w.Header().Get("Content-Type") != ct || w.Body.Len() < 100 {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%s needs script", path)
		}
	}
	page := b.get("/docs/", "").Body.String()
	for _, want := range []string{"/v3/face-match/", "face_match_score_decline_threshold", "FaceMatchAnswer", "Retry"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not mention %s", want)
		}
	}
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page refers to something outside")
	}
}
