// Package fleet wires the parts of package sync to a device's store and to a hub's:
// what "postern run" and "postern hub" do about the fleet.
package fleet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/agent"
	"postern/agent/store"
	"postern/sync/authority"
	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/mqtt"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
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

// Name makes a name for a topic of a device's own name, for a hub that only this
// device uses.
func Name(device string) string {
	name := strings.Map(func(r rune) rune {
		if wire.ValidDevice(string(r)) {
			return r
		}
		return '-'
	}, strings.ToLower(device))
	return name[:min(len(name), wire.MaxDevice)]
}

// HubOptions say what a hub runs on.
type HubOptions struct {
	Data    string            // folder of the hub's store and of its broker's
	Listen  string            // of the embedded broker; "" uses the broker at URL instead
	Dialer  *mqtt.Dialer      // for a broker elsewhere; for the embedded one its times only
	Client  *bus.Client       // its waits may be set
	TLS     *tls.Config       // of the embedded broker, with a certificate; nil: one of Authority's
	Plain   bool              // without TLS and without an authority's certificates: loopback only
	Names   []string          // names and addresses of the hub, for clients that look at its certificate
	Devices registry.Registry // whom the embedded broker lets in; no folder: anybody of this machine
	Now     func() time.Time
	Log     *slog.Logger

	Metrics    string               // where Prometheus metrics are served, host:port; "": nowhere
	Authority  *authority.Authority // issues certificates; nil: devices have secrets only
	ServerName string               // set by RunHub: the name in the broker's certificate, where Authority issued it

	Committed func(b hub.Batch, p hub.Position) // see hub.Hub

	// People is the hub's own store: who is enrolled in it, is at the devices; who is
	// erased, nowhere. nil: devices are told nothing.
	People *store.Store
	// Record is the hub's store, opened by OpenRecord and closed by the caller; nil: the
	// one in Data.
	Record hub.Store

	// Started is called when the hub has its first connection with the broker at addr:
	// from now on nothing that a device says goes unheard.
	Started func(addr string)
}

// OpenRecord opens the hub's record in its data folder, encrypted under a key of the
// hub's people; without them it is not encrypted.
func OpenRecord(dir string, people *store.Store) (hub.Store, error) {
	if people == nil {
		return boltstore.Open(dir, boltstore.Sealing{})
	}
	if err := people.OpenFeed(); err != nil { // it has the key of the tags
		return nil, err
	}
	key, err := people.RecordKey()
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return boltstore.Open(dir, boltstore.Sealing{Key: key, Tag: func(id string) []byte { return mustHex(people.FleetTag(id)) }})
}

func mustHex(tag string) []byte {
	b, err := hex.DecodeString(tag)
	if err != nil {
		panic("a tag that was not made here")
	}
	return b
}

// hubClient is the client id of the hub. No device's name has upper case, so it is
// nobody else's; nats-server refuses dots.
const hubClient = "HUB"

// RunHub runs a hub until ctx is done.
func RunHub(ctx context.Context, o HubOptions) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	st := o.Record
	if st == nil {
		if st, err = OpenRecord(o.Data, o.People); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
	}
	o.serverTLS()
	b, addr, err := o.startBroker()
	if err != nil {
		return err
	}
	if b != nil {
		defer b.Close()
	}
	c := o.Client
	if c == nil {
		c = &bus.Client{}
	}
	h := &hub.Hub{Store: st, Bus: c, Now: o.Now, Log: o.Log.With("part", "hub"), Committed: o.Committed, On: map[wire.Channel]func(context.Context, hub.Heard){}}
	kick := kicker(b, o.Log)
	if o.Authority != nil {
		(&office{&o, h, kick}).serve()
	}
	down, err := o.downlink(h)
	if err != nil {
		return err
	}
	c.Dialer, c.Log = o.Dialer, o.Log.With("part", "bus")
	c.Connect = func() bus.Connect {
		return bus.Connect{ClientID: hubClient, Subscribe: h.Filters(), Handle: h.Handle}
	}
	started := sync.OnceFunc(func() {
		if o.Started != nil {
			o.Started(addr)
		}
	})
	c.Up = func(context.Context) {
		o.Log.Info("hub connected to the broker", "broker", addr)
		started()
		if down != nil {
			down.Hello()
		}
	}
	f, err := boltstore.OpenFleet(o.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	board := newBoard(&o, f, st, h)
	g, ctx := errgroup.WithContext(ctx)
	if down != nil {
		g.Go(func() error { return down.Run(ctx) })
	}
	g.Go(func() error { return board.write(ctx) })
	g.Go(func() error { return o.desk(ctx, board.routes()) })
	g.Go(func() error { return o.metrics(ctx, board) })
	g.Go(func() error { return h.Run(ctx) })
	g.Go(func() error { return c.Run(ctx) })
	if o.Devices.Dir != "" {
		r := &revocations{devices: o.Devices, kick: kick, log: o.Log}
		g.Go(func() error { return r.run(ctx) })
	}
	return g.Wait()
}

