package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"postern/agent"
	"postern/sync/authority"
	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/hub"
	"postern/sync/identity"
	"postern/sync/registry"
	"postern/sync/wire"
)

// joinClient starts the client id of a device that comes with a claim. No device's name
// has upper case, so it ends nobody else's session.
const joinClient = "JOIN-"

// The lives of logins: how long a connection lasts before it has to log in anew.
const (
	grantLife = 15 * time.Minute
	joinLife  = 2 * time.Minute // to ask for a certificate
)

// authorize lets a device in under its own name, to its own topics, as the client of
// its own name: another client id would end somebody else's session.
func (o *HubOptions) authorize(l broker.Login) (g broker.Grant, err error) {
	switch {
	case l.Certificate != nil:
		g, err = o.byCertificate(l)
	case strings.HasPrefix(l.ClientID, joinClient):
		g, err = o.byClaim(l)
	default:
		g, err = o.bySecret(l)
	}
	if err != nil {
		o.Log.Warn("device refused", "client", short(l.ClientID), "from", l.Host, "err", err)
	}
	return g, err
}

func short(s string) string { return s[:min(len(s), wire.MaxDevice)] }

func (o *HubOptions) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// grant is everything that is a device's own.
func (o *HubOptions) grant(name string, life time.Duration) broker.Grant {
	return broker.Grant{Publish: []string{wire.Up(name, "#")}, Subscribe: []string{wire.Down(name, "#")}, Until: o.now().Add(life)}
}

func (o *HubOptions) bySecret(l broker.Login) (broker.Grant, error) {
	if err := o.Devices.Check(l.Username, l.Password); err != nil {
		return broker.Grant{}, err
	}
	if l.ClientID != l.Username {
		return broker.Grant{}, stolenID(l.Username, l.ClientID)
	}
	return o.grant(l.Username, grantLife), nil
}

func stolenID(name, client string) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("device %q came as client %.64q", name, client)}
}

// byCertificate goes by the certificate alone. One in its grace may ask for a new one.
func (o *HubOptions) byCertificate(l broker.Login) (broker.Grant, error) {
	if o.Authority == nil {
		return broker.Grant{}, errors.New("this hub has no authority for certificates")
	}
	name, standing, err := o.Authority.Check(l.Certificate, o.now())
	if err != nil {
		return broker.Grant{}, err
	}
	if l.ClientID != name || l.Username != "" && l.Username != name {
		return broker.Grant{}, stolenID(name, l.ClientID)
	}
	if err := o.Devices.CheckCertificate(name, l.Certificate.NotBefore); err != nil {
		return broker.Grant{}, err
	}
	if standing == authority.Overdue {
		g := o.grant(name, joinLife)
		g.Publish = []string{wire.Up(name, wire.ChanRenew)}
		return g, nil
	}
	g := o.grant(name, grantLife)
	if l.Certificate.NotAfter.Before(g.Until) {
		g.Until = l.Certificate.NotAfter
	}
	return g, nil
}

// byClaim lets a device ask for its first certificate, and do nothing else.
func (o *HubOptions) byClaim(l broker.Login) (broker.Grant, error) {
	name := strings.TrimPrefix(l.ClientID, joinClient)
	if l.Username != name {
		return broker.Grant{}, stolenID(l.Username, l.ClientID)
	}
	if err := o.Devices.CheckClaim(name, l.Password); err != nil {
		return broker.Grant{}, err
	}
	return broker.Grant{Publish: []string{wire.Up(name, wire.ChanJoin)}, Subscribe: []string{wire.Down(name, wire.ChanCertificate)}, Until: o.now().Add(joinLife)}, nil
}

// office answers requests for certificates.
type office struct {
	*HubOptions
	hub  *hub.Hub
	kick func(client string)
}

// serve takes part in what the hub hears.
func (p *office) serve() {
	p.hub.On[wire.ChanJoin] = p.join
	p.hub.On[wire.ChanRenew] = p.join
}

