package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"postern/agent"
	"postern/agent/cmd/fleet"
	"postern/agent/config"
	"postern/agent/store"
	"postern/agent/verify"
	"postern/sync/authority"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/downlink"
	"postern/sync/hub"
	"postern/sync/identity"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
)

func (c *cli) hubCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run the hub: take in what the fleet decides, and tell it whom to know",
		Long: `Run the hub. It takes in every decision of every agent exactly once, and tells
agents that they may forget theirs when it has them on disk. Who is enrolled in the
hub's data folder ("postern --data HUB enroll") is enrolled at its devices, and who is
erased, there or on a device, everywhere. An MQTT broker is built in (hub.listen);
hub.broker_url uses another one instead.

Agents join with what "postern devices claim" prints. The hub has an authority of its own
that certifies them, and itself where hub.tls_cert is not set.`,
		Example: "  postern hub --data /var/lib/postern-hub --set hub.listen=0.0.0.0:8883",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			o, err := c.hubOptions(cfg, c.logger(cfg, false))
			if err != nil {
				return err
			}
			o.Started = func(addr string) {
				fmt.Fprintf(c.out, "the hub's broker listens at %s (Ctrl-C stops it)\n", addr)
				tellSystemd(o.Log, daemon.SdNotifyReady)
			}
			o.Committed = func(b hub.Batch, p hub.Position) {
				o.Log.Debug("results are in", "device", b.Device, "up_to", p.Acked, "historical", b.Historical)
			}
			c.recover = true
			return (&app{cli: c, cfg: cfg, log: o.Log}).runHub(cmd.Context(), o)
		},
	}
	cmd.AddCommand(c.hubKeyCmd())
	return cmd
}

