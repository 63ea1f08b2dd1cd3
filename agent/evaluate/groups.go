package evaluate

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"postern/agent"
)

// Groups tells the group of each person.
type Groups map[string]string

// OpenGroups reads a CSV file of two columns, person and group. A first line
// "person,group" is a heading.
func OpenGroups(path string) (Groups, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("groups file %q cannot be read", path), Err: err}
	}
	defer f.Close()
	g, err := readGroups(f)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("groups file %q", path), Err: err,
			Fix: "one line a person: person,group"}
	}
	return g, nil
}

func readGroups(r io.Reader) (Groups, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = 2
	c.TrimLeadingSpace = true
	g := Groups{}
	for first := true; ; first = false {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		person, group := strings.TrimSpace(rec[0]), strings.TrimSpace(rec[1])
		if first && strings.EqualFold(person, "person") && strings.EqualFold(group, "group") {
			continue
		}
		line, _ := c.FieldPos(0)
		if person == "" || group == "" {
			return nil, fmt.Errorf("line %d: person or group is empty", line)
		}
		if old, ok := g[person]; ok && old != group {
			return nil, fmt.Errorf("line %d: %s is in %s and in %s", line, person, old, group)
		}
		g[person] = group
	}
	if len(g) == 0 {
		return nil, errors.New("no person in it")
	}
	return g, nil
}

// GroupReport compares groups of people at the thresholds that decisions are made
// with, as ISO/IEC 19795-10 does: the FMR of a group is over impostor pairs of two
// people of it, which is where false matches are likeliest.
type GroupReport struct {
	Rows      []GroupRow `json:"rows"`
	Unknown   []string   `json:"unknown"`   // people of the file without a picture
	Ungrouped []string   `json:"ungrouped"` // people with pictures whom the file does not name
}

// GroupRow is one group.
type GroupRow struct {
	Group  string     `json:"group"`
	People int        `json:"people"`
	Images int        `json:"images"`
	At     []ScoreRow `json:"at"` // at each threshold
	// Small says why the group is too small for its rates to mean much; empty when not.
	Small string `json:"small,omitempty"`
}

// minGroup is how many people a group must have: the rates of fewer are those of the few.
const minGroup = 30

// small says what a group lacks.
func (r *GroupRow) small() string {
	first := r.At[0]
	switch need := int(minMatches / ScoreFMR(first.Score)); {
	case r.People < minGroup:
		return fmt.Sprintf("%d people, fewer than %d", r.People, minGroup)
	case first.FNMR.Trials < minGenuine:
		return fmt.Sprintf("%d genuine pairs, fewer than %d", first.FNMR.Trials, minGenuine)
	case first.FMR.Trials < need:
		return fmt.Sprintf("%d impostor pairs within it, fewer than the %d that FMR %.0e needs", first.FMR.Trials, need, ScoreFMR(first.Score))
	}
	return ""
}

// groupScores are the thresholds of the default workflow, decline and review: those
// of the tables by group and by degradation.
var groupScores = []float64{50, 70}

// grouping is Groups made ready for the pictures of one data set. A nil one has no
// group.
type grouping struct {
	groups  Groups
	names   []string  // sorted
	of      []int     // the group of each picture, -1 for none
	cosines []float64 // of groupScores
}

func newGrouping(d *Dataset, o Options) *grouping {
	if o.Groups == nil || o.Cosine == nil {
		return nil
	}
	g := &grouping{groups: o.Groups, of: make([]int, len(d.Images))}
	g.names = slices.Compact(slices.Sorted(maps.Values(o.Groups)))
	for i, im := range d.Images {
		g.of[i] = -1
		if name, ok := o.Groups[im.Person]; ok {
			g.of[i], _ = slices.BinarySearch(g.names, name)
		}
	}
	for _, s := range groupScores {
		g.cosines = append(g.cosines, o.Cosine(s))
	}
	return g
}

func (g *grouping) report(d *Dataset, faces []face) *GroupReport {
	r := &GroupReport{Rows: make([]GroupRow, len(g.names)), Unknown: []string{}, Ungrouped: []string{}}
	seen := map[string]bool{}
	for i, im := range d.Images {
		known := g.of[i] >= 0
		if known {
			r.Rows[g.of[i]].Images++
		}
		switch {
		case seen[im.Person]:
		case known:
			r.Rows[g.of[i]].People++
		default:
			r.Ungrouped = append(r.Ungrouped, im.Person)
		}
		seen[im.Person] = true
	}
	for person := range g.groups {
		if !seen[person] {
			r.Unknown = append(r.Unknown, person)
		}
	}
	slices.SortFunc(r.Unknown, cmp.Compare)
	for k, name := range g.names {
		r.Rows[k].Group = name
		r.Rows[k].At = g.rates(d, faces, k)
		r.Rows[k].Small = r.Rows[k].small()
	}
	return r
}

// rates are the errors within one group, with intervals over its people.
func (g *grouping) rates(d *Dataset, faces []face, group int) []ScoreRow {
	own := &Dataset{}
	var theirs []face
	for i, of := range g.of {
		if of == group {
			own.Images, theirs = append(own.Images, d.Images[i]), append(theirs, faces[i])
		}
	}
	t := crossPairs(own, theirs)
	fmr, fnmr := resample(own, theirs, t, g.cosines)
	rows := make([]ScoreRow, len(groupScores))
	for i, s := range groupScores {
		c := g.cosines[i]
		rows[i] = ScoreRow{Score: s, Cosine: c,
			FMR:  FalseMatchRate(t.impostor.above(c), t.impostor.total),
			FNMR: FalseNonMatchRate(t.misses(c), len(t.genuine))}
		rows[i].FMR.CI, rows[i].FNMR.CI = fmr[i], fnmr[i]
	}
	return rows
}
