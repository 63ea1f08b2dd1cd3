package store

import (
	"bytes"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
)

// ProvideBlocklists makes the blocklists that an application always has, one an entry
// type. Repeating it changes nothing.
func (s *Store) ProvideBlocklists(application string) error {
	all, err := s.Lists()
	if err != nil {
		return err
	}
	for _, t := range cases.EntryTypes {
		there := slices.ContainsFunc(all, func(l cases.List) bool {
			return l.Type == cases.Blocklist && l.EntryType == t && sameApplication(l.Application, application)
		})
		if there {
			continue
		}
		name := "Blocklist: " + strings.ReplaceAll(t, "_", " ")
		_, err := s.CreateList(cases.List{Application: application, Name: name, Type: cases.Blocklist, EntryType: t})
		if err != nil && agent.ErrorCode(err) != agent.CodeConflict { // another caller was quicker
			return err
		}
	}
	return nil
}

// CreateList stores a new list. A name that is taken is agent.CodeConflict.
func (s *Store) CreateList(l cases.List) (cases.List, error) {
	if err := s.fillID(&l.UUID); err != nil {
		return l, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		l.CreatedAt = s.now()
		l.UpdatedAt = l.CreatedAt
		return s.putList(tx, &l)
	})
	return l, err
}

// UpdateList changes a list.
func (s *Store) UpdateList(uuid string, fn func(*cases.List) error) (cases.List, error) {
	var l cases.List
	err := s.grow(s.cases, func(tx *bolt.Tx) (err error) {
		if l, err = s.list(tx, uuid); err != nil {
			return err
		}
		if err = fn(&l); err != nil {
			return err
		}
		l.UUID, l.UpdatedAt = uuid, s.now()
		return s.putList(tx, &l)
	})
	return l, err
}

func (s *Store) putList(tx *bolt.Tx, l *cases.List) error {
	all, err := s.lists(tx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.UUID != l.UUID && o.Name == l.Name && sameApplication(o.Application, l.Application) {
			return coded(agent.CodeConflict, "there is a list named %.80q already", l.Name)
		}
	}
	return s.putCase(tx, caseLists, []byte(l.UUID), l, caseBinding(KindList, "", l.UUID))
}

func (s *Store) list(tx *bolt.Tx, uuid string) (cases.List, error) {
	var l cases.List
	v := bucket(tx, caseLists).Get([]byte(uuid))
	if uuid == "" || v == nil {
		return l, noCase("list", uuid)
	}
	return l, s.openCase(tx, []byte(uuid), v, &l, caseBinding(KindList, "", uuid))
}

func (s *Store) lists(tx *bolt.Tx) ([]cases.List, error) {
	out := []cases.List{}
	err := bucket(tx, caseLists).ForEach(func(k, _ []byte) error {
		l, err := s.list(tx, string(k))
		out = append(out, l)
		return err
	})
	return out, err
}

// List returns a list, or agent.CodeNotFound.
func (s *Store) List(uuid string) (cases.List, error) {
	var l cases.List
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		l, err = s.list(tx, uuid)
		return err
	})
	return l, err
}

// Lists returns all lists, oldest first.
func (s *Store) Lists() ([]cases.List, error) {
	var out []cases.List
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		out, err = s.lists(tx)
		return err
	})
	return out, err
}

// DeleteList deletes a list with its entries and returns those.
func (s *Store) DeleteList(uuid string) ([]cases.Entry, error) {
	var gone []cases.Entry
	err := s.update(s.cases, func(tx *bolt.Tx) error {
		if _, err := s.list(tx, uuid); err != nil {
			return err
		}
		var err error
		if gone, err = s.entries(tx, uuid); err != nil {
			return err
		}
		for i := range gone {
			if err := s.dropEntry(tx, &gone[i]); err != nil {
				return err
			}
		}
		return bucket(tx, caseLists).Delete([]byte(uuid))
	})
	return gone, err
}

// AddEntry stores an entry of a list with its face and picture, if it has them. A
// value that the list has already is agent.CodeConflict.
func (s *Store) AddEntry(e cases.Entry, face *agent.Template, picture *agent.Media) (cases.Entry, error) {
	if err := s.fillID(&e.UUID); err != nil {
		return e, err
	}
	err := s.grow(s.cases, func(tx *bolt.Tx) error {
		if _, err := s.list(tx, e.ListUUID); err != nil {
			return err
		}
		all, err := s.entries(tx, e.ListUUID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(o cases.Entry) bool { return o.Value == e.Value }) {
			return coded(agent.CodeConflict, "the list has this value already")
		}
		e.CreatedAt = s.now()
		return s.insertEntry(tx, &e, face, picture)
	})
	return e, err
}

func (s *Store) insertEntry(tx *bolt.Tx, e *cases.Entry, face *agent.Template, picture *agent.Media) error {
	owner := EntryOwner(e.UUID)
	if picture != nil {
		m := *picture
		m.Owner = owner
		e.Media = m.ID
		if err := s.putMedia(tx, m); err != nil {
			return err
		}
	}
	if face != nil {
		f := *face
		f.ID = e.UUID // a copy of its own: it outlives the session that it came from
		if err := s.putFace(tx, owner, f); err != nil {
			return err
		}
	}
	return s.putCase(tx, caseEntries, join(e.ListUUID, e.UUID), e, caseBinding(KindEntry, owner, e.UUID))
}

func (s *Store) entries(tx *bolt.Tx, list string) ([]cases.Entry, error) {
	out := []cases.Entry{}
	c, p := bucket(tx, caseEntries).Cursor(), prefix(list)
	for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
		e, err := s.openEntry(tx, k, v)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (s *Store) openEntry(tx *bolt.Tx, k, v []byte) (cases.Entry, error) {
	var e cases.Entry
	id := lastPart(k)
	err := s.openCase(tx, k, v, &e, caseBinding(KindEntry, EntryOwner(id), id))
	return e, err
}

// Entries lists the entries of a list, oldest first.
func (s *Store) Entries(list string) ([]cases.Entry, error) {
	var out []cases.Entry
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		if _, err = s.list(tx, list); err == nil {
			out, err = s.entries(tx, list)
		}
		return err
	})
	return out, err
}

// DeleteEntry deletes one entry with its face and returns it.
func (s *Store) DeleteEntry(list, uuid string) (cases.Entry, error) {
	var e cases.Entry
	err := s.update(s.cases, func(tx *bolt.Tx) (err error) {
		k := join(list, uuid)
		v := bucket(tx, caseEntries).Get(k)
		if v == nil {
			return noCase("list entry", uuid)
		}
		if e, err = s.openEntry(tx, k, v); err != nil {
			return err
		}
		return s.dropEntry(tx, &e)
	})
	return e, err
}

func (s *Store) dropEntry(tx *bolt.Tx, e *cases.Entry) error {
	if err := s.dropOwner(tx, EntryOwner(e.UUID)); err != nil {
		return err
	}
	return bucket(tx, caseEntries).Delete(join(e.ListUUID, e.UUID))
}
