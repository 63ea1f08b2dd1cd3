package wire

import (
	"errors"
	"fmt"
	"slices"

	"postern/agent"
)

// RowKind says what the body of a row is.
type RowKind uint8

// The kinds. A hub keeps rows of kinds that it does not know.
const (
	RowResult     RowKind = 1 // an agent.Result by its JSON names, without device, epoch and seq
	RowUnreadable RowKind = 2 // the device cannot read or send this row any more; the body is text that says why
	RowAbsent     RowKind = 3 // the device no longer has this row: its time was over before it could be sent; the body is text
)

// Row is one thing of a device's outbox. Bodies are not looked into on the way.
type Row struct {
	Seq  uint64  `cbor:"1,keyasint"`
	Kind RowKind `cbor:"2,keyasint"`
	Body Raw     `cbor:"3,keyasint"`
}

// Size is about what the row takes in a batch.
func (r Row) Size() int { return len(r.Body) + 16 }

// Results is a batch of rows of one epoch in ascending Seq. Rows travel deflated
// when that is smaller; Decode inflates them.
type Results struct {
	Epoch string `cbor:"1,keyasint"`
	// Historical marks a replay: these decisions were made while the device could
	// not tell, and nobody should act on them as if they were news.
	Historical bool   `cbor:"2,keyasint,omitempty"`
	Rows       []Row  `cbor:"3,keyasint,omitempty"`
	Packed     []byte `cbor:"4,keyasint,omitempty"` // deflate (RFC 1951) of the CBOR array Rows, instead of it
	// Floor is the oldest row that the device still has to send: the hub has told it
	// that it has those below. A hub that does not, for its store was restored from a
	// copy, must not wait for them. 0: not said.
	Floor uint64 `cbor:"5,keyasint,omitempty"`
}

// Pack makes a batch to send. Rows that do not get smaller stay as they are.
func Pack(epoch string, historical bool, rows []Row) (*Results, error) {
	r := &Results{Epoch: epoch, Historical: historical, Rows: rows}
	if err := r.check(); err != nil {
		return nil, wrong("batch cannot be sent: %v", err)
	}
	plain, err := encoder.Marshal(rows)
	if err != nil {
		return nil, wrong("batch cannot be sent: %v", err)
	}
	if packed := deflate(plain); len(packed) < len(plain)*9/10 && len(plain) <= MaxUnpacked {
		r.Rows, r.Packed = nil, packed
	}
	return r, nil
}

// unpack inflates what Pack deflated.
func (r *Results) unpack() error {
	if r.Packed == nil {
		return nil
	}
	if r.Rows != nil {
		return errors.New("rows both plain and packed")
	}
	plain, err := inflate(r.Packed, MaxUnpacked)
	if err != nil {
		return err
	}
	r.Packed = nil
	return decoder.Unmarshal(plain, &r.Rows)
}

func (r *Results) check() error {
	if err := checkEpoch(r.Epoch); err != nil {
		return err
	}
	if r.Packed != nil && r.Rows == nil {
		return nil // ready to travel; Pack has looked at the rows
	}
	if len(r.Rows) == 0 {
		return errors.New("batch without rows")
	}
	if r.Floor > r.Rows[0].Seq {
		return fmt.Errorf("row %d below the floor %d", r.Rows[0].Seq, r.Floor)
	}
	before := uint64(0)
	for _, row := range r.Rows {
		switch {
		case row.Seq <= before:
			return fmt.Errorf("row %d after row %d", row.Seq, before)
		case len(row.Body) == 0 || len(row.Body) > MaxRow:
			return fmt.Errorf("row %d has a body of %d bytes, not 1 to %d", row.Seq, len(row.Body), MaxRow)
		case row.Kind == 0:
			return fmt.Errorf("row %d has no kind", row.Seq)
		}
		before = row.Seq
	}
	return checkSeq(before)
}

// ResultRow makes the row of a result. One that cannot travel becomes a row that
// says so, for a number that never arrives would be asked for again and again.
func ResultRow(res agent.Result) (row Row, err error) {
	seq := res.Seq
	res.Device, res.Epoch, res.Seq = "", "", 0 // the topic, the batch and the row say it
	body, err := Marshal(res)
	if err == nil && len(body) > MaxRow {
		err = wrong("result %d has %d bytes, over %d", seq, len(body), MaxRow)
	}
	if err != nil {
		return UnreadableRow(seq, err.Error()), err
	}
	return Row{Seq: seq, Kind: RowResult, Body: body}, nil
}

// UnreadableRow stands for a row that the device has lost or cannot send.
func UnreadableRow(seq uint64, why string) Row {
	why = string(slices.Concat([]byte(nil), []byte(why))[:min(len(why), maxText)])
	body, err := Marshal(why)
	if err != nil { // cut within a character
		body, _ = Marshal(fmt.Sprintf("%q", why))
	}
	return Row{Seq: seq, Kind: RowUnreadable, Body: body}
}

// AbsentRow stands for a row that was deleted on the device, as its retention asks,
// before the hub had it.
func AbsentRow(seq uint64) Row {
	return Row{Seq: seq, Kind: RowAbsent, Body: absent}
}

var absent = must(Marshal("deleted on the device"))

// Result reads the body of a row of kind RowResult. Device, Epoch and Seq are the
// caller's to set: they are not the body's to say.
func (r Row) Result() (agent.Result, error) {
	var res agent.Result
	if r.Kind != RowResult {
		return res, wrong("row %d is of kind %d, not a result", r.Seq, r.Kind)
	}
	if err := Unmarshal(r.Body, &res); err != nil {
		return agent.Result{}, wrong("row %d is not a result: %v", r.Seq, err)
	}
	switch res.Decision.Status {
	case agent.Approved, agent.InReview, agent.Declined:
	default:
		return agent.Result{}, wrong("row %d has the unknown status %s", r.Seq, quote(string(res.Decision.Status)))
	}
	if res.ID == "" || res.At.IsZero() {
		return agent.Result{}, wrong("row %d is a result without id or time", r.Seq)
	}
	res.Device, res.Epoch, res.Seq = "", "", r.Seq
	if res.Decision.Warnings == nil {
		res.Decision.Warnings = []agent.Warning{}
	}
	return res, nil
}
