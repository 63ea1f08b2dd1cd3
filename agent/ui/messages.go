package ui

import (
	"embed"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed messages
var catalogue embed.FS

// Lang is a language of the pages, as a tag of BCP 47.
type Lang string

// The languages.
const (
	English  Lang = "en"
	Japanese Lang = "ja"
)

// Langs lists the languages; the first is the one of last resort.
var Langs = []Lang{English, Japanese}

// ParseLang finds the language that a tag asks for: "ja-JP" is Japanese.
func ParseLang(tag string) (Lang, bool) {
	primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
	l := Lang(primary)
	return l, slices.Contains(Langs, l)
}

// Negotiate chooses the language of an answer: that of the query's lang, then that of
// fallback where it names one, then the browser's.
func Negotiate(r *http.Request, fallback string) Lang {
	if l, ok := ParseLang(r.URL.Query().Get("lang")); ok {
		return l
	}
	if l, ok := ParseLang(fallback); ok {
		return l
	}
	return accepted(r.Header.Get("Accept-Language"))
}

// accepted is the language that an Accept-Language header likes best.
func accepted(header string) Lang {
	best, weight := Langs[0], 0.0
	for part := range strings.SplitSeq(header, ",") {
		tag, q, given := strings.Cut(part, ";q=")
		w := 1.0
		if given {
			var err error
			if w, err = strconv.ParseFloat(strings.TrimSpace(q), 64); err != nil {
				continue
			}
		}
		if l, ok := ParseLang(tag); ok && w > weight {
			best, weight = l, w
		}
	}
	return best
}

// Messages are the texts of one language by their keys.
type Messages map[string]string

// Catalogue returns the messages of the areas: the files messages/<area>.<lang>.json.
// It panics for an area that is not there, which is a mistake of the caller's code.
func Catalogue(l Lang, areas ...string) Messages {
	all := Messages{}
	for _, area := range areas {
		raw, err := catalogue.ReadFile("messages/" + area + "." + string(l) + ".json")
		if err != nil {
			panic(err)
		}
		var m Messages
		if err := json.Unmarshal(raw, &m); err != nil {
			panic("messages of " + area + ": " + err.Error())
		}
		maps.Copy(all, m)
	}
	return all
}

// T gives the message of a key. Pairs replace what stands in braces:
// T(key, "name", "Hana") fills {name}. A key that is not there shows as itself.
func (m Messages) T(key string, pairs ...any) string {
	text, ok := m[key]
	if !ok {
		return key
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		text = strings.ReplaceAll(text, "{"+name+"}", stringOf(pairs[i+1]))
	}
	return text
}

func stringOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case interface{ String() string }:
		return v.String()
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return strings.Trim(string(raw), `"`)
}

// With returns the messages with some of them replaced, for a deployer's own words.
// Keys that are not there are passed over.
func (m Messages) With(own map[string]string) Messages {
	out := maps.Clone(m)
	for k, v := range own {
		if _, ok := m[k]; ok {
			out[k] = v
		}
	}
	return out
}

// Under returns the messages whose keys begin with one of the prefixes, for a page's
// script.
func (m Messages) Under(prefixes ...string) Messages {
	out := Messages{}
	for k, v := range m {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			out[k] = v
		}
	}
	return out
}
