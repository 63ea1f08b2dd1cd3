package api

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"postern/agent"
	"postern/agent/cases"
)

type listService interface {
	Lists(c cases.Scope) ([]cases.List, error)
	List(c cases.Scope, uuid string) (cases.List, error)
	CreateList(c cases.Scope, l cases.List) (cases.List, error)
	ChangeList(c cases.Scope, uuid string, change func(*cases.List)) (cases.List, error)
	DeleteList(c cases.Scope, uuid string) error
	Entries(c cases.Scope, list string) ([]cases.Entry, error)
	AddEntry(c cases.Scope, list string, e cases.Entry) (cases.Entry, error)
	UploadFace(ctx context.Context, c cases.Scope, list string, image []byte, e cases.Entry) (cases.Entry, error)
	DeleteEntry(c cases.Scope, list, uuid string) error
}

// maxFaceUpload is 5 MB in base64, and the rest of the body.
const maxFaceUpload = 8 << 20

func (cr caseRoutes) listRoutes() []Route {
	const one, res = "/v3/lists/{list}/", agent.ResourceLists
	upload := write(res, http.MethodPost, one+"entries/face-upload/", on(http.StatusCreated, cr.uploadFace))
	upload.MaxBody = maxFaceUpload
	routes := []Route{
		upload,
		read(res, "/v3/lists/", on(http.StatusOK, cr.listLists)),
		write(res, http.MethodPost, "/v3/lists/", on(http.StatusCreated, cr.createList)),
		read(res, one, on(http.StatusOK, cr.getList)),
		write(res, http.MethodPatch, one, on(http.StatusOK, cr.changeList)),
		write(res, http.MethodDelete, one, on(http.StatusNoContent, cr.deleteList)),
		read(res, one+"entries/", on(http.StatusOK, cr.listEntries)),
		write(res, http.MethodPost, one+"entries/", on(http.StatusCreated, cr.addEntry)),
		write(res, http.MethodDelete, one+"entries/{entry}/", on(http.StatusNoContent, cr.deleteEntry)),
	}
	for i := range routes {
		routes[i].Handle = noSandbox(routes[i].Handle)
	}
	return routes
}

// noSandbox keeps sandbox keys away from lists: they hold real people.
func noSandbox(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if CallerOf(r.Context()).Sandbox {
			return Detail(http.StatusForbidden, "Lists hold real data; a sandbox key cannot use them.")
		}
		return h(w, r)
	}
}

func (cr caseRoutes) listLists(c *call) (any, error) {
	p, q := c.page(), c.URL.Query()
	if err := c.Err(); err != nil {
		return nil, err
	}
	all, err := cr.cases.Lists(c.scope)
	found := []map[string]any{}
	for i := range all {
		if (q.Get("list_type") == "" || q.Get("list_type") == all[i].Type) && (q.Get("entry_type") == "" || q.Get("entry_type") == all[i].EntryType) {
			found = append(found, all[i].View())
		}
	}
	return cr.Listing(c.Request, p, len(found), cutPage(found, p)), err
}

// cutPage is one page of what is in memory.
func cutPage[T any](all []T, p Page) []T {
	from := min(p.Offset, len(all))
	return all[from:min(from+p.Limit, len(all))]
}

func (cr caseRoutes) createList(c *call) (any, error) {
	o := c.object()
	l := cases.List{Name: o.Required("name", cases.MaxListText), Description: o.String("description", cases.MaxListText),
		Type: o.Required("list_type", 64), EntryType: o.Required("entry_type", 64)}
	if err := c.Err(); err != nil {
		return nil, err
	}
	l, err := cr.cases.CreateList(c.scope, l)
	return l.View(), err
}

func (cr caseRoutes) getList(c *call) (any, error) {
	id := c.id("list")
	if err := c.Err(); err != nil {
		return nil, err
	}
	l, err := cr.cases.List(c.scope, id)
	return l.View(), err
}

func (cr caseRoutes) changeList(c *call) (any, error) {
	id, o := c.id("list"), c.object()
	name, description := o.String("name", cases.MaxListText), o.String("description", cases.MaxListText)
	if err := c.Err(); err != nil {
		return nil, err
	}
	l, err := cr.cases.ChangeList(c.scope, id, func(l *cases.List) {
		if o.Has("name") {
			l.Name = name
		}
		if o.Has("description") {
			l.Description = description
		}
	})
	return l.View(), err
}

func (cr caseRoutes) deleteList(c *call) (any, error) {
	id := c.id("list")
	if err := c.Err(); err != nil {
		return nil, err
	}
	return nil, cr.cases.DeleteList(c.scope, id)
}

func (cr caseRoutes) listEntries(c *call) (any, error) {
	id, p := c.id("list"), c.page()
	if err := c.Err(); err != nil {
		return nil, err
	}
	all, err := cr.cases.Entries(c.scope, id)
	rows := []map[string]any{}
	for _, e := range cutPage(all, p) {
		rows = append(rows, e.View(cr.linksFor(c.Request)))
	}
	return cr.Listing(c.Request, p, len(all), rows), err
}

// entry reads what both ways to add one share.
func (c *call) entry() cases.Entry {
	return cases.Entry{AddedBy: "api", Label: c.body.String("display_label", cases.MaxListText), Comment: c.body.String("comment", cases.MaxComment),
		Metadata: c.metadata("metadata")}
}

func (cr caseRoutes) addEntry(c *call) (any, error) {
	id, o := c.id("list"), c.object()
	e := c.entry()
	e.Value, e.SessionID, e.ObjectUUID = o.String("value", cases.MaxListText), o.UUID("reference_session_id", false), o.UUID("reference_object_uuid", false)
	if e.Value == "" && e.SessionID == "" {
		o.Fields.Add("value", msgRequired)
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	e, err := cr.cases.AddEntry(c.scope, id, e)
	return e.View(cr.linksFor(c.Request)), err
}

func (cr caseRoutes) uploadFace(c *call) (any, error) {
	id := c.id("list")
	if err := c.Err(); err != nil {
		return nil, err
	}
	leave, err := cr.gate.enter() // before the body is read
	if err != nil {
		return nil, err
	}
	defer leave()
	o := c.object()
	e := c.entry()
	image, err := decodeBase64("image", o.Required("image", maxFaceUpload), 5<<20)
	if err := errors.Join(c.Err(), err); err != nil {
		return nil, err
	}
	err = cr.gate.work(c.Context(), func() (err error) {
		e, err = cr.cases.UploadFace(c.Context(), c.scope, id, image, e)
		return err
	})
	return e.View(cr.linksFor(c.Request)), err
}

// decodeBase64 reads a picture, with or without a data URL before it.
func decodeBase64(field, s string, most int) ([]byte, error) {
	if head, rest, ok := strings.Cut(s, ","); ok && strings.HasPrefix(head, "data:") {
		s = rest
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		if data, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return nil, cases.Wrong(field, "Invalid base64 image.")
		}
	}
	if len(data) > most {
		return nil, cases.Wrong(field, "File size should not exceed %d MB", most>>20)
	}
	return data, nil
}

func (cr caseRoutes) deleteEntry(c *call) (any, error) {
	list, entry := c.id("list"), c.id("entry")
	if err := c.Err(); err != nil {
		return nil, err
	}
	return nil, cr.cases.DeleteEntry(c.scope, list, entry)
}
