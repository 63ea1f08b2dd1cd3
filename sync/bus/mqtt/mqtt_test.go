package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/sync/broker"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/membus"
	"postern/sync/bus/mqtt"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// fixture reaches a broker through a relay.
func fixture(tb testing.TB, addr string, d mqtt.Dialer) bustest.Fixture {
	p := bustest.NewProxy(tb, addr)
	d.URL, d.Timeout = "mqtt://"+p.Addr(), 3*time.Second
	return bustest.Fixture{Dialer: &d, Cut: p.Cut, Freeze: p.Freeze, Thaw: p.Thaw}
}

func startNATS(tb testing.TB, change func(*broker.Options)) *broker.Broker {
	tb.Helper()
	o := broker.Options{Dir: tb.TempDir(), Listen: "127.0.0.1:0"}
	if change != nil {
		change(&o)
	}
	b, err := broker.Start(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	return b
}

func TestNATS(t *testing.T) {
	users := []broker.User{{Name: "tester", Password: "secret", Publish: []string{"fm/#"},
		Subscribe: []string{"fm/up/+/res", "fm/up/+/st", "fm/dn/+/ack", "fm/dn/+/cmd"}}}
	bustest.Run(t, func(tb testing.TB) bustest.Fixture {
		b := startNATS(tb, func(o *broker.Options) { o.Users = users })
		f := fixture(tb, b.Addr(), mqtt.Dialer{Username: "tester", Password: "secret"})
		f.Forbidden = "fm/forbidden/#"
		return f
	})
}

func TestMosquitto(t *testing.T) {
	bustest.Run(t, func(tb testing.TB) bustest.Fixture { return fixture(tb, bustest.Mosquitto(tb), mqtt.Dialer{}) })
}

func TestMembus(t *testing.T) {
	bustest.Run(t, func(tb testing.TB) bustest.Fixture {
		b := &membus.Broker{Forbidden: "fm/forbidden/#"}
		return bustest.Fixture{Dialer: b, Cut: b.Cut, Freeze: b.Freeze, Thaw: b.Thaw, Forbidden: b.Forbidden}
	})
}

func TestCheckURL(t *testing.T) {
	for raw, words := range map[string]string{
		"mqtts://hub.example.com": "", "ssl://hub:8883": "", "mqtt://127.0.0.1:1883": "", "tcp://localhost:1": "", "mqtt://[::1]:1": "",
		"mqtt://hub.example.com": "mqtts", "tcp://10.0.0.1:1883": "mqtts", "": "mqtts", "hub:1883": "mqtts", "http://hub": "mqtts",
		"mqtt://user:secret@hub": "user:xxxxx@hub",
	} {
		err := mqtt.CheckURL(raw)
		switch {
		case words == "" && err != nil:
			t.Errorf("%q: %v", raw, err)
		case words != "" && (agent.ErrorCode(err) != agent.CodeInvalid || !strings.Contains(err.Error(), words)):
			t.Errorf("%q: %v, want %q", raw, err, words)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// Nothing but TLS 1.3 with a certificate of the right authority gets in.
func TestTLS(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	b := startNATS(t, func(o *broker.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{ours.issue(t, "hub")}, ClientCAs: ours.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	})
	_, port, _ := net.SplitHostPort(b.Addr())
	dial := func(c *tls.Config) error {
		d := &mqtt.Dialer{URL: "mqtts://127.0.0.1:" + port, TLS: c, Timeout: 3 * time.Second}
		s, err := d.Dial(t.Context(), bus.Connect{ClientID: "door", Subscribe: []string{"fm/dn/door/ack"}})
		if err == nil {
			s.Close(true)
		}
		return err
	}
	if err := dial(&tls.Config{RootCAs: ours.pool, Certificates: []tls.Certificate{ours.issue(t, "door")}}); err != nil {
		t.Errorf("a client of our authority: %v", err)
	}
	for name, c := range map[string]*tls.Config{
		"no client certificate":      {RootCAs: ours.pool},
		"foreign client certificate": {RootCAs: ours.pool, Certificates: []tls.Certificate{foreign.issue(t, "door")}},
		"foreign broker":             {RootCAs: foreign.pool, Certificates: []tls.Certificate{ours.issue(t, "door")}},
		"system's authorities":       nil,
	} {
		if err := dial(c); agent.ErrorCode(err) != agent.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.cert, a.key = sign(tb, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(tb testing.TB, name string) tls.Certificate {
	tb.Helper()
	cert, key := sign(tb, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func sign(tb testing.TB, c *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	parent, parentKey := c, key
	if by != nil {
		parent, parentKey = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert, key
}
