package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"

	"postern/agent"
	"postern/agent/cases"
)

type listService interface {
	Lists() ([]cases.List, error)
	List(uuid string) (cases.List, error)
	CreateList(l cases.List) (cases.List, error)
	ChangeList(uuid string, change func(*cases.List)) (cases.List, error)
	DeleteList(uuid string) error
	Entries(list string) ([]cases.Entry, error)
	AddEntry(c cases.Scope, list string, e cases.Entry) (cases.Entry, error)
	UploadFace(ctx context.Context, list string, image []byte, e cases.Entry) (cases.Entry, error)
	DeleteEntry(list, uuid string) error
}

// maxFaceUpload is 5 MB in base64, and the rest of the body.
const maxFaceUpload = 8 << 20

func (cr caseRoutes) listRoutes() []Route {
	const one, res = "/v3/lists/{list}/", agent.ResourceLists
	upload := write(res, http.MethodPost, one+"entries/face-upload/", cr.uploadFace)
	upload.MaxBody = maxFaceUpload
	routes := []Route{
		upload,
		read(res, "/v3/lists/", cr.listLists),
		write(res, http.MethodPost, "/v3/lists/", cr.createList),
		read(res, one, cr.getList),
		write(res, http.MethodPatch, one, cr.changeList),
		write(res, http.MethodDelete, one, cr.deleteList),
		read(res, one+"entries/", cr.listEntries),
		write(res, http.MethodPost, one+"entries/", cr.addEntry),
		write(res, http.MethodDelete, one+"entries/{entry}/", cr.deleteEntry),
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

func (cr caseRoutes) listLists(w http.ResponseWriter, r *http.Request) error {
	faults, q := Fields{}, r.URL.Query()
	p := ParsePage(q, faults)
	if err := faults.Err(); err != nil {
		return err
	}
	all, err := cr.cases.Lists()
	if err != nil {
		return err
	}
	found := []map[string]any{}
	for i := range all {
		if (q.Get("list_type") == "" || q.Get("list_type") == all[i].Type) && (q.Get("entry_type") == "" || q.Get("entry_type") == all[i].EntryType) {
			found = append(found, all[i].View())
		}
	}
	WriteJSON(w, http.StatusOK, cr.Listing(r, p, len(found), cutPage(found, p)))
	return nil
}

// cutPage is one page of what is in memory.
func cutPage[T any](all []T, p Page) []T {
	from := min(p.Offset, len(all))
	return all[from:min(from+p.Limit, len(all))]
}

func (cr caseRoutes) createList(w http.ResponseWriter, r *http.Request) error {
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	l := cases.List{Name: o.Required("name", cases.MaxListText), Description: o.String("description", cases.MaxListText),
		Type: o.Required("list_type", 64), EntryType: o.Required("entry_type", 64)}
	if err := o.Err(); err != nil {
		return err
	}
	if l, err = cr.cases.CreateList(l); err != nil {
		return err
	}
	WriteJSON(w, http.StatusCreated, l.View())
	return nil
}

func (cr caseRoutes) getList(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	l, err := cr.cases.List(id)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, l.View())
	return nil
}

func (cr caseRoutes) changeList(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	name, description := o.String("name", cases.MaxListText), o.String("description", cases.MaxListText)
	if err := o.Err(); err != nil {
		return err
	}
	l, err := cr.cases.ChangeList(id, func(l *cases.List) {
		if o.Has("name") {
			l.Name = name
		}
		if o.Has("description") {
			l.Description = description
		}
	})
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, l.View())
	return nil
}

func (cr caseRoutes) deleteList(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	if err := cr.cases.DeleteList(id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (cr caseRoutes) listEntries(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	faults := Fields{}
	p := ParsePage(r.URL.Query(), faults)
	if err := faults.Err(); err != nil {
		return err
	}
	all, err := cr.cases.Entries(id)
	if err != nil {
		return err
	}
	rows := []map[string]any{}
	for _, e := range cutPage(all, p) {
		rows = append(rows, e.View(cr.linksFor(r)))
	}
	WriteJSON(w, http.StatusOK, cr.Listing(r, p, len(all), rows))
	return nil
}

func readEntry(o *Object) (cases.Entry, error) {
	e := cases.Entry{AddedBy: "api", Label: o.String("display_label", cases.MaxListText), Comment: o.String("comment", cases.MaxComment)}
	var err error
	e.Metadata, err = cases.ParseMetadata("metadata", o.Raw("metadata", maxCreate))
	return e, err
}

func (cr caseRoutes) addEntry(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	e, err := readEntry(o)
	if err != nil {
		return err
	}
	e.Value, e.SessionID, e.ObjectUUID = o.String("value", cases.MaxListText), o.UUID("reference_session_id", false), o.UUID("reference_object_uuid", false)
	if e.Value == "" && e.SessionID == "" {
		o.Fields.Add("value", msgRequired)
	}
	if err := o.Err(); err != nil {
		return err
	}
	if e, err = cr.cases.AddEntry(scopeOf(r.Context()), id, e); err != nil {
		return err
	}
	WriteJSON(w, http.StatusCreated, e.View(cr.linksFor(r)))
	return nil
}

func (cr caseRoutes) uploadFace(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	leave, err := cr.gate.enter() // before the body is read
	if err != nil {
		return err
	}
	defer leave()
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	e, err := readEntry(o)
	if err != nil {
		return err
	}
	image, err := decodeBase64("image", o.Required("image", maxFaceUpload), 5<<20)
	if err := o.Err(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	err = cr.gate.work(r.Context(), func() (err error) {
		e, err = cr.cases.UploadFace(r.Context(), id, image, e)
		return err
	})
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusCreated, e.View(cr.linksFor(r)))
	return nil
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

func (cr caseRoutes) deleteEntry(w http.ResponseWriter, r *http.Request) error {
	list, err := pathUUID(r, "list")
	if err != nil {
		return err
	}
	entry, err := pathUUID(r, "entry")
	if err != nil {
		return err
	}
	if err := cr.cases.DeleteEntry(list, entry); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
