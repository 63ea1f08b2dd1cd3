package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"postern/sync/wire"
)

// Renewer keeps a device's certificate fresh over the connection that it serves for:
// from half of its life on it asks for one for a new key. Set the fields before use.
type Renewer struct {
	Path string
	Root sealer
	Now  func() time.Time // default time.Now
	Log  *slog.Logger

	mu       sync.Mutex // guards current
	current  *Identity
	answered chan answer
}

type answer struct {
	head wire.Header
	cert *wire.Certificate
}

// renewEvery is how often it is looked whether the certificate is half over, and how
// long after a failure it is tried again.
const (
	renewEvery  = time.Hour
	answerWait  = 30 * time.Second
	renewWindow = 10 * time.Minute
)

// NewRenewer keeps id fresh in the file at path.
func NewRenewer(id *Identity, path string, root sealer, log *slog.Logger) *Renewer {
	return &Renewer{Path: path, Root: root, Now: time.Now, Log: log, current: id, answered: make(chan answer, 1)}
}

// Current is the newest identity.
func (r *Renewer) Current() *Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Channels implements device.Part.
func (r *Renewer) Channels() []wire.Channel { return []wire.Channel{wire.ChanCertificate} }

// Heard implements device.Part.
func (r *Renewer) Heard(_ wire.Channel, h wire.Header, m wire.Message) {
	if c, ok := m.(*wire.Certificate); ok {
		select {
		case r.answered <- answer{h, c}:
		default: // nobody waits for so many
		}
	}
}

// Run implements device.Part.
func (r *Renewer) Run(ctx context.Context, say func(context.Context, wire.Channel, wire.Header, wire.Message) error) {
	for {
		wait := renewEvery
		if !r.Now().Before(r.Current().RenewAt()) {
			if err := r.renew(ctx, say); err != nil && ctx.Err() == nil {
				r.Log.Warn("certificate not renewed; the present one serves on", "until", r.Current().Leaf.NotAfter, "err", err)
				wait = renewWindow
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (r *Renewer) renew(ctx context.Context, say func(context.Context, wire.Channel, wire.Header, wire.Message) error) error {
	old := r.Current()
	key, err := NewKey()
	if err != nil {
		return err
	}
	csr, err := key.Request(old.Device)
	if err != nil {
		return err
	}
	id := uuid.NewString()
	if err := say(ctx, wire.ChanRenew, wire.Header{ID: id}, &wire.Join{Request: csr}); err != nil {
		return err
	}
	c, err := r.await(ctx, id)
	if err != nil {
		return err
	}
	next, err := New(old.Device, key, *c, *old)
	if err != nil {
		return err
	}
	if err := next.sameHub(old); err != nil {
		return err
	}
	if err := next.Save(r.Path, r.Root); err != nil {
		return err
	}
	r.mu.Lock()
	r.current = next
	r.mu.Unlock()
	r.Log.Info("certificate renewed", "until", next.Leaf.NotAfter)
	return nil
}

// sameHub refuses an answer that would change whom the device obeys.
func (i *Identity) sameHub(old *Identity) error {
	if !i.HubKey.Equal(old.HubKey) || !i.Authority.Equal(old.Authority) || i.ServerName != old.ServerName {
		return errors.New("the answer is of another hub; join it anew if that is right")
	}
	return nil
}

// await waits for the answer to the request with this id.
func (r *Renewer) await(ctx context.Context, id string) (*wire.Certificate, error) {
	timer := time.NewTimer(answerWait)
	defer timer.Stop()
	for {
		select {
		case a := <-r.answered:
			switch {
			case a.head.Re != id:
			case a.head.Code != "":
				return nil, Refused(a.head)
			default:
				return a.cert, nil
			}
		case <-timer.C:
			return nil, errors.New("the hub does not answer")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
