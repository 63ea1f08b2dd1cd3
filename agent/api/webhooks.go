package api

import (
	"net/http"
	"slices"
	"time"

	"postern/agent"
	"postern/agent/cases"
)

type webhookService interface {
	Destinations(c cases.Scope) ([]cases.Destination, error)
	Destination(c cases.Scope, uuid string) (cases.Destination, error)
	CreateDestination(c cases.Scope, d cases.Destination) (cases.Destination, error)
	ChangeDestination(c cases.Scope, uuid string, change func(*cases.Destination), rotate bool, overlap time.Duration) (cases.Destination, error)
	DeleteDestination(c cases.Scope, uuid string) error
	TestDestination(c cases.Scope, uuid string) (cases.Delivery, error)
	Deliveries(c cases.Scope, q cases.DeliveryQuery) ([]cases.Delivery, int, error)
	Delivery(c cases.Scope, uuid string) (cases.Delivery, error)
	Resend(c cases.Scope, uuid string) (cases.Delivery, error)
}

// Overlap of a rotation: what is usual, and the most.
const (
	defaultOverlap = 24 * 3600
	maxOverlap     = 7 * 24 * 3600
)

func (cr caseRoutes) webhookRoutes() []Route {
	const one, res = "/v3/webhook/destinations/{id}/", agent.ResourceWebhooks
	return []Route{
		read(res, "/v3/webhook/destinations/", cr.listDestinations),
		write(res, http.MethodPost, "/v3/webhook/destinations/", cr.createDestination),
		read(res, one, cr.getDestination),
		write(res, http.MethodPatch, one, cr.changeDestination),
		write(res, http.MethodDelete, one, cr.deleteDestination),
		write(res, http.MethodPost, one+"test/", cr.testDestination),
		read(res, one+"deliveries/", cr.destinationLog),
		read(res, one+"deliveries/{delivery}/", cr.getDelivery),
		write(res, http.MethodPost, one+"deliveries/{delivery}/resend/", cr.resend),
		read(res, "/v3/session/{id}/webhooks/", cr.sessionLog),
		write(res, http.MethodPost, "/v3/session/{id}/webhook/{delivery}/resend/", cr.resend),
		read(res, "/v3/webhook/", cr.getWebhook),
		write(res, http.MethodPatch, "/v3/webhook/", cr.changeWebhook),
	}
}

func (cr caseRoutes) listDestinations(w http.ResponseWriter, r *http.Request) error {
	all, err := cr.cases.Destinations(scopeOf(r.Context()))
	if err != nil {
		return err
	}
	rows := []map[string]any{}
	for i := range all {
		rows = append(rows, all[i].Row())
	}
	WriteJSON(w, http.StatusOK, rows)
	return nil
}

// readDestination reads the fields that creation and change share into change.
func readDestination(o *Object, creating bool) func(*cases.Destination) {
	label, version := o.String("label", cases.MaxListText), o.Choice("webhook_version", false, "v1", "v2", "v3")
	address := o.text("url", o.get("url", creating, false), cases.MaxURL)
	enabled := o.Bool("enabled", true)
	events := o.Strings("subscribed_events", 32, 64)
	if o.Has("subscribed_events") && events == nil && len(o.Fields["subscribed_events"]) == 0 {
		o.Fields.Add("subscribed_events", msgNull)
	}
	return func(d *cases.Destination) {
		if o.Has("label") {
			d.Label = label
		}
		if version != "" {
			d.Version = version
		}
		if o.Has("url") {
			d.URL = address
		}
		if creating || o.Has("enabled") {
			d.Enabled = enabled
		}
		if events != nil {
			d.Events = events
		}
	}
}

func (cr caseRoutes) createDestination(w http.ResponseWriter, r *http.Request) error {
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	var d cases.Destination
	readDestination(o, true)(&d)
	if err := o.Err(); err != nil {
		return err
	}
	if d, err = cr.cases.CreateDestination(scopeOf(r.Context()), d); err != nil {
		return err
	}
	WriteJSON(w, http.StatusCreated, d.View(cr.Now()))
	return nil
}

func (cr caseRoutes) getDestination(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	d, err := cr.cases.Destination(scopeOf(r.Context()), id)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, d.View(cr.Now()))
	return nil
}

// changeDestination changes what the body names. rotate_secret_key makes a new secret
// that takes over after secret_overlap_seconds.
func (cr caseRoutes) changeDestination(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	change := readDestination(o, false)
	rotate, overlap := o.Bool("rotate_secret_key", false), o.Int("secret_overlap_seconds", defaultOverlap, 0, maxOverlap)
	if err := o.Err(); err != nil {
		return err
	}
	d, err := cr.cases.ChangeDestination(scopeOf(r.Context()), id, change, rotate, time.Duration(overlap)*time.Second)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, d.View(cr.Now()))
	return nil
}

