package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/keys"
	"postern/sync/authority"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/identity"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// office of a hub under test.
type provisioned struct {
	*testing.T
	reg  registry.Registry
	auth *authority.Authority
	url  string
	root *keys.Root
}

func provision(t *testing.T) *provisioned {
	t.Helper()
	dir := t.TempDir()
	p := &provisioned{T: t, reg: registry.Registry{Dir: filepath.Join(dir, "devices")}, root: rootKey(t)}
	p.auth = newAuthority(t, dir)
	p.url = "mqtts://" + startHub(t, HubOptions{Data: dir, Devices: p.reg, Authority: p.auth, Client: quickClient()})
	return p
}

func rootKey(t *testing.T) *keys.Root {
	t.Helper()
	r, err := keys.Options{Kind: keys.File, Dir: t.TempDir()}.Open(false)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newAuthority(t *testing.T, dir string) *authority.Authority {
	t.Helper()
	a, err := authority.Open(dir, rootKey(t), time.Now().Add(-200*day)) // older than any certificate in these tests
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (p *provisioned) claim(name string) identity.Claim {
	p.Helper()
	secret, _, err := p.reg.NewClaim(name, "", time.Hour, false)
	if err != nil {
		p.Fatal(err)
	}
	return identity.Claim{Device: name, Secret: secret, Pin: p.auth.Pin()}
}

func (p *provisioned) join(name string) *identity.Identity {
	p.Helper()
	id, err := Join(p.Context(), JoinOptions{Hub: p.url, Claim: p.claim(name)})
	if err != nil {
		p.Fatal(err)
	}
	return id
}

// dial connects with a certificate.
func (p *provisioned) dial(id *identity.Identity, client, user string, filters ...string) (bus.Session, error) {
	d := &mqtt.Dialer{URL: p.url, Username: user, TLS: id.TLS(), Timeout: 5 * time.Second}
	return d.Dial(p.Context(), bus.Connect{ClientID: client, Subscribe: filters})
}

// run runs a device that has joined, until the test ends.
func (p *provisioned) run(id *identity.Identity, out uplink.Outbox) *identity.Renewer {
	r := identity.NewRenewer(id, filepath.Join(p.TempDir(), identity.File), p.root, discard())
	l := &device.Link{Device: id.Device, Dialer: Certified(r), Uplink: &uplink.Uplink{Outbox: out}, Client: quickClient(), Parts: []device.Part{r}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	p.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			p.Error(err)
		}
	})
	return r
}

func (p *provisioned) journal(what string) int {
	p.Helper()
	events, err := p.reg.Journal()
	if err != nil {
		p.Fatal(err)
	}
	n := 0
	for _, e := range events {
		if e.What == what {
			n++
		}
	}
	return n
}

