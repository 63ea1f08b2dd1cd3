package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// AppendResult stores a decision and queues it for the hub, in one transaction,
// and returns it as stored: with Device, Epoch and the next Seq. The same transaction
// counts a failed attempt, or ends the counting (see Throttle). It returns when
// the result is durable; only then may its effects follow. On an error the
// caller must not act on the decision.
//
// An empty ID gets a UUIDv7 and a zero At the present time. Appending the very
// same result again returns the stored one; another result under its ID is
// agent.CodeConflict. Concurrent calls share commits.
func (s *Store) AppendResult(r agent.Result) (agent.Result, error) {
	a, err := s.prepareResult(r)
	if err != nil {
		return agent.Result{}, err
	}
	s.group.submit(a, s.commitGroup)
	if a.err != nil {
		return agent.Result{}, a.err
	}
	return a.result, nil
}

func (s *Store) prepareResult(r agent.Result) (*appending, error) {
	if err := s.fillID(&r.ID); err != nil {
		return nil, err
	}
	if r.At.IsZero() {
		r.At = s.opts.Now()
	}
	r.At = stamp(r.At)
	r.Device, r.Epoch, r.Seq = "", "", 0
	r.Decision.Warnings = append([]agent.Warning{}, r.Decision.Warnings...)
	if err := checkResult(&r); err != nil {
		return nil, invalid("result %.80q cannot be stored: %v", r.ID, err)
	}
	payload, err := encodePayload(r, nil)
	if err != nil {
		return nil, invalid("result %q cannot be stored: %v", r.ID, err)
	}
	return &appending{result: r, payload: payload, turn: make(chan bool, 1)}, nil
}

// checkResult holds for what is stored and for what is read.
func checkResult(r *agent.Result) error {
	if err := checkID("result", r.ID); err != nil {
		return err
	}
	switch r.Kind {
	case agent.KindMatch, agent.KindVerify, agent.KindIdentify:
	default:
		return fmt.Errorf("unknown kind %.40q", r.Kind)
	}
	switch r.Decision.Status {
	case agent.Approved, agent.InReview, agent.Declined:
	default:
		return fmt.Errorf("unknown status %.40q", r.Decision.Status)
	}
	if r.Application != "" {
		if err := checkID("application", r.Application); err != nil {
			return err
		}
	}
	if sc := r.Decision.Score; !(sc >= 0 && sc <= 100) { // also when it is NaN
		return fmt.Errorf("score %v is not 0 to 100", sc)
	}
	if l := r.Decision.Liveness; l != nil && !(l.Score >= 0 && l.Score <= 100) {
		return fmt.Errorf("liveness score %v is not 0 to 100", l.Score)
	}
	if r.SubjectID == "" {
		return nil
	}
	return agent.ValidateSubject(r.SubjectID, "")
}

// commitGroup writes a group of results in one transaction. A result that is
// refused on its own takes no Seq and does not disturb the others.
func (s *Store) commitGroup(batch []*appending) {
	err := s.growResults(func(tx *bolt.Tx) error {
		for _, a := range batch {
			a.err = nil // it may be tried a second time
			refused, err := s.appendOne(tx, a)
			if err != nil {
				return err
			}
			a.err = refused
		}
		return nil
	})
	if err == nil {
		return
	}
	for _, a := range batch {
		if a.err == nil {
			a.err = err
		}
	}
}

// appendOne writes one result. refused is about this result alone and comes
// before anything is written; err is about the file.
func (s *Store) appendOne(tx *bolt.Tx, a *appending) (refused, err error) {
	ids := appendBucket(tx, bucketIDs)
	if k := ids.Get([]byte(a.result.ID)); k != nil {
		return s.repeated(tx, a, k), nil
	}
	meta := bucket(tx, bucketMeta)
	last, err := number(meta, keyLast)
	if err != nil {
		return nil, err
	}
	s.position(&a.result, last+1)
	v, refused := s.seal(tx, a.payload, s.resultBinding(a.result.Seq))
	if refused != nil {
		return refused, nil
	}
	if err := putResult(tx, &a.result, v); err != nil {
		return nil, err
	}
	if err := s.countAttempt(tx, &a.result); err != nil {
		return nil, err
	}
	return nil, setNumber(meta, keyLast, a.result.Seq)
}

func putResult(tx *bolt.Tx, r *agent.Result, value []byte) error {
	key := seqKey(r.Seq)
	if r.SubjectID != "" {
		if err := bucket(tx, bucketBySubject).Put(bySubjectKey(r.SubjectID, r.Seq), []byte{}); err != nil {
			return err
		}
	}
	meta := bucket(tx, bucketMeta)
	return errors.Join(
		addNumber(meta, keyResults, 1),
		addNumber(meta, keyPending, 1),
		appendBucket(tx, bucketResults).Put(key, value),
		appendBucket(tx, bucketIDs).Put([]byte(r.ID), key),
		appendBucket(tx, bucketOutbox).Put(key, []byte{outboxResult}),
	)
}

// repeated settles an append whose ID is there already.
func (s *Store) repeated(tx *bolt.Tx, a *appending, key []byte) error {
	seq, err := parseSeq(key)
	if err != nil {
		return badRecord("result", []byte(a.result.ID), err)
	}
	p, err := s.unseal(tx, bucket(tx, bucketResults).Get(key), s.resultBinding(seq))
	if err != nil {
		return badRecord("result", []byte(a.result.ID), err)
	}
	if !bytes.Equal(p, a.payload) {
		return coded(agent.CodeConflict, "another result has the id %q already", a.result.ID)
	}
	s.position(&a.result, seq)
	return nil
}

