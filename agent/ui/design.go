package ui

import (
	"encoding/xml"
	"net/http"
	"regexp"
	"strings"
	"sync"
)

// designPages renders the page that documents the system.
var designPages = sync.OnceValue(func() *Pages { return Parse(shared, "templates/design.html", "design") })

// Pair is a colour of text on a colour of ground, by their tokens.
type Pair struct{ Text, Ground string }

// Pairs lists the combinations that pages may use. Each has the contrast of WCAG AA
// for text in both themes.
var Pairs = []Pair{
	{"ink", "ground"}, {"ink", "panel"}, {"ink", "sunken"}, {"soft", "ground"}, {"soft", "panel"}, {"soft", "sunken"},
	{"accent", "ground"}, {"accent", "panel"}, {"accent", "accent-quiet"}, {"on-accent", "accent"},
	{"yes", "yes-quiet"}, {"maybe", "maybe-quiet"}, {"no", "no-quiet"}, {"info", "info-quiet"},
	{"yes", "panel"}, {"maybe", "panel"}, {"no", "panel"}, {"info", "panel"}, {"panel", "no"},
}

var sizes = regexp.MustCompile(`--([a-z]+[0-9]?): *([^;]+);`)

// Token is a value of the system by its name.
type Token struct{ Name, Value string }

// tokens reads the tokens of the style sheet whose names match.
func tokens(match func(name string) bool) []Token {
	css, err := assets.ReadFile("assets/postern.css")
	if err != nil {
		panic(err)
	}
	root, _, _ := strings.Cut(string(css), "@media")
	var out []Token
	for _, m := range sizes.FindAllStringSubmatch(root, -1) {
		if match(m[1]) {
			out = append(out, Token{m[1], m[2]})
		}
	}
	return out
}

// Icons lists the names of the icons.
func Icons() []string {
	raw, err := assets.ReadFile("assets/icons.svg")
	if err != nil {
		panic(err)
	}
	var sprite struct {
		Symbols []struct {
			ID string `xml:"id,attr"`
		} `xml:"symbol"`
	}
	if err := xml.Unmarshal(raw, &sprite); err != nil {
		panic(err)
	}
	var names []string
	for _, s := range sprite.Symbols {
		names = append(names, s.ID)
	}
	return names
}

// designData is what the page shows.
type designData struct {
	Colours []string
	Pairs   []Pair
	Space   []Token
	Type    []Token
	Icons   []string
	Looks   []string // of the gate
}

// Design serves the page that documents tokens and components; mount it at /design.
func Design() http.Handler {
	numbered := func(letter string) []Token {
		return tokens(func(n string) bool { return len(n) == 2 && n[:1] == letter })
	}
	data := designData{
		Colours: []string{"ground", "panel", "sunken", "line", "edge", "ink", "soft", "accent", "accent-quiet", "yes", "yes-quiet", "maybe", "maybe-quiet", "no", "no-quiet", "info", "info-quiet"},
		Pairs:   Pairs, Space: numbered("s"), Type: numbered("t"), Icons: Icons(), Looks: []string{"", "yes", "maybe", "no"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Secure(w.Header())
		l := Negotiate(r, "")
		p := designPages()
		// A page that cannot be rendered has been answered with an error.
		_ = p.Render(w, http.StatusOK, "design", Page{Lang: l, Theme: Theme(r, ""), Title: p.Messages(l).T("design.title"), Other: Others(r, l), Data: data})
	})
}