func (c *cli) hubKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the key by which devices know what this hub says",
		Long: `Print the hub's Ed25519 public key, for sync.hub_keys of devices that have a secret. Those
that have joined know it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			key, err := c.hubKey(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return c.print(map[string]string{"key": key}, key+"\n")
		},
	}
}

// hubKey is the key of the hub's authority; the hub of "run --with-hub" has none, and signs
// with its store's.
func (c *cli) hubKey(ctx context.Context, cfg config.Config) (string, error) {
	if !authority.Exists(cfg.Data) && answers(filepath.Join(cfg.Data, controlSocket)) {
		v, err := on(ctx, c, opVaultStatus, struct{}{})
		return v.PublicKey, err
	}
	card, err := c.authorityCard(cfg)
	return hex.EncodeToString(card.Signing), err
}

// runHub runs a hub on the data folder: its people, its record, its API, its socket for
// commands.
func (a *app) runHub(ctx context.Context, o fleet.HubOptions) (err error) {
	st, err := a.openStore(a.cfg, a.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if o.Record, err = fleet.OpenRecord(a.cfg.Data, st); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Record.Close()) }()
	served, err := a.openHubAPI(st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served.Close()) }()
	control, err := a.listenControl()
	if err != nil {
		return err
	}
	o.People = st
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fleet.RunHub(ctx, o) })
	g.Go(func() error {
		return serveControl(ctx, control, held{cfg: a.cfg, st: st, log: a.log, record: o.Record})
	})
	g.Go(func() error { return a.keep(ctx, st, st.DeleteSubject, nil) })
	g.Go(func() error { return served.run(ctx) })
	g.Go(func() error { a.expire(ctx, o.Record); return nil })
	return g.Wait()
}

// expire deletes rows of the hub's record as retention.results asks, every now and then.
func (a *app) expire(ctx context.Context, record hub.Store) {
	life := time.Duration(a.cfg.Retention.Policy().Results)
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for life > 0 {
		n, err := record.Expire(time.Now().Add(-life))
		if err != nil {
			a.log.Error("the record's retention could not be kept", "err", err)
		} else if n > 0 {
			a.log.Info("retention", "rows", n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hubOptions turns settings into those of a hub.
func (c *cli) hubOptions(cfg config.Config, log logger) (fleet.HubOptions, error) {
	o := fleet.HubOptions{Data: cfg.Data, Listen: cfg.Hub.Listen, Devices: devices(cfg), Log: log}
	var err error
	if o.Authority, err = c.authority(cfg); err != nil {
		return o, err
	}
	o.Metrics, o.Plain = cfg.Hub.Metrics, cfg.Hub.Plain
	o.Names = strings.FieldsFunc(cfg.Hub.Names, func(r rune) bool { return r == ',' || r == ' ' })
	if cfg.Hub.BrokerURL != "" {
		password, err := secret(cfg.Hub.PasswordFile, "hub.password_file")
		if err != nil {
			return o, err
		}
		o.Listen, o.Dialer = "", &mqtt.Dialer{URL: cfg.Hub.BrokerURL, Username: cfg.Hub.Username, Password: password}
		return o, nil
	}
	if cfg.Hub.TLSCert == "" {
		return o, nil // one of its own authority
	}
	cert, err := tls.LoadX509KeyPair(cfg.Hub.TLSCert, cfg.Hub.TLSKey)
	if err != nil {
		return o, &agent.Error{Code: agent.CodeInvalid, Message: "the hub's certificate cannot be used", Err: err, Fix: "set hub.tls_cert and hub.tls_key to PEM files"}
	}
	o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	return o, nil
}

func devices(cfg config.Config) registry.Registry {
	return registry.Registry{Dir: filepath.Join(cfg.Data, "devices")}
}

// secret reads a secret from a file; no file is an empty secret.
func secret(path, setting string) (string, error) {
	if path == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", &agent.Error{Code: agent.CodeInvalid, Message: "the secret of " + setting + " cannot be read", Err: err, Fix: "put it into a file that only this user can read"}
	}
	return strings.TrimSpace(string(raw)), nil
}

func (c *cli) devicesCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "Whom the hub lets in: claim, approve, list, group, revoke",
		Long:  "Say on the hub's data folder which devices belong to the fleet. The hub may run meanwhile.",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.devicesClaimCmd(), c.devicesApproveCmd(), c.devicesListCmd(), c.devicesCheckpointsCmd(), c.devicesGroupCmd(), c.devicesRevokeCmd(), c.devicesLogCmd(), c.devicesAddCmd(), c.devicesCACmd())
	return cmd
}

func (c *cli) devicesAddCmd() *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Let a device in with a secret instead of a certificate",
		Long: `Let a device in with a secret instead of a certificate: for clients of your own, and for
