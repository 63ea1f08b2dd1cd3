package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"postern/agent"
)

// An export is lines of JSON: a head, then one enrolled person a line, with the
// consent that allows the use. Like a backup it is encrypted as a whole by the
// caller before it goes anywhere.
const (
	exportFormat  = 1
	maxExportLine = 4 << 20
)

type exportHead struct {
	Format int       `json:"postern_enrolments"`
	Device string    `json:"device"`
	At     time.Time `json:"at"`
}

// exportedSubject is a line of an export.
type exportedSubject struct {
	agent.Subject
	Templates []exportedTemplate `json:"templates"`
}

type exportedTemplate struct {
	agent.Template
	Embedding agent.Embedding `json:"embedding"`
}

// Refused is a person that was not exported or imported.
type Refused struct {
	Subject string `json:"subject"`
	Reason  string `json:"reason"`
}

// Transfer says whom an export or import took along.
type Transfer struct {
	Taken   []string  `json:"taken"`
	Skipped []string  `json:"skipped"` // import: are here already, no older
	Refused []Refused `json:"refused"`
}

func newTransfer() Transfer {
	return Transfer{Taken: []string{}, Skipped: []string{}, Refused: []Refused{}}
}

// Export writes the enrolments of these subjects, of all without any. Nobody leaves
// the device without a consent that holds.
func (s *Store) Export(w io.Writer, ids []string, actor string) (Transfer, error) {
	out := newTransfer()
	if len(ids) == 0 {
		var err error
		if ids, err = s.allSubjects(); err != nil {
			return out, err
		}
	}
	take := []agent.Subject{}
	for _, id := range ids {
		sub, err := s.Subject(id)
		if err != nil {
			return out, err
		}
		if !sub.Consent.Given() || !s.Usable(sub) {
			out.Refused = append(out.Refused, Refused{id, "no consent that holds is recorded"})
			continue
		}
		take = append(take, sub)
	}
	if len(take) == 0 {
		return out, coded(agent.CodeNotFound, "nobody is enrolled here with a consent that holds, so nobody can be exported")
	}
	enc := json.NewEncoder(w)
	if err := enc.Encode(exportHead{exportFormat, s.opts.Device, s.now()}); err != nil {
		return out, err
	}
	for _, sub := range take {
		if err := s.exportOne(enc, sub, actor); err != nil {
			return out, err
		}
		out.Taken = append(out.Taken, sub.ID)
	}
	return out, nil
}

func (s *Store) exportOne(enc *json.Encoder, sub agent.Subject, actor string) error {
	ts, err := s.Templates(sub.ID)
	if err != nil {
		return err
	}
	line := exportedSubject{Subject: sub, Templates: []exportedTemplate{}}
	for _, t := range ts {
		line.Templates = append(line.Templates, exportedTemplate{t, t.Embedding})
	}
	// The entry comes first: better one too many than an export that nobody knows of.
	err = s.Audit(agent.AuditEvent{Action: agent.AuditExport, Actor: actor, Subject: sub.ID})
	if err == nil {
		err = enc.Encode(line)
	}
	for _, t := range ts {
		clear(t.Embedding)
	}
	return err
}

func (s *Store) allSubjects() (ids []string, err error) {
	for after := ""; ; {
		page, err := s.Subjects(after, maxLimit)
		if err != nil {
			return nil, err
		}
		for _, sub := range page {
			ids = append(ids, sub.ID)
		}
		if len(page) < maxLimit {
			return ids, nil
		}
		after = page[len(page)-1].ID
	}
}

// Import enrols the people of an export under this device's own keys, one
// transaction a person, so it can be repeated. It refuses who was erased here after
// the export's enrolment was made, templates of another embedding space than space,
// and who has no consent that holds. Who is here already with the same or a newer
// enrolment is left alone.
func (s *Store) Import(r io.Reader, space, actor string) (Transfer, error) {
	out := newTransfer()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxExportLine)
	if !lines.Scan() {
		return out, badExport(1, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	if err := decodeExportHead(lines.Bytes()); err != nil {
		return out, badExport(1, err)
	}
	for n := 2; lines.Scan(); n++ {
		line, err := decodeExported(lines.Bytes())
		clear(lines.Bytes())
		if err != nil {
			return out, badExport(n, err)
		}
		if err := s.importOne(line, space, actor, &out); err != nil {
			return out, err
		}
	}
	if err := lines.Err(); err != nil {
		return out, badExport(0, err)
	}
	return out, nil
}

func badExport(line int, err error) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("line %d is not of an export of enrolments", line),
		Fix: "nothing of this line was taken; lines before it were", Err: err}
}

func decodeExportHead(b []byte) error {
	var h exportHead
	if err := json.Unmarshal(b, &h); err != nil {
		return err
	}
	if h.Format != exportFormat {
		return fmt.Errorf("its format %d is not %d", h.Format, exportFormat)
	}
	return nil
}

func decodeExported(b []byte) (exportedSubject, error) {
	var e exportedSubject
	if err := json.Unmarshal(b, &e); err != nil {
		return e, err
	}
	if e.Version == 0 {
		return e, errors.New("the enrolment has no version")
	}
	return e, agent.ValidateSubject(e.ID, e.Name)
}

// importOne reports what is wrong with the person in out, and what is with the disk
// as an error.
func (s *Store) importOne(e exportedSubject, space, actor string, out *Transfer) error {
	refuse := func(reason string) error {
		out.Refused = append(out.Refused, Refused{e.ID, reason})
		return nil
	}
	if here, err := s.Subject(e.ID); err == nil && here.Version >= e.Version {
		out.Skipped = append(out.Skipped, e.ID)
		return nil
	}
	if !e.Consent.Given() || !s.Usable(e.Subject) {
		return refuse("no consent that holds came along")
	}
	ts := make([]agent.Template, len(e.Templates))
	for i, t := range e.Templates {
		ts[i] = t.Template
		ts[i].Embedding = t.Embedding
		if space != "" && t.Space != space {
			return refuse(fmt.Sprintf("a template is of embedding space %.80q, this device compares in %q", t.Space, space))
		}
	}
	_, _, err := s.Enrol(Enrolment{Subject: e.Subject, Templates: ts, Replace: true, Actor: actor, imported: true})
	for _, t := range ts {
		clear(t.Embedding)
	}
	switch agent.ErrorCode(err) {
	case "":
		out.Taken = append(out.Taken, e.ID)
		return nil
	case agent.CodeConflict, agent.CodeInvalid:
		return refuse(err.Error())
	}
	return err
}