// join answers a device that asks for a certificate. By which channel it asked says
// whether it has proved that it has one: the broker lets a device without one use
// ChanJoin only.
func (p *office) join(ctx context.Context, m hub.Heard) {
	j, ok := m.Message.(*wire.Join)
	if !ok {
		return
	}
	leaf, err := p.certify(m.Device, m.Channel == wire.ChanRenew, j)
	head, answer := wire.Header{Re: m.Header.ID}, &wire.Certificate{}
	if err != nil {
		p.Log.Warn("certificate refused", "device", m.Device, "err", err)
		head.Code, head.Text = string(agent.ErrorCode(err)), clip(err.Error(), 200)
	} else {
		p.Log.Info("certificate issued", "device", m.Device, "until", leaf.NotAfter)
		answer = &wire.Certificate{Leaf: leaf.Raw, Authority: p.Authority.CA.Raw, HubKey: p.Authority.Signing, ServerName: p.ServerName}
		if m.Channel == wire.ChanJoin {
			p.kick(m.Device) // who was there under this name has nothing to show for it any more
		}
	}
	if err := p.hub.Say(ctx, m.Device, wire.ChanCertificate, head, answer); err != nil {
		p.Log.Debug("answer not sent; the device will ask again", "device", m.Device, "err", err)
	}
}

func clip(s string, most int) string { return strings.ToValidUTF8(s[:min(len(s), most)], "") }

func (p *office) certify(name string, renew bool, j *wire.Join) (*x509.Certificate, error) {
	key, err := authority.RequestKey(j.Request)
	if err != nil {
		return nil, err
	}
	issue := func() (*x509.Certificate, error) { return p.Authority.Issue(name, j.Request, p.now()) }
	if renew {
		return p.Devices.Renew(name, identity.Fingerprint(key), issue)
	}
	return p.Devices.Redeem(name, j.Claim, identity.Fingerprint(key), issue)
}

// revocations ends the connections of devices that may not log in any more: as soon as
// the registry's folder changes, by whichever process.
type revocations struct {
	devices registry.Registry
	kick    func(client string)
	log     *slog.Logger

	changed time.Time            // of the folder, when it was read the last time
	out     map[string]time.Time // who is shut out, and until when connections are looked for
}

// A login may have been granted just before, and be connected just after.
const (
	lookEvery = 250 * time.Millisecond
	lookFor   = 5 * time.Second
)