func (s *Store) position(r *agent.Result, seq uint64) {
	r.Device, r.Epoch, r.Seq = s.opts.Device, s.results.epoch, seq
}

func (s *Store) resultBinding(seq uint64) Binding {
	return Binding{Kind: KindResult, Record: s.results.epoch + "/" + strconv.FormatUint(seq, 10)}
}

func bindResult(s *Store, k, _ []byte) (Binding, int, error) {
	seq, err := parseSeq(k)
	return s.resultBinding(seq), 0, err
}

// Result returns the result with this id, or agent.CodeNotFound.
func (s *Store) Result(id string) (agent.Result, error) {
	var r agent.Result
	err := s.view(s.results, func(tx *bolt.Tx) (err error) {
		k := bucket(tx, bucketIDs).Get([]byte(id))
		if k == nil {
			return coded(agent.CodeNotFound, "there is no result %.80q", id)
		}
		r, err = s.openResult(tx, k, bucket(tx, bucketResults).Get(k))
		return err
	})
	if err != nil {
		return agent.Result{}, err
	}
	return r, nil
}

// ResultQuery selects results. The zero value selects the newest.
type ResultQuery struct {
	Before    uint64       // only results with a smaller Seq; 0 means all
	Limit     int          // at most this many, 1..1000; 0 means 100
	SubjectID string       // only of this subject; quick, there is an index
	Status    agent.Status // only with this status; reads what it skips
}

// Results lists results, newest first. The next page is the same query with
// Before set to the last Seq of this one; the end is a page shorter than Limit.
// Results appended meanwhile do not disturb the paging.
func (s *Store) Results(q ResultQuery) ([]agent.Result, error) {
	q.Limit = clampLimit(q.Limit)
	out := []agent.Result{}
	for {
		page, next, err := s.scan(q)
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		q.Limit -= len(page)
		if q.Limit == 0 || next == 0 {
			return out, nil
		}
		q.Before = next
	}
}

// scanBatch is how many rows a listing reads in one transaction: a long read
// transaction holds up the writer when the file has to grow.
const scanBatch = 512

// scan reads the rows of q in one transaction. next is where to go on; 0 when
// there is nothing left.
func (s *Store) scan(q ResultQuery) (out []agent.Result, next uint64, err error) {
	err = s.view(s.results, func(tx *bolt.Tx) error {
		results := bucket(tx, bucketResults)
		w := newBackwards(tx, q)
		for n := 0; w.key != nil && len(out) < q.Limit && n < scanBatch; n++ {
			r, err := s.openResult(tx, w.key, results.Get(w.key))
			if err != nil {
				return err
			}
			if q.Status == "" || r.Decision.Status == q.Status {
				out = append(out, r)
			}
			next = r.Seq
			w.prev()
		}
		if w.key == nil {
			next = 0
		}
		return nil
	})
	return out, next, err
}

// backwards walks the sequence keys of all results, or of one subject's, from
// the newest.
type backwards struct {
	c      *bolt.Cursor
	prefix []byte
	key    []byte // of the present result; nil at the end
}

func newBackwards(tx *bolt.Tx, q ResultQuery) *backwards {
	w := &backwards{c: bucket(tx, bucketResults).Cursor()}
	if q.SubjectID != "" {
		w.c, w.prefix = bucket(tx, bucketBySubject).Cursor(), prefix(q.SubjectID)
	}
	before := q.Before
	if before == 0 {
		before = 1<<64 - 1 // no Seq gets there
	}
	k, _ := w.c.Seek(binary.BigEndian.AppendUint64(bytes.Clone(w.prefix), before))
	if k == nil {
		k, _ = w.c.Last()
	} else {
		k, _ = w.c.Prev()
	}
	w.take(k)
	return w
}

func (w *backwards) prev() {
	k, _ := w.c.Prev()
	w.take(k)
}

func (w *backwards) take(k []byte) {
	if k != nil && bytes.HasPrefix(k, w.prefix) && len(k) == len(w.prefix)+8 {
		w.key = k[len(w.prefix):]
		return
	}
	w.key = nil
}

func (s *Store) openResult(tx *bolt.Tx, k, v []byte) (agent.Result, error) {
	seq, err := parseSeq(k)
	if err != nil {
		return agent.Result{}, badRecord("result", k, err)
	}
	p, err := s.unseal(tx, v, s.resultBinding(seq))
	if err != nil {
		return agent.Result{}, badRecord("result", k, err)
	}
	return s.resultOf(k, seq, p)
}

func (s *Store) resultOf(k []byte, seq uint64, payload []byte) (agent.Result, error) {
	r, err := decodeResult(payload)
	if err != nil {
		return agent.Result{}, badRecord("result", k, err)
	}
	s.position(&r, seq)
	return r, nil
}

// quoteKey shows a key to a person: sequence numbers as such, the rest quoted.
func quoteKey(k []byte) string {
	if len(k) == 8 && k[0] == 0 {
		return strconv.FormatUint(binary.BigEndian.Uint64(k), 10)
	}
	return fmt.Sprintf("%.220q", k)
}
