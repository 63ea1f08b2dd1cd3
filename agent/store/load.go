package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// eachBatch is how many templates EachTemplate reads in one transaction.
const eachBatch = 256

// EachTemplate calls fn for the templates of an embedding space, of every space
// when it is empty, ordered by subject. Templates that may not be used, for want of
// consent, are left out. They come without their Quality, which Templates reads. It
// stops at the first error and returns it. fn may call the Store: it runs between
// transactions. The embedding is zeroed when fn has returned; the rest of the template
// may be kept. A template added or deleted meanwhile may or may not be seen.
func (s *Store) EachTemplate(space string, fn func(agent.Template) error) error {
	stop, batches := make(chan struct{}), make(chan chan batch, runtime.GOMAXPROCS(0))
	go s.readBatches(space, batches, stop)
	defer func() { // wait for those that are being read, and zero them
		close(stop)
		for c := range batches {
			b := <-c
			b.wipe()
		}
	}()
	for c := range batches {
		b := <-c
		if err := b.each(fn); err != nil {
			return err
		}
	}
	return nil
}

// batch is what EachTemplate reads in one transaction.
type batch struct {
	templates []agent.Template
	floats    [][]float32 // all memory of embeddings
	err       error
}

func (b *batch) wipe() {
	for _, f := range b.floats {
		clear(f)
	}
}

func (b *batch) each(fn func(agent.Template) error) error {
	defer b.wipe()
	if b.err != nil {
		return b.err
	}
	for _, t := range b.templates {
		err := fn(t)
		clear(t.Embedding)
		if err != nil {
			return err
		}
	}
	return nil
}

// readBatches reads the templates, a few batches at once, and hands the batches over in
// order, each as soon as it has begun. It ends at the last one, at an error, or on stop.
func (s *Store) readBatches(space string, out chan<- chan batch, stop <-chan struct{}) {
	defer close(out)
	for after := []byte(nil); ; {
		last, n, err := s.templateRange(after)
		if n == 0 && err == nil {
			return
		}
		c := make(chan batch, 1)
		select {
		case <-stop:
			return
		case out <- c:
		}
		if err != nil {
			c <- batch{err: err}
			return
		}
		from := after
		go func() { c <- s.readBatch(space, from, last, n) }()
		after = last
	}
}

// templateRange counts the next templates, up to a batch of them, and gives the last key.
func (s *Store) templateRange(after []byte) (last []byte, n int, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketTemplates).Cursor()
		for k, _ := seekAfter(c, after); k != nil; k, _ = c.Next() {
			if n++; n == eachBatch {
				last = bytes.Clone(k)
				return nil
			}
			last = k
		}
		last = bytes.Clone(last)
		return nil
	})
	return last, n, err
}

// readBatch reads the templates of a space behind one key and up to another, about n.
func (s *Store) readBatch(space string, after, last []byte, n int) (b batch) {
	b.err = s.view(s.templates, func(tx *bolt.Tx) error {
		r := reader{s: s, vault: s.templates.vault, ring: keyring{vault: s.templates.vault, tx: tx}, left: n}
		defer func() {
			clear(r.plain[:cap(r.plain)])
			b.floats = r.all
		}()
		c := bucket(tx, bucketTemplates).Cursor()
		for k, v := seekAfter(c, after); k != nil && bytes.Compare(k, last) <= 0; k, v = c.Next() {
			t, may, err := r.template(k, v)
			switch {
			case err != nil:
				return err
			case may && (space == "" || t.Space == space):
				b.templates = append(b.templates, t)
			}
		}
		return nil
	})
	return b
}

// reader opens templates in the order of their keys: it unwraps a subject's keys and
// reads its consent once, and decrypts into memory that it uses again.
type reader struct {
	s     *Store
	vault *vault
	ring  keyring
	left  int // templates that are likely to come

	subject string // whose templates are being read
	may     bool   // they may be used

	plain  []byte         // room for one payload
	all    [][]float32    // memory of embeddings
	floats []float32      // what is free of its last piece
	last   agent.Template // whose strings are used again
}

