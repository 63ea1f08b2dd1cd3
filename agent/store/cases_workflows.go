package store

import (
	"bytes"
	"slices"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

// PutWorkflow stores a workflow version. Without a UUID it is a new version of its
// group (of a new group without a GroupID) with the next number; with one it
// replaces a draft. A published version does not change: agent.CodeConflict. Of
// several defaults only the latest stays one.
func (s *Store) PutWorkflow(w cases.Workflow) (cases.Workflow, error) {
	isNew := w.UUID == ""
	if err := s.fillID(&w.UUID); err != nil {
		return w, err
	}
	if err := s.fillID(&w.GroupID); err != nil {
		return w, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		versions, err := s.versions(tx, w.GroupID)
		if err != nil {
			return err
		}
		w.UpdatedAt = s.now()
		if isNew {
			w.CreatedAt, w.Version = w.UpdatedAt, 1
			if n := len(versions); n > 0 {
				w.Version = versions[n-1].Version + 1
			}
		} else if err := replaceable(versions, w.UUID); err != nil {
			return err
		}
		if w.Status == cases.Published && w.PublishedAt.IsZero() {
			w.PublishedAt = w.UpdatedAt
		}
		return s.putWorkflow(tx, &w)
	})
	return w, err
}

func replaceable(versions []cases.Workflow, uuid string) error {
	i := slices.IndexFunc(versions, func(v cases.Workflow) bool { return v.UUID == uuid })
	switch {
	case i < 0:
		return noCase("workflow", uuid)
	case versions[i].Status == cases.Published:
		return coded(agent.CodeConflict, "a published version of a workflow does not change")
	}
	return nil
}

func (s *Store) putWorkflow(tx *bolt.Tx, w *cases.Workflow) error {
	if w.Default {
		if err := s.undefault(tx, w); err != nil {
			return err
		}
	}
	if err := bucket(tx, caseGroups).Put(append(prefix(w.GroupID), seqKey(uint64(w.Version))...), []byte(w.UUID)); err != nil {
		return err
	}
	return s.writeWorkflow(tx, w)
}

func (s *Store) writeWorkflow(tx *bolt.Tx, w *cases.Workflow) error {
	return s.putCase(tx, caseWorkflows, []byte(w.UUID), w, caseBinding(KindWorkflow, "", w.UUID))
}

// undefault takes the mark off all workflows of the application's other groups.
func (s *Store) undefault(tx *bolt.Tx, but *cases.Workflow) error {
	var marked []cases.Workflow
	err := bucket(tx, caseWorkflows).ForEach(func(k, v []byte) error {
		w, err := s.openWorkflow(tx, k, v)
		if err == nil && w.Default && w.GroupID != but.GroupID && sameApplication(w.Application, but.Application) {
			marked = append(marked, w)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range marked {
		marked[i].Default = false
		if err := s.writeWorkflow(tx, &marked[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) openWorkflow(tx *bolt.Tx, k, v []byte) (cases.Workflow, error) {
	var w cases.Workflow
	err := s.openCase(tx, k, v, &w, caseBinding(KindWorkflow, "", string(k)))
	return w, err
}

// versions are a group's workflows, oldest first.
func (s *Store) versions(tx *bolt.Tx, group string) ([]cases.Workflow, error) {
	var out []cases.Workflow
	c, p := bucket(tx, caseGroups).Cursor(), prefix(group)
	for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
		w, err := s.openWorkflow(tx, v, bucket(tx, caseWorkflows).Get(v))
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

// Workflow returns a version by its uuid, or the latest version of a group by the
// group's id, or agent.CodeNotFound.
func (s *Store) Workflow(id string) (cases.Workflow, error) {
	var w cases.Workflow
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		w, err = s.workflow(tx, id)
		return err
	})
	return w, err
}

func (s *Store) workflow(tx *bolt.Tx, id string) (cases.Workflow, error) {
	if v := bucket(tx, caseWorkflows).Get([]byte(id)); id != "" && v != nil {
		return s.openWorkflow(tx, []byte(id), v)
	}
	versions, err := s.versions(tx, id)
	if err != nil || len(versions) == 0 {
		return cases.Workflow{}, errorOr(err, noCase("workflow", id))
	}
	return versions[len(versions)-1], nil
}

func errorOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// PublishedWorkflow returns the latest published version of the group that an id, of
// the group or of any of its versions, stands for.
func (s *Store) PublishedWorkflow(id string) (cases.Workflow, error) {
	var out cases.Workflow
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		w, err := s.workflow(tx, id)
		if err != nil {
			return err
		}
		versions, err := s.versions(tx, w.GroupID)
		if err != nil {
			return err
		}
		for _, v := range slices.Backward(versions) {
			if v.Status == cases.Published {
				out = v
				return nil
			}
		}
		return noCase("published version of workflow", id)
	})
	return out, err
}

// Workflows lists the latest version of every group, newest group first.
func (s *Store) Workflows() ([]cases.Workflow, error) {
	out := []cases.Workflow{}
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		var group []byte
		c := bucket(tx, caseGroups).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			w, err := s.openWorkflow(tx, v, bucket(tx, caseWorkflows).Get(v))
			if err != nil {
				return err
			}
			if p := k[:len(k)-8]; bytes.Equal(p, group) {
				out[len(out)-1] = w
			} else {
				out, group = append(out, w), bytes.Clone(p)
			}
		}
		return nil
	})
	slices.Reverse(out)
	return out, err
}

// DeleteWorkflow deletes all versions of the group that an id stands for. Sessions
// keep the steps that they were made with.
func (s *Store) DeleteWorkflow(id string) error {
	return s.update(s.cases, func(tx *bolt.Tx) error {
		w, err := s.workflow(tx, id)
		if err != nil {
			return err
		}
		versions, err := s.versions(tx, w.GroupID)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if err := bucket(tx, caseWorkflows).Delete([]byte(v.UUID)); err != nil {
				return err
			}
		}
		return dropPrefix(bucket(tx, caseGroups), prefix(w.GroupID))
	})
}
