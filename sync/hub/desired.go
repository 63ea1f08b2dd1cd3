package hub

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postern/agent"
	"postern/sync/wire"
)

// Change is one thing of desired state as it is now.
type Change struct {
	Version uint64
	Tag     []byte
	Person  wire.Person
	Allows  func(device, group string) bool // whether the person is for that device
	Erased  *wire.Erasure                   // instead of a person
}

// Desired is desired state: people, and who was erased.
type Desired interface {
	Position() (wire.Position, error)
	// Stamp is that of a version, nil when it is not known any more.
	Stamp(version uint64) ([]byte, error)
	// Raise makes the next version newer than the given one.
	Raise(above uint64) error
	// Changes lists what changed after a version, oldest first, and up to where.
	Changes(after uint64, limit int) ([]Change, wire.Position, error)
	// Erase takes in erasures that were made on a device.
	Erase(es []wire.Erasure, device string) error
	// Erased lists all erasures.
	Erased() ([]wire.Erasure, error)
	FleetKey() []byte
	Sign(context string, message []byte) (key string, sig []byte)
	// News says that desired state has changed.
	News() <-chan struct{}
}

// Member is a device as the registry knows it.
type Member struct {
	Name  string
	Group string
	Since time.Time // when it was let in last: from then on it may have another key
}

// Members is the registry of devices.
type Members interface {
	// Member is agent.CodeNotFound, or agent.CodeInvalid, for who may not have anything.
	Member(name string) (Member, error)
	// Members lists those who may.
	Members() ([]Member, error)
}

// Downlink tells devices what they are to hold. Set the fields before Run.
type Downlink struct {
	Desired Desired
	Store   Store
	Members Members
	Say     func(ctx context.Context, device string, c wire.Channel, h wire.Header, m wire.Message) error // Hub.Say
	Now     func() time.Time
	Log     *slog.Logger

	once  sync.Once
	queue chan Heard
	hello chan struct{}
}

