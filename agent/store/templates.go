package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// Enrolment is what Enrol stores together.
type Enrolment struct {
	Subject   agent.Subject
	Templates []agent.Template
	Replace   bool   // drop the templates that the subject has
	Actor     string // who enrols, for the audit log; default Options.Actor

	imported bool // from another device
}

// Enrol puts the subject and adds the templates in one transaction, and returns
// both as stored. PutSubject and AddTemplates say what may be left empty and
// what repeating does.
func (s *Store) Enrol(e Enrolment) (agent.Subject, []agent.Template, error) {
	if err := agent.ValidateSubject(e.Subject.ID, e.Subject.Name); err != nil {
		return agent.Subject{}, nil, err
	}
	rows, err := s.prepare(e.Subject.ID, e.Templates)
	defer wipeRows(rows)
	if err != nil {
		return agent.Subject{}, nil, err
	}
	var sub agent.Subject
	err = s.grow(s.templates, func(tx *bolt.Tx) (err error) {
		if sub, err = s.putSubject(tx, e.Subject); err != nil {
			return err
		}
		if e.Replace {
			if _, err = dropTemplates(tx, sub.ID); err != nil {
				return err
			}
		}
		if err := s.mayEnrol(sub); err != nil {
			return err
		}
		action := agent.AuditEnrol
		if e.imported {
			action = agent.AuditImport
		}
		return s.addTemplates(tx, sub.ID, rows, agent.AuditEvent{Action: action, Actor: e.Actor})
	})
	if err != nil {
		return agent.Subject{}, nil, err
	}
	return sub, templatesOf(rows), nil
}

// AddTemplates adds templates to a subject, all or none, and returns them as
// stored. An empty ID gets a UUIDv7, a zero CreatedAt the present time. A
// template with an ID that the subject has already replaces that one, so
// repeating with the same IDs is safe. An unknown subject is agent.CodeNotFound;
// more than Options.MaxTemplates in all, or an embedding of another length than
// its space's, is agent.CodeInvalid.
func (s *Store) AddTemplates(subject string, ts ...agent.Template) ([]agent.Template, error) {
	rows, err := s.prepare(subject, ts)
	defer wipeRows(rows)
	if err != nil {
		return nil, err
	}
	err = s.grow(s.templates, func(tx *bolt.Tx) error {
		sub, err := s.subject(tx, subject)
		if err == nil {
			err = s.mayEnrol(sub)
		}
		if err != nil {
			return err
		}
		return s.addTemplates(tx, subject, rows, agent.AuditEvent{Action: agent.AuditEnrol})
	})
	if err != nil {
		return nil, err
	}
	return templatesOf(rows), nil
}

