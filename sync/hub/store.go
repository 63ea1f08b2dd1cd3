package hub

import (
	"time"

	"postern/sync/wire"
)

// Batch is what one message of a device brought.
type Batch struct {
	Device     string
	Epoch      string
	Historical bool
	Floor      uint64    // the device no longer has rows below this; 0: not said
	At         time.Time // when it came
	Rows       []wire.Row
	Refused    map[uint64]string // rows that are not what their kind says, and why
}

// Row is one record of a device as it came.
type Row struct {
	Seq        uint64
	Kind       wire.RowKind
	Historical bool
	At         time.Time // when it came first
	Refused    string    // why it is set aside; "" for a row that can be read
	Body       wire.Raw
	Erased     bool // whom it is about was erased; there is no Body
}

// Position is how far one epoch of a device has come.
type Position struct {
	Acked   uint64 // every row up to this is committed, or known to be lost
	Highest uint64 // the newest row committed; above Acked where there is a gap
	Lost    uint64 // rows that the device had been told were committed and that are not here
	Rows    uint64 // committed in all
	Refused uint64 // of these, set aside
}

// Gap tells whether rows are missing below others.
func (p Position) Gap() bool { return p.Highest > p.Acked }

// Stream is one epoch of a device.
type Stream struct {
	Device, Epoch string
	FirstAt       time.Time // when its first row came
	LastAt        time.Time // when its last row came
	Position
}

// Health is a device's last word on itself.
type Health struct {
	Device string
	At     time.Time // when it came
	wire.Health
}

// Store is the hub's record. Package hubtest holds its drivers to what is written here.
type Store interface {
	// Ingest commits batches in one transaction and returns the position of each one's
	// stream after it. A row whose (device, epoch, seq) is there already changes
	// nothing, whatever it says. Rows may come in any order; Acked moves over those
	// without a gap. A Floor above Acked+1 means that rows were committed once and are
	// gone, because the store was restored from a copy: Acked moves up to it and Lost
	// counts what was passed. An error means that nothing was committed.
	Ingest(batches []Batch) ([]Position, error)
	// Streams lists every epoch of every device, by device and then by when its first
	// row came.
	Streams() ([]Stream, error)
	// Rows lists rows of a stream in ascending Seq from the given one on, at most limit.
	Rows(device, epoch string, from uint64, limit int) ([]Row, error)
	// PutHealth keeps a device's health. The end of an older session does not replace
	// the beginning of a newer one.
	PutHealth(h Health) error
	// Healths lists the last health of every device, by name.
	Healths() ([]Health, error)
	// Erase forgets what the rows say of people who were erased, and of such rows that
	// come later and were decided before. The rows themselves stay, by their numbers. It
	// returns of how many people there were some; repeating it changes nothing.
	Erase(es []wire.Erasure) (int, error)
	// Expire deletes acknowledged rows that were decided before a time; they are not asked
	// for again.
	Expire(before time.Time) (int, error)
	// PutFollowed keeps how far a device has followed desired state.
	PutFollowed(f Followed) error
	// Followed gives it back; the zero value for a device that never has.
	Followed(device string) (Followed, error)
	// Followeds lists that of every device, by name.
	Followeds() ([]Followed, error)
	// Close closes the store; closing twice is allowed.
	Close() error
}
