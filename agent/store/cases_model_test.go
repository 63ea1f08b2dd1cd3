package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/cases"
)

// modelList is a list with the values of its entries.
type modelList struct {
	list    cases.List
	entries map[string]cases.Entry
}

// forget says that a session has gone with all that was its own.
func (m *caseModel) forget(gone cases.Session) {
	m.sessions = slices.DeleteFunc(m.sessions, func(c cases.Session) bool { return c.ID == gone.ID })
	delete(m.faces, SessionOwner(gone.ID))
	delete(m.media, fmt.Sprint("m", gone.Number-1))
	maps.DeleteFunc(m.known, func(_ string, d cases.Delivery) bool { return d.SessionID == gone.ID })
}

func (m *caseModel) hold(t *rapid.T) {
	i, ok := m.pick(t)
	if !ok {
		t.Skip()
	}
	id := m.sessions[i].ID
	if m.heldOf[id] {
		_, err := m.s.Release(HoldSession, id, "counsel")
		wantErr(t, err, "")
		delete(m.heldOf, id)
		return
	}
	_, err := m.s.Hold(Hold{Kind: HoldSession, ID: id, Reason: "case", By: "counsel"})
	wantErr(t, err, "")
	m.heldOf[id] = true
}

func (m *caseModel) of(vendor string) (out []cases.Session, held bool) {
	for _, c := range m.sessions {
		if c.VendorData == vendor {
			out = append(out, c)
			held = held || m.heldOf[c.ID]
		}
	}
	return out, held
}

