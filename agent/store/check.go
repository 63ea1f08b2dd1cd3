package store

import (
	"bytes"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// maxProblems bounds what Check reports for each file.
const maxProblems = 20

// Check reads everything and verifies bbolt's structure, every record, and what
// must hold between records: templates have subjects, Seq has no gap, the outbox
// is exactly what is not acknowledged, indexes and counters agree. It returns
// one agent.CodeStorage error with the problems found, or nil. Writers wait while
// their file is being read: bbolt's check shares the list of free pages with them.
func (s *Store) Check() error {
	return errors.Join(
		s.checkFile(s.templates, s.checkTemplates),
		s.checkFile(s.results, s.checkResults),
		s.checkFile(s.cases, s.checkCases),
	)
}

func (s *Store) checkFile(d *dbFile, records func(*bolt.Tx, *problems)) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	var p problems
	err := s.view(d, func(tx *bolt.Tx) error {
		checkPages(tx, d, &p)
		if p.none() {
			records(tx, &p)
		}
		// bbolt's check runs on a goroutine of its own, where a page outside the
		// file would end the process, so it comes when all pages have been read.
		if p.none() {
			checkBolt(tx, &p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.error(d)
}

// problems collects findings, up to a bound.
type problems struct {
	errs []error
	more int
}

func (p *problems) none() bool { return len(p.errs) == 0 }

func (p *problems) add(format string, args ...any) {
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *problems) error(d *dbFile) error {
	if p.none() {
		return nil
	}
	if p.more > 0 {
		p.errs = append(p.errs, fmt.Errorf("and %d more", p.more))
	}
	return damaged(d.name(), errors.Join(p.errs...))
}

// checkPages verifies that the file is as long as it says and that the runs of
// pages add up. bbolt's check trusts the length of a run.
func checkPages(tx *bolt.Tx, d *dbFile, p *problems) {
	if fi, err := d.handle.Stat(); err != nil {
		p.add("size: %w", err)
		return
	} else if fi.Size() < tx.Size() {
		p.add("it has %d bytes of %d", fi.Size(), tx.Size())
		return
	}
	if err := verifyTree(d.handle, uint64(tx.ID())); err != nil {
		p.add("%w", err)
		return
	}
	end := int(tx.Size()) / d.db.Info().PageSize
	for id := 0; id < end; {
		info, err := tx.Page(id)
		if err != nil {
			p.add("page %d: %w", id, err)
			return
		}
		id++
		if info.Type != "free" {
			id += info.OverflowCount
		}
		if id > end {
			p.add("page %d reaches beyond the end", info.ID)
		}
	}
}

func checkBolt(tx *bolt.Tx, p *problems) {
	for err := range tx.Check() {
		p.add("%w", err)
	}
}

func (s *Store) checkTemplates(tx *bolt.Tx, p *problems) {
	subjects, templates := bucket(tx, bucketSubjects), bucket(tx, bucketTemplates)
	count := eachRow(subjects, p, func(k, v []byte) error {
		_, err := s.openSubject(tx, k, v)
		return err
	})
	p.counted("subjects", count, tx, keySubjects)
	count = eachRow(templates, p, func(k, v []byte) error {
		t, err := s.openTemplate(tx, k, v)
		if err != nil {
			return err
		}
		return checkPlace(tx, t)
	})
	p.counted("templates", count, tx, keyTemplates)
}

func checkPlace(tx *bolt.Tx, t agent.Template) error {
	if !has(bucket(tx, bucketSubjects), []byte(t.SubjectID)) {
		return fmt.Errorf("template %q has no subject", t.ID)
	}
	if dim, err := number(bucket(tx, bucketSpaces), t.Space); err != nil || dim != uint64(len(t.Embedding)) {
		return fmt.Errorf("template %q has %d values, its space %d", t.ID, len(t.Embedding), dim)
	}
	return nil
}

func (s *Store) checkResults(tx *bolt.Tx, p *problems) {
	ids, index := bucket(tx, bucketIDs), bucket(tx, bucketBySubject)
	var named uint64
	count := eachRow(bucket(tx, bucketResults), p, func(k, v []byte) error {
		r, err := s.openResult(tx, k, v)
		if err != nil {
			return err
		}
		if r.SubjectID != "" {
			named++
		}
		return checkIndexed(ids, index, k, r)
	})
	p.counted("results", count, tx, keyResults)
	p.equal("result ids", eachRow(ids, p, nil), count)
	p.equal("results of subjects", eachRow(index, p, nil), named)
	eachRow(bucket(tx, bucketThrottle), p, func(k, v []byte) error {
		_, err := s.openThrottle(tx, k, v)
		return err
	})
	checkOutbox(tx, p)
	s.checkRest(tx, p)
}

// checkRest reads the records of results.db that are no results.
func (s *Store) checkRest(tx *bolt.Tx, p *problems) {
	eachRow(bucket(tx, bucketHolds), p, func(k, v []byte) error {
		_, err := s.openHold(tx, k, v)
		return err
	})
	eachRow(bucket(tx, bucketPolicies), p, func(k, v []byte) error {
		_, err := s.openPolicy(tx, k, v)
		return err
	})
	p.counted("telemetry rows", eachRow(bucket(tx, bucketTelemetry), p, func(k, v []byte) error {
		_, err := s.openTelemetry(tx, k, v)
		return err
	}), tx, keyTelemetry)
}

func checkIndexed(ids, index *bolt.Bucket, k []byte, r agent.Result) error {
	if !bytes.Equal(ids.Get([]byte(r.ID)), k) {
		return fmt.Errorf("result %d is not found by its id", r.Seq)
	}
	if r.SubjectID != "" && !has(index, bySubjectKey(r.SubjectID, r.Seq)) {
		return fmt.Errorf("result %d is not found by its subject", r.Seq)
	}
	return nil
}

// templatesShape verifies what can be told of templates.db without a key.
func templatesShape(tx *bolt.Tx, p *problems) {
	p.counted("subjects", eachRow(bucket(tx, bucketSubjects), p, nil), tx, keySubjects)
	p.counted("templates", eachRow(bucket(tx, bucketTemplates), p, nil), tx, keyTemplates)
	needBuckets(tx, bucketSpaces, bucketKeys, bucketOwners)
}

// needBuckets panics, which the caller's guard reports, when one is missing.
func needBuckets(tx *bolt.Tx, names ...string) {
	for _, n := range names {
		bucket(tx, n)
	}
}

// resultsShape is the same for results.db.
func resultsShape(tx *bolt.Tx, p *problems) {
	count := eachRow(bucket(tx, bucketResults), p, nil)
	p.counted("results", count, tx, keyResults)
	p.equal("result ids", eachRow(bucket(tx, bucketIDs), p, nil), count)
	needBuckets(tx, bucketBySubject, bucketThrottle, bucketHolds, bucketPolicies, bucketKeys, bucketOwners)
	p.counted("telemetry rows", eachRow(bucket(tx, bucketTelemetry), p, nil), tx, keyTelemetry)
	checkOutbox(tx, p)
}

// checkOutbox verifies that the outbox is exactly the results after the mark.
func checkOutbox(tx *bolt.Tx, p *problems) {
	var c counters
	last, acked := c.read(tx, keyLast), c.read(tx, keyAcked)
	if c.err != nil {
		p.add("counters: %w", c.err)
		return
	}
	results := bucket(tx, bucketResults)
	count := eachRow(bucket(tx, bucketOutbox), p, func(k, v []byte) error {
		if !has(results, k) || !bytes.Equal(v, []byte{outboxResult}) || bytes.Compare(k, seqKey(acked)) <= 0 {
			return fmt.Errorf("outbox row %s stands for nothing that is to be sent", quoteKey(k))
		}
		return nil
	})
	p.counted("outbox rows", count, tx, keyPending)
	var pending uint64
	k, _ := results.Cursor().Last()
	if k != nil && bytes.Compare(k, seqKey(last)) > 0 {
		p.add("result %s is beyond the newest, %d", quoteKey(k), last)
	}
	cur := results.Cursor()
	for k, _ := cur.Seek(seqKey(acked + 1)); k != nil; k, _ = cur.Next() {
		pending++
	}
	p.equal("results to be sent", pending, count)
}

// eachRow calls fn, if any, for every row and returns how many there are.
func eachRow(b *bolt.Bucket, p *problems, fn func(k, v []byte) error) (n uint64) {
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		n++
		if fn == nil {
			continue
		}
		if err := fn(k, v); err != nil {
			p.add("%w", err)
		}
	}
	return n
}

func (p *problems) equal(what string, got, want uint64) {
	if got != want {
		p.add("%s: %d, expected %d", what, got, want)
	}
}

// counted compares a count with the counter that should hold it.
func (p *problems) counted(what string, got uint64, tx *bolt.Tx, key string) {
	want, err := number(bucket(tx, bucketMeta), key)
	if err != nil {
		p.add("%s: %w", what, err)
		return
	}
	p.equal(what, got, want)
}
