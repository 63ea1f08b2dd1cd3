package api

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed openapi docs.html docs.css
var documents embed.FS

// document merges the files of openapi/ into one OpenAPI 3.1 document.
func document() (map[string]any, error) {
	entries, err := documents.ReadDir("openapi")
	if err != nil {
		return nil, err
	}
	doc := map[string]any{}
	for _, e := range entries {
		raw, err := documents.ReadFile("openapi/" + e.Name())
		if err != nil {
			return nil, err
		}
		var part map[string]any
		if err := yaml.Unmarshal(raw, &part); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		if err := merge(doc, part, e.Name()); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

// merge adds src to dst; only maps may be in both.
func merge(dst, src map[string]any, where string) error {
	for k, v := range src {
		old, there := dst[k]
		if !there {
			dst[k] = v
			continue
		}
		a, okA := old.(map[string]any)
		b, okB := v.(map[string]any)
		if !okA || !okB {
			return fmt.Errorf("%s is there twice", where+" "+k)
		}
		if err := merge(a, b, where+" "+k); err != nil {
			return err
		}
	}
	return nil
}

// documentRoutes serve the document and a page that shows it.
func (s *Server) documentRoutes() ([]Route, error) {
	doc, err := document()
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("OpenAPI document: %w", err)
	}
	page, err := docsPage(doc)
	if err != nil {
		return nil, err
	}
	css, err := documents.ReadFile("docs.css")
	if err != nil {
		return nil, err
	}
	return []Route{
		fixed("/openapi.json", "application/json", string(body)),
		fixed("/docs/", "text/html; charset=utf-8", page),
		fixed("/docs/style.css", "text/css; charset=utf-8", string(css)),
	}, nil
}

// fixed serves a text that never changes.
func fixed(path, contentType, body string) Route {
	return Route{Method: http.MethodGet, Path: path, Open: true, Handle: func(w http.ResponseWriter, _ *http.Request) error {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Write([]byte(body))
		return nil
	}}
}

// operation is what the page shows of one endpoint.
type operation struct {
	Method, Path, Summary, Description, Tag string
	Fields                                  []docField
	Answers                                 []docAnswer
}

type docField struct {
	Name, Type, Description string
	Required                bool
}

type docAnswer struct{ Status, Description, Schema string }

// docsPage renders the document once: plain HTML, no script.
func docsPage(doc map[string]any) (string, error) {
	t, err := template.ParseFS(documents, "docs.html")
	if err != nil {
		return "", err
	}
	info := sub(doc, "info")
	var out strings.Builder
	err = t.Execute(&out, map[string]any{
		"Title": info["title"], "Summary": info["summary"], "Description": strings.Split(text(info, "description"), "\n\n"),
		"Operations": operations(doc), "Schemas": schemas(doc),
	})
	return out.String(), err
}

func operations(doc map[string]any) []operation {
	var out []operation
	paths := sub(doc, "paths")
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		item := sub(paths, p)
		for _, m := range []string{"get", "post", "put", "patch", "delete"} {
			if op := sub(item, m); len(op) > 0 {
				out = append(out, describe(doc, strings.ToUpper(m), p, item, op))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b operation) int { return strings.Compare(a.Tag, b.Tag) })
	return out
}

func describe(doc map[string]any, method, path string, item, op map[string]any) operation {
	o := operation{Method: method, Path: path, Summary: text(op, "summary"), Description: text(op, "description")}
	if tags, ok := op["tags"].([]any); ok && len(tags) > 0 {
		o.Tag = fmt.Sprint(tags[0])
	}
	for _, list := range []any{item["parameters"], op["parameters"]} {
		ps, _ := list.([]any)
		for _, p := range ps {
			p := resolve(doc, p)
			o.Fields = append(o.Fields, docField{text(p, "name"), text(p, "in") + ", " + typeOf(sub(p, "schema")), text(p, "description"), p["required"] == true})
		}
	}
	for _, media := range sub(sub(op, "requestBody"), "content") {
		if m, ok := media.(map[string]any); ok {
			o.Fields = append(o.Fields, fieldsOf(doc, m["schema"])...)
		}
	}
	answers := sub(op, "responses")
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		a := resolve(doc, answers[status])
		d := docAnswer{Status: status, Description: text(a, "description")}
		if ref := text(sub(sub(sub(a, "content"), "application/json"), "schema"), "$ref"); ref != "" {
			d.Schema = ref[strings.LastIndexByte(ref, '/')+1:]
		}
		o.Answers = append(o.Answers, d)
	}
	return o
}

// fieldsOf lists the properties of a schema and of those it is made of.
func fieldsOf(doc map[string]any, schema any) []docField {
	s := resolve(doc, schema)
	var out []docField
	parts, _ := s["allOf"].([]any)
	for _, p := range parts {
		out = append(out, fieldsOf(doc, p)...)
	}
	required, _ := s["required"].([]any)
	props := sub(s, "properties")
	for _, name := range slices.Sorted(maps.Keys(props)) {
		p, _ := props[name].(map[string]any)
		description := text(p, "description")
		if description == "" {
			description = text(resolve(doc, p), "description")
		}
		out = append(out, docField{name, typeOf(p), description, slices.Contains(required, any(name))})
	}
	return out
}

func typeOf(s map[string]any) string {
	switch {
	case text(s, "$ref") != "":
		ref := text(s, "$ref")
		return ref[strings.LastIndexByte(ref, '/')+1:]
	case s["enum"] != nil:
		return "one of " + strings.Trim(fmt.Sprint(s["enum"]), "[]")
	case s["const"] != nil:
		return fmt.Sprint(s["const"])
	case s["type"] == "array":
		return "list of " + typeOf(sub(s, "items"))
	case s["type"] != nil:
		return strings.ReplaceAll(strings.Trim(fmt.Sprint(s["type"]), "[]"), " ", " or ")
	}
	return "any"
}

// docSchema is one named schema on the page.
type docSchema struct {
	Name, Description string
	Fields            []docField
}

func schemas(doc map[string]any) []docSchema {
	all := sub(sub(doc, "components"), "schemas")
	var out []docSchema
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, docSchema{name, text(sub(all, name), "description"), fieldsOf(doc, all[name])})
	}
	return out
}

// resolve follows a reference within the document.
func resolve(doc map[string]any, v any) map[string]any {
	m, _ := v.(map[string]any)
	ref := text(m, "$ref")
	if ref == "" {
		return m
	}
	at := doc
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		at = sub(at, part)
	}
	return at
}

func sub(m map[string]any, key string) map[string]any {
	s, _ := m[key].(map[string]any)
	return s
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}
