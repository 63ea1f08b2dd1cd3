package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// Buckets of cases.db. A name of the form "a by b" holds keys only.
const (
	caseWorkflows  = "workflows"             // version's uuid -> workflow
	caseGroups     = "workflows_by_group"    // group, 0, version -> uuid
	caseSessions   = "sessions"              // number -> session
	caseIDs        = "session_ids"           // session id -> number
	caseTokens     = "session_tokens"        // SHA-256 of the token -> number
	caseVendors    = "sessions_by_vendor"    // 16 bytes of SHA-256 of vendor_data, number
	caseStatuses   = "sessions_by_status"    // place, 0, status, 0, number; see place
	caseByWorkflow = "sessions_by_workflow"  // group, 0, number
	caseDates      = "sessions_by_date"      // microseconds, number
	caseDue        = "sessions_due"          // microseconds, number
	caseMedia      = "media"                 // media id -> picture
	caseMediaOwner = "media_by_owner"        // owner, 0, media id
	caseFaces      = "faces"                 // owner, 0, id -> template
	caseLists      = "lists"                 // list's uuid -> list
	caseEntries    = "entries"               // list's uuid, 0, entry's uuid -> entry
	caseDests      = "destinations"          // uuid -> destination
	caseEvents     = "events"                // session id, 0, event id -> event
	caseDeliveries = "deliveries"            // uuid -> delivery
	caseQueue      = "deliveries_due"        // microseconds, uuid
	caseByDest     = "deliveries_by_dest"    // destination, 0, delivery
	caseBySession  = "deliveries_by_session" // session, 0, delivery
	caseKeys       = "api_keys"              // id -> key
	caseSecrets    = "secrets"               // name -> secret
	caseMediaDates = "media_by_expiry"       // microseconds, media id

	caseReplays     = "replays"          // digest of caller and Idempotency-Key -> request and answer
	caseReplayDates = "replays_by_date"  // microseconds, digest
	caseReplayAbout = "replays_by_about" // id of session or list entry, 0, digest
)

var caseBuckets = []string{caseWorkflows, caseGroups, caseSessions, caseIDs, caseTokens, caseVendors, caseStatuses, caseByWorkflow, caseDates, caseDue,
	caseMedia, caseMediaOwner, caseFaces, caseLists, caseEntries, caseDests, caseEvents, caseDeliveries, caseQueue, caseByDest, caseBySession,
	caseKeys, caseSecrets, caseMediaDates}

// keyLastSession is the meta key of the newest session's number.
const keyLastSession = "last_session"

// maxCase bounds one record of cases.db other than a picture.
const maxCase = 1 << 20

// SessionOwner is the owner of a session's biometric data in bindings: destroying
// its key destroys the session's record, pictures and templates.
func SessionOwner(id string) string { return "session/" + id }

// EntryOwner is the owner of a list entry's face.
func EntryOwner(id string) string { return "entry/" + id }

func caseBinding(kind, owner, record string) Binding {
	return Binding{Kind: kind, Subject: owner, Record: record}
}

// putCase seals v and stores it.
func (s *Store) putCase(tx *bolt.Tx, name string, key []byte, v any, b Binding) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return invalid("%s cannot be stored: %v", b.Kind, err)
	}
	if len(raw) > maxCase {
		return invalid("%s of %d bytes is longer than %d", b.Kind, len(raw), maxCase)
	}
	sealed, err := s.seal(tx, raw, b)
	if err != nil {
		return err
	}
	return bucket(tx, name).Put(key, sealed)
}

// openCase reads a stored value into v.
func (s *Store) openCase(tx *bolt.Tx, key, value []byte, v any, b Binding) error {
	raw, err := s.unseal(tx, value, b)
	if err == nil {
		err = decodeCase(raw, v)
	}
	if err != nil {
		return badRecord(b.Kind, key, err)
	}
	return nil
}

func decodeCase(raw []byte, v any) error {
	if len(raw) > maxCase {
		return fmt.Errorf("record of %d bytes is longer than %d", len(raw), maxCase)
	}
	return json.Unmarshal(raw, v)
}

// noCase is the error for what is not there.
func noCase(what, id string) error {
	return coded(agent.CodeNotFound, "there is no %s %.80q", what, id)
}

// timeKey orders by time. Times before 1970 come first, as 0.
func timeKey(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(0, t.UnixMicro())))
}