func (r *revocations) run(ctx context.Context) error {
	r.out = map[string]time.Time{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		r.look(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *revocations) look(now time.Time) {
	if st, err := os.Stat(r.devices.Dir); err == nil && !st.ModTime().Equal(r.changed) {
		list, err := r.devices.List()
		if err != nil {
			r.log.Error("the registry cannot be read; logins are refused", "err", err)
			return
		}
		r.changed = st.ModTime()
		for _, d := range list {
			if _, known := r.out[d.Name]; d.RevokedAt != nil && !known {
				r.out[d.Name] = now.Add(lookFor)
			} else if d.RevokedAt == nil {
				delete(r.out, d.Name)
			}
		}
	}
	for name, until := range r.out {
		if now.Before(until) {
			r.kick(name)
		}
	}
}

// JoinOptions say how a device gets its identity.
type JoinOptions struct {
	Hub   string // mqtts://host:port
	Claim identity.Claim
	// Roots, in PEM, may vouch for a hub whose certificate is not of its own authority;
	// "" is what the system trusts.
	Roots string
}

// joinTries is how often a device asks; each time it waits for joinWait.
const (
	joinTries = 5
	joinWait  = 5 * time.Second
)

// Join gets a device's first certificate.
func Join(ctx context.Context, o JoinOptions) (*identity.Identity, error) {
	var roots *x509.CertPool
	if o.Roots != "" {
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(o.Roots))
	}
	d := &mqtt.Dialer{URL: o.Hub, Username: o.Claim.Device, Password: o.Claim.Secret, TLS: identity.FirstMeeting(o.Claim.Pin, authority.ServerName, roots)}
	return identity.Join(ctx, o.Claim, identity.Identity{Hub: o.Hub, Roots: o.Roots}, func(ctx context.Context, j *wire.Join) (wire.Header, *wire.Certificate, error) {
		return ask(ctx, d, o.Claim.Device, j)
	})
}

// ask connects, asks until there is an answer, and gives it.
func ask(ctx context.Context, d *mqtt.Dialer, name string, j *wire.Join) (wire.Header, *wire.Certificate, error) {
	id := uuid.NewString()
	type answer struct {
		head wire.Header
		cert *wire.Certificate
	}
	answers := make(chan answer, 1)
	s, err := d.Dial(ctx, bus.Connect{ClientID: joinClient + name, AtMostOnce: true, Subscribe: []string{wire.Down(name, wire.ChanCertificate)},
		Handle: func(_ context.Context, m bus.Message) {
			head, msg, err := wire.Decode(m.Payload)
			if c, ok := msg.(*wire.Certificate); err == nil && ok && head.Re == id {
				select {
				case answers <- answer{head, c}:
				default:
				}
			}
		}})
	if err != nil {
		return wire.Header{}, nil, err
	}
	defer s.Close(true)
	payload, err := wire.Encode(wire.Header{ID: id, At: time.Now().UnixMicro()}, j)
	if err != nil {
		return wire.Header{}, nil, err
	}
	for range joinTries {
		s.Publish(bus.Message{Topic: wire.Up(name, wire.ChanJoin), Payload: payload}, func(error) {})
		select {
		case a := <-answers:
			return a.head, a.cert, nil
		case <-s.Done():
			return wire.Header{}, nil, s.Err()
		case <-ctx.Done():
			return wire.Header{}, nil, ctx.Err()
		case <-time.After(joinWait):
		}
	}
	return wire.Header{}, nil, &agent.Error{Code: agent.CodeUnavailable, Message: "the hub's broker lets this device in, but the hub does not answer", Fix: "look at the hub's log; then join again with the same claim"}
}

// certified dials with the newest certificate.
type certified struct {
	base    mqtt.Dialer
	renewer *identity.Renewer
}

// Certified connects a device that has joined. The renewer is also a part of its link.
func Certified(r *identity.Renewer) bus.Dialer {
	return certified{mqtt.Dialer{URL: r.Current().Hub}, r}
}

var _ device.Part = (*identity.Renewer)(nil)

// Dial implements bus.Dialer.
func (c certified) Dial(ctx context.Context, how bus.Connect) (bus.Session, error) {
	d, id := c.base, c.renewer.Current()
	d.Username, d.TLS = id.Device, id.TLS()
	return d.Dial(ctx, how)
}

// serverTLS completes what the hub's broker shows: the certificate that was set, or one
// of its own authority; and it asks devices for theirs.
func (o *HubOptions) serverTLS() {
	switch {
	case o.Authority == nil:
	case o.TLS == nil && o.Plain:
	case o.TLS == nil:
		o.TLS, o.ServerName = o.Authority.ServerTLS(o.Names, o.now), authority.ServerName
	default:
		t := o.TLS.Clone()
		o.Authority.AskDevices(t, o.now)
		o.TLS = t
	}
}

// ownTLS is how the hub finds its own broker: by the authority that it is itself, or by
// the very certificate that was set, whatever name that is for.
func (o *HubOptions) ownTLS() *tls.Config {
	if o.ServerName != "" {
		roots := x509.NewCertPool()
		roots.AddCert(o.Authority.CA)
		return &tls.Config{RootCAs: roots, ServerName: o.ServerName}
	}
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) > 0 && string(cs.PeerCertificates[0].Raw) == string(o.TLS.Certificates[0].Certificate[0]) {
			return nil
		}
		return errors.New("this is not the hub's own broker")
	}}
}
