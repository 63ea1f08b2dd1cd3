package broker

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Login is what a client shows when it connects.
type Login struct {
	ClientID string // MQTT's; whoever has it ends the session of another that has it
	Username string
	Password string
	Host     string // where it comes from
	// Certificate is what it showed over TLS, nil for none. That it has the key is
	// certain; what the certificate is worth is for Options.TLS and Authorize to say.
	Certificate *x509.Certificate
}

// Grant is what a client may do, and until when. Filters are MQTT's.
type Grant struct {
	Publish, Subscribe []string
	Until              time.Time // the connection ends then; zero: never
}

// callout lets Options.Authorize judge each connection: the server asks over a
// connection within the process, and takes only answers signed with a key of its own.
type callout struct {
	authorize func(Login) (Grant, error)
	issuer    nkeys.KeyPair
	public    string
	password  string // of the connection within the process
	conn      *nats.Conn
}

const (
	calloutUser    = "callout" // cannot log in over MQTT
	globalAccount  = "$G"
	calloutSubject = "$SYS.REQ.USER.AUTH"
)

func newCallout(o Options) (*callout, error) {
	issuer, err := nkeys.CreateAccount()
	if err != nil {
		return nil, err
	}
	public, err := issuer.PublicKey()
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return &callout{authorize: o.Authorize, issuer: issuer, public: public, password: hex.EncodeToString(secret)}, nil
}

// configure makes the server ask for everybody but the users that it knows.
func (c *callout) configure(opts *server.Options) {
	ask := &server.AuthCallout{Issuer: c.public, Account: globalAccount, AuthUsers: []string{calloutUser}}
	for _, u := range opts.Users {
		ask.AuthUsers = append(ask.AuthUsers, u.Username)
	}
	opts.AuthCallout = ask
	opts.Users = append(opts.Users, &server.User{Username: calloutUser, Password: c.password,
		AllowedConnectionTypes: map[string]struct{}{"IN_PROCESS": {}, "STANDARD": {}}})
}

// start connects and answers.
func (c *callout) start(s *server.Server) error {
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(calloutUser, c.password), nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("connect to judge logins: %w", err)
	}
	c.conn = conn
	if _, err := conn.Subscribe(calloutSubject, func(m *nats.Msg) {
		if answer, err := c.judge(m.Data); err == nil {
			_ = m.Respond(answer) // unanswered, a login is refused
		}
	}); err != nil {
		return err
	}
	return conn.Flush()
}

func (c *callout) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// judge answers one request. Whatever goes wrong refuses the login.
func (c *callout) judge(request []byte) ([]byte, error) {
	q, err := jwt.DecodeAuthorizationRequestClaims(string(request))
	if err != nil {
		return nil, err
	}
	answer := jwt.NewAuthorizationResponseClaims(q.UserNkey)
	answer.Audience = q.Server.ID
	if answer.Jwt, err = c.user(q); err != nil {
		answer.Jwt, answer.Error = "", "refused" // why is the hub's log's business
	}
	text, err := answer.Encode(c.issuer)
	return []byte(text), err
}

func (c *callout) user(q *jwt.AuthorizationRequestClaims) (string, error) {
	if q.ClientInformation.Type != "mqtt" {
		return "", errors.New("not an MQTT client")
	}
	cert, err := certificate(q.TLS)
	if err != nil {
		return "", err
	}
	g, err := c.authorize(Login{ClientID: q.ClientInformation.MQTT, Username: q.ConnectOptions.Username, Password: q.ConnectOptions.Password,
		Host: q.ClientInformation.Host, Certificate: cert})
	if err != nil {
		return "", err
	}
	u := jwt.NewUserClaims(q.UserNkey)
	u.Name, u.Audience = q.ClientInformation.MQTT, globalAccount
	u.Pub.Allow.Add(subjects(g.Publish)...)
	u.Sub.Allow.Add(subjects(g.Subscribe)...)
	if len(g.Publish) == 0 {
		u.Pub.Deny.Add(">") // an empty list would allow everything
	}
	if len(g.Subscribe) == 0 {
		u.Sub.Deny.Add(">")
	}
	if !g.Until.IsZero() {
		u.Expires = g.Until.Unix()
	}
	return u.Encode(c.issuer)
}

// certificate is the one that the client has shown the key of; nil for none.
func certificate(t *jwt.ClientTLS) (*x509.Certificate, error) {
	if t == nil {
		return nil, nil
	}
	text := t.Certs
	if len(t.VerifiedChains) > 0 {
		text = t.VerifiedChains[0]
	}
	if len(text) == 0 {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(text[0]))
	if block == nil {
		return nil, errors.New("a certificate that is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
