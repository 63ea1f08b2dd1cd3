package ui

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// areas lists the areas of the catalogue from its files.
func areas(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(catalogue, "messages/*.json")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, n := range names {
		area, rest, _ := strings.Cut(path.Base(n), ".")
		if _, ok := ParseLang(strings.TrimSuffix(rest, ".json")); !ok {
			t.Errorf("%s: there is no such language", n)
		}
		found[area] = true
	}
	return slices.Sorted(maps.Keys(found))
}

var braces = regexp.MustCompile(`\{\w+\}`)

// TestNoTranslationIsMissing: each language has each message, with the same places to
// fill, and says something.
func TestNoTranslationIsMissing(t *testing.T) {
	for _, area := range areas(t) {
		first := Catalogue(Langs[0], area)
		for _, l := range Langs {
			m := Catalogue(l, area)
			for k := range first {
				if strings.TrimSpace(m[k]) == "" {
					t.Errorf("%s: %q is missing in %s", area, k, l)
				}
				if a, b := places(first[k]), places(m[k]); !slices.Equal(a, b) {
					t.Errorf("%q: %s fills %v, %s fills %v", k, Langs[0], a, l, b)
				}
				if !strings.HasPrefix(k, area+".") {
					t.Errorf("%q is in the file of %s", k, area)
				}
			}
			for k := range m {
				if _, ok := first[k]; !ok {
					t.Errorf("%s: %q is in %s only", area, k, l)
				}
			}
		}
	}
}

func places(s string) []string {
	p := braces.FindAllString(s, -1)
	slices.Sort(p)
	return slices.Compact(p)
}

// TestJapaneseIsJapanese: what is the same in both languages is a name.
func TestJapaneseIsJapanese(t *testing.T) {
	same := []string{"common.product", "common.lang.en", "common.lang.ja"}
	for _, area := range areas(t) {
		en, ja := Catalogue(English, area), Catalogue(Japanese, area)
		for k, v := range ja {
			if v == en[k] && !slices.Contains(same, k) {
				t.Errorf("%q is not translated: %q", k, v)
			}
		}
	}
}

