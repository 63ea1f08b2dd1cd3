// Package downlink lets a device follow what its hub wants: it pulls what has changed,
// proves who says so before it reads it, hands it to the device's store, and tells how
// far it has come. What was erased on the device goes up the same way.
//
// Hints are only hints: the device also pulls when it connects and every so often, and
// what counts is the version that its store has.
package downlink

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"postern/agent"
	"postern/sync/bus"
	"postern/sync/device"
	"postern/sync/wire"
)

// Update is a part of desired state, verified and opened.
type Update struct {
	From, To wire.Position
	Head     uint64
	Full     bool
	More     bool
	Key      []byte // the fleet's; nil: as before
	People   []Person
	Gone     []string // tags of people who are no longer for this device
	Erased   []wire.Erasure
}

// Person is somebody whom the device is to know.
type Person struct {
	Tag string
	wire.Person
}

// Store is the device's.
type Store interface {
	// Position is what the device has, and the newest version that it has heard of.
	Position() (at wire.Position, floor uint64, err error)
	// SealingKey is the device's X25519 private key.
	SealingKey() ([]byte, error)
	// HubKey is the key that the first hub signed with; PinHub keeps it.
	HubKey() (ed25519.PublicKey, error)
	PinHub(ed25519.PublicKey) error
	// Follow takes an update over in one transaction. agent.CodeConflict: it does not
	// follow on what the device has.
	Follow(Update) ([]wire.RefusedItem, error)
	// Heard notes that the hub has answered now.
	Heard() error
	// Untold lists erasures of which the hub has not said that it has them.
	Untold(limit int) ([]wire.Erasure, error)
	Told([]wire.Erasure) error
	// News says that somebody was erased.
	News() <-chan struct{}
}

// Defaults of Downlink.
const (
	DefaultEvery = 15 * time.Minute
	DefaultRetry = 30 * time.Second
)

// Downlink follows a hub. Set the fields before Run.
type Downlink struct {
	Device string
	Store  Store
	// HubKeys may sign. None: the first hub that answers is believed, and only that one
	// from then on.
	HubKeys []ed25519.PublicKey
	Every   time.Duration // at the latest after so long it pulls again
	Retry   time.Duration // after so long without an answer it asks again
	Log     *slog.Logger

	once   sync.Once
	say    device.Say // of the present session
	deltas chan *wire.Delta
	hints  chan uint64
	told   chan []wire.Erasure

	// Owned by Run.
	asked string    // id of the pull that is not answered
	next  time.Time // when to pull at the latest
}

