package fleet

import (
	"time"

	"postern/agent/store"
	"postern/sync/hub"
	"postern/sync/registry"
	"postern/sync/wire"
)

// ErasureStatus is how far an erasure has come: at Done of Of devices.
type ErasureStatus struct {
	Tag     string    `json:"tag"`
	At      time.Time `json:"at"`
	Done    int       `json:"done"`
	Of      int       `json:"of"`
	Waiting []string  `json:"waiting"` // devices that have not said that they have done it
	Held    []string  `json:"held"`    // devices that keep the record under a legal hold, unused
	Revoked []string  `json:"revoked"` // devices that are shut out, and cannot be told
}

// Erasures tells how far each erasure has come. With a tag it tells of that one only.
func Erasures(people *store.Store, record hub.Store, devices registry.Registry, tag string) ([]ErasureStatus, error) {
	es, err := people.FeedErasures()
	if err != nil {
		return nil, err
	}
	all, err := devices.List()
	if err != nil {
		return nil, err
	}
	followed, err := record.Followeds()
	if err != nil {
		return nil, err
	}
	at := map[string]hub.Followed{}
	for _, f := range followed {
		at[f.Device] = f
	}
	out := []ErasureStatus{}
	for _, e := range es {
		if tag == "" || e.Tag == tag {
			out = append(out, erasureStatus(e, all, at))
		}
	}
	return out, nil
}

func erasureStatus(e store.ToldErasure, devices []registry.Device, at map[string]hub.Followed) ErasureStatus {
	s := ErasureStatus{Tag: e.Tag, At: e.At, Waiting: []string{}, Held: []string{}, Revoked: []string{}}
	for _, d := range devices {
		f := at[d.Name]
		if !belongs(d) && f.At.Version == 0 {
			continue // it never had anything
		}
		s.Of++
		switch {
		case f.At.Version < e.Change && !belongs(d):
			s.Revoked = append(s.Revoked, d.Name)
		case f.At.Version < e.Change:
			s.Waiting = append(s.Waiting, d.Name)
		case refuses(f, e.Tag):
			s.Held = append(s.Held, d.Name)
		default:
			s.Done++
		}
	}
	return s
}

func refuses(f hub.Followed, tag string) bool {
	for _, r := range f.Refused {
		if r.Collection == wire.CollErased && r.Key == tag {
			return true
		}
	}
	return false
}