func TestDuplicateKeys(t *testing.T) {
	names, _ := fs.Glob(catalogue, "messages/*.json")
	for _, n := range names {
		raw, _ := catalogue.ReadFile(n)
		d := json.NewDecoder(strings.NewReader(string(raw)))
		seen := map[string]bool{}
		for i := 0; d.More() || i == 0; i++ {
			tok, err := d.Token()
			if err != nil {
				t.Fatalf("%s: %v", n, err)
			}
			if i > 0 && i%2 == 1 {
				if k := tok.(string); seen[k] {
					t.Errorf("%s: %q is there twice", n, k)
				} else {
					seen[k] = true
				}
			}
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		query, fallback, header string
		want                    Lang
	}{
		{"", "", "", English},
		{"", "", "ja", Japanese},
		{"", "", "fr,ja;q=0.9,en;q=0.8", Japanese},
		{"", "", "en-GB,ja;q=0.9", English},
		{"", "", "ja;q=0.2, en;q=0.7", English},
		{"", "", "ja;q=x", English},
		{"", "ja", "en", Japanese},
		{"", "xx", "ja-JP", Japanese},
		{"?lang=en", "ja", "ja", English},
		{"?lang=<x>", "", "ja", Japanese},
	} {
		r := httptest.NewRequest("GET", "/"+c.query, nil)
		r.Header.Set("Accept-Language", c.header)
		if got := Negotiate(r, c.fallback); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestT(t *testing.T) {
	m := Messages{"a": "{name} waits {n} s", "b": "x"}
	for want, got := range map[string]string{
		"Hana waits 3 s": m.T("a", "name", "Hana", "n", 3), "x": m.T("b"), "c": m.T("c"), "{name} waits {n} s": m.T("a"),
		"own": m.With(map[string]string{"b": "own", "zz": "no"}).T("b"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := m.Under("a"); len(got) != 1 {
		t.Errorf("under a: %v", got)
	}
}

// themes reads the colours of the style sheet: light, and the two places of dark.
func themes(t *testing.T) (light map[string]string, darks []map[string]string) {
	t.Helper()
	css, err := assets.ReadFile("assets/postern.css")
	if err != nil {
		t.Fatal(err)
	}
	colour := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`)
	read := func(from, to string) map[string]string {
		_, s, ok := strings.Cut(string(css), from)
		if !ok {
			t.Fatalf("no %q", from)
		}
		s, _, _ = strings.Cut(s, to)
		m := map[string]string{}
		for _, f := range colour.FindAllStringSubmatch(s, -1) {
			m[f[1]] = f[2]
		}
		return m
	}
	return read(":root {", "}"), []map[string]string{read(`:root:not([data-theme="light"]) {`, "}"), read(`:root[data-theme="dark"] {`, "}")}
}

func TestDarkIsWhole(t *testing.T) {
	light, darks := themes(t)
	if !maps.Equal(darks[0], darks[1]) {
		t.Error("the two dark themes differ")
	}
	for k := range light {
		if darks[0][k] == "" {
			t.Errorf("dark has no --%s", k)
		}
	}
	if len(light) < 15 {
		t.Errorf("only %d colours found", len(light))
	}
}

// TestContrast: each pair of text and ground has the contrast of WCAG 2.2 AA, 4.5 to
// 1, and edges of controls 3 to 1.
func TestContrast(t *testing.T) {
	light, darks := themes(t)
	for name, theme := range map[string]map[string]string{"light": light, "dark": darks[0]} {
		check := func(p Pair, want float64) {
			if got := contrast(t, theme[p.Text], theme[p.Ground]); got < want {
				t.Errorf("%s: %s on %s has a contrast of %.2f, want %.1f", name, p.Text, p.Ground, got, want)
			}
		}
		for _, p := range Pairs {
			check(p, 4.5)
		}
		check(Pair{"edge", "panel"}, 3)
		check(Pair{"edge", "ground"}, 3)
	}
}

// contrast is the ratio that WCAG defines, from relative luminances.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

func TestStatic(t *testing.T) {
	h := Assets()
	ask := func(target string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	w := ask("/ui/postern.css")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/css; charset=utf-8" || w.Header().Get("Content-Encoding") != "" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	if z := ask("/ui/postern.css", "Accept-Encoding", "gzip, br"); z.Header().Get("Content-Encoding") != "gzip" || z.Body.Len() >= w.Body.Len() {
		t.Errorf("not compressed: %v", z.Header())
	}
	if n := ask("/ui/postern.css", "If-None-Match", w.Header().Get("ETag")); n.Code != http.StatusNotModified || n.Body.Len() != 0 {
		t.Errorf("asked again: %d", n.Code)
	}
	for _, bad := range []string{"/ui/none.css", "/ui/", "/ui/../ui.go", "/ui//postern.css"} {
		if w := ask(bad); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}

func TestDesign(t *testing.T) {
	for _, l := range Langs {
		for _, theme := range []string{"", "dark", "light"} {
			w := httptest.NewRecorder()
			Design().ServeHTTP(w, httptest.NewRequest("GET", "/design?lang="+string(l)+"&theme="+theme, nil))
			body := w.Body.String()
			if w.Code != 200 || !strings.Contains(body, `<html lang="`+string(l)+`"`) || theme != "" && !strings.Contains(body, `data-theme="`+theme+`"`) {
				t.Errorf("%s %s: %d", l, theme, w.Code)
			}
			if strings.Contains(body, "design.") && regexp.MustCompile(`>design\.[a-z]`).MatchString(body) {
				t.Errorf("%s: a key shows", l)
			}
			for _, icon := range Icons() {
				if !strings.Contains(body, "icons.svg#"+icon) {
					t.Errorf("%s is not shown", icon)
				}
			}
		}
	}
}

func TestSecure(t *testing.T) {
	for _, c := range []struct {
		framed []string
		want   string
		deny   bool
	}{{nil, "frame-ancestors 'none'", true}, {[]string{""}, "frame-ancestors 'none'", true}, {[]string{"https://a.example", "https://b.example"}, "frame-ancestors https://a.example https://b.example", false}} {
		h := http.Header{}
		Secure(h, c.framed...)
		csp := h.Get("Content-Security-Policy")
		if !strings.HasSuffix(csp, c.want) || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || (h.Get("X-Frame-Options") != "") != c.deny {
			t.Errorf("%v: %v", c.framed, h)
		}
	}
}

// Names from outside cannot become markup, and an icon's name is a name.
func TestNoMarkupFromOutside(t *testing.T) {
	for _, bad := range []string{`"><script>`, "a b\"", "A", ""} {
		if got := icon(bad); bad != "" && got != "" {
			t.Errorf("icon %q gives %s", bad, got)
		}
	}
	p := designPages()
	w := httptest.NewRecorder()
	if err := p.Render(w, 200, "design", Page{Lang: English, Title: "<b>x</b>", Brand: Brand{Name: "<img src=x>"}, Data: designData{}}); err != nil {
		t.Fatal(err)
	}
	if b := w.Body.String(); strings.Contains(b, "<b>x") || strings.Contains(b, "<img src=x") {
		t.Error("markup from outside")
	}
	if err := p.Render(httptest.NewRecorder(), 200, "no such", Page{Lang: English}); err == nil {
		t.Error("a template that is not there was rendered")
	}
	if got := fmt.Sprint(Messages{}.T("x", "n", 1.5)); got != "x" {
		t.Error(got)
	}
}
