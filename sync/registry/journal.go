package registry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Event is a line of the journal: who was let in, shut out or refused.
type Event struct {
	Seq    int       `json:"seq"`
	At     time.Time `json:"at"`
	Device string    `json:"device"`
	What   string    `json:"what"`
	Detail string    `json:"detail,omitempty"`
	Prev   string    `json:"prev"` // SHA-256 of the line before, hexadecimal
}

// journalFile is in the registry's folder. Each line names the one before it, so a
// line that was changed, taken out or put in shows; one cut off at the end does not, and
// neither does a journal that was written anew as a whole.
const journalFile = "journal.jsonl"

// maxDetail bounds what a stranger can make the journal say, in bytes.
const maxDetail = 300

// Note writes an event of a device to the journal.
func (r Registry) Note(device, what, detail string) error {
	unlock, err := r.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return r.note(Event{Device: device, What: what, Detail: detail})
}

// note writes while the folder is locked.
func (r Registry) note(e Event) error {
	path := filepath.Join(r.Dir, journalFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return unusable(path, err)
	}
	defer f.Close()
	last, size, err := lastLine(f)
	if err != nil {
		return unusable(path, err)
	}
	e.Seq, e.At, e.Prev = last.Seq+1, r.now(), last.Prev
	e.Detail = e.Detail[:min(len(e.Detail), maxDetail)]
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil { // what a power cut left of a line
		return unusable(path, err)
	}
	if _, err := f.WriteAt(append(raw, '\n'), size); err != nil {
		return unusable(path, err)
	}
	if err := f.Sync(); err != nil {
		return unusable(path, err)
	}
	return nil
}

// tailBytes holds more than the longest line.
const tailBytes = 8 << 10

// lastLine gives the newest event, with its own hash in Prev, and where the next line
// belongs.
func lastLine(f *os.File) (e Event, end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return e, 0, err
	}
	from := max(0, st.Size()-tailBytes)
	tail := make([]byte, st.Size()-from)
	if _, err := f.ReadAt(tail, from); err != nil {
		return e, 0, err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && from > 0 {
		return e, 0, errors.New("its last line is too long")
	}
	end = from + int64(whole)
	if whole == 0 {
		return Event{}, 0, nil
	}
	line := tail[bytes.LastIndexByte(tail[:whole-1], '\n')+1 : whole-1]
	if err := json.Unmarshal(line, &e); err != nil {
		return e, 0, fmt.Errorf("its last line: %w", err)
	}
	e.Prev = lineHash(line)
	return e, end, nil
}

func lineHash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Journal lists the events, oldest first. The error says which line does not follow from
// the one before it; those before it are given.
func (r Registry) Journal() ([]Event, error) {
	path := filepath.Join(r.Dir, journalFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Event{}, nil
	}
	if err != nil {
		return nil, unusable(path, err)
	}
	defer f.Close()
	out, prev := []Event{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Prev != prev || e.Seq != len(out)+1 {
			return out, unusable(path, fmt.Errorf("line %d does not follow from the one before it: the journal was changed", len(out)+1))
		}
		out, prev = append(out, e), lineHash(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		return out, unusable(path, err)
	}
	return out, nil
}
