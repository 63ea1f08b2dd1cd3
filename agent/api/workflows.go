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
		read(res, "/v3/workflows/", cr.listWorkflows),
		write(res, http.MethodPost, "/v3/workflows/", cr.createWorkflow),
		read(res, one, cr.getWorkflow),
		write(res, http.MethodPatch, one, cr.changeWorkflow),
		write(res, http.MethodDelete, one, cr.deleteWorkflow),
	}
}

func (cr caseRoutes) listWorkflows(w http.ResponseWriter, r *http.Request) error {
	faults := Fields{}
	p := ParsePage(r.URL.Query(), faults)
	if err := faults.Err(); err != nil {
		return err
	}
	all, err := cr.cases.Workflows(scopeOf(r.Context()))
	if err != nil {
		return err
	}
	rows := []map[string]any{}
	for i := p.Offset; i < len(all) && len(rows) < p.Limit; i++ {
		rows = append(rows, all[i].Row(cr.linksFor(r)))
	}
	WriteJSON(w, http.StatusOK, cr.Listing(r, p, len(all), rows))
	return nil
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

func (cr caseRoutes) createWorkflow(w http.ResponseWriter, r *http.Request) error {
	body, err := rawJSON(r)
	if err != nil {
		return err
	}
	wf, err := cr.cases.CreateWorkflow(scopeOf(r.Context()), body)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusCreated, wf.View(cr.linksFor(r)))
	return nil
}

func (cr caseRoutes) getWorkflow(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	wf, err := cr.cases.Workflow(scopeOf(r.Context()), id)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, wf.View(cr.linksFor(r)))
	return nil
}

func (cr caseRoutes) changeWorkflow(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	body, err := rawJSON(r)
	if err != nil {
		return err
	}
	wf, err := cr.cases.ChangeWorkflow(scopeOf(r.Context()), id, body)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, wf.View(cr.linksFor(r)))
	return nil
}

func (cr caseRoutes) deleteWorkflow(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	if err := cr.cases.DeleteWorkflow(scopeOf(r.Context()), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