func (cr caseRoutes) deleteDestination(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	if err := cr.cases.DeleteDestination(scopeOf(r.Context()), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (cr caseRoutes) testDestination(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	d, err := cr.cases.TestDestination(scopeOf(r.Context()), id)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusAccepted, d.View())
	return nil
}

func (cr caseRoutes) destinationLog(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	return cr.deliveryLog(w, r, cases.DeliveryQuery{Destination: id})
}

func (cr caseRoutes) sessionLog(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r, "id")
	if err != nil {
		return err
	}
	return cr.deliveryLog(w, r, cases.DeliveryQuery{SessionID: id})
}

func (cr caseRoutes) deliveryLog(w http.ResponseWriter, r *http.Request, q cases.DeliveryQuery) error {
	faults := Fields{}
	p := ParsePage(r.URL.Query(), faults)
	if err := faults.Err(); err != nil {
		return err
	}
	q.Limit, q.Offset = p.Limit, p.Offset
	page, count, err := cr.cases.Deliveries(scopeOf(r.Context()), q)
	if err != nil {
		return err
	}
	rows := []map[string]any{}
	for i := range page {
		rows = append(rows, page[i].View())
	}
	WriteJSON(w, http.StatusOK, cr.Listing(r, p, count, rows))
	return nil
}

// delivery finds the delivery of the path and refuses it under another's name.
func (cr caseRoutes) delivery(r *http.Request) (cases.Delivery, error) {
	id, err := pathUUID(r, "id")
	if err != nil {
		return cases.Delivery{}, err
	}
	uuid, err := pathUUID(r, "delivery")
	if err != nil {
		return cases.Delivery{}, err
	}
	d, err := cr.cases.Delivery(scopeOf(r.Context()), uuid)
	if err == nil && d.Destination != id && d.SessionID != id {
		err = NotFound()
	}
	return d, err
}

func (cr caseRoutes) getDelivery(w http.ResponseWriter, r *http.Request) error {
	d, err := cr.delivery(r)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, d.View())
	return nil
}

func (cr caseRoutes) resend(w http.ResponseWriter, r *http.Request) error {
	d, err := cr.delivery(r)
	if err != nil {
		return err
	}
	if d, err = cr.cases.Resend(scopeOf(r.Context()), d.UUID); err != nil {
		return err
	}
	WriteJSON(w, http.StatusAccepted, d.View())
	return nil
}

// legacy finds the destination behind the older single-webhook endpoint.
func (cr caseRoutes) legacy(r *http.Request) (cases.Destination, bool, error) {
	all, err := cr.cases.Destinations(scopeOf(r.Context()))
	i := slices.IndexFunc(all, func(d cases.Destination) bool { return d.Legacy })
	if err != nil || i < 0 {
		return cases.Destination{}, false, err
	}
	return all[i], true, nil
}

func (cr caseRoutes) legacyView(d *cases.Destination) map[string]any {
	secret, _ := d.Secrets(cr.Now())
	v := map[string]any{"webhook_url": nil, "webhook_version": "v3", "secret_shared_key": nil, "capture_method": "both", "data_retention_months": nil}
	if d.UUID != "" {
		v["webhook_url"], v["secret_shared_key"] = d.URL, secret
	}
	return v
}

func (cr caseRoutes) getWebhook(w http.ResponseWriter, r *http.Request) error {
	d, _, err := cr.legacy(r)
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, cr.legacyView(&d))
	return nil
}

// changeWebhook is the older way to set one receiver for everything.
func (cr caseRoutes) changeWebhook(w http.ResponseWriter, r *http.Request) error {
	o, err := ReadObject(r)
	if err != nil {
		return err
	}
	address, rotate := o.String("webhook_url", cases.MaxURL), o.Bool("rotate_secret_key", false)
	version := o.Choice("webhook_version", false, "v1", "v2", "v3")
	if o.Has("capture_method") || o.Has("data_retention_months") {
		o.Fields.Add("capture_method", "capture_method and data_retention_months are not set here; retention is part of the configuration.")
	}
	if err := o.Err(); err != nil {
		return err
	}
	d, found, err := cr.legacy(r)
	if err != nil {
		return err
	}
	change := func(d *cases.Destination) {
		if address != "" {
			d.URL = address
		}
		if version != "" {
			d.Version = version
		}
	}
	scope := scopeOf(r.Context())
	if found {
		d, err = cr.cases.ChangeDestination(scope, d.UUID, change, rotate, defaultOverlap*time.Second)
	} else {
		d = cases.Destination{Label: "default", Enabled: true, Legacy: true}
		change(&d)
		d, err = cr.cases.CreateDestination(scope, d)
	}
	if err != nil {
		return err
	}
	WriteJSON(w, http.StatusOK, cr.legacyView(&d))
	return nil
}