// Templates returns a subject's templates in the order of their ids, which for
// UUIDv7 is the order of enrolment. An unknown subject is agent.CodeNotFound.
func (s *Store) Templates(subject string) ([]agent.Template, error) {
	out := []agent.Template{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		if err := requireSubject(tx, subject); err != nil {
			return err
		}
		p := prefix(subject)
		c := bucket(tx, bucketTemplates).Cursor()
		for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
			t, err := s.openTemplate(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteTemplate deletes one template of a subject. A subject or template that
// is not there is agent.CodeNotFound.
func (s *Store) DeleteTemplate(subject, template string) error {
	s.holding.RLock()
	defer s.holding.RUnlock()
	if err := s.deletable(HoldSubject, subject); err != nil {
		return err
	}
	return s.update(s.templates, func(tx *bolt.Tx) error {
		b, key := bucket(tx, bucketTemplates), templateKey(subject, template)
		if template == "" || !has(b, key) {
			return coded(agent.CodeNotFound, "subject %.140q has no template %.80q", subject, template)
		}
		if err := b.Delete(key); err != nil {
			return err
		}
		if err := addNumber(bucket(tx, bucketMeta), keyTemplates, -1); err != nil {
			return err
		}
		if err := s.touch(tx, changeSubject+subject); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Subject: subject, Detail: map[string]string{"template": template}})
	})
}

// row is a template on its way into the file.
type row struct {
	template agent.Template
	payload  []byte
}

func templatesOf(rows []row) []agent.Template {
	out := make([]agent.Template, len(rows))
	for i, r := range rows {
		out[i] = r.template
	}
	return out
}

// wipeRows zeroes the payloads: they hold embeddings in the clear.
func wipeRows(rows []row) {
	for _, r := range rows {
		clear(r.payload)
	}
}

// prepare completes, checks and encodes templates outside the transaction.
func (s *Store) prepare(subject string, ts []agent.Template) ([]row, error) {
	if err := agent.ValidateSubject(subject, ""); err != nil {
		return nil, err
	}
	rows := make([]row, len(ts))
	for i, t := range ts {
		if t.SubjectID != "" && t.SubjectID != subject {
			return nil, invalid("template %q is of subject %q, not %q", t.ID, t.SubjectID, subject)
		}
		t.SubjectID = subject
		var err error
		if rows[i], err = s.prepareOne(t); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func (s *Store) prepareOne(t agent.Template) (row, error) {
	if err := s.fillID(&t.ID); err != nil {
		return row{}, err
	}
	if t.CreatedAt.IsZero() {
		t.CreatedAt = s.opts.Now()
	}
	t.CreatedAt = stamp(t.CreatedAt)
	err := checkTemplate(&t)
	if err == nil {
		err = checkNorm(t.Embedding)
	}
	if err != nil {
		return row{}, invalid("template %.80q of subject %q cannot be stored: %v", t.ID, t.SubjectID, err)
	}
	payload, err := encodePayload(t, t.Embedding)
	if err != nil {
		return row{}, invalid("template %q of subject %q cannot be stored: %v", t.ID, t.SubjectID, err)
	}
	return row{t, payload}, nil
}

// maxSpace bounds the names of models and embedding spaces.
const maxSpace = 256

// checkTemplate holds for what is stored and for what is read.
func checkTemplate(t *agent.Template) error {
	if err := checkID("template", t.ID); err != nil {
		return err
	}
	if t.Space == "" || len(t.Space) > maxSpace || strings.ContainsFunc(t.Space, notPrintable) {
		return fmt.Errorf("embedding space %.300q is not 1 to %d printable characters", t.Space, maxSpace)
	}
	if t.ModelID == "" || len(t.ModelID) > maxSpace {
		return fmt.Errorf("model id %.300q is not 1 to %d characters", t.ModelID, maxSpace)
	}
	if n := len(t.Embedding); n == 0 || n > maxDim {
		return fmt.Errorf("an embedding of %d values is not 1 to %d", n, maxDim)
	}
	return checkFinite(t.Embedding)
}

// checkNorm refuses an embedding that would never match: Cosine takes vectors
// of length 1.
func checkNorm(e agent.Embedding) error {
	var sum float64
	for _, v := range e {
		sum += float64(v) * float64(v)
	}
	if math.Abs(sum-1) > 0.01 {
		return fmt.Errorf("the embedding has length %.3g, not 1", math.Sqrt(sum))
	}
	return nil
}

func (s *Store) addTemplates(tx *bolt.Tx, subject string, rows []row, deed agent.AuditEvent) error {
	b, added := bucket(tx, bucketTemplates), 0
	for _, r := range rows {
		if err := fixDimension(tx, r.template); err != nil {
			return err
		}
		key := templateKey(subject, r.template.ID)
		if !has(b, key) {
			added++
		}
		bind := templateBinding(subject, r.template.ID)
		bind.Model = r.template.ModelID
		value, err := s.seal(tx, r.payload, bind)
		if err != nil {
			return err
		}
		if err := b.Put(key, value); err != nil {
			return err
		}
	}
	if n := countPrefix(b, prefix(subject)); added > 0 && n > s.opts.MaxTemplates {
		return &agent.Error{Code: agent.CodeInvalid,
			Message: fmt.Sprintf("subject %q would have %d templates, the most is %d", subject, n, s.opts.MaxTemplates),
			Fix:     "delete a template first or enrol anew"}
	}
	if err := addNumber(bucket(tx, bucketMeta), keyTemplates, added); err != nil {
		return err
	}
	if err := s.touch(tx, changeSubject+subject); err != nil {
		return err
	}
	deed.Subject, deed.Detail = subject, map[string]string{"templates": fmt.Sprint(len(rows))}
	return s.audit(tx, deed)
}

// fixDimension lets the first template of a space decide how long its
// embeddings are.
func fixDimension(tx *bolt.Tx, t agent.Template) error {
	b := bucket(tx, bucketSpaces)
	want, err := number(b, t.Space)
	if err != nil {
		return err
	}
	got := uint64(len(t.Embedding))
	switch {
	case want == 0:
		return setNumber(b, t.Space, got)
	case want != got:
		return invalid("an embedding of space %q has %d values, not %d", t.Space, want, got)
	}
	return nil
}

// dropTemplates deletes all templates of a subject. Keys are collected first:
// deleting under a cursor makes it skip.
func dropTemplates(tx *bolt.Tx, subject string) (int, error) {
	var keys [][]byte
	b, p := bucket(tx, bucketTemplates), prefix(subject)
	c := b.Cursor()
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(keys), addNumber(bucket(tx, bucketMeta), keyTemplates, -len(keys))
}

func templateBinding(subject, template string) Binding {
	return Binding{Kind: KindTemplate, Subject: subject, Record: template}
}

func bindTemplate(_ *Store, k, _ []byte) (Binding, int, error) {
	subject, id, err := splitTemplateKey(k)
	return templateBinding(subject, id), 0, err
}

func (s *Store) openTemplate(tx *bolt.Tx, k, v []byte) (agent.Template, error) {
	subject, id, err := splitTemplateKey(k)
	if err != nil {
		return agent.Template{}, badRecord("template", k, err)
	}
	p, err := s.unseal(tx, v, templateBinding(subject, id))
	if err != nil {
		return agent.Template{}, badRecord("template", k, err)
	}
	defer clear(p) // the embedding in the clear, not left to the garbage collector
	return templateOf(k, subject, id, p)
}

func templateOf(k []byte, subject, id string, payload []byte) (agent.Template, error) {
	t, err := decodeTemplate(payload)
	if err == nil && (t.ID != id || t.SubjectID != subject) {
		err = errors.New("it belongs to another record")
	}
	if err != nil {
		return agent.Template{}, badRecord("template", k, err)
	}
	return t, nil
}