// template opens one; false when it may not be used.
func (r *reader) template(k, v []byte) (agent.Template, bool, error) {
	if err := r.meet(k); err != nil || !r.may {
		return agent.Template{}, false, err
	}
	r.left--
	if cap(r.plain) < len(v) { // a payload is shorter than its value: it never moves
		clear(r.plain[:cap(r.plain)])
		r.plain = make([]byte, 0, 2*len(v))
	}
	subject, id, err := splitTemplateKey(k)
	var p []byte
	if err == nil {
		p, err = r.vault.unsealTo(r.plain, &r.ring, v, r.s.bound(templateBinding(r.subject, id)))
	}
	var t agent.Template
	if err == nil {
		t, err = r.decode(p)
	}
	if err == nil && (t.ID != id || t.SubjectID != subject) {
		err = errors.New("it belongs to another record")
	}
	if err != nil {
		return agent.Template{}, false, badRecord("template", k, err)
	}
	r.last = t
	return t, true, nil
}

// meet reads the subject of a key, unless it is that of the last one.
func (r *reader) meet(k []byte) error {
	subject, _, ok := bytes.Cut(k, []byte{0})
	if !ok {
		return badRecord("template", k, errors.New("its key is malformed"))
	}
	if r.subject == string(subject) && r.subject != "" {
		return nil
	}
	v := bucket(r.ring.tx, bucketSubjects).Get(subject)
	if v == nil {
		return errNoSubject(string(subject))
	}
	id := string(subject)
	p, err := r.vault.unsealTo(nil, &r.ring, v, r.s.bound(subjectBinding(id)))
	if err != nil {
		return badRecord("subject", subject, err)
	}
	sub, err := subjectOf(subject, p)
	if err != nil {
		return err
	}
	r.subject, r.may = id, r.s.Usable(sub)
	return nil
}

// decode is decodeTemplate without the quality.
func (r *reader) decode(p []byte) (t agent.Template, err error) {
	h, raw, err := splitPayload(p)
	if err != nil {
		return t, err
	}
	if t = r.last; !briefHeader(h, &t) {
		t = agent.Template{}
		if err := json.Unmarshal(h, &t); err != nil {
			return t, fmt.Errorf("header: %w", err)
		}
		t.Quality = agent.Quality{}
	}
	t.Embedding = r.room(len(raw) / 4)
	for i := range t.Embedding {
		t.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return t, checkTemplate(&t)
}

// room is memory for one embedding, out of one piece for those that are likely to come.
func (r *reader) room(dim int) []float32 {
	if len(r.floats) < dim {
		r.floats = make([]float32, dim*max(1, r.left+1))
		r.all = append(r.all, r.floats)
	}
	e := r.floats[:dim:dim]
	r.floats = r.floats[dim:]
	return e
}

// briefHeader reads the header that encodePayload makes of a template, all but the
// quality, an order of magnitude faster than encoding/json. It is for headers that were
// authenticated. It reports false when the header looks any other way, as one of another
// version may: that is left to encoding/json. t holds the template before, whose
// strings are used again.
func briefHeader(h []byte, t *agent.Template) bool {
	ok := true
	text := func(name string, s *string) {
		var v []byte
		if v, h, ok = briefText(h, name, ok); ok && *s != string(v) {
			*s = string(v)
		}
	}
	text(`{"id":"`, &t.ID)
	text(`,"subject_id":"`, &t.SubjectID)
	text(`,"model_id":"`, &t.ModelID)
	text(`,"space":"`, &t.Space)
	const quality, created = `,"quality":{`, `},"created_at":"`
	at := bytes.IndexByte(h, '}') // the quality is flat, and all numbers
	if !ok || at < 0 || !bytes.HasPrefix(h, []byte(quality)) || bytes.ContainsAny(h[len(quality):at], `{\`) {
		return false
	}
	v, rest, ok := briefText(h[at:], created, true)
	t.Quality = agent.Quality{}
	return ok && string(rest) == "}" && t.CreatedAt.UnmarshalText(v) == nil
}

// briefText takes name and the text behind it, up to its closing quote, off h. Text that
// JSON writes in another way than it is has no brief form.
func briefText(h []byte, name string, before bool) (v, rest []byte, ok bool) {
	if !before || !bytes.HasPrefix(h, []byte(name)) {
		return nil, h, false
	}
	h = h[len(name):]
	for i, c := range h {
		switch {
		case c == '"':
			return h[:i], h[i+1:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, h, false
		}
	}
	return nil, h, false
}
