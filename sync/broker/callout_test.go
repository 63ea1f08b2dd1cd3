package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
)

// judge knows devices by the password "pw-" and their name, and binds the client id.
func judge(l broker.Login) (broker.Grant, error) {
	if l.Password != "pw-"+l.Username || l.ClientID != l.Username {
		return broker.Grant{}, errors.New("no")
	}
	return broker.Grant{Publish: []string{"fm/up/" + l.Username + "/#"}, Subscribe: []string{"fm/dn/" + l.Username + "/#"}}, nil
}

var hubUser = broker.User{Name: "HUB", Password: "pw", Publish: []string{"fm/dn/#"}, Subscribe: []string{"fm/up/#"}}

// Another's name, client id or topics give nothing of the other's, and do not disturb it.
func TestAuthorize(t *testing.T) {
	b := start(t, broker.Options{Users: []broker.User{hubUser}, Authorize: judge})
	as := func(user, password string) *mqtt.Dialer {
		return &mqtt.Dialer{URL: "mqtt://" + b.Addr(), Username: user, Password: password, Timeout: 5 * time.Second}
	}
	hub := bustest.Start(t, as("HUB", "pw"), "HUB", nil, "fm/up/+/res")
	good := bustest.Start(t, as("a", "pw-a"), "a", nil, "fm/dn/a/ack")
	for name, c := range map[string]struct {
		d      *mqtt.Dialer
		client string
		filter string
	}{
		"wrong password":         {as("a", "pw-b"), "a", "fm/dn/a/ack"},
		"no login":               {as("", ""), "a", "fm/dn/a/ack"},
		"another's client id":    {as("b", "pw-b"), "a", "fm/dn/b/ack"},
		"the hub's client id":    {as("b", "pw-b"), "HUB", "fm/dn/b/ack"},
		"another's topic":        {as("b", "pw-b"), "b", "fm/dn/a/ack"},
		"everybody's topics":     {as("b", "pw-b"), "b", "fm/dn/+/ack"},
		"everything":             {as("b", "pw-b"), "b", "#"},
		"the judge's own name":   {as("callout", ""), "x", "#"},
		"the hub's name":         {as("HUB", "pw-HUB"), "HUB", "fm/up/+/res"},
		"the server's own topic": {as("b", "pw-b"), "b", "$SYS/REQ/USER/AUTH"},
	} {
		s, err := c.d.Dial(t.Context(), bus.Connect{ClientID: c.client, Subscribe: []string{c.filter}})
		if err == nil {
			s.Close(true)
			t.Errorf("%s: let in", name)
		}
	}
	b2 := bustest.Start(t, as("b", "pw-b"), "b", nil)
	for _, topic := range []string{"fm/up/a/res", "fm/dn/a/ack", "fm/up/b/res"} {
		if err := b2.Publish(t.Context(), bus.Message{Topic: topic, Payload: []byte("of b")}); err != nil {
			t.Fatal(err)
		}
	}
	bustest.WaitFor(t, "b's own", func() bool { return len(hub.Heard("fm/up/b/res")) == 1 })
	if len(hub.Heard("fm/up/a/res"))+len(good.Heard("fm/dn/a/ack")) > 0 {
		t.Error("device b spoke as device a, or as the hub")
	}
	if err := good.Publish(t.Context(), bus.Message{Topic: "fm/up/a/res", Payload: []byte("still here")}); err != nil {
		t.Errorf("device a was disturbed: %v", err)
	}
	bustest.WaitFor(t, "a's own", func() bool { return len(hub.Heard("fm/up/a/res")) == 1 })
}

// A grant ends, and with it the connection of a device that was revoked meanwhile.
func TestGrantEnds(t *testing.T) {
	revoked := make(chan struct{})
	b := start(t, broker.Options{Users: []broker.User{hubUser}, Authorize: func(l broker.Login) (broker.Grant, error) {
		select {
		case <-revoked:
			return broker.Grant{}, errors.New("revoked")
		default:
			return broker.Grant{Publish: []string{"fm/up/a/#"}, Until: time.Now().Add(2 * time.Second)}, nil
		}
	}})
	d := &mqtt.Dialer{URL: "mqtt://" + b.Addr(), Username: "a", Timeout: 5 * time.Second}
	s, err := d.Dial(t.Context(), bus.Connect{ClientID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(false)
	close(revoked)
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the connection outlives its grant")
	}
	if s, err := d.Dial(t.Context(), bus.Connect{ClientID: "a"}); err == nil {
		s.Close(true)
		t.Error("a revoked device was let in")
	}
}

// A client that is kicked is gone, and others stay.
func TestKick(t *testing.T) {
	b := start(t, broker.Options{Users: []broker.User{hubUser}, Authorize: judge})
	dial := func(name string) bus.Session {
		d := &mqtt.Dialer{URL: "mqtt://" + b.Addr(), Username: name, Password: "pw-" + name, Timeout: 5 * time.Second}
		s, err := d.Dial(t.Context(), bus.Connect{ClientID: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(false) })
		return s
	}
	a, other := dial("a"), dial("a2")
	if n, err := b.Kick("a"); n != 1 || err != nil {
		t.Fatalf("kicked %d, %v", n, err)
	}
	select {
	case <-a.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("still there")
	}
	if other.Err() != nil {
		t.Errorf("another client was kicked too: %v", other.Err())
	}
	if n, err := b.Kick("nobody"); n != 0 || err != nil {
		t.Errorf("kicked %d, %v", n, err)
	}
}

// The judge sees the certificate that a client has shown.
func TestCertificate(t *testing.T) {
	serverCert, pool := selfSigned(t, "127.0.0.1")
	clientCert, _ := selfSigned(t, "a")
	seen := make(chan broker.Login, 2)
	b := start(t, broker.Options{TLS: &tls.Config{Certificates: []tls.Certificate{serverCert}, ClientAuth: tls.RequestClientCert},
		Authorize: func(l broker.Login) (broker.Grant, error) {
			seen <- l
			return broker.Grant{}, nil
		}})
	for _, certs := range [][]tls.Certificate{{clientCert}, nil} {
		d := &mqtt.Dialer{URL: "mqtts://" + b.Addr(), Username: "a", Timeout: 5 * time.Second, TLS: &tls.Config{RootCAs: pool, Certificates: certs}}
		s, err := d.Dial(t.Context(), bus.Connect{ClientID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		s.Close(true)
		l := <-seen
		if (l.Certificate != nil) != (certs != nil) || l.Certificate != nil && l.Certificate.Subject.CommonName != "a" || l.Host != "127.0.0.1" {
			t.Errorf("the judge saw %+v", l)
		}
	}
}

func selfSigned(tb testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}
