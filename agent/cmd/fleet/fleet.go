// Package fleet wires the parts of package sync to a device's store and to a hub's:
// what "postern run" and "postern hub" do about the fleet.
package fleet

import (
	"bytes"
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
	TLS     *tls.Config       // of the embedded broker; without it, loopback only
	Devices registry.Registry // whom the embedded broker lets in; no folder: anybody of this machine
	Now     func() time.Time
	Log     *slog.Logger

	Committed func(b hub.Batch, p hub.Position) // see hub.Hub

	// Started is called when the hub has its first connection with the broker at addr:
	// from now on nothing that a device says goes unheard.
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
	addr, stop, err := o.startBroker()
	if err != nil {
		return err
	}
	defer stop()
	c := o.Client
	if c == nil {
		c = &bus.Client{}
	}
	h := &hub.Hub{Store: st, Bus: c, Now: o.Now, Log: o.Log.With("part", "hub"), Committed: o.Committed}
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
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.Run(ctx) })
	g.Go(func() error { return c.Run(ctx) })
	return g.Wait()
}

// startBroker starts the embedded broker, where there is one, and sets the address
// and the login that the hub itself connects with.
func (o *HubOptions) startBroker() (addr string, stop func(), err error) {
	if o.Dialer == nil {
		o.Dialer = &mqtt.Dialer{}
	}
	if o.Listen == "" {
		if o.Dialer.URL == "" {
			return "", nil, &agent.Error{Code: agent.CodeInvalid, Message: "the hub has no broker", Fix: "set hub.listen for the embedded one, or hub.broker_url"}
		}
		return o.Dialer.URL, func() {}, mqtt.CheckURL(o.Dialer.URL)
	}
	bo, err := o.brokerOptions()
	if err != nil {
		return "", nil, err
	}
	b, err := broker.Start(bo)
	if err != nil {
		return "", nil, err
	}
	if o.Dialer.URL == "" {
		o.Dialer.URL = o.selfURL(b.Addr())
	}
	return b.Addr(), b.Close, nil
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

// grantLife is how long a device stays connected before it has to log in again, and
// so how long a revoked one may stay.
const grantLife = 15 * time.Minute

// authorize lets a device in under its own name, to its own topics, as the client of
// its own name: another client id would end somebody else's session.
func (o *HubOptions) authorize(l broker.Login) (broker.Grant, error) {
	err := o.Devices.Check(l.Username, l.Password)
	if err == nil && l.ClientID != l.Username {
		err = &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q came as client %.64q", l.Username, l.ClientID)}
	}
	if err != nil {
		o.Log.Warn("device refused", "err", err)
		return broker.Grant{}, err
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	return broker.Grant{Publish: []string{wire.Up(l.Username, "#")}, Subscribe: []string{wire.Down(l.Username, "#")}, Until: now().Add(grantLife)}, nil
}

// selfURL is where the hub finds its own broker. With TLS it accepts its own
// certificate and no other, whatever name that is for.
func (o *HubOptions) selfURL(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // it listens there
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	if o.TLS == nil {
		return "mqtt://" + addr
	}
	o.Dialer.TLS = &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) > 0 && bytes.Equal(cs.PeerCertificates[0].Raw, o.TLS.Certificates[0].Certificate[0]) {
			return nil
		}
		return errors.New("this is not the hub's own broker")
	}}
	return "mqtts://" + addr
}
