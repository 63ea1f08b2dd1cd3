package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// On a hub the people of its store are desired state: each change gets a number, in the
// transaction that makes it, and devices ask for what changed after the number that
// they have. Only the newest change of a thing is kept, so the feed is as long as there
// are people and erasures.

// Kinds of changed things, in front of what changed.
const (
	changeSubject = "s" // and the subject's id
	changeErased  = "e" // and the tag of an erasure
)

// keepStamps is how many versions can be told from those of a hub that went another way.
const keepStamps = 1 << 16

// Access says which devices get a person. The zero value is all of them.
type Access struct {
	Devices []string `json:"devices,omitempty"`
	Groups  []string `json:"groups,omitempty"`
}

// Allows reports whether a device of a group gets the person.
func (a Access) Allows(device, group string) bool {
	if len(a.Devices) == 0 && len(a.Groups) == 0 {
		return true
	}
	return slices.Contains(a.Devices, device) || group != "" && slices.Contains(a.Groups, group)
}

// Change is one thing of desired state as it is now.
type Change struct {
	Version   uint64
	Tag       string           // whom it is about, by the fleet's key
	Subject   agent.Subject    // zero where somebody was erased
	Templates []agent.Template // none of somebody whose templates may not be used
	Access    Access
	Erased    *Erasure
}

// OpenFeed makes the store a hub's: from now on changes are numbered. People who are
// there already are the first changes. Repeating it changes nothing.
func (s *Store) OpenFeed() error {
	err := s.update(s.templates, func(tx *bolt.Tx) error {
		meta := bucket(tx, bucketMeta)
		if meta.Get([]byte(keyFeed)) != nil {
			return nil
		}
		if err := setNumber(meta, keyFeed, 0); err != nil {
			return err
		}
		if bucket(tx, bucketKeys).Get([]byte(rowFleet)) == nil {
			key, err := s.templates.vault.random(32)
			if err != nil {
				return err
			}
			if err := s.putFleetKey(tx, key); err != nil {
				return err
			}
		}
		if _, err := s.nextStamp(tx, 0); err != nil { // so that no version is 0, which is nothing at all
			return err
		}
		return bucket(tx, bucketSubjects).ForEach(func(k, _ []byte) error { return s.touch(tx, changeSubject+string(k)) })
	})
	if err == nil && s.FleetKey() == nil {
		err = s.readFleetKey()
	}
	return err
}

// touch numbers a change; on a device it does nothing.
func (s *Store) touch(tx *bolt.Tx, what string) error {
	if bucket(tx, bucketMeta).Get([]byte(keyFeed)) == nil {
		return nil
	}
	if err := s.supersede(tx, what); err != nil {
		return err
	}
	changes, changed := bucket(tx, bucketChanges), bucket(tx, bucketChanged)
	v, err := s.nextStamp(tx, 0)
	if err != nil {
		return err
	}
	if err := changes.Put(seqKey(v), []byte(what)); err != nil {
		return err
	}
	tx.OnCommit(func() { s.news() })
	return changed.Put([]byte(what), seqKey(v))
}

// nextStamp begins a new version, at least the given one.
func (s *Store) nextStamp(tx *bolt.Tx, atLeast uint64) (uint64, error) {
	meta, stamps := bucket(tx, bucketMeta), bucket(tx, bucketStamps)
	v, err := number(meta, keyFeed)
	if err != nil {
		return 0, err
	}
	v = max(v+1, atLeast)
	s.randMu.Lock()
	defer s.randMu.Unlock()
	mark := make([]byte, StampSize)
	if _, err := io.ReadFull(s.opts.Rand, mark); err != nil {
		return 0, err
	}
	if v > keepStamps {
		if err := dropStamp(tx, v-keepStamps, v); err != nil {
			return 0, err
		}
	}
	if err := stamps.Put(seqKey(v), mark); err != nil {
		return 0, err
	}
	return v, setNumber(meta, keyFeed, v)
}

// dropStamp deletes the stamp of a version that is long past, unless a change still has
// that version: a device that reads the whole list comes by it.
func dropStamp(tx *bolt.Tx, version, now uint64) error {
	if version+keepStamps > now || bucket(tx, bucketChanges).Get(seqKey(version)) != nil {
		return nil
	}
	return bucket(tx, bucketStamps).Delete(seqKey(version))
}

// supersede takes a thing's last change off the list.
func (s *Store) supersede(tx *bolt.Tx, what string) error {
	changes, changed := bucket(tx, bucketChanges), bucket(tx, bucketChanged)
	old := bytes.Clone(changed.Get([]byte(what)))
	if old == nil {
		return nil
	}
	now, err := number(bucket(tx, bucketMeta), keyFeed)
	if err != nil {
		return err
	}
	was, err := parseSeq(old)
	if err != nil {
		return err
	}
	return errors.Join(changes.Delete(old), changed.Delete([]byte(what)), dropStamp(tx, was, now))
}

// untouch forgets that a person who is erased has ever changed: the feed has their id.
func (s *Store) untouch(tx *bolt.Tx, id string) error {
	return errors.Join(s.supersede(tx, changeSubject+id), bucket(tx, bucketAccess).Delete([]byte(id)))
}

// FeedPosition is the newest version of desired state.
func (s *Store) FeedPosition() (p Position, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		p.Version, err = number(bucket(tx, bucketMeta), keyFeed)
		p.Stamp = bytes.Clone(bucket(tx, bucketStamps).Get(seqKey(p.Version)))
		return err
	})
	return p, err
}

