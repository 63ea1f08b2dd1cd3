package api

import (
	"net/http"
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
		read(res, "/v3/webhook/destinations/", on(http.StatusOK, cr.listDestinations)),
		write(res, http.MethodPost, "/v3/webhook/destinations/", on(http.StatusCreated, cr.createDestination)),
		read(res, one, on(http.StatusOK, cr.getDestination)),
		write(res, http.MethodPatch, one, on(http.StatusOK, cr.changeDestination)),
		write(res, http.MethodDelete, one, on(http.StatusNoContent, cr.deleteDestination)),
		write(res, http.MethodPost, one+"test/", on(http.StatusAccepted, cr.testDestination)),
		read(res, one+"deliveries/", on(http.StatusOK, cr.destinationLog)),
		read(res, one+"deliveries/{delivery}/", on(http.StatusOK, cr.getDelivery)),
		write(res, http.MethodPost, one+"deliveries/{delivery}/resend/", on(http.StatusAccepted, cr.resend)),
		read(res, "/v3/session/{id}/webhooks/", on(http.StatusOK, cr.sessionLog)),
		write(res, http.MethodPost, "/v3/session/{id}/webhook/{delivery}/resend/", on(http.StatusAccepted, cr.resend)),
		read(res, "/v3/webhook/", on(http.StatusOK, cr.getWebhook)),
		write(res, http.MethodPatch, "/v3/webhook/", on(http.StatusOK, cr.changeWebhook)),
	}
}

func (cr caseRoutes) listDestinations(c *call) (any, error) {
	all, err := cr.cases.Destinations(c.scope)
	rows := []map[string]any{}
	for i := range all {
		rows = append(rows, all[i].Row())
	}
	return rows, err
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

func (cr caseRoutes) createDestination(c *call) (any, error) {
	var d cases.Destination
	readDestination(c.object(), true)(&d)
	if err := c.Err(); err != nil {
		return nil, err
	}
	d, err := cr.cases.CreateDestination(c.scope, d)
	return d.View(cr.Now()), err
}

func (cr caseRoutes) getDestination(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	d, err := cr.cases.Destination(c.scope, id)
	return d.View(cr.Now()), err
}

// changeDestination changes what the body names. rotate_secret_key makes a new secret
// that takes over after secret_overlap_seconds.
func (cr caseRoutes) changeDestination(c *call) (any, error) {
	id, o := c.id("id"), c.object()
	change := readDestination(o, false)
	rotate, overlap := o.Bool("rotate_secret_key", false), o.Int("secret_overlap_seconds", defaultOverlap, 0, maxOverlap)
	if err := c.Err(); err != nil {
		return nil, err
	}
	d, err := cr.cases.ChangeDestination(c.scope, id, change, rotate, time.Duration(overlap)*time.Second)
	return d.View(cr.Now()), err
}

func (cr caseRoutes) deleteDestination(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	return nil, cr.cases.DeleteDestination(c.scope, id)
}

func (cr caseRoutes) testDestination(c *call) (any, error) {
	id := c.id("id")
	if err := c.Err(); err != nil {
		return nil, err
	}
	d, err := cr.cases.TestDestination(c.scope, id)
	return d.View(), err
}

func (cr caseRoutes) destinationLog(c *call) (any, error) {
	return cr.deliveryLog(c, cases.DeliveryQuery{Destination: c.id("id")})
}

func (cr caseRoutes) sessionLog(c *call) (any, error) {
	return cr.deliveryLog(c, cases.DeliveryQuery{SessionID: c.id("id")})
}

func (cr caseRoutes) deliveryLog(c *call, q cases.DeliveryQuery) (any, error) {
	p := c.page()
	if err := c.Err(); err != nil {
		return nil, err
	}
	q.Limit, q.Offset = p.Limit, p.Offset
	page, count, err := cr.cases.Deliveries(c.scope, q)
	rows := []map[string]any{}
	for i := range page {
		rows = append(rows, page[i].View())
	}
	return cr.Listing(c.Request, p, count, rows), err
}

// delivery finds the delivery of the path and refuses it under another's name.
func (cr caseRoutes) delivery(c *call) (cases.Delivery, error) {
	id, uuid := c.id("id"), c.id("delivery")
	if err := c.Err(); err != nil {
		return cases.Delivery{}, err
	}
	d, err := cr.cases.Delivery(c.scope, uuid)
	if err == nil && d.Destination != id && d.SessionID != id {
		err = NotFound()
	}
	return d, err
}

func (cr caseRoutes) getDelivery(c *call) (any, error) {
	d, err := cr.delivery(c)
	return d.View(), err
}

func (cr caseRoutes) resend(c *call) (any, error) {
	d, err := cr.delivery(c)
	if err == nil {
		d, err = cr.cases.Resend(c.scope, d.UUID)
	}
	return d.View(), err
}

// legacy finds the destination behind the older single-webhook endpoint; without a UUID
// there is none.
func (cr caseRoutes) legacy(c *call) (cases.Destination, error) {
	all, err := cr.cases.Destinations(c.scope)
	for _, d := range all {
		if d.Legacy {
			return d, err
		}
	}
	return cases.Destination{}, err
}

func (cr caseRoutes) legacyView(d *cases.Destination) map[string]any {
	secret, _ := d.Secrets(cr.Now())
	v := map[string]any{"webhook_url": nil, "webhook_version": "v3", "secret_shared_key": nil, "capture_method": "both", "data_retention_months": nil}
	if d.UUID != "" {
		v["webhook_url"], v["secret_shared_key"] = d.URL, secret
	}
	return v
}

func (cr caseRoutes) getWebhook(c *call) (any, error) {
	d, err := cr.legacy(c)
	return cr.legacyView(&d), err
}

// changeWebhook is the older way to set one receiver for everything.
func (cr caseRoutes) changeWebhook(c *call) (any, error) {
	o := c.object()
	address, rotate := o.String("webhook_url", cases.MaxURL), o.Bool("rotate_secret_key", false)
	version := o.Choice("webhook_version", false, "v1", "v2", "v3")
	if o.Has("capture_method") || o.Has("data_retention_months") {
		o.Fields.Add("capture_method", "capture_method and data_retention_months are not set here; retention is part of the configuration.")
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	d, err := cr.legacy(c)
	if err != nil {
		return nil, err
	}
	change := func(d *cases.Destination) {
		if address != "" {
			d.URL = address
		}
		if version != "" {
			d.Version = version
		}
	}
	if d.UUID != "" {
		d, err = cr.cases.ChangeDestination(c.scope, d.UUID, change, rotate, defaultOverlap*time.Second)
	} else {
		d = cases.Destination{Label: "default", Enabled: true, Legacy: true}
		change(&d)
		d, err = cr.cases.CreateDestination(c.scope, d)
	}
	return cr.legacyView(&d), err
}
