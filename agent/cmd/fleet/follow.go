package fleet

import (
	"crypto/ed25519"
	"encoding/hex"
	"slices"
	"time"

	"postern/agent/store"
	"postern/sync/downlink"
	"postern/sync/wire"
)

// follower lends a device's store to its downlink.
type follower struct {
	st *store.Store
	// change runs fn with these subjects out of what is compared.
	change func(ids []string, fn func() error) error
}

var _ downlink.Store = follower{}

// Follower makes a store follow a hub. change runs its function with the subjects of
// these ids out of what faces are compared with; nil where nobody compares.
func Follower(st *store.Store, change func(ids []string, fn func() error) error) downlink.Store {
	if change == nil {
		change = func(_ []string, fn func() error) error { return fn() }
	}
	return follower{st, change}
}

func (f follower) Position() (at wire.Position, floor uint64, err error) {
	p, err := f.st.DesiredPosition()
	if err == nil {
		floor, err = f.st.DesiredFloor()
	}
	return wire.Position(p), floor, err
}

func (f follower) SealingKey() ([]byte, error) { return f.st.SealingKey() }

func (f follower) HubKey() (ed25519.PublicKey, error) {
	k, err := f.st.HubKey()
	return ed25519.PublicKey(k), err
}

func (f follower) PinHub(k ed25519.PublicKey) error { return f.st.PinHub(k) }
func (f follower) Heard() error                     { return f.st.HeardHub() }
func (f follower) News() <-chan struct{}            { return f.st.FleetNews() }

func (f follower) Untold(limit int) ([]wire.Erasure, error) {
	es, err := f.st.Erasures(true, limit)
	if err != nil {
		return nil, err
	}
	return erasuresOut(es)
}

func (f follower) Told(es []wire.Erasure) error { return f.st.ToldErasures(erasuresIn(es)) }

func erasuresOut(es []store.Erasure) ([]wire.Erasure, error) {
	out := make([]wire.Erasure, 0, len(es))
	for _, e := range es {
		tag, err := hex.DecodeString(e.Tag)
		if err != nil {
			return nil, err
		}
		out = append(out, wire.Erasure{Tag: tag, Version: e.Version, At: e.At.UnixMicro()})
	}
	return out, nil
}

func erasuresIn(es []wire.Erasure) []store.Erasure {
	out := make([]store.Erasure, 0, len(es))
	for _, e := range es {
		out = append(out, store.Erasure{Tag: hex.EncodeToString(e.Tag), Version: e.Version, At: time.UnixMicro(e.At).UTC()})
	}
	return out
}

// Follow implements downlink.Store.
func (f follower) Follow(u downlink.Update) (out []wire.RefusedItem, err error) {
	d := store.Desired{From: store.Position(u.From), To: store.Position(u.To), Head: u.Head, Full: u.Full, More: u.More, Key: u.Key,
		Gone: u.Gone, Erased: erasuresIn(u.Erased)}
	ids, tags := []string{}, slices.Clone(u.Gone)
	for _, p := range u.People {
		d.People = append(d.People, store.Person{Tag: p.Tag, Subject: p.Subject, Templates: p.Templates})
		ids = append(ids, p.Subject.ID)
	}
	for _, e := range d.Erased {
		tags = append(tags, e.Tag)
	}
	concerned, err := f.st.SubjectsByTag(tags)
	if err != nil {
		return nil, err
	}
	departing := []string{}
	if !u.More {
		if departing, err = f.st.Departing(u.Full); err != nil {
			return nil, err
		}
	}
	ids = slices.Concat(ids, concerned, departing)
	slices.Sort(ids)
	err = f.change(slices.Compact(ids), func() error {
		refused, err := f.st.Follow(d)
		for _, r := range refused {
			coll := wire.CollPeople
			if slices.ContainsFunc(d.Erased, func(e store.Erasure) bool { return e.Tag == r.Tag }) {
				coll = wire.CollErased
			}
			out = append(out, wire.RefusedItem{Collection: coll, Key: r.Tag, Code: string(r.Code), Text: r.Reason})
		}
		return err
	})
	return out, err
}
