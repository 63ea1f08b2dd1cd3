package ui

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"slices"
	"strings"
)

//go:embed templates
var shared embed.FS

// Pages are parsed templates, once for each language.
type Pages struct {
	byLang   map[Lang]*template.Template
	messages map[Lang]Messages
}

// Parse reads the templates of a page beside the shared ones ("head", "brand",
// "language"). Texts come from the areas of the catalogue and from "common". It panics
// when a template cannot be parsed: templates are part of the program.
func Parse(fsys fs.FS, pattern string, areas ...string) *Pages {
	p := &Pages{byLang: map[Lang]*template.Template{}, messages: map[Lang]Messages{}}
	for _, l := range Langs {
		m := Catalogue(l, append([]string{"common"}, areas...)...)
		p.messages[l] = m
		t := template.New("").Funcs(Funcs(m))
		t = template.Must(t.ParseFS(shared, "templates/base.html"))
		p.byLang[l] = template.Must(t.ParseFS(fsys, pattern))
	}
	return p
}

// Funcs are what templates can call: t gives a text, icon an icon by its name.
func Funcs(m Messages) template.FuncMap {
	return template.FuncMap{
		"t":    m.T,
		"icon": func(name string, class ...string) template.HTML { return icon(name, class...) },
	}
}

// icon refers to a symbol of /ui/icons.svg. Names are written in templates, never
// taken from outside; anything else than a name gives nothing.
func icon(name string, class ...string) template.HTML {
	plain := func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' && r != ' ' })
	}
	classes := strings.Join(append([]string{"icon"}, class...), " ")
	if !plain(name) || !plain(classes) {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<svg class="%s" aria-hidden="true" focusable="false"><use href="/ui/icons.svg#%s"/></svg>`, classes, name))
}

// Page is what every template is given.
type Page struct {
	Lang     Lang
	Theme    string   // dark or light; empty: as the device is set
	Title    string   // of the document
	Brand    Brand    // whose page it is
	Messages Messages // for the script, as the data block "messages"
	Other    []Switch // the other languages
	Data     any      // the page's own
}

// Brand is whose page it is. The zero value is postern.
type Brand struct {
	Name string `json:"name"`
	Logo string `json:"-"` // path of a picture on this server
}

// Switch leads to the same page in another language.
type Switch struct {
	Lang Lang
	URL  string
}

// Theme reads the theme that a request asks for; empty where it asks for none.
func Theme(r *http.Request, fallback string) string {
	for _, v := range []string{r.URL.Query().Get("theme"), fallback} {
		if v == "dark" || v == "light" {
			return v
		}
	}
	return ""
}

// Messages are the texts of a language that the pages were parsed with.
func (p *Pages) Messages(l Lang) Messages { return p.messages[l] }

// Render writes a page. It is rendered whole before anything is sent, so that a
// failure never leaves half a page.
func (p *Pages) Render(w http.ResponseWriter, status int, name string, page Page) error {
	t, ok := p.byLang[page.Lang]
	if !ok {
		page.Lang = Langs[0]
		t = p.byLang[page.Lang]
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, page); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", string(page.Lang))
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// Others makes the switches to all languages but l, at the address of r with its lang
// replaced.
func Others(r *http.Request, l Lang) []Switch {
	var out []Switch
	for _, o := range Langs {
		if o == l {
			continue
		}
		q := r.URL.Query()
		q.Set("lang", string(o))
		out = append(out, Switch{o, "?" + q.Encode()})
	}
	return out
}

// Secure sets the headers of a page that may be framed by the given origins, by
// default by none. Scripts and styles come from files of this server only, and a
// script cannot turn text into markup.
func Secure(h http.Header, framedBy ...string) {
	ancestors := "'none'"
	if framedBy = slices.DeleteFunc(slices.Clone(framedBy), func(s string) bool { return s == "" }); len(framedBy) > 0 {
		ancestors = strings.Join(framedBy, " ")
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; "+
		"font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; frame-ancestors "+ancestors)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Permissions-Policy", "camera=(self), microphone=(), geolocation=(), payment=(), usb=()")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if ancestors == "'none'" {
		h.Set("X-Frame-Options", "DENY")
	}
}