// kicker ends connections with the embedded broker, where there is one.
func kicker(b *broker.Broker, log *slog.Logger) func(client string) {
	return func(client string) {
		if b == nil {
			return
		}
		n, err := b.Kick(client)
		if err != nil {
			log.Error("a connection cannot be ended", "client", client, "err", err)
		}
		if n > 0 {
			log.Warn("connection ended: the device may not be connected as it is any more", "client", client)
		}
	}
}

// downlink is nil where there is nothing to tell devices.
func (o *HubOptions) downlink(h *hub.Hub) (*hub.Downlink, error) {
	if o.People == nil {
		return nil, nil
	}
	log := o.Log.With("part", "downlink")
	d := &hub.Downlink{Desired: desired{o.People, o.Authority, log}, Store: h.Store, Members: members{o.Devices, h.Store}, Say: h.Say, Now: o.Now, Log: log}
	if h.On == nil {
		h.On = map[wire.Channel]func(context.Context, hub.Heard){}
	}
	for _, c := range hub.DownlinkChannels() {
		h.On[c] = d.Heard
	}
	return d, o.People.OpenFeed()
}

// startBroker starts the embedded broker, where there is one, and sets the address
// and the login that the hub itself connects with.
func (o *HubOptions) startBroker() (b *broker.Broker, addr string, err error) {
	if o.Dialer == nil {
		o.Dialer = &mqtt.Dialer{}
	}
	if o.Listen == "" {
		if o.Dialer.URL == "" {
			return nil, "", &agent.Error{Code: agent.CodeInvalid, Message: "the hub has no broker", Fix: "set hub.listen for the embedded one, or hub.broker_url"}
		}
		return nil, o.Dialer.URL, mqtt.CheckURL(o.Dialer.URL)
	}
	bo, err := o.brokerOptions()
	if err != nil {
		return nil, "", err
	}
	if b, err = broker.Start(bo); err != nil {
		return nil, "", err
	}
	if o.Dialer.URL == "" {
		o.Dialer.URL = o.selfURL(b.Addr())
	}
	return b, b.Addr(), nil
}

// brokerOptions refuses to let the network in unguarded.
func (o *HubOptions) brokerOptions() (broker.Options, error) {
	bo := broker.Options{Dir: filepath.Join(o.Data, "broker"), Listen: o.Listen, TLS: o.TLS, Log: o.Log.With("part", "broker")}
	if !loopback(o.Listen) && (o.TLS == nil || o.Devices.Dir == "") {
		return bo, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("the broker would listen at %s without a certificate or without knowing its devices", o.Listen),
			Fix: "set hub.tls_cert and hub.tls_key, or listen on 127.0.0.1"}
	}
	if o.Devices.Dir == "" {
		return bo, nil
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	o.Dialer.Username, o.Dialer.Password = hubClient, hex.EncodeToString(secret)
	bo.Users = []broker.User{{Name: hubClient, Password: o.Dialer.Password, Publish: []string{"fm/dn/#"}, Subscribe: []string{"fm/up/#"}}}
	bo.Authorize = o.authorize
	return bo, nil
}

func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// selfURL is where the hub finds its own broker.
func (o *HubOptions) selfURL(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // it listens there
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	if o.TLS == nil {
		return "mqtt://" + addr
	}
	o.Dialer.TLS = o.ownTLS()
	return "mqtts://" + addr
}