brokers that do not know certificates. Devices join with "postern devices claim". The secret is printed once and not kept; on the device, put it into
a file and name that with sync.token_file. Adding a device again voids the old secret.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			token, err := devices(cfg).Add(a[0], group)
			if err != nil {
				return err
			}
			return c.print(map[string]string{"name": a[0], "token": token}, token+"\n")
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "group of devices that it belongs to")
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *cli) devicesRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Shut a device out",
		Long: `Shut a device out: it cannot connect any more, and a running hub ends its connection
within a second. With another broker than the built-in one that is the broker's business.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			if err := devices(cfg).Revoke(a[0]); err != nil {
				return err
			}
			return c.print(map[string]string{"revoked": a[0]}, "revoked "+a[0]+"\n")
		},
	}
}

// login is how the agent gets to its hub; the zero value is no hub.
type login struct {
	url, name, secret string
	roots             *x509.CertPool
	renewer           *identity.Renewer // for a device that has joined; then the secret does not count
}

func (l login) tls() *tls.Config { return &tls.Config{RootCAs: l.roots} }

// login is what the settings say.
func (a *app) login() (login, error) {
	s := a.cfg.Sync
	if s.TokenFile == "" {
		if l, err := a.joined(); l != nil || err != nil {
			return *cmp.Or(l, &login{}), err
		}
	}
	if s.HubURL == "" {
		return login{}, nil
	}
	token, err := secret(s.TokenFile, "sync.token_file")
	if err != nil {
		return login{}, err
	}
	roots, err := authorities(s.CA)
	return login{url: s.HubURL, name: a.cfg.Device, secret: token, roots: roots}, err
}

// link is the agent's way to its hub; nil where there is none.
func (a *app) link(st *store.Store, l login, change func([]string, func() error) error) (*device.Link, error) {
	if l.url == "" {
		return nil, nil
	}
	if err := errors.Join(wire.CheckDevice(l.name), mqtt.CheckURL(l.url)); err != nil {
		return nil, err
	}
	keys, err := l.hubKeys(a.cfg.Sync.HubKeys)
	if err != nil {
		return nil, err
	}
	log := a.log.With("part", "sync")
	down := &downlink.Downlink{Device: l.name, Store: fleet.Follower(st, change), HubKeys: keys, Log: log}
	if limit := a.cfg.Sync.OfflineLimit; limit > 0 {
		down.Every = min(downlink.DefaultEvery, max(limit/3, time.Second)) // so that the limit passes off line only
	}
	return &device.Link{
		Device: l.name, Version: version, Log: log,
		Dialer: l.dialer(), Parts: append(l.parts(), down),
		Uplink: &uplink.Uplink{Outbox: fleet.Outbox(st), Log: log},
	}, nil
}

// parts are what else goes over the link.
func (l login) parts() (out []device.Part) {
	if l.renewer != nil {
		out = append(out, l.renewer)
	}
	return out
}

// startHub runs a hub beside the agent in g, and gives the agent's way to it. Its
// data folder lies beside the agent's.
func (a *app) startHub(ctx context.Context, g *errgroup.Group) (login, error) {
	cfg := a.cfg
	cfg.Data += ".hub"
	name := fleet.Name(a.cfg.Device)
	token, err := devices(cfg).Add(name, "")
	if err != nil {
		return login{}, err
	}
	log, started := a.log.With("part", "hub"), make(chan string, 1)
	cfg.Hub.HTTPListen = "" // the agent serves the API
	beside := &app{cli: a.cli, cfg: cfg, log: log}
	g.Go(func() error {
		return beside.runHub(ctx, fleet.HubOptions{Data: cfg.Data, Listen: "127.0.0.1:0", Devices: devices(cfg), Log: log,
			Started: func(addr string) { started <- addr },
			Committed: func(b hub.Batch, p hub.Position) {
				log.Info("results are at the hub", "device", b.Device, "up_to", p.Acked, "historical", b.Historical)
			}})
	})
	select {
	case addr := <-started:
		return login{url: "mqtt://" + addr, name: name, secret: token}, nil
	case <-ctx.Done():
		return login{}, context.Cause(ctx)
	}
}

// hubKeys are those of sync.hub_keys, or else the one that the device was given when it
// joined.
func (l login) hubKeys(list string) (keys []ed25519.PublicKey, err error) {
	if list == "" && l.renewer != nil {
		return []ed25519.PublicKey{l.renewer.Current().HubKey}, nil
	}
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		k, err := hex.DecodeString(text)
		if err != nil || len(k) != ed25519.PublicKeySize {
			return nil, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("sync.hub_keys: %.80q is not an Ed25519 key in hex", text), Fix: "take what \"postern hub key\" prints at the hub"}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// authorities reads the certificates that may vouch for the hub; nil is the system's.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(raw) {
		err = fmt.Errorf("%s has no certificate in PEM", path)
	}
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "sync.ca cannot be used", Err: err, Fix: "name a PEM file with the authority's certificate"}
	}
	return pool, nil
}

// sync keeps the hub told, where there is one.
func (a *app) sync(ctx context.Context, g *errgroup.Group, st *store.Store, svc *verify.Service) error {
	way := a.login
	if a.withHub {
		way = func() (login, error) { return a.startHub(ctx, g) }
	}
	l, err := way()
	if err != nil {
		return err
	}
	up, err := a.link(st, l, svc.ChangeMany)
	if up == nil || err != nil {
		return err
	}
	a.weather.link.Store(up)
	t := a.reports(st, up)
	g.Go(func() error { return t.Collect(ctx) })
	return up.Run(ctx)
}
