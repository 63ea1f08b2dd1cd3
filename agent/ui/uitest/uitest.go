// Package uitest holds what every page of postern is tested for: that its texts come
// from the catalogue, in all languages, and that it is safe under a strict policy.
package uitest

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"postern/agent/ui"
)

// Check runs all checks over the templates, scripts and styles in a page's folder. Prefixes are those of
// the keys that the page's script makes up at run time, such as "kiosk.guide.".
func Check(t *testing.T, fsys fs.FS, areas []string, prefixes ...string) {
	t.Helper()
	messages := ui.Catalogue(ui.English, append([]string{"common"}, areas...)...)
	used := map[string]bool{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		switch text := string(raw); path.Ext(p) {
		case ".html":
			template(t, p, text)
			keys(used, templateKeys, text)
		case ".js":
			script(t, p, text)
			keys(used, scriptKeys, text)
		case ".css":
			style(t, p, text)
		case ".go":
			if !strings.HasSuffix(p, "_test.go") {
				keys(used, goKeys, text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for k := range used {
		if _, ok := messages[k]; !ok {
			t.Errorf("there is no message %q", k)
		}
	}
	unused(t, messages, areas, used, prefixes)
}

var (
	templateKeys = regexp.MustCompile("\\bt \"([a-z0-9_.-]+)\"")
	goKeys       = regexp.MustCompile(`\bT\("([a-z0-9_.-]+)"`)
	scriptKeys   = regexp.MustCompile(`\bt\("([a-z0-9_.-]+)"`)
)

func keys(used map[string]bool, pattern *regexp.Regexp, text string) {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		used[m[1]] = true
	}
}

func unused(t *testing.T, messages ui.Messages, areas []string, used map[string]bool, prefixes []string) {
	t.Helper()
	for k := range messages {
		area, _, _ := strings.Cut(k, ".")
		own := false
		for _, a := range areas {
			own = own || a == area
		}
		made := false
		for _, p := range prefixes {
			made = made || strings.HasPrefix(k, p)
		}
		if own && !made && !used[k] {
			t.Errorf("nobody uses the message %q", k)
		}
	}
}

var (
	actions    = regexp.MustCompile(`\{\{.*?\}\}`)
	comments   = regexp.MustCompile(`(?s)<!--.*?-->`)
	spoken     = regexp.MustCompile(`\b(?:alt|title|placeholder|aria-label|aria-description|value|content|label)="([^"]*)"`)
	machine    = regexp.MustCompile(`<meta [^>]*>`)
	tags       = regexp.MustCompile(`(?s)<[^>]*>`)
	inlineCode = regexp.MustCompile(`(?i)<script>|<script [^>]*>[^<]*\S[^<]*</script>|\son[a-z]+\s*=|\sstyle\s*=|<style|javascript:|https?://`)
	dataBlock  = regexp.MustCompile(`<script type="application/json"[^>]*>[^<]*</script>`)
)

// template finds text outside the catalogue, and what the policy forbids.
func template(t *testing.T, name, text string) {
	t.Helper()
	plain := actions.ReplaceAllString(text, "")
	plain = comments.ReplaceAllString(machine.ReplaceAllString(plain, ""), "")
	for _, m := range spoken.FindAllStringSubmatch(plain, -1) {
		if hasLetter(m[1]) {
			t.Errorf("%s: the text %q is not of the catalogue", name, m[0])
		}
	}
	if found := inlineCode.FindString(dataBlock.ReplaceAllString(plain, "")); found != "" {
		t.Errorf("%s: %q is not allowed by the policy of the pages", name, found)
	}
	code := regexp.MustCompile(`(?s)<code[^>]*>.*?</code>|<kbd[^>]*>.*?</kbd>`)
	for line := range strings.Lines(tags.ReplaceAllString(code.ReplaceAllString(plain, ""), "\n")) {
		if hasLetter(line) {
			t.Errorf("%s: the text %q is not of the catalogue", name, strings.TrimSpace(line))
		}
	}
}

func hasLetter(s string) bool { return strings.ContainsFunc(s, unicode.IsLetter) }

var (
	lineComment  = regexp.MustCompile(`(?m)(^|\s)//.*$`)
	blockComment = regexp.MustCompile(`(?s)/\*.*?\*/`)
	literal      = regexp.MustCompile("\"(?:[^\"\\\\\n]|\\\\.)*\"|'(?:[^'\\\\\n]|\\\\.)*'|`(?:[^`\\\\]|\\\\.)*`")
	sentence     = regexp.MustCompile(`\p{L}{2,} \p{L}{2,}|\p{Han}|\p{Hiragana}|\p{Katakana}`)
	hole         = regexp.MustCompile(`\$\{[^}]*\}`)
)

// classes of elements and parts of media queries have spaces too: they are lower case
// words of these letters only.
var technical = regexp.MustCompile(`^[a-z0-9 #.,:()\[\]="'*>/-]*$`)

// values are words of the API, not of the pages.
var values = []string{"use strict", "In Review", "Not Started", "In Progress", "Not Finished", "Resub Requested"}

// script finds texts in literals, and ways to turn text into markup or code.
func script(t *testing.T, name, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "") // a name, not an address
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setAttribute(\"style\"", "localStorage", "http://", "https://"} {
		if strings.Contains(text, bad) {
			t.Errorf("%s: uses %s", name, bad)
		}
	}
	plain := lineComment.ReplaceAllString(blockComment.ReplaceAllString(text, ""), "")
	for _, l := range literal.FindAllString(plain, -1) {
		l = hole.ReplaceAllString(l[1:len(l)-1], "")
		if !slices.Contains(values, l) && sentence.MatchString(l) && !technical.MatchString(l) {
			t.Errorf("%s: the text %q is not of the catalogue", name, l)
		}
	}
}

// style finds colours beside the tokens, and what would be fetched from elsewhere.
func style(t *testing.T, name, text string) {
	t.Helper()
	for _, bad := range []string{"@import", "http://", "https://", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("%s: has %s", name, bad)
		}
	}
}
