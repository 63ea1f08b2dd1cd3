package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requirement is one line of go.mod.
type requirement struct {
	module, version string
	indirect        bool
}

var requireLine = regexp.MustCompile(`(?m)^(?:require )?\s*([a-z][^\s]*\.[^\s]*) (v[^\s]+)( // indirect)?$`)

func requirements(t *testing.T) []requirement {
	t.Helper()
	var rs []requirement
	for _, m := range requireLine.FindAllStringSubmatch(read(t, "go.mod"), -1) {
		rs = append(rs, requirement{module: m[1], version: m[2], indirect: m[3] != ""})
	}
	if len(rs) < 10 {
		t.Fatalf("only %d requirements found in go.mod", len(rs))
	}
	return rs
}

// read gives a file of the module.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(moduleRoot(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// documented gives the rows "module | version | licence | …" of docs/dependencies.md.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	_, doc, _ := strings.Cut(read(t, "docs/dependencies.md"), "## Go modules")
	doc, _, _ = strings.Cut(doc, "\n## ")
	rows := make(map[string][]string)
	for line := range strings.Lines(doc) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 5 || !strings.Contains(cells[0], ".") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows[cells[0]] = cells[1:]
	}
	return rows
}

func TestDependenciesAreDocumented(t *testing.T) {
	rows, notice := documented(t), read(t, "NOTICE")
	for _, r := range requirements(t) {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(r.module) + `\s`).MatchString(notice) {
			t.Errorf("NOTICE does not name %s", r.module)
		}
		if r.indirect {
			continue
		}
		row, ok := rows[r.module]
		if !ok {
			t.Errorf("docs/dependencies.md has no row for %s", r.module)
			continue
		}
		if row[0] != r.version {
			t.Errorf("docs/dependencies.md says %s is %s, go.mod says %s", r.module, row[0], r.version)
		}
		delete(rows, r.module)
	}
	for m := range rows {
		t.Errorf("docs/dependencies.md has a row for %s, which go.mod does not require", m)
	}
}

// licences maps a phrase that only one licence has to its name. The first hit counts.
var licences = []struct{ phrase, name string }{
	{"GNU GENERAL PUBLIC LICENSE", "GPL"},
	{"GNU LESSER GENERAL PUBLIC LICENSE", "LGPL"},
	{"GNU AFFERO GENERAL PUBLIC LICENSE", "AGPL"},
	{"Eclipse Public License v2.0 and Eclipse Distribution License v1.0", "EPL-2.0 or BSD-3-Clause"},
	{"Mozilla Public License Version 2.0", "MPL-2.0"},
	{"This project is covered by two different licenses: MIT and Apache.", "MIT and Apache-2.0"},
	{"Permission is hereby granted, free of charge", "MIT"},
	{"Neither the name of", "BSD-3-Clause"},
	{"Redistributions in binary form must reproduce", "BSD-2-Clause"},
	{"Permission to use, copy, modify, and/or distribute", "ISC"},
	{"Apache License", "Apache-2.0"},
}

func licenceOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range licences {
		if strings.Contains(text, l.phrase) {
			return l.name
		}
	}
	return "unknown"
}

func TestLicences(t *testing.T) {
	accepted := []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT and Apache-2.0", "EPL-2.0 or BSD-3-Clause"}
	forTests := []string{"pgregory.net/rapid"} // MPL-2.0
	rows := documented(t)
	for _, r := range requirements(t) {
		got := licenceOf(licenceText(t, r))
		if row, ok := rows[r.module]; ok && row[1] != got {
			t.Errorf("docs/dependencies.md says the licence of %s is %s, its file says %s", r.module, row[1], got)
		}
		if !slices.Contains(accepted, got) && !slices.Contains(forTests, r.module) {
			t.Errorf("%s has the licence %s, which is not among %s", r.module, got, strings.Join(accepted, ", "))
		}
	}
}

func TestLicenceOf(t *testing.T) {
	for text, want := range map[string]string{
		"                                 Apache License\n Version 2.0":                                      "Apache-2.0",
		"GNU GENERAL PUBLIC LICENSE\nVersion 3":                                                              "GPL",
		"Permission is hereby granted, free\nof charge, to any person":                                       "MIT",
		"Redistributions in binary form must reproduce\n…\nNeither the name of Google Inc. nor the names of": "BSD-3-Clause",
		"All rights reserved.": "unknown",
	} {
		if got := licenceOf(text); got != want {
			t.Errorf("licenceOf(%q) = %s, want %s", text, got, want)
		}
	}
}

// licenceText reads the licence in the module cache, where "go test" has put every
// module it needs; "make setup" brings the rest.
func licenceText(t *testing.T, r requirement) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", r.module)
	cmd.Dir = moduleRoot(t)
	out, err := cmd.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("%s is not in the module cache; run make setup (%v)", r.module, err)
	}
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "COPYING*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		slices.Sort(names)
		if len(names) == 0 {
			continue
		}
		b, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	t.Fatalf("%s has no licence file", r.module)
	return ""
}
