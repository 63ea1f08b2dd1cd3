package cases

import "time"

// View is a list as the API shows it.
func (l *List) View() map[string]any {
	return map[string]any{"uuid": l.UUID, "name": l.Name, "description": l.Description, "list_type": l.Type, "entry_type": l.EntryType,
		"is_system": l.Type == Blocklist, "created_at": Time(l.CreatedAt), "updated_at": Time(l.UpdatedAt)}
}

// View is an entry as the API shows it.
func (e *Entry) View(l Links) map[string]any {
	v := map[string]any{"uuid": e.UUID, "value": e.Value, "display_label": e.Label, "comment": e.Comment, "added_by": e.AddedBy,
		"reference_session_id": orNull(e.SessionID), "reference_session_number": nil, "reference_object_uuid": orNull(e.ObjectUUID),
		"metadata": rawOrNull(e.Metadata), "created_at": Time(e.CreatedAt)}
	if e.Number > 0 {
		v["reference_session_number"] = e.Number
	}
	if e.Media != "" {
		v["metadata"] = map[string]any{"reference_image_url": l.media(e.Media)}
	}
	return v
}

// base are the parts of a destination that all answers share.
func (d *Destination) base() map[string]any {
	return map[string]any{"uuid": d.UUID, "label": d.Label, "url": d.URL, "enabled": d.Enabled, "webhook_version": d.Version,
		"subscribed_events": d.Events, "created_at": Time(d.CreatedAt), "updated_at": Time(d.UpdatedAt)}
}

func (d *Destination) errorRate() float64 {
	if d.Deliveries == 0 {
		return 0
	}
	return float64(int(10000*float64(d.Failures)/float64(d.Deliveries)+0.5)) / 100
}

func (d *Destination) average() any {
	if d.Deliveries == 0 {
		return nil
	}
	return d.SumMS / int64(d.Deliveries)
}

// Row is a destination in a list: without its secret.
func (d *Destination) Row() map[string]any {
	v := d.base()
	v["subscribed_events_count"], v["deliveries_count"], v["failed_deliveries_count"] = len(d.Events), d.Deliveries, d.Failures
	v["average_response_time_ms"], v["error_rate_percentage"], v["last_delivery_at"] = d.average(), d.errorRate(), Time(d.LastAt)
	return v
}

// View is a destination with its secret. While a rotation lasts the new secret is
// shown beside the one that signs.
func (d *Destination) View(now time.Time) map[string]any {
	v := d.base()
	current, next := d.Secrets(now)
	v["secret_shared_key"] = current
	v["next_secret_shared_key"], v["secret_switches_at"] = orNull(next), nil
	if next != "" {
		v["secret_switches_at"] = Time(d.SwitchAt)
	}
	var lo, hi any
	if d.Deliveries > 0 {
		lo, hi = d.MinMS, d.MaxMS
	}
	v["summary"] = map[string]any{"total_deliveries": d.Deliveries, "failed_deliveries": d.Failures, "error_rate_percentage": d.errorRate(),
		"min_response_time_ms": lo, "avg_response_time_ms": d.average(), "max_response_time_ms": hi, "last_delivery_at": Time(d.LastAt)}
	return v
}

// View is a delivery in the log. What was sent is not kept: it can be sent again.
func (d *Delivery) View() map[string]any {
	tries := []map[string]any{}
	var code any
	for _, t := range d.Tries {
		tries = append(tries, map[string]any{"at": Time(t.At), "status_code": orZero(t.Status), "response_time_ms": t.MS, "error": orNull(t.Error)})
		code = orZero(t.Status)
	}
	v := map[string]any{"uuid": d.UUID, "event_id": d.EventID, "webhook_type": d.Type, "destination_uuid": d.Destination,
		"session_id": orNull(d.SessionID), "session_status": d.Status, "status": d.State, "status_code": code, "is_test": d.Test,
		"attempts": tries, "next_attempt_at": Time(d.NextAt), "created_at": Time(d.CreatedAt)}
	if d.State != Pending {
		v["next_attempt_at"] = nil
	}
	return v
}

func orZero(n int) any {
	if n == 0 {
		return nil
	}
	return n
}
