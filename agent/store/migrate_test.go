package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// withStep is the templates schema with one more step.
func withStep(run func(*bolt.Tx) error) schema {
	s := templatesSchema()
	s.steps = append(s.steps, step{"notes", run})
	return s
}

func TestMigrate(t *testing.T) {
	o := testOptions(t)
	s := mustOpen(t, o)
	_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: "a"}, Templates: testTemplates(2)})
	must(t, err)
	mustClose(t, s)

	runs := 0
	v2 := withStep(func(tx *bolt.Tx) error {
		runs++
		return createBuckets("notes")(tx)
	})
	for range 2 {
		s, err := open(o, v2, resultsSchema())
		must(t, err)
		if ts, err := s.Templates("a"); err != nil || len(ts) != 2 {
			t.Errorf("%d templates after migration: %v", len(ts), err)
		}
		must(t, s.view(s.templates, func(tx *bolt.Tx) error { bucket(tx, "notes"); return nil }))
		mustClose(t, s)
	}
	if runs != 1 {
		t.Errorf("the step ran %d times", runs)
	}

	before, err := os.ReadFile(filepath.Join(o.Dir, TemplatesFile))
	must(t, err)
	_, err = Open(o)
	wantCode(t, err, agent.CodeStorage, fmt.Sprintf("newer version (schema %d, this one knows %d)", v2.version(), templatesSchema().version()), TemplatesFile)
	after, err := os.ReadFile(filepath.Join(o.Dir, TemplatesFile))
	must(t, err)
	if string(before) != string(after) {
		t.Error("a newer file was changed")
	}
}

func TestMigrateNewFileTakesAllSteps(t *testing.T) {
	o := testOptions(t)
	s, err := open(o, withStep(createBuckets("notes")), resultsSchema())
	must(t, err)
	defer mustClose(t, s)
	if s.templates.version != templatesSchema().version()+1 {
		t.Errorf("version %d", s.templates.version)
	}
}

func TestMigrateFails(t *testing.T) {
	o := testOptions(t)
	mustClose(t, mustOpen(t, o))
	for name, run := range map[string]func(*bolt.Tx) error{
		"error": func(tx *bolt.Tx) error { return errors.Join(createBuckets("half")(tx), errors.New("no")) },
		"panic": func(tx *bolt.Tx) error { panic("no") },
	} {
		_, err := open(o, withStep(run), resultsSchema())
		if agent.ErrorCode(err) != agent.CodeStorage {
			t.Fatalf("%s: %v", name, err)
		}
		s := mustOpen(t, o) // still at its version, and let go
		must(t, s.view(s.templates, func(tx *bolt.Tx) error {
			if tx.Bucket([]byte("half")) != nil {
				t.Error("half a step is left")
			}
			return nil
		}))
		mustClose(t, s)
	}
}

// TestMigrateNewFileFails: a file that could not be completed does not appear.
func TestMigrateNewFileFails(t *testing.T) {
	o := testOptions(t)
	_, err := open(o, withStep(func(*bolt.Tx) error { return errors.New("no") }), resultsSchema())
	wantCode(t, err, agent.CodeStorage, "notes")
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*.db*")); left != nil {
		t.Errorf("left over: %v", left)
	}
	// Nor does what a killed creation leaves get in the way.
	must(t, os.WriteFile(filepath.Join(o.Dir, TemplatesFile+".new"), []byte("half"), 0o600))
	mustOpen(t, o)
}