// A device joins with its claim, and its results arrive; revoked, it is out at once.
func TestJoin(t *testing.T) {
	p := provision(t)
	id := p.join("door")
	out := &memory{epoch: "e"}
	out.add(3)
	p.run(id, out)
	bustest.WaitFor(t, "the results", func() bool { return out.depth() == 0 })

	s, err := p.dial(id, "door", "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(false)
	if err := p.reg.Revoke("door"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Error("a revoked device is still connected")
	}
	if s, err := p.dial(id, "door", ""); err == nil {
		s.Close(true)
		t.Error("a revoked device was let in")
	}
}

// What is not a device's own gives it nothing of the other's: client id, topics, name,
// certificate, claim.
func TestImpostors(t *testing.T) {
	p := provision(t)
	good, bad := p.join("good"), p.join("bad")
	hubSide := &memory{epoch: "e"}
	hubSide.add(1)
	p.run(good, hubSide)
	bustest.WaitFor(t, "the good device's result", func() bool { return hubSide.depth() == 0 })

	elsewhere := newAuthority(t, t.TempDir())
	foreign := foreignIdentity(t, elsewhere, p.auth, "good")
	for name, c := range map[string]struct {
		id           *identity.Identity
		client, user string
		filters      []string
	}{
		"another's client id":            {bad, "good", "", nil},
		"another's name":                 {bad, "bad", "good", nil},
		"the hub's client id":            {bad, "HUB", "", nil},
		"a joiner's client id":           {bad, "JOIN-good", "good", nil},
		"another's topic":                {bad, "bad", "", []string{"fm/dn/good/ack"}},
		"everybody's topics":             {bad, "bad", "", []string{"fm/dn/+/ack"}},
		"what others say":                {bad, "bad", "", []string{"fm/up/#"}},
		"a certificate of another fleet": {foreign, "good", "", nil},
	} {
		if s, err := p.dial(c.id, c.client, c.user, c.filters...); err == nil {
			s.Close(true)
			t.Errorf("%s: let in", name)
		}
	}
	// Speaking as another: dropped by the broker, so nothing is acknowledged or stored.
	s, err := p.dial(bad, "bad", "", "fm/dn/bad/ack")
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(bus.Message{Topic: "fm/up/good/res", Payload: []byte("x")}, func(error) {})
	s.Publish(bus.Message{Topic: "fm/dn/good/ack", Payload: []byte("x")}, func(error) {})
	s.Close(true)
	hubSide.add(1)
	bustest.WaitFor(t, "the good device goes on", func() bool { return hubSide.depth() == 0 })
}

// foreignIdentity is for a name of this fleet, certified by another's authority.
func foreignIdentity(t *testing.T, issuer, hub *authority.Authority, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Join(t.Context(), identity.Claim{Device: name, Secret: "s", Pin: issuer.Pin()}, identity.Identity{},
		func(_ context.Context, j *wire.Join) (wire.Header, *wire.Certificate, error) {
			leaf, err := issuer.Issue(name, j.Request, time.Now())
			if err != nil {
				return wire.Header{}, nil, err
			}
			return wire.Header{}, &wire.Certificate{Leaf: leaf.Raw, Authority: issuer.CA.Raw, HubKey: issuer.Signing}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	// It shows its certificate to the true hub.
	id.ServerName, id.Authority = authority.ServerName, hub.CA
	return id
}

// A claim that is used again, or is not the one, gives no certificate, and is written
// down; it cannot be used to say or hear anything else.
func TestReplayedClaim(t *testing.T) {
	p := provision(t)
	c := p.claim("door")
	first, err := Join(t.Context(), JoinOptions{Hub: p.url, Claim: c})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), JoinOptions{Hub: p.url, Claim: c}); agent.ErrorCode(err) != agent.CodeConflict {
		t.Errorf("replayed: %v", err)
	}
	if n := p.journal("refused"); n != 1 {
		t.Errorf("%d refusals in the journal", n)
	}
	wrong, otherHub := c, c
	wrong.Secret = strings.Repeat("x", 43)
	otherHub.Pin = strings.Repeat("x", 43)
	for name, claim := range map[string]identity.Claim{"wrong secret": wrong, "another's name": {Device: "door-2", Secret: c.Secret, Pin: c.Pin}, "another hub's pin": otherHub} {
		if _, err := Join(t.Context(), JoinOptions{Hub: p.url, Claim: claim}); err == nil {
			t.Errorf("%s: joined", name)
		}
	}
	joiner := &mqtt.Dialer{URL: p.url, Username: "door", Password: c.Secret, TLS: first.TLS(), Timeout: 5 * time.Second}
	joiner.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	for name, how := range map[string]bus.Connect{
		"as the device":        {ClientID: "door"},
		"as another joiner":    {ClientID: "JOIN-door-2"},
		"to hear the device's": {ClientID: "JOIN-door", Subscribe: []string{"fm/dn/door/ack"}},
	} {
		if s, err := joiner.Dial(t.Context(), how); err == nil {
			s.Close(true)
			t.Errorf("%s: let in with a claim", name)
		}
	}
	if s, err := p.dial(first, "door", ""); err != nil {
		t.Errorf("the device that joined is out: %v", err)
	} else {
		s.Close(true)
	}
}

// oldIdentity is one whose certificate was issued some time ago.
func (p *provisioned) oldIdentity(name string, age time.Duration) *identity.Identity {
	p.Helper()
	then := func() time.Time { return time.Now().Add(-age) }
	past := registry.Registry{Dir: p.reg.Dir, Now: then}
	secret, _, err := past.NewClaim(name, "", time.Hour, false)
	if err != nil {
		p.Fatal(err)
	}
	id, err := identity.Join(p.Context(), identity.Claim{Device: name, Secret: secret, Pin: p.auth.Pin()}, identity.Identity{Hub: p.url},
		func(_ context.Context, j *wire.Join) (wire.Header, *wire.Certificate, error) {
			p := &office{HubOptions: &HubOptions{Devices: past, Authority: p.auth, Now: then}}
			leaf, err := p.certify(name, false, j)
			if err != nil {
				return wire.Header{}, nil, err
			}
			return wire.Header{}, &wire.Certificate{Leaf: leaf.Raw, Authority: p.Authority.CA.Raw, HubKey: p.Authority.Signing, ServerName: authority.ServerName}, nil
		})
	if err != nil {
		p.Fatal(err)
	}
	return id
}

const day = 24 * time.Hour

// A certificate that is half over is renewed over the line; one that is over is renewed
// within its grace and serves for nothing else before; after that it serves for nothing.
func TestRenewal(t *testing.T) {
	p := provision(t)
	for name, age := range map[string]time.Duration{"half": 16 * day, "over": 50 * day} {
		id := p.oldIdentity(name, age)
		out := &memory{epoch: "e"}
		out.add(2)
		r := p.run(id, out)
		bustest.WaitFor(t, name+": a new certificate", func() bool { return r.Current() != id })
		if now, err := identity.Load(r.Path, p.root); err != nil || now.Fingerprint() != r.Current().Fingerprint() || now.Fingerprint() == id.Fingerprint() {
			t.Errorf("%s: kept %+v, %v", name, now, err)
		}
		if name == "half" {
			bustest.WaitFor(t, name+": results", func() bool { return out.depth() == 0 })
			continue
		}
		if s, err := p.dial(r.Current(), name, ""); err != nil {
			t.Errorf("%s: the new certificate: %v", name, err)
		} else {
			s.Close(true)
		}
	}
	if _, err := p.dial(p.oldIdentity("gone", 91*day), "gone", ""); err == nil {
		t.Error("a certificate after its grace was taken")
	}
	old := p.oldIdentity("twice", 16*day)
	if id := p.join("twice"); id.Fingerprint() == old.Fingerprint() {
		t.Error("the same key")
	}
	if _, err := p.dial(old, "twice", ""); err == nil {
		t.Error("a certificate from before the device joined anew was taken")
	}
}

// Overdue devices may say nothing but that they want a certificate.
func TestOverdueSaysNothing(t *testing.T) {
	p := provision(t)
	id := p.oldIdentity("door", 50*day)
	s, err := p.dial(id, "door", "", "fm/dn/door/ack")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(true)
	out := &memory{epoch: "e"}
	out.add(1)
	up := &uplink.Uplink{Device: "door", Outbox: out, Bus: direct{s}}
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := up.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if out.depth() != 1 {
		t.Error("a result was taken from a device whose certificate is over")
	}
}

// direct publishes on one session.
type direct struct{ s bus.Session }

func (d direct) Publish(_ context.Context, m bus.Message) error {
	if d.s.Err() != nil {
		return errors.New("ended")
	}
	d.s.Publish(m, func(error) {})
	return nil
}

// A device that joined by a claim with approval waits for it.
func TestApproval(t *testing.T) {
	p := provision(t)
	secret, _, err := p.reg.NewClaim("door", "", time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	id, err := Join(t.Context(), JoinOptions{Hub: p.url, Claim: identity.Claim{Device: "door", Secret: secret, Pin: p.auth.Pin()}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := p.dial(id, "door", ""); err == nil {
		s.Close(true)
		t.Error("let in before it was approved")
	}
	d, err := p.reg.Approve("door")
	if err != nil || d.Certificate.Key != id.Fingerprint() {
		t.Errorf("approved %+v, %v", d, err)
	}
	s, err := p.dial(id, "door", "")
	if err != nil {
		t.Fatal(err)
	}
	s.Close(true)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
