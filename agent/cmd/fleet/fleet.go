// Package fleet wires the parts of package sync to a device's store and to a hub's:
// what "postern run" and "postern hub" do about the fleet.
package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/agent"
	"postern/agent/store"
	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/mqtt"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/uplink"
)

// outbox lends a device's store to its uplink.
type outbox struct{ *store.Store }

var _ uplink.Outbox = outbox{}

// Position implements uplink.Outbox.
func (o outbox) Position() (acked, last uint64, err error) {
	st, err := o.Store.Stats()
	return st.AckedSeq, st.LastSeq, err
}

// Outbox makes a store the source of an uplink.
func Outbox(s *store.Store) uplink.Outbox { return outbox{s} }

// HubOptions say what a hub runs on.
type HubOptions struct {
	Data   string       // folder of the hub's store and of its broker's
	Listen string       // of the embedded broker; "" uses the broker at URL instead
	Dialer *mqtt.Dialer // for a broker elsewhere; for the embedded one its times only
	Client *bus.Client  // its waits may be set
	Users  []broker.User
	Now    func() time.Time
	Log    *slog.Logger

	// Started is called when the embedded broker, if any, accepts connections.
	Started func(addr string)
}

// hubClient is the client id of the hub. No device's name has upper case, so it is
// nobody else's; nats-server refuses dots.
const hubClient = "HUB"

// RunHub runs a hub until ctx is done.
func RunHub(ctx context.Context, o HubOptions) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	st, err := boltstore.Open(o.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	stop, err := o.startBroker()
	if err != nil {
		return err
	}
	defer stop()
	c := o.Client
	if c == nil {
		c = &bus.Client{}
	}
	h := &hub.Hub{Store: st, Bus: c, Now: o.Now, Log: o.Log.With("part", "hub")}
	c.Dialer, c.Log = o.Dialer, o.Log.With("part", "bus")
	c.Connect = func() bus.Connect {
		return bus.Connect{ClientID: hubClient, Subscribe: hub.Filters(), Handle: h.Handle}
	}
	c.Up = func(context.Context) { o.Log.Info("hub connected to the broker") }
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.Run(ctx) })
	g.Go(func() error { return c.Run(ctx) })
	return g.Wait()
}

// startBroker starts the embedded broker, where there is one, and sets the address
// that the hub itself connects to.
func (o *HubOptions) startBroker() (stop func(), err error) {
	if o.Dialer == nil {
		o.Dialer = &mqtt.Dialer{}
	}
	if o.Listen == "" {
		if o.Dialer.URL == "" {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: "the hub has no broker", Fix: "set hub.listen for the embedded one, or hub.broker_url"}
		}
		return func() {}, mqtt.CheckURL(o.Dialer.URL)
	}
	b, err := broker.Start(broker.Options{Dir: o.Data + "/broker", Listen: o.Listen, Users: o.Users, Log: o.Log.With("part", "broker")})
	if err != nil {
		return nil, err
	}
	if o.Dialer.URL == "" {
		o.Dialer.URL = "mqtt://" + b.Addr()
	}
	if o.Started != nil {
		o.Started(b.Addr())
	}
	return b.Close, nil
}
