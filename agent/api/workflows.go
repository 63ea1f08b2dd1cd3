package api

import (
	"io"
	"mime"
	"net/http"

	"postern/agent"
	"postern/agent/cases"
)

type workflowService interface {
	CreateWorkflow(c cases.Scope, body []byte) (cases.Workflow, error)
	Workflow(c cases.Scope, id string) (cases.Workflow, error)
	Workflows(c cases.Scope) ([]cases.Workflow, error)
	ChangeWorkflow(c cases.Scope, id string, body []byte) (cases.Workflow, error)
	DeleteWorkflow(c cases.Scope, id string) error
}

func (cr caseRoutes) workflowRoutes() []Route {
	const one, res = "/v3/workflows/{id}/", agent.ResourceWorkflows
	return []Route{
		read(res, "/v3/workflows/", on(http.StatusOK, cr.listWorkflows)),
		write(res, http.MethodPost, "/v3/workflows/", on(http.StatusCreated, cr.createWorkflow)),
		read(res, one, on(http.StatusOK, cr.getWorkflow)),
		write(res, http.MethodPatch, one, on(http.StatusOK, cr.changeWorkflow)),
		write(res, http.MethodDelete, one, on(http.StatusNoContent, cr.deleteWorkflow)),
	}
}

func (cr caseRoutes) listWorkflows(c *call) (any, error) {
	p := c.page()
	if err := c.Err(); err != nil {
		return nil, err
	}
	all, err := cr.cases.Workflows(c.scope)
	rows := []map[string]any{}
	for _, w := range cutPage(all, p) {
		rows = append(rows, w.Row(cr.linksFor(c.Request)))
	}
	return cr.Listing(c.Request, p, len(all), rows), err
}

// rawJSON reads a body that the domain parses itself, since what it may hold is the
// domain's matter. Everything that is wrong with it as JSON is refused here.
func rawJSON(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, Detail(http.StatusUnsupportedMediaType, "Unsupported media type \""+short(r.Header.Get("Content-Type"))+"\" in request.")
	}
	if err := checkJSON(data); err != nil {
		return nil, Detail(http.StatusBadRequest, "JSON parse error - "+err.Error())
	}
	return data, nil
}

func (cr caseRoutes) createWorkflow(c *call) (any, error) {
	body, err := rawJSON(c.Request)
	if err != nil {
		return nil, err
	}
	w, err := cr.cases.CreateWorkflow(c.scope, body)
	return cr.viewWorkflow(c, &w, err)
}

// viewWorkflow shows a workflow in full, if there is one.
func (cr caseRoutes) viewWorkflow(c *call, w *cases.Workflow, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return w.View(cr.linksFor(c.Request)), nil
}

func (cr caseRoutes) getWorkflow(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	w, err := cr.cases.Workflow(c.scope, id)
	return cr.viewWorkflow(c, &w, err)
}

func (cr caseRoutes) changeWorkflow(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	body, err := rawJSON(c.Request)
	if err != nil {
		return nil, err
	}
	w, err := cr.cases.ChangeWorkflow(c.scope, id, body)
	return cr.viewWorkflow(c, &w, err)
}

func (cr caseRoutes) deleteWorkflow(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	return nil, cr.cases.DeleteWorkflow(c.scope, id)
}
