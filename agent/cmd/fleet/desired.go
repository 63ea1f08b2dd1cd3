package fleet

import (
	"encoding/hex"
	"log/slog"

	"postern/agent"
	"postern/agent/store"
	"postern/sync/authority"
	"postern/sync/hub"
	"postern/sync/registry"
	"postern/sync/wire"
)

// desired lends the people of a hub's store to its downlink.
type desired struct {
	st   *store.Store
	auth *authority.Authority // signs; nil: the store does
	log  *slog.Logger
}

var _ hub.Desired = desired{}

func (d desired) Position() (wire.Position, error) {
	p, err := d.st.FeedPosition()
	return wire.Position(p), err
}

func (d desired) Stamp(version uint64) ([]byte, error) { return d.st.Stamp(version) }
func (d desired) Raise(above uint64) error             { return d.st.RaiseFeed(above) }
func (d desired) FleetKey() []byte                     { return d.st.FleetKey() }
func (d desired) News() <-chan struct{}                { return d.st.FleetNews() }

func (d desired) Sign(context string, message []byte) (key string, sig []byte) {
	if d.auth != nil {
		return hex.EncodeToString(d.auth.Signing), d.auth.Sign(append([]byte(context+"\x00"), message...))
	}
	return d.st.PublicKey(), d.st.SignFleet(context, message)
}

func (d desired) Changes(after uint64, limit int) ([]hub.Change, wire.Position, error) {
	changes, to, err := d.st.Changes(after, limit)
	if err != nil {
		return nil, wire.Position{}, err
	}
	out := make([]hub.Change, 0, len(changes))
	for _, c := range changes {
		tag, err := hex.DecodeString(c.Tag)
		if err != nil {
			return nil, wire.Position{}, err
		}
		h := hub.Change{Version: c.Version, Tag: tag, Allows: c.Access.Allows, Person: wire.Person{Subject: c.Subject, Templates: c.Templates}}
		if c.Erased != nil {
			h.Erased = &wire.Erasure{Tag: tag, Version: c.Erased.Version, At: c.Erased.At.UnixMicro()}
		}
		out = append(out, h)
	}
	return out, wire.Position(to), nil
}

func (d desired) Erase(es []wire.Erasure, device string) error {
	held, err := d.st.AddErasures(erasuresIn(es), "device "+device)
	for _, tag := range held {
		d.log.Error("somebody was erased on a device and is under a legal hold here: the record stays and is not used any more", "device", device, "tag", tag)
	}
	return err
}

func (d desired) Erased() ([]wire.Erasure, error) {
	es, err := d.st.Erasures(false, 0)
	if err != nil {
		return nil, err
	}
	return erasuresOut(es)
}

// members lends the registry; without a folder whoever has come is one.
type members struct {
	devices registry.Registry
	store   hub.Store
}

func (m members) Member(name string) (hub.Member, error) {
	if m.devices.Dir == "" {
		return hub.Member{Name: name}, wire.CheckDevice(name)
	}
	d, err := m.devices.Get(name)
	if err == nil && !belongs(d) {
		err = &agent.Error{Code: agent.CodeInvalid, Message: "device " + name + " was revoked, or has not been approved"}
	}
	return member(d), err
}

// belongs tells whether a device has been let in.
func belongs(d registry.Device) bool {
	return d.RevokedAt == nil && !d.Waiting && (d.TokenSHA256 != "" || d.Certificate != nil)
}

// member is a device with the time since which it may have another key: a new secret, or
// a claim that it has used.
func member(d registry.Device) hub.Member {
	since := d.AddedAt
	if d.Claim != nil && d.Claim.UsedAt != nil && d.Claim.UsedAt.After(since) {
		since = *d.Claim.UsedAt
	}
	return hub.Member{Name: d.Name, Group: d.Group, Since: since}
}

func (m members) Members() (out []hub.Member, err error) {
	if m.devices.Dir == "" {
		all, err := m.store.Healths()
		for _, h := range all {
			out = append(out, hub.Member{Name: h.Device})
		}
		return out, err
	}
	all, err := m.devices.List()
	for _, d := range all {
		if belongs(d) {
			out = append(out, member(d))
		}
	}
	return out, err
}