func (d *Downlink) init() {
	d.once.Do(func() {
		d.deltas, d.hints, d.told = make(chan *wire.Delta, 4), make(chan uint64, 4), make(chan []wire.Erasure, 4)
		if d.Every == 0 {
			d.Every = DefaultEvery
		}
		if d.Retry == 0 {
			d.Retry = DefaultRetry
		}
		if d.Log == nil {
			d.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Channels are those on which the hub speaks to it.
func (d *Downlink) Channels() []wire.Channel {
	return []wire.Channel{wire.ChanHint, wire.ChanDelta, wire.ChanErased}
}

// Heard takes a word of the hub's; it never blocks. What does not fit in is asked for
// again.
func (d *Downlink) Heard(_ wire.Channel, _ wire.Header, m wire.Message) {
	d.init()
	switch m := m.(type) {
	case *wire.Delta:
		offer(d.deltas, m)
	case *wire.Hint:
		offer(d.hints, m.Version)
	case *wire.Erased:
		offer(d.told, m.Erasures)
	}
}

func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// Run follows for as long as a session lasts: until ctx is done or the bus is offline.
// What goes wrong is logged and tried again.
func (d *Downlink) Run(ctx context.Context, say device.Say) {
	d.init()
	d.say = say
	d.asked, d.next = "", time.Now()
	d.try(d.tellErased(ctx))
	tick := time.NewTicker(min(d.Retry, d.Every) / 4)
	defer tick.Stop()
	for ctx.Err() == nil {
		if !time.Now().Before(d.next) {
			d.try(d.pull(ctx))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case delta := <-d.deltas:
			d.try(d.take(ctx, delta))
		case v := <-d.hints:
			if _, floor, err := d.Store.Position(); err != nil || v > floor {
				d.next = time.Now()
			}
		case <-d.Store.News():
			d.try(d.tellErased(ctx))
		case es := <-d.told:
			d.try(d.Store.Told(es))
		}
	}
}

func (d *Downlink) try(err error) {
	if err != nil && !errors.Is(err, bus.ErrOffline) && !errors.Is(err, context.Canceled) {
		d.Log.Error("the hub's wishes could not be followed; tried again", "err", err, "in", d.Retry)
	}
}

// pull asks for what has changed. Until the answer has come it is asked again.
func (d *Downlink) pull(ctx context.Context) error {
	d.next = time.Now().Add(d.Retry)
	at, floor, err := d.Store.Position()
	if err != nil {
		return err
	}
	key, err := d.Store.SealingKey()
	if err != nil {
		return err
	}
	public, err := wire.SealPublic(key)
	clear(key)
	if err != nil {
		return err
	}
	d.asked = uuid.NewString()
	err = d.say(ctx, wire.ChanPull, wire.Header{ID: d.asked}, &wire.Pull{Have: at.Version, Stamp: at.Stamp, Floor: floor, SealTo: public})
	if err != nil {
		return err
	}
	return d.tellErased(ctx) // again, until the hub has said that it has them
}

// erasuresAtOnce is how many go into a message.
const erasuresAtOnce = 512

func (d *Downlink) tellErased(ctx context.Context) error {
	es, err := d.Store.Untold(erasuresAtOnce)
	if err != nil || len(es) == 0 {
		return err
	}
	return d.say(ctx, wire.ChanErased, wire.Header{}, &wire.Erased{Erasures: es})
}

// take follows one answer.
func (d *Downlink) take(ctx context.Context, delta *wire.Delta) error {
	if err := d.trust(delta); err != nil {
		return err
	}
	c, err := wire.DecodeChanges(delta.Changes)
	switch {
	case err != nil:
		return err
	case c.Device != d.Device:
		return &agent.Error{Code: agent.CodeInvalid, Message: "the hub's changes are for device " + c.Device}
	case c.Re == "" || c.Re != d.asked:
		d.Log.Debug("an answer to another question is passed over", "re", c.Re)
		return nil
	}
	d.asked, d.next = "", time.Now().Add(d.Every)
	u, err := d.open(c)
	if err != nil {
		d.next = time.Now().Add(d.Retry)
		return err
	}
	defer u.wipe()
	refused, err := d.follow(u)
	if err != nil {
		d.next = time.Now().Add(d.Retry)
		return err
	}
	for _, r := range refused {
		d.Log.Warn("a part of what the hub wants cannot be done here", "collection", r.Collection, "key", r.Key, "code", r.Code, "reason", r.Text)
	}
	if err := d.Store.Heard(); err != nil {
		return err
	}
	if u.More {
		d.next = time.Now()
	}
	return d.say(ctx, wire.ChanApplied, wire.Header{}, &wire.Applied{At: u.To, Refused: refused})
}

// trust checks the signature, before anything is read, and keeps the key of the first
// hub where none was configured.
func (d *Downlink) trust(delta *wire.Delta) error {
	if len(d.HubKeys) > 0 {
		return delta.Verify(d.HubKeys...)
	}
	known, err := d.Store.HubKey()
	if err != nil {
		return err
	}
	if known != nil {
		return delta.Verify(known)
	}
	first, err := hex.DecodeString(delta.Key)
	if err != nil || len(first) != ed25519.PublicKeySize {
		return &agent.Error{Code: agent.CodeInvalid, Message: "the hub's changes name no key"}
	}
	if err := delta.Verify(first); err != nil {
		return err
	}
	d.Log.Warn("this hub's key is trusted from now on, since sync.hub_keys names none", "key", delta.Key)
	return d.Store.PinHub(first)
}

// follow hands an update to the store; one that brings nothing only has to fit.
func (d *Downlink) follow(u Update) ([]wire.RefusedItem, error) {
	refused, err := d.Store.Follow(u)
	for i := range refused {
		refused[i].Text = cut(refused[i].Text)
	}
	return refused[:min(len(refused), 1024)], err
}

func cut(s string) string {
	if len(s) <= 300 {
		return s
	}
	return string([]rune(s)[:75]) // of at most four bytes each
}

// wipe zeroes the embeddings.
func (u *Update) wipe() {
	for _, p := range u.People {
		for _, t := range p.Templates {
			clear(t.Embedding)
		}
	}
	clear(u.Key)
}

// open turns changes into an update. What is of a collection that is not known here is
// passed over: the hub may be newer.
func (d *Downlink) open(c wire.Changes) (u Update, err error) {
	u = Update{From: wire.Position{Version: c.From, Stamp: c.FromStamp}, To: wire.Position{Version: c.To, Stamp: c.ToStamp},
		Head: c.Head, Full: c.Full, More: c.More}
	defer func() {
		if err != nil {
			u.wipe()
		}
	}()
	var o *wire.Opener
	if len(c.Enc) > 0 {
		key, err := d.Store.SealingKey()
		if err != nil {
			return u, err
		}
		defer clear(key)
		if o, err = wire.NewOpener(d.Device, key, c.Enc); err != nil {
			return u, err
		}
	}
	for _, it := range c.Items {
		if err := d.openItem(&u, o, it); err != nil {
			return u, err
		}
	}
	return u, nil
}

func (d *Downlink) openItem(u *Update, o *wire.Opener, it wire.Item) error {
	sealed := func() ([]byte, error) {
		if o == nil {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the hub's changes came without the key that they are sealed with"}
		}
		return o.Open(it)
	}
	switch {
	case it.Collection == wire.CollFleet && it.Key == wire.FleetKey:
		key, err := sealed()
		u.Key = key
		return err
	case it.Collection == wire.CollPeople && it.Deleted:
		u.Gone = append(u.Gone, it.Key)
	case it.Collection == wire.CollPeople:
		body, err := sealed()
		if err != nil {
			return err
		}
		defer clear(body)
		p, err := wire.DecodePerson(body)
		if err != nil {
			return err
		}
		u.People = append(u.People, Person{it.Key, p})
	case it.Collection == wire.CollErased:
		e, err := wire.DecodeErasure(it.Body)
		if err != nil {
			return err
		}
		u.Erased = append(u.Erased, e)
	default:
		d.Log.Info("something that this version does not know is passed over", "collection", it.Collection)
	}
	return nil
}