// Stamp is that of a version of desired state, nil when it is not known any more.
func (s *Store) Stamp(version uint64) (stamp []byte, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		stamp = bytes.Clone(bucket(tx, bucketStamps).Get(seqKey(version)))
		return nil
	})
	return stamp, err
}

// Stamped tells whether desired state has ever been at a position, as far as is known.
func (s *Store) Stamped(p Position) (ok bool, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		v := bucket(tx, bucketStamps).Get(seqKey(p.Version))
		ok = v != nil && bytes.Equal(v, p.Stamp)
		return nil
	})
	return ok, err
}

// maxRaise bounds by how much a device's word may move the versions.
const maxRaise = 1 << 40

// RaiseFeed makes the next version newer than one that a device has: this hub was
// restored from a copy.
func (s *Store) RaiseFeed(above uint64) error {
	return s.update(s.templates, func(tx *bolt.Tx) error {
		v, err := number(bucket(tx, bucketMeta), keyFeed)
		if err != nil || above < v {
			return err
		}
		if above-v > maxRaise {
			return invalid("version %d of desired state is too far above %d", above, v)
		}
		_, err = s.nextStamp(tx, above+1)
		return err
	})
}

// Changes lists what has changed after a version, oldest first, at most limit, and the
// version up to which the list goes: the newest when nothing was cut off. The
// templates' embeddings are the caller's to wipe.
func (s *Store) Changes(after uint64, limit int) (out []Change, to Position, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		if to.Version, err = number(bucket(tx, bucketMeta), keyFeed); err != nil {
			return err
		}
		c := bucket(tx, bucketChanges).Cursor()
		for k, v := seekAfter(c, seqKey(after)); k != nil; k, v = c.Next() {
			if len(out) == limit {
				to.Version = out[len(out)-1].Version
				break
			}
			ch, err := s.change(tx, k, string(v))
			if err != nil {
				return err
			}
			out = append(out, ch)
		}
		to.Stamp = bytes.Clone(bucket(tx, bucketStamps).Get(seqKey(to.Version)))
		return nil
	})
	return out, to, err
}

// ToldErasure is an erasure with the version of desired state that tells of it.
type ToldErasure struct {
	Erasure
	Change uint64
}

// FeedErasures lists all erasures, oldest first.
func (s *Store) FeedErasures() ([]ToldErasure, error) {
	out := []ToldErasure{}
	err := s.view(s.templates, func(tx *bolt.Tx) error {
		return bucket(tx, bucketChanges).ForEach(func(k, v []byte) error {
			tag, ok := strings.CutPrefix(string(v), changeErased)
			if !ok {
				return nil
			}
			e, err := s.fleetErasure(tx, tag)
			if err != nil {
				return err
			}
			n, err := parseSeq(k)
			out = append(out, ToldErasure{e, n})
			return err
		})
	})
	return out, err
}

func (s *Store) change(tx *bolt.Tx, k []byte, what string) (Change, error) {
	v, err := parseSeq(k)
	if err != nil {
		return Change{}, err
	}
	ch := Change{Version: v}
	if tag, ok := strings.CutPrefix(what, changeErased); ok {
		e, err := s.fleetErasure(tx, tag)
		ch.Tag, ch.Erased = tag, &e
		return ch, err
	}
	id, ok := strings.CutPrefix(what, changeSubject)
	if !ok {
		return Change{}, damaged(s.templates.name(), fmt.Errorf("change %d is of no kind", v))
	}
	ch.Tag = s.FleetTag(id)
	if ch.Subject, err = s.subject(tx, id); err != nil {
		return ch, err
	}
	if ch.Access, err = access(tx, id); err != nil {
		return ch, err
	}
	if e, err := s.fleetErasure(tx, ch.Tag); err != nil || ch.Subject.Version <= e.Version {
		ch.Subject, ch.Erased = agent.Subject{}, &e // kept under a hold, and not to be used
		return ch, err
	}
	if s.Usable(ch.Subject) {
		ch.Templates, err = s.templatesOf(tx, id)
	}
	return ch, err
}

// templatesOf reads a subject's templates.
func (s *Store) templatesOf(tx *bolt.Tx, id string) (out []agent.Template, err error) {
	p := prefix(id)
	c := bucket(tx, bucketTemplates).Cursor()
	for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
		t, err := s.openTemplate(tx, k, v)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func access(tx *bolt.Tx, id string) (a Access, err error) {
	if v := bucket(tx, bucketAccess).Get([]byte(id)); v != nil {
		err = json.Unmarshal(v, &a)
	}
	return a, err
}

// Access tells which devices get a person.
func (s *Store) Access(id string) (a Access, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		if err := requireSubject(tx, id); err != nil {
			return err
		}
		a, err = access(tx, id)
		return err
	})
	return a, err
}

// SetAccess says which devices get a person; the others are told to forget them.
func (s *Store) SetAccess(id string, a Access, actor string) error {
	v, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.update(s.templates, func(tx *bolt.Tx) error {
		if err := requireSubject(tx, id); err != nil {
			return err
		}
		if err := bucket(tx, bucketAccess).Put([]byte(id), v); err != nil {
			return err
		}
		if err := s.touch(tx, changeSubject+id); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditConfigure, Actor: actor, Subject: id, Detail: map[string]string{
			"devices": strings.Join(a.Devices, ","), "groups": strings.Join(a.Groups, ",")}})
	})
}