func (d *Downlink) init() {
	d.once.Do(func() {
		d.queue, d.hello = make(chan Heard, queueLength), make(chan struct{}, 1)
		if d.Now == nil {
			d.Now = time.Now
		}
		if d.Log == nil {
			d.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// DownlinkChannels are those on which devices speak to Downlink.Heard.
func DownlinkChannels() []wire.Channel {
	return []wire.Channel{wire.ChanPull, wire.ChanApplied, wire.ChanErased}
}

// Heard takes a message for Hub.On. When the hub falls behind it is dropped: devices ask
// again.
func (d *Downlink) Heard(_ context.Context, m Heard) {
	d.init()
	select {
	case d.queue <- m:
	default:
		d.Log.Warn("too many devices ask at once; one has to ask again", "device", m.Device, "channel", m.Channel)
	}
}

// Hello lets the devices know that the hub is there. It never blocks.
func (d *Downlink) Hello() {
	d.init()
	select {
	case d.hello <- struct{}{}:
	default:
	}
}

// gatherNews is how long a change waits for others, so that a burst makes one hint.
const gatherNews = 50 * time.Millisecond

// Run answers until ctx is done. An error is the store's.
func (d *Downlink) Run(ctx context.Context) error {
	d.init()
	if err := d.forget(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-d.queue:
			if err := d.answer(ctx, m); err != nil {
				return err
			}
		case <-d.Desired.News():
			select {
			case <-time.After(gatherNews):
			case <-ctx.Done():
				return nil
			}
			d.hint(ctx)
			if err := d.forget(); err != nil {
				return err
			}
		case <-d.hello:
			d.hint(ctx)
		}
	}
}

// forget takes what the hub's record says of people who were erased.
func (d *Downlink) forget() error {
	es, err := d.Desired.Erased()
	if err != nil {
		return err
	}
	n, err := d.Store.Erase(es)
	if n > 0 {
		d.Log.Info("the record forgets people who were erased", "people", n)
	}
	return err
}

// hint tells every device the newest version.
func (d *Downlink) hint(ctx context.Context) {
	at, err := d.Desired.Position()
	if err != nil {
		d.Log.Error("desired state cannot be read", "err", err)
		return
	}
	all, err := d.Members.Members()
	if err != nil {
		d.Log.Error("the devices cannot be listed; they ask by themselves within 15 minutes", "err", err)
		return
	}
	for _, m := range all {
		if d.tell(ctx, m.Name, wire.ChanHint, wire.Header{}, &wire.Hint{Version: at.Version}) != nil {
			return
		}
	}
}

func (d *Downlink) tell(ctx context.Context, device string, c wire.Channel, h wire.Header, m wire.Message) error {
	err := d.Say(ctx, device, c, h, m)
	if err != nil {
		d.Log.Debug("not sent; the device asks again", "device", device, "channel", c, "err", err)
	}
	return err
}

// answer works in one message. What a device has done wrong is logged; an error is the
// hub's own.
func (d *Downlink) answer(ctx context.Context, m Heard) error {
	member, err := d.Members.Member(m.Device)
	if err != nil {
		d.Log.Warn("a device that is not of this fleet gets nothing", "device", m.Device, "err", err)
		return nil
	}
	switch msg := m.Message.(type) {
	case *wire.Pull:
		err = d.pull(ctx, member, m.Header.ID, msg)
	case *wire.Applied:
		err = d.applied(member, msg)
	case *wire.Erased:
		err = d.erased(ctx, member, msg)
	default:
		d.Log.Error("message passed over", "device", m.Device, "channel", m.Channel, "type", m.Header.Type)
	}
	if code := agent.ErrorCode(err); code == agent.CodeInvalid || code == agent.CodeConflict {
		d.Log.Error("a device was not answered", "device", m.Device, "err", err)
		return nil
	}
	return err
}

// pull answers with what the device lacks.
func (d *Downlink) pull(ctx context.Context, m Member, id string, p *wire.Pull) error {
	f, err := d.Store.Followed(m.Name)
	if err != nil {
		return err
	}
	was := f
	if err := d.keyOf(&f, m, p); err != nil {
		return err
	}
	full, err := d.needsAll(&f, m, p)
	if err != nil {
		return err
	}
	head, err := d.Desired.Position()
	if err != nil {
		return err
	}
	c := wire.Changes{Device: m.Name, From: p.Have, FromStamp: p.Stamp, Head: head.Version, Full: full, Re: id}
	if full {
		c.From, c.FromStamp = 0, nil
	}
	if err := d.fill(&c, &f, p.MaxBytes); err != nil {
		return err
	}
	c.More = c.To < head.Version
	if full {
		f.FullTo = c.ToStamp
	}
	if !f.same(was) {
		if err := d.Store.PutFollowed(f); err != nil {
			return err
		}
	}
	return d.send(ctx, m.Name, id, c)
}

// send signs and sends. That it cannot be sent is no error: the device asks again.
func (d *Downlink) send(ctx context.Context, device, id string, c wire.Changes) error {
	raw, err := wire.EncodeChanges(c)
	if err != nil {
		return err
	}
	delta := &wire.Delta{Changes: raw}
	delta.Key, delta.Sig = d.Desired.Sign(wire.SignedContext, raw)
	_ = d.tell(ctx, device, wire.ChanDelta, wire.Header{Re: id}, delta) // it has logged why
	return nil
}

// keyOf keeps the device's first key to seal to, and takes no other one unless the
// device was let in anew.
func (d *Downlink) keyOf(f *Followed, m Member, p *wire.Pull) error {
	switch {
	case len(p.SealTo) == 0:
		return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q names no key to seal to", m.Name), Fix: "update the device"}
	case bytes.Equal(p.SealTo, f.SealTo) && !m.Since.After(f.KeyAt):
		return nil
	case f.SealTo == nil || m.Since.After(f.KeyAt):
		f.SealTo, f.KeyAt = p.SealTo, d.Now()
		return nil
	}
	return &agent.Error{Code: agent.CodeConflict, Message: fmt.Sprintf("device %q has another key than before: its data folder is new, or it is not that device", m.Name),
		Fix: "when it is, let it in anew: postern devices claim " + m.Name}
}

// needsAll tells whether the device must have everything listed: it is new, or what it
// has is not a version of this hub, or it is in another group now.
func (d *Downlink) needsAll(f *Followed, m Member, p *wire.Pull) (bool, error) {
	head, err := d.Desired.Position()
	if err != nil {
		return false, err
	}
	if newest := max(p.Have, p.Floor); newest > head.Version {
		d.Log.Warn("a device has a newer version than this hub, whose store was restored from a copy; all is listed anew, and devices tell who was erased",
			"device", m.Name, "has", newest, "hub", head.Version)
		if err := d.Desired.Raise(newest); err != nil {
			return false, err
		}
	}
	if p.Have == 0 {
		f.Group = m.Group
		return true, nil
	}
	if f.Group != m.Group && f.Device != "" {
		if err := d.Desired.Raise(head.Version); err != nil { // the listing ends at a version of its own
			return false, err
		}
		f.Group, f.FullTo, f.Relist = m.Group, nil, true
	}
	if f.Device == "" {
		f.Device, f.Group = m.Name, m.Group
	}
	if f.Relist && f.FullTo != nil && bytes.Equal(f.FullTo, p.Stamp) {
		f.Relist = false // the listing has begun
	}
	stamp, err := d.Desired.Stamp(p.Have)
	if err != nil {
		return false, err
	}
	return f.Relist || stamp == nil || !bytes.Equal(stamp, p.Stamp), nil
}

const (
	changesAtOnce = 64
	answerBytes   = 44 << 10 // with the signature and the envelope within wire.MaxMessage
	fullestItem   = 40 << 10 // a person above it cannot be sent
)

// fill adds the items that come after c.From, as many as fit.
func (d *Downlink) fill(c *wire.Changes, f *Followed, most uint32) error {
	f.Device = c.Device
	changes, to, err := d.Desired.Changes(c.From, changesAtOnce)
	if err != nil {
		return err
	}
	defer wipe(changes)
	s, err := wire.NewSealer(c.Device, f.SealTo)
	if err != nil {
		return err
	}
	c.Enc = s.Enc
	if c.Full {
		it := wire.Item{Collection: wire.CollFleet, Key: wire.FleetKey, Version: 1}
		if err := s.Seal(&it, d.Desired.FleetKey()); err != nil {
			return err
		}
		c.Items = append(c.Items, it)
	}
	room := answerBytes
	if most > 0 {
		room = min(room, int(most))
	}
	for i, ch := range changes {
		it, size, err := d.item(c, f, s, ch, room)
		if err != nil {
			return err
		}
		if room -= size; size > 0 && it == nil { // it does not fit any more
			to.Version = changes[i-1].Version
			if to.Stamp, err = d.Desired.Stamp(to.Version); err != nil {
				return err
			}
			break
		}
		if it != nil {
			c.Items = append(c.Items, *it)
		}
	}
	c.To, c.ToStamp = to.Version, to.Stamp
	return nil
}

func wipe(changes []Change) {
	for _, ch := range changes {
		for _, t := range ch.Person.Templates {
			clear(t.Embedding)
		}
	}
}

// item makes the item of a change, nil where there is nothing to say, and its size. A
// size without an item is of one that did not fit.
func (d *Downlink) item(c *wire.Changes, f *Followed, s *wire.Sealer, ch Change, room int) (*wire.Item, int, error) {
	it := &wire.Item{Key: hex.EncodeToString(ch.Tag), Version: ch.Version}
	f.accepted(it.Key)
	if ch.Erased != nil {
		body, err := wire.EncodeErasure(*ch.Erased)
		it.Collection, it.Body = wire.CollErased, body
		if len(body)+100 > room && len(c.Items) > 1 {
			return nil, len(body) + 100, err
		}
		return it, len(body) + 100, err
	}
	it.Collection = wire.CollPeople
	if !ch.Allows(c.Device, f.Group) {
		if c.Full {
			return nil, 0, nil
		}
		it.Deleted = true
		return it, 100, nil
	}
	body, err := wire.EncodePerson(ch.Person)
	defer clear(body)
	if err != nil || len(body) > fullestItem {
		d.Log.Error("a person has too many or too large templates to be sent", "device", c.Device, "tag", it.Key, "bytes", len(body), "err", err)
		f.refuse(wire.RefusedItem{Collection: it.Collection, Key: it.Key, Code: string(agent.CodeInvalid), Text: "too large to be sent"})
		return nil, 0, nil
	}
	size := len(body) + 150
	if size > room && len(c.Items) > 1 {
		return nil, size, nil
	}
	return it, size, s.Seal(it, body)
}

// applied notes how far a device has come.
func (d *Downlink) applied(m Member, a *wire.Applied) error {
	f, err := d.Store.Followed(m.Name)
	if err != nil {
		return err
	}
	f.Device, f.At, f.When = m.Name, a.At, d.Now()
	for _, r := range a.Refused {
		d.Log.Error("a device could not do all that is wanted of it", "device", m.Name, "collection", r.Collection, "key", r.Key, "code", r.Code, "reason", r.Text)
		f.refuse(r)
	}
	return d.Store.PutFollowed(f)
}

// mostAhead bounds how far a device's clock may be ahead when it voids enrolments.
const mostAhead = 24 * time.Hour

// erased takes in what was erased on a device, and says so when it is on disk.
func (d *Downlink) erased(ctx context.Context, m Member, e *wire.Erased) error {
	latest := uint64(d.Now().Add(mostAhead).UnixMicro())
	for _, x := range e.Erasures {
		if x.Version > latest {
			return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q erases what will be enrolled in %s: its clock is wrong",
				m.Name, time.UnixMicro(int64(x.Version)).UTC().Format(time.DateOnly))}
		}
	}
	if err := d.Desired.Erase(e.Erasures, m.Name); err != nil {
		return err
	}
	if err := d.tell(ctx, m.Name, wire.ChanErased, wire.Header{}, e); err != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return nil
}
