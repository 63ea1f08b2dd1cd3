package store

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/retention"
)

// images deletes pictures whose time is over: the one that each was given when it was
// stored, and the one that its application's policy gives it now, which may be shorter.
func (w *sweeper) images(ctx context.Context) error {
	for _, walk := range []imageWalk{w.byExpiry, w.byPolicy} {
		for after := []byte(nil); ; {
			if err := ctx.Err(); err != nil {
				return err
			}
			last, err := w.imageBatch(walk, after)
			if err != nil {
				return err
			}
			if last == nil {
				break
			}
			after = last
		}
	}
	return nil
}

// imageWalk returns pictures that may go from after on, and where to go on; nil at the
// end.
type imageWalk func(tx *bolt.Tx, after []byte) (due []dueImage, last []byte, err error)

type dueImage struct{ id, owner string }

// imageBatch deletes what a walk finds, but nothing under a legal hold.
func (w *sweeper) imageBatch(walk imageWalk, after []byte) (last []byte, err error) {
	w.holding.RLock() // a hold that is placed meanwhile waits, and finds what is left
	defer w.holding.RUnlock()
	hs, err := w.Holds()
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, h := range hs {
		held[string(holdKey(h.Kind, h.ID))] = true
	}
	var due []dueImage
	if err := w.view(w.cases, func(tx *bolt.Tx) (err error) {
		due, last, err = walk(tx, after)
		return err
	}); err != nil || len(due) == 0 {
		return last, err
	}
	gone := 0
	err = w.update(w.cases, func(tx *bolt.Tx) error {
		for _, d := range due {
			if w.imageHeld(tx, d.owner, held) {
				continue
			}
			if err := w.dropMedia(tx, d.id); err != nil {
				return err
			}
			gone++
		}
		if gone == 0 {
			return nil
		}
		return w.audit(tx, agent.AuditEvent{Action: agent.AuditErase, Actor: "retention", Detail: map[string]string{"images": strconv.Itoa(gone)}})
	})
	if err == nil {
		w.out.Images, w.out.Held = w.out.Images+gone, w.out.Held+len(due)-gone
	}
	return last, err
}

// imageHeld tells whether a hold covers an owner's pictures: one on the session, or on
// the person whom it is about.
func (s *Store) imageHeld(tx *bolt.Tx, owner string, held map[string]bool) bool {
	id, ok := strings.CutPrefix(owner, SessionOwner(""))
	if !ok || len(held) == 0 {
		return false
	}
	if held[string(holdKey(HoldSession, id))] {
		return true
	}
	v, err := s.sessionByID(tx, id)
	return err == nil && v.VendorData != "" && held[string(holdKey(HoldSubject, v.VendorData))]
}

// byExpiry finds pictures by the time that they were given.
func (w *sweeper) byExpiry(tx *bolt.Tx, after []byte) (due []dueImage, last []byte, err error) {
	c, end := bucket(tx, caseMediaDates).Cursor(), timeKey(w.now.Add(time.Microsecond))
	for k, _ := seekAfter(c, after); k != nil && bytes.Compare(k[:8], end) < 0; k, _ = c.Next() {
		id := string(k[8:])
		owner, _, err := cutOwner(bucket(tx, caseMedia).Get([]byte(id)))
		if err != nil {
			return nil, nil, badRecord(KindMedia, []byte(id), err)
		}
		if due = append(due, dueImage{id, owner}); len(due) == sweepBatch {
			return due, bytes.Clone(k), nil
		}
	}
	return due, nil, nil
}

// byPolicy finds the pictures of sessions that their application would not keep any
// longer. The picture of a list entry has only its own time.
func (w *sweeper) byPolicy(tx *bolt.Tx, after []byte) (due []dueImage, last []byte, err error) {
	c, n := bucket(tx, caseMediaOwner).Cursor(), 0
	for k, _ := seekAfter(c, after); k != nil; n++ {
		owner := string(k[:bytes.IndexByte(k, 0)])
		if n == sweepBatch {
			return due, []byte(owner), nil // nothing of this owner yet: its keys come after its name
		}
		over, err := w.imagesOver(tx, owner)
		if err != nil {
			return nil, nil, err
		}
		for ; k != nil && bytes.HasPrefix(k, prefix(owner)); k, _ = c.Next() {
			if over {
				due = append(due, dueImage{lastPart(k), owner})
			}
		}
	}
	return due, nil, nil
}

func (w *sweeper) imagesOver(tx *bolt.Tx, owner string) (bool, error) {
	id, ok := strings.CutPrefix(owner, SessionOwner(""))
	if !ok {
		return false, nil
	}
	v, err := w.sessionByID(tx, id)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	until := imagesUntil(w.policy(agent.ApplicationOr(v.Application)).Images, &v)
	return !until.IsZero() && !w.now.Before(until), nil
}

// imagesUntil is the end of the time that a policy gives a session's pictures; zero is
// none beyond what they were given. Without images what is decided has an hour, the most
// that a link to a picture lives.
func imagesUntil(p retention.Period, v *cases.Session) time.Time {
	switch {
	case p == retention.Unlimited:
		return time.Time{}
	case p != retention.Off:
		return v.CreatedAt.Add(time.Duration(p))
	case v.Unfinished() || v.Status == cases.InReview:
		return time.Time{}
	}
	return v.UpdatedAt.Add(time.Hour)
}
