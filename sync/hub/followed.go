package hub

import (
	"bytes"
	"slices"
	"time"

	"postern/sync/wire"
)

// Followed is how far a device has followed desired state.
type Followed struct {
	Device  string
	At      wire.Position
	When    time.Time // when it said so
	Group   string    // that it was told of
	SealTo  []byte    // its X25519 public key
	KeyAt   time.Time // when that key was taken
	Refused []wire.RefusedItem

	Relist bool   // it must have everything listed anew
	FullTo []byte // stamp up to which the listing that it was sent goes
}

func (f Followed) same(o Followed) bool {
	return f.Device == o.Device && f.Group == o.Group && bytes.Equal(f.SealTo, o.SealTo) && f.KeyAt.Equal(o.KeyAt) &&
		f.Relist == o.Relist && bytes.Equal(f.FullTo, o.FullTo) && slices.Equal(f.Refused, o.Refused)
}

// maxRefused bounds what is kept of what a device could not do.
const maxRefused = 256

// accepted forgets that an item was refused: it is sent again.
func (f *Followed) accepted(key string) {
	if i := slices.IndexFunc(f.Refused, func(r wire.RefusedItem) bool { return r.Key == key }); i >= 0 {
		f.Refused = slices.Delete(slices.Clone(f.Refused), i, i+1)
	}
}

func (f *Followed) refuse(r wire.RefusedItem) {
	f.accepted(r.Key)
	if len(f.Refused) < maxRefused {
		f.Refused = append(slices.Clip(f.Refused), r)
	}
}
