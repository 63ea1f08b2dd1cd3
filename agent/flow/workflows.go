package flow

import (
	"time"

	"postern/agent"
	"postern/agent/cases"
)

// CreateWorkflow makes a workflow from a request's body.
func (s *Service) CreateWorkflow(c cases.Scope, body []byte) (cases.Workflow, error) {
	if len(c.Workflows) > 0 {
		return cases.Workflow{}, &cases.Refusal{Form: cases.Detail, Forbidden: true, Message: "You do not have permission to perform this action."}
	}
	w, err := cases.ParseWorkflow(body, nil)
	if err != nil {
		return w, err
	}
	if made, err := s.Workflow(c, c.Record); err == nil {
		return made, nil // by an earlier try of the same request
	}
	w.GroupID, w.Application, w.Sandbox = c.Record, c.Application, c.Sandbox
	return s.putWorkflow(w)
}

// Workflow returns a version by its uuid, or the latest of a group.
func (s *Service) Workflow(c cases.Scope, id string) (cases.Workflow, error) {
	w, err := s.Store.Workflow(id)
	if err == nil && !usable(c, &w) {
		return cases.Workflow{}, notFound("workflow", id)
	}
	return w, err
}

// usable tells whether a workflow lies within the scope: a sandbox may use real
// workflows, to try them, but not change them.
func usable(c cases.Scope, w *cases.Workflow) bool {
	return c.Owns(w.Application) && c.Allows(w.GroupID) && (c.Sandbox || !w.Sandbox)
}

// changeable is Workflow for those who want to change it.
func (s *Service) changeable(c cases.Scope, id string) (cases.Workflow, error) {
	w, err := s.Workflow(c, id)
	if err == nil && w.Sandbox != c.Sandbox {
		err = &cases.Refusal{Form: cases.Detail, Forbidden: true, Message: "A sandbox key cannot change a live workflow."}
	}
	return w, err
}

// Workflows lists the latest version of each.
func (s *Service) Workflows(c cases.Scope) ([]cases.Workflow, error) {
	all, err := s.Store.Workflows()
	out := []cases.Workflow{}
	for _, w := range all {
		if usable(c, &w) {
			out = append(out, w)
		}
	}
	return out, err
}

// ChangeWorkflow applies a request's body. A draft changes as it stands; a change of
// a published version makes the next version, which is published too unless the body
// says draft, so that it takes effect on the next session.
func (s *Service) ChangeWorkflow(c cases.Scope, id string, body []byte) (cases.Workflow, error) {
	old, err := s.changeable(c, id)
	if err != nil {
		return old, err
	}
	w, err := cases.ParseWorkflow(body, &old)
	if err != nil {
		return w, err
	}
	if old.Status == cases.Published {
		latest, err := s.Store.Workflow(old.GroupID)
		if err != nil {
			return w, err
		}
		if latest.UUID != old.UUID && latest.Status == cases.Draft {
			return w, &agent.Error{Code: agent.CodeConflict, Message: "the workflow has a draft " + latest.UUID + " already", Fix: "change or publish the draft"}
		}
		w.UUID, w.PublishedAt = "", time.Time{}
	}
	return s.putWorkflow(w)
}

func (s *Service) putWorkflow(w cases.Workflow) (cases.Workflow, error) {
	out, err := s.Store.PutWorkflow(w)
	if err == nil {
		s.audit(agent.AuditConfigure, "API", map[string]string{"workflow": out.GroupID, "version": out.UUID, "status": out.Status})
	}
	return out, err
}

// DeleteWorkflow deletes all versions. Sessions keep the steps they were made with.
func (s *Service) DeleteWorkflow(c cases.Scope, id string) error {
	w, err := s.changeable(c, id)
	if err != nil {
		return err
	}
	if err := s.Store.DeleteWorkflow(w.GroupID); err != nil {
		return err
	}
	s.audit(agent.AuditConfigure, "API", map[string]string{"workflow": w.GroupID, "status": "deleted"})
	return nil
}