// erase takes a person with all sessions about them, or none.
func (m *caseModel) erase(t *rapid.T) {
	vendor := rapid.SampledFrom(modelVendors[1:]).Draw(t, "vendor")
	_, err := m.s.PutSubject(agent.Subject{ID: vendor})
	wantErr(t, err, "")
	_, _, err = m.s.Erase(vendor, "")
	about, held := m.of(vendor)
	if held {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	for _, c := range about {
		m.forget(c)
	}
}

func (m *caseModel) rotate(t *rapid.T) {
	_, err := m.s.Rotate(rapid.SampledFrom(levels).Draw(t, "level"), "")
	wantErr(t, err, "")
}

func (m *caseModel) compact(t *rapid.T) { wantErr(t, m.s.Compact(), "") }

// backup restores at once: everything is as it was.
func (m *caseModel) backup(t *rapid.T) {
	var b bytes.Buffer
	_, err := m.s.Backup(&b, "")
	wantErr(t, err, "")
	o := m.s.opts
	wantErr(t, m.s.Close(), "")
	_, err = Restore(&b, o, true)
	wantErr(t, err, "")
	m.s, err = Open(o)
	wantErr(t, err, "")
}

// deliver makes some of the deliveries that are due.
func (m *caseModel) deliver(t *rapid.T) {
	ok := rapid.Bool().Draw(t, "ok")
	due, _, err := m.s.DueDeliveries(time.Now().Add(time.Hour), nil, 3)
	wantErr(t, err, "")
	for _, d := range due {
		got, err := m.s.RecordDelivery(d.Delivery.UUID, cases.Try{At: modelTime, Status: 200}, func(v *cases.Delivery) {
			if v.State = cases.Failed; ok {
				v.State = cases.Delivered
			}
		})
		wantErr(t, err, "")
		if got.Attempts != d.Delivery.Attempts+1 {
			t.Fatalf("%d attempts after %d", got.Attempts, d.Delivery.Attempts)
		}
		if m.known != nil {
			m.known[got.UUID] = got
		}
	}
}

func (m *caseModel) list(t *rapid.T) {
	name := rapid.SampledFrom([]string{"L1", "L2", "L3"}).Draw(t, "name")
	l, err := m.s.CreateList(cases.List{Name: name, Type: cases.Custom, EntryType: cases.EntryFace})
	if slices.ContainsFunc(slices.Collect(maps.Values(m.lists)), func(o *modelList) bool { return o.list.Name == name }) {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	m.lists[l.UUID] = &modelList{l, map[string]cases.Entry{}}
}

func (m *caseModel) drawList(t *rapid.T) *modelList {
	if len(m.lists) == 0 {
		t.Skip()
	}
	return m.lists[rapid.SampledFrom(slices.Sorted(maps.Keys(m.lists))).Draw(t, "list")]
}

func (m *caseModel) unlist(t *rapid.T) {
	l := m.drawList(t)
	gone, err := m.s.DeleteList(l.list.UUID)
	wantErr(t, err, "")
	if len(gone) != len(l.entries) {
		t.Fatalf("%d entries went, want %d", len(gone), len(l.entries))
	}
	for _, e := range l.entries {
		m.forgetEntry(e)
	}
	delete(m.lists, l.list.UUID)
}

func (m *caseModel) forgetEntry(e cases.Entry) {
	delete(m.faces, EntryOwner(e.UUID))
	delete(m.media, e.Media)
}

func (m *caseModel) entry(t *rapid.T) {
	l := m.drawList(t)
	value := rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "value")
	f, picture := testTemplate(1), agent.Media{ID: fmt.Sprint("e", value, l.list.UUID[24:]), ContentType: "image/jpeg", Data: []byte("x"), ExpiresAt: modelTime.AddDate(1, 0, 0)}
	if _, taken := m.media[picture.ID]; taken && l.entries[value].UUID == "" {
		t.Skip()
	}
	e, err := m.s.AddEntry(cases.Entry{ListUUID: l.list.UUID, Value: value}, &f, &picture)
	if _, ok := l.entries[value]; ok {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	l.entries[value] = e
	m.faces[EntryOwner(e.UUID)] = true
	m.media[e.Media] = picture.ExpiresAt
}

func (m *caseModel) unentry(t *rapid.T) {
	l := m.drawList(t)
	value := rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "value")
	e, ok := l.entries[value]
	_, err := m.s.DeleteEntry(l.list.UUID, e.UUID)
	if !ok {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	m.forgetEntry(e)
	delete(l.entries, value)
}

func (m *caseModel) workflow(t *rapid.T) {
	group := ""
	if len(m.workflows) > 0 && rapid.Bool().Draw(t, "another version") {
		group = rapid.SampledFrom(slices.Sorted(maps.Keys(m.workflows))).Draw(t, "group")
	}
	w, err := m.s.PutWorkflow(cases.Workflow{GroupID: group, Status: cases.Published, Label: "w", Default: rapid.Bool().Draw(t, "default")})
	wantErr(t, err, "")
	if w.Version != len(m.workflows[w.GroupID])+1 {
		t.Fatalf("version %d after %d", w.Version, len(m.workflows[w.GroupID]))
	}
	_, err = m.s.PutWorkflow(w)
	wantErr(t, err, agent.CodeConflict) // it is published
	m.workflows[w.GroupID] = append(m.workflows[w.GroupID], w)
}

func (m *caseModel) unworkflow(t *rapid.T) {
	if len(m.workflows) == 0 {
		t.Skip()
	}
	group := rapid.SampledFrom(slices.Sorted(maps.Keys(m.workflows))).Draw(t, "group")
	wantErr(t, m.s.DeleteWorkflow(group), "")
	wantErr(t, m.s.DeleteWorkflow(group), agent.CodeNotFound)
	delete(m.workflows, group)
}

var modelKeys = []string{"k1", "k2"}

func (m *caseModel) key(t *rapid.T) {
	id := rapid.SampledFrom(modelKeys).Draw(t, "key")
	_, err := m.s.CreateAPIKey(agent.APIKey{ID: id, Digest: make([]byte, 32)})
	if _, ok := m.keys[id]; ok {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	m.keys[id] = false
}

func (m *caseModel) revoke(t *rapid.T) {
	id := rapid.SampledFrom(modelKeys).Draw(t, "key")
	_, err := m.s.RevokeAPIKey(id)
	if _, ok := m.keys[id]; !ok {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	m.keys[id] = true
}

func (m *caseModel) prune(t *rapid.T) {
	at := modelTime.AddDate(rapid.SampledFrom([]int{0, 2, 11}).Draw(t, "years"), 0, 0)
	w := &sweeper{Store: m.s, now: at, out: &Swept{}}
	wantErr(t, w.images(context.Background()), "")
	n := w.out.Images
	was := len(m.media)
	maps.DeleteFunc(m.media, func(id string, expiry time.Time) bool { return !expiry.After(at) && !m.mediaHeld(id) })
	if n != was-len(m.media) {
		t.Fatalf("%d pictures pruned, want %d", n, was-len(m.media))
	}
}

// mediaHeld tells whether a picture is of a session under a hold.
func (m *caseModel) mediaHeld(id string) bool {
	return slices.ContainsFunc(m.sessions, func(c cases.Session) bool { return m.heldOf[c.ID] && id == fmt.Sprint("m", c.Number-1) })
}

// die lets the process end at one of the transactions of a verb and goes on with what it
// leaves.
func (m *caseModel) die(t *rapid.T) {
	vendor := rapid.SampledFrom(modelVendors[1:]).Draw(t, "vendor")
	_, err := m.s.PutSubject(agent.Subject{ID: vendor})
	wantErr(t, err, "")
	verb := rapid.SampledFrom([]string{"erase", "root", "store", "owners", "compact", "update"}).Draw(t, "verb")
	left := rapid.IntRange(0, 10).Draw(t, "transactions")
	failpoint = func(string) error {
		if left--; left < 0 {
			return errKilled
		}
		return nil
	}
	switch verb {
	case "erase":
		_, _, err = m.s.Erase(vendor, "")
	case "compact":
		err = m.s.Compact()
	case "update":
		err = nil
		for _, c := range m.sessions {
			_, err = m.s.UpdateSession(c.ID, func(*cases.Session) (cases.Attachments, error) { return cases.Attachments{}, errKilled })
		}
	default:
		_, err = m.s.Rotate(Level(verb), "")
	}
	failpoint = nil
	m.kill(t)
	about, held := m.of(vendor)
	for _, c := range about {
		_, now := m.s.Session(c.ID)
		is := agent.ErrorCode(now) != agent.CodeNotFound
		if verb == "erase" && !is && !held {
			m.forget(c)
			continue
		}
		if !is || verb == "erase" && err == nil {
			t.Fatalf("%s, which ended with %v: session %s there: %v", verb, err, c.ID, is)
		}
	}
}

func (m *caseModel) kill(t *rapid.T) {
	m.kills++
	m.s = killed(t, m.s, filepath.Join(m.dir, fmt.Sprint("kill-", m.kills)))
}

// compareRest compares all but sessions and faces.
func (m *caseModel) compareRest(t *rapid.T) {
	lists, err := m.s.Lists()
	wantErr(t, err, "")
	if len(lists) != len(m.lists) {
		t.Fatalf("%d lists, want %d", len(lists), len(m.lists))
	}
	for _, l := range lists {
		es, err := m.s.Entries(l.UUID)
		wantErr(t, err, "")
		if len(es) != len(m.lists[l.UUID].entries) {
			t.Fatalf("list %s has %d entries, want %d", l.Name, len(es), len(m.lists[l.UUID].entries))
		}
	}
	ws, err := m.s.Workflows()
	wantErr(t, err, "")
	if len(ws) != len(m.workflows) {
		t.Fatalf("%d workflows, want %d", len(ws), len(m.workflows))
	}
	defaults := 0
	for _, w := range ws {
		if vs := m.workflows[w.GroupID]; w.Version != len(vs) || w.UUID != vs[len(vs)-1].UUID {
			t.Fatalf("workflow %+v is not the newest", w)
		}
		if w.Default {
			defaults++
		}
	}
	if defaults > 1 {
		t.Fatalf("%d workflows are the default", defaults)
	}
	ks, err := m.s.APIKeys()
	wantErr(t, err, "")
	for _, k := range ks {
		if revoked, ok := m.keys[k.ID]; !ok || revoked == k.RevokedAt.IsZero() {
			t.Fatalf("key %+v", k)
		}
	}
	for id := range m.media {
		if _, err := m.s.Media(id); err != nil {
			t.Fatal(err)
		}
	}
	m.compareDeliveries(t)
}

// compareDeliveries: none that was seen goes but with its session or destination, none
// that was made is made again, and none is about what is not there.
func (m *caseModel) compareDeliveries(t *rapid.T) {
	dests, err := m.s.Destinations()
	wantErr(t, err, "")
	var all []cases.Delivery
	for _, d := range dests {
		of, n, err := m.s.Deliveries(cases.DeliveryQuery{Destination: d.UUID, Limit: 1000})
		wantErr(t, err, "")
		if n != len(of) {
			t.Skip() // more than can be compared
		}
		all = append(all, of...)
	}
	now := map[string]cases.Delivery{}
	for _, d := range all {
		now[d.UUID] = d
		if !slices.ContainsFunc(m.sessions, func(c cases.Session) bool { return c.ID == d.SessionID }) {
			t.Fatalf("delivery %+v is about a session that is not there", d)
		}
		if was, ok := m.known[d.UUID]; ok && (was.State != d.State || was.Attempts != d.Attempts) {
			t.Fatalf("delivery %+v was %+v", d, was)
		}
	}
	for id, d := range m.known {
		_, ok := now[id]
		if there := slices.ContainsFunc(dests, func(o cases.Destination) bool { return o.UUID == d.Destination }); !ok && there {
			t.Fatalf("delivery %+v is gone", d)
		}
	}
	m.known = now
}