func join(parts ...string) []byte {
	var out []byte
	for i, p := range parts {
		if i > 0 {
			out = append(out, 0)
		}
		out = append(out, p...)
	}
	return out
}

// digest keeps text out of keys that others may read, and at a fixed length. It
// hides no value that can be guessed.
func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// lastPart is what follows the last 0 of a key made by join.
func lastPart(k []byte) string { return string(k[bytes.LastIndexByte(k, 0)+1:]) }

const maxMedia = 5 << 20

type mediaHeader struct {
	Owner       string    `json:"owner"`
	Kind        string    `json:"kind"`
	ContentType string    `json:"content_type"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// encodeMedia packs a picture: the length of the header, the header, the bytes.
func encodeMedia(m agent.Media) ([]byte, error) {
	h, err := json.Marshal(mediaHeader{m.Owner, m.Kind, m.ContentType, m.ExpiresAt})
	if err != nil {
		return nil, err
	}
	if len(m.Data) == 0 || len(m.Data) > maxMedia {
		return nil, fmt.Errorf("a picture of %d bytes is not 1 to %d", len(m.Data), maxMedia)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(h)+len(m.Data)), uint32(len(h)))
	return append(append(out, h...), m.Data...), nil
}

func decodeMedia(p []byte) (agent.Media, error) {
	h, rest, err := cut(p, maxHeader, 1)
	if err != nil {
		return agent.Media{}, fmt.Errorf("header: %w", err)
	}
	var head mediaHeader
	if err := json.Unmarshal(h, &head); err != nil {
		return agent.Media{}, fmt.Errorf("header: %w", err)
	}
	if len(rest) == 0 || len(rest) > maxMedia {
		return agent.Media{}, errors.New("picture is empty or too long")
	}
	return agent.Media{Owner: head.Owner, Kind: head.Kind, ContentType: head.ContentType, ExpiresAt: head.ExpiresAt, Data: bytes.Clone(rest)}, nil
}

// PutMedia stores a picture under m.ID until m.ExpiresAt. An id that is taken is
// agent.CodeConflict.
func (s *Store) PutMedia(m agent.Media) error {
	return s.grow(s.cases, func(tx *bolt.Tx) error { return s.putMedia(tx, m) })
}

// putMedia stores the picture behind the name of its owner, whom it is sealed to:
// pictures are found by their id alone.
func (s *Store) putMedia(tx *bolt.Tx, m agent.Media) error {
	if err := checkID("picture", m.ID); err != nil {
		return err
	}
	if has(bucket(tx, caseMedia), []byte(m.ID)) {
		return coded(agent.CodeConflict, "there is a picture %q already", m.ID)
	}
	m.ExpiresAt = stamp(m.ExpiresAt)
	payload, err := encodeMedia(m)
	if err != nil {
		return invalid("picture %.80q cannot be stored: %v", m.ID, err)
	}
	v, err := s.seal(tx, payload, caseBinding(KindMedia, m.Owner, m.ID))
	if err != nil {
		return err
	}
	if err := bucket(tx, caseMediaOwner).Put(join(m.Owner, m.ID), nil); err != nil {
		return err
	}
	if err := bucket(tx, caseMediaDates).Put(mediaDate(&m), nil); err != nil {
		return err
	}
	return bucket(tx, caseMedia).Put([]byte(m.ID), append(owned(m.Owner), v...))
}

func mediaDate(m *agent.Media) []byte { return append(timeKey(m.ExpiresAt), m.ID...) }

// owned is the start of a value that says whose it is.
func owned(owner string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(owner))), owner...)
}

// cutOwner is the inverse of owned.
func cutOwner(v []byte) (owner string, sealed []byte, err error) {
	n, w := binary.Uvarint(v)
	if w <= 0 || n > uint64(len(v)-w) {
		return "", nil, errors.New("cut short")
	}
	return string(v[w : w+int(n)]), v[w+int(n):], nil
}

// Media returns a picture, or agent.CodeNotFound.
func (s *Store) Media(id string) (agent.Media, error) {
	var m agent.Media
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		m, err = s.media(tx, id)
		return err
	})
	return m, err
}

// HasMedia tells whether a picture is stored, be it expired.
func (s *Store) HasMedia(id string) bool {
	there := false
	err := s.view(s.cases, func(tx *bolt.Tx) error {
		there = id != "" && has(bucket(tx, caseMedia), []byte(id))
		return nil
	})
	return err == nil && there
}

func (s *Store) media(tx *bolt.Tx, id string) (agent.Media, error) {
	v := bucket(tx, caseMedia).Get([]byte(id))
	if id == "" || v == nil {
		return agent.Media{}, noCase("picture", id)
	}
	m, err := s.openMedia(tx, id, v)
	if err != nil {
		return agent.Media{}, badRecord(KindMedia, []byte(id), err)
	}
	return m, nil
}

func (s *Store) openMedia(tx *bolt.Tx, id string, v []byte) (agent.Media, error) {
	owner, sealed, err := cutOwner(v)
	if err != nil {
		return agent.Media{}, err
	}
	p, err := s.unseal(tx, sealed, caseBinding(KindMedia, owner, id))
	if err != nil {
		return agent.Media{}, err
	}
	m, err := decodeMedia(p)
	if err == nil && m.Owner != owner {
		err = errors.New("it belongs to another owner")
	}
	m.ID = id
	return m, err
}

// dropMedia deletes one picture; one that is not there is no error.
func (s *Store) dropMedia(tx *bolt.Tx, id string) error {
	m, err := s.media(tx, id)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for name, k := range map[string][]byte{caseMedia: []byte(id), caseMediaOwner: join(m.Owner, id), caseMediaDates: mediaDate(&m)} {
		if err := bucket(tx, name).Delete(k); err != nil {
			return err
		}
	}
	return forgetOwner(tx, m.Owner)
}

// forgetOwner destroys the keys of an owner of whom nothing is left: pictures of
// requests have no session that would take the keys with it.
func forgetOwner(tx *bolt.Tx, owner string) error {
	if id, ok := strings.CutPrefix(owner, SessionOwner("")); !ok || has(bucket(tx, caseIDs), []byte(id)) ||
		countPrefix(bucket(tx, caseMediaOwner), prefix(owner)) > 0 || countPrefix(bucket(tx, caseFaces), prefix(owner)) > 0 {
		return nil
	}
	return destroyOwner(tx, owner)
}

// keepMedia sets until when the pictures of an owner are kept; zero leaves them.
func (s *Store) keepMedia(tx *bolt.Tx, owner string, until time.Time) error {
	if until.IsZero() {
		return nil
	}
	for _, id := range mediaOf(tx, owner) {
		m, err := s.media(tx, id)
		if err != nil {
			return err
		}
		if err := errors.Join(bucket(tx, caseMediaDates).Delete(mediaDate(&m)), bucket(tx, caseMedia).Delete([]byte(id))); err != nil {
			return err
		}
		m.ExpiresAt = until
		if err := s.putMedia(tx, m); err != nil {
			return err
		}
	}
	return nil
}

// mediaOf lists the ids of an owner's pictures.
func mediaOf(tx *bolt.Tx, owner string) (ids []string) {
	c, p := bucket(tx, caseMediaOwner).Cursor(), prefix(owner)
	for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, _ = c.Next() {
		ids = append(ids, lastPart(k))
	}
	return ids
}

// putFace stores a template of a session or a list entry.
func (s *Store) putFace(tx *bolt.Tx, owner string, t agent.Template) error {
	t.SubjectID = owner
	t.CreatedAt = stamp(t.CreatedAt)
	err := checkTemplate(&t)
	if err == nil {
		err = checkNorm(t.Embedding)
	}
	if err != nil {
		return invalid("face %.80q cannot be stored: %v", t.ID, err)
	}
	payload, err := encodePayload(t, t.Embedding)
	if err != nil {
		return invalid("face %q cannot be stored: %v", t.ID, err)
	}
	defer clear(payload)
	v, err := s.seal(tx, payload, caseBinding(KindFace, owner, t.ID))
	if err != nil {
		return err
	}
	return bucket(tx, caseFaces).Put(join(owner, t.ID), v)
}

// Face returns a stored template of a session or list entry, or agent.CodeNotFound.
func (s *Store) Face(owner, id string) (agent.Template, error) {
	var t agent.Template
	err := s.view(s.cases, func(tx *bolt.Tx) (err error) {
		k := join(owner, id)
		v := bucket(tx, caseFaces).Get(k)
		if v == nil {
			return noCase("face", id)
		}
		t, err = s.openFace(tx, k, v)
		return err
	})
	return t, err
}

func (s *Store) openFace(tx *bolt.Tx, k, v []byte) (agent.Template, error) {
	owner, id, err := splitTemplateKey(k)
	if err != nil {
		return agent.Template{}, badRecord(KindFace, k, err)
	}
	p, err := s.unseal(tx, v, caseBinding(KindFace, owner, id))
	if err != nil {
		return agent.Template{}, badRecord(KindFace, k, err)
	}
	defer clear(p) // the embedding in the clear
	t, err := decodeTemplate(p)
	if err == nil && (t.ID != id || t.SubjectID != owner) {
		err = errors.New("it belongs to another record")
	}
	if err != nil {
		return agent.Template{}, badRecord(KindFace, k, err)
	}
	return t, nil
}

// EachFace calls fn for every stored face of sessions and list entries, between
// transactions. SubjectID is the owner. The embedding is zeroed when fn has returned.
func (s *Store) EachFace(fn func(agent.Template) error) error {
	var batch []agent.Template
	defer func() { wipeTemplates(batch) }()
	for after := []byte(nil); ; {
		wipeTemplates(batch)
		batch = batch[:0]
		var last []byte
		err := s.view(s.cases, func(tx *bolt.Tx) error {
			c := bucket(tx, caseFaces).Cursor()
			for k, v := seekAfter(c, after); k != nil; k, v = c.Next() {
				t, err := s.openFace(tx, k, v)
				if err != nil {
					return err
				}
				batch = append(batch, t)
				if len(batch) == eachBatch {
					last = bytes.Clone(k)
					return nil
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, t := range batch {
			err := fn(t)
			clear(t.Embedding)
			if err != nil {
				return err
			}
		}
		if last == nil {
			return nil
		}
		after = last
	}
}

func wipeTemplates(ts []agent.Template) {
	for _, t := range ts {
		clear(t.Embedding)
	}
}

// dropOwner deletes the pictures and faces of an owner and destroys its keys.
func (s *Store) dropOwner(tx *bolt.Tx, owner string) error {
	for _, id := range mediaOf(tx, owner) {
		if err := s.dropMedia(tx, id); err != nil {
			return err
		}
	}
	if err := dropPrefix(bucket(tx, caseFaces), prefix(owner)); err != nil {
		return err
	}
	if err := s.dropReplaysAbout(tx, owner[strings.LastIndexByte(owner, '/')+1:]); err != nil {
		return err
	}
	return destroyOwner(tx, owner)
}

// caseRows are the buckets of cases.db with sealed values.
func caseRows() []sealedRows {
	byKey := func(kind string) func(*Store, []byte, []byte) (Binding, int, error) {
		return func(_ *Store, k, _ []byte) (Binding, int, error) { return caseBinding(kind, "", string(k)), 0, nil }
	}
	return []sealedRows{
		{bucketAudit, bindAudit},
		{caseWorkflows, byKey(KindWorkflow)},
		{caseLists, byKey(KindList)},
		{caseDests, byKey(KindDestination)},
		{caseDeliveries, byKey(KindDelivery)},
		{caseKeys, byKey(KindKey)},
		{caseSecrets, func(_ *Store, k, _ []byte) (Binding, int, error) { return caseBinding(string(k), "", ""), 0, nil }},
		{caseEntries, func(_ *Store, k, _ []byte) (Binding, int, error) {
			return caseBinding(KindEntry, EntryOwner(lastPart(k)), lastPart(k)), 0, nil
		}},
		{caseEvents, func(_ *Store, k, _ []byte) (Binding, int, error) {
			session, event, err := splitTemplateKey(k)
			return caseBinding(KindEvent, SessionOwner(session), event), 0, err
		}},
		{caseFaces, func(_ *Store, k, _ []byte) (Binding, int, error) {
			owner, id, err := splitTemplateKey(k)
			return caseBinding(KindFace, owner, id), 0, err
		}},
		{caseMedia, func(_ *Store, k, v []byte) (Binding, int, error) {
			owner, sealed, err := cutOwner(v)
			return caseBinding(KindMedia, owner, string(k)), len(v) - len(sealed), err
		}},
		{caseReplays, func(_ *Store, k, v []byte) (Binding, int, error) {
			owner, sealed, err := cutOwner(v)
			return caseBinding(KindReplay, owner, string(k)), len(v) - len(sealed), err
		}},
		{caseSessions, func(_ *Store, _, v []byte) (Binding, int, error) {
			id, sealed, err := cutOwner(v)
			return caseBinding(KindSession, SessionOwner(id), id), len(v) - len(sealed), err
		}},
	}
}
