package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/cases"
)

// caseModel is what cases.db should contain.
type caseModel struct {
	s        *Store
	sessions []cases.Session // by number
	faces    map[string]bool // owner/id

	dir       string
	kills     int
	heldOf    map[string]bool // session under a legal hold
	lists     map[string]*modelList
	workflows map[string][]cases.Workflow // group -> versions
	keys      map[string]bool             // API key -> revoked
	media     map[string]time.Time        // picture -> expiry
	known     map[string]cases.Delivery   // that have been seen
}

var (
	modelVendors   = []string{"", "a", "ab", "ü"}
	modelWorkflows = []string{"", "w1", "w2"}
	modelTime      = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// TestCasesModel runs random verbs on sessions, faces, lists, workflows, keys and
// deliveries and on a model, with kills, closing and opening in between.
func TestCasesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := testOptions(t)
		dir := t.TempDir()
		defer os.RemoveAll(dir)
		o.Dir = filepath.Join(dir, "data")
		s, err := Open(o)
		must(t, err)
		m := &caseModel{s: s, dir: dir, faces: map[string]bool{}, lists: map[string]*modelList{}, workflows: map[string][]cases.Workflow{},
			keys: map[string]bool{}, media: map[string]time.Time{}, heldOf: map[string]bool{}}
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"": m.compare, "create": m.create, "update": m.update, "delete": m.delete, "query": m.query, "reopen": m.reopen, "destination": m.destination,
			"die": m.die, "rotate": m.rotate, "compact": m.compact, "backup": m.backup, "erase": m.erase, "hold": m.hold, "deliver": m.deliver,
			"list": m.list, "unlist": m.unlist, "entry": m.entry, "unentry": m.unentry, "workflow": m.workflow, "unworkflow": m.unworkflow,
			"key": m.key, "revoke": m.revoke, "prune": m.prune,
		})
	})
}

func (m *caseModel) create(t *rapid.T) {
	before := m.lastNumber()
	c := cases.Session{
		Environment: rapid.SampledFrom([]string{cases.Live, cases.Sandbox}).Draw(t, "environment"), Status: cases.NotStarted,
		VendorData: rapid.SampledFrom(modelVendors).Draw(t, "vendor"), WorkflowID: rapid.SampledFrom(modelWorkflows).Draw(t, "workflow"),
		CreatedAt: modelTime.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "day")) * 24 * time.Hour), Token: fmt.Sprint("token", before),
	}
	if rapid.Bool().Draw(t, "due") {
		c.DueAt = c.CreatedAt.Add(time.Hour)
	}
	var a cases.Attachments
	if rapid.Bool().Draw(t, "face") {
		f := testTemplate(len(m.sessions))
		f.ID = cases.FaceCapture
		a.Faces = append(a.Faces, f)
		a.Media = append(a.Media, agent.Media{ID: fmt.Sprint("m", before), ContentType: "image/jpeg", Data: []byte("x"), ExpiresAt: modelTime.AddDate(10, 0, 0)})
	}
	got, err := m.s.CreateSession(c, a, nil)
	wantErr(t, err, "")
	if got.Number != before+1 || got.Revision != 1 {
		t.Fatalf("session number %d revision %d after %d", got.Number, got.Revision, before)
	}
	m.sessions = append(m.sessions, got)
	if len(a.Faces) > 0 {
		m.faces[SessionOwner(got.ID)] = true
		m.media[a.Media[0].ID] = a.Media[0].ExpiresAt
	}
}

// lastNumber counts deleted sessions too: numbers are not given twice.
func (m *caseModel) lastNumber() uint64 {
	n, err := uint64(0), error(nil)
	err = m.s.view(m.s.cases, func(tx *bolt.Tx) (err error) {
		n, err = number(bucket(tx, bucketMeta), keyLastSession)
		return err
	})
	if err != nil {
		panic(err)
	}
	return n
}

func (m *caseModel) pick(t *rapid.T) (int, bool) {
	if len(m.sessions) == 0 {
		return 0, false
	}
	return rapid.IntRange(0, len(m.sessions)-1).Draw(t, "session"), true
}

func (m *caseModel) update(t *rapid.T) {
	i, ok := m.pick(t)
	if !ok {
		_, err := m.s.UpdateSession("nobody", func(*cases.Session) (cases.Attachments, error) { return cases.Attachments{}, nil })
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	fail := rapid.Bool().Draw(t, "fail")
	status := rapid.SampledFrom(cases.Statuses).Draw(t, "status")
	got, err := m.s.UpdateSession(m.sessions[i].ID, func(c *cases.Session) (cases.Attachments, error) {
		c.Status, c.DueAt = status, time.Time{}
		c.Trail = []cases.Session{*c}
		if fail {
			return cases.Attachments{}, invalid("no")
		}
		return cases.Attachments{}, nil
	})
	if fail {
		wantErr(t, err, agent.CodeInvalid)
		return
	}
	wantErr(t, err, "")
	if got.Revision != m.sessions[i].Revision+1 {
		t.Fatalf("revision %d after %d", got.Revision, m.sessions[i].Revision)
	}
	m.sessions[i] = got
}

func (m *caseModel) delete(t *rapid.T) {
	i, ok := m.pick(t)
	if !ok {
		return
	}
	gone := m.sessions[i]
	_, err := m.s.DeleteSession(gone.ID)
	if m.heldOf[gone.ID] {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	_, err = m.s.DeleteSession(gone.ID)
	wantErr(t, err, agent.CodeNotFound)
	_, err = m.s.SessionByToken(gone.Token)
	wantErr(t, err, agent.CodeNotFound)
	_, err = m.s.Face(SessionOwner(gone.ID), cases.FaceCapture)
	wantErr(t, err, agent.CodeNotFound)
	m.forget(gone)
}

func (m *caseModel) destination(t *rapid.T) {
	all, err := m.s.Destinations()
	wantErr(t, err, "")
	if len(all) > 1 {
		wantErr(t, m.s.DeleteDestination(all[0].UUID), "")
		return
	}
	_, err = m.s.CreateDestination(cases.Destination{URL: fmt.Sprint("https://x.example/", rapid.IntRange(0, 9).Draw(t, "url")), Enabled: true,
		Events: []string{cases.EventStatus}, Secret: "s", Version: "v3"})
	if agent.ErrorCode(err) != agent.CodeConflict {
		wantErr(t, err, "")
	}
}

func (m *caseModel) query(t *rapid.T) {
	q := cases.SessionQuery{Environment: rapid.SampledFrom([]string{cases.Live, cases.Sandbox}).Draw(t, "environment"), Limit: rapid.IntRange(1, 5).Draw(t, "limit"),
		Offset: rapid.IntRange(0, 4).Draw(t, "offset"), VendorData: rapid.SampledFrom(modelVendors).Draw(t, "vendor")}
	if rapid.Bool().Draw(t, "by status") {
		q.Statuses = []cases.Status{cases.Approved, rapid.SampledFrom(cases.Statuses).Draw(t, "status")}
	}
	if rapid.Bool().Draw(t, "by workflow") {
		q.Workflows = []string{"w1", "nobody's"}
	}
	if rapid.Bool().Draw(t, "by date") {
		q.From, q.To = modelTime.Add(24*time.Hour), modelTime.Add(72*time.Hour)
	}
	if rapid.Bool().Draw(t, "by text") {
		q.Text = "A"
	}
	var want []cases.Session
	for _, c := range slices.Backward(m.sessions) {
		if c.Environment == q.Environment && (q.VendorData == "" || c.VendorData == q.VendorData) && (q.Statuses == nil || slices.Contains(q.Statuses, c.Status)) &&
			(q.Workflows == nil || slices.Contains(q.Workflows, c.WorkflowID)) && (q.From.IsZero() || !c.CreatedAt.Before(q.From) && c.CreatedAt.Before(q.To)) &&
			(q.Text == "" || strings.Contains(strings.ToLower(c.VendorData), "a")) {
			want = append(want, c)
		}
	}
	got, count, err := m.s.Sessions(q)
	wantErr(t, err, "")
	page := want[min(q.Offset, len(want)):]
	page = page[:min(q.Limit, len(page))]
	if count != len(want) || !sameSessions(got, page) {
		t.Fatalf("%+v: %d of %d, want %d of %d", q, len(got), count, len(page), len(want))
	}
}

func sameSessions(a, b []cases.Session) bool {
	return slices.EqualFunc(a, b, func(x, y cases.Session) bool {
		p, _ := json.Marshal(x)
		q, _ := json.Marshal(y)
		return bytes.Equal(p, q)
	})
}

func (m *caseModel) compare(t *rapid.T) {
	for _, c := range m.sessions {
		got, err := m.s.Session(c.ID)
		wantErr(t, err, "")
		if !sameSessions([]cases.Session{got}, []cases.Session{c}) {
			t.Fatalf("session %+v, want %+v", got, c)
		}
	}
	m.compareRest(t)
	seen := map[string]bool{}
	wantErr(t, m.s.EachFace(func(f agent.Template) error { seen[f.SubjectID] = true; return nil }), "")
	if !reflect.DeepEqual(seen, m.faces) {
		t.Fatalf("faces %v, want %v", seen, m.faces)
	}
	var due []string
	for _, c := range m.sessions {
		if !c.DueAt.IsZero() {
			due = append(due, c.ID)
		}
	}
	got, err := m.s.DueSessions(modelTime.AddDate(1, 0, 0), 1000)
	wantErr(t, err, "")
	slices.Sort(due)
	slices.Sort(got)
	if !slices.Equal(got, due) {
		t.Fatalf("due %v, want %v", got, due)
	}
}

func (m *caseModel) reopen(t *rapid.T) {
	wantErr(t, m.s.Check(), "")
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(m.s.opts)
	wantErr(t, err, "")
	m.s = s
}

// A change of status and what webhooks hear of it are one transaction.
func TestAnnouncedWithTheChange(t *testing.T) {
	o := testOptions(t)
	var ticks atomic.Int64 // ids of two changes in one millisecond have no order
	o.Now = func() time.Time { return modelTime.Add(time.Duration(ticks.Add(10)) * time.Millisecond) }
	s := mustOpen(t, o)
	d, err := s.CreateDestination(cases.Destination{URL: "https://x.example", Enabled: true, Events: []string{cases.EventStatus, cases.OldVerified}, Secret: "s", Version: "v3"})
	must(t, err)
	_, err = s.CreateDestination(cases.Destination{URL: "https://y.example", Enabled: false, Events: []string{cases.EventStatus}, Secret: "s", Version: "v3"})
	must(t, err)
	c, err := s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.InReview, CreatedAt: modelTime, UpdatedAt: modelTime}, cases.Attachments{}, nil)
	must(t, err)
	approve := func(fail error) error {
		_, err := s.UpdateSession(c.ID, func(v *cases.Session) (cases.Attachments, error) {
			if err := v.Apply(cases.Change{NewStatus: cases.Approved}, modelTime, time.Hour); err != nil {
				return cases.Attachments{}, err
			}
			return cases.Attachments{}, fail
		})
		return err
	}
	wantCode(t, approve(invalid("no")), agent.CodeInvalid)
	if _, n, _ := s.Deliveries(cases.DeliveryQuery{Destination: d.UUID}); n != 1 {
		t.Errorf("%d deliveries after a change that failed, want that of the creation", n)
	}
	must(t, approve(nil))
	log, n, err := s.Deliveries(cases.DeliveryQuery{SessionID: c.ID})
	must(t, err)
	if n != 3 || log[0].Type != cases.OldVerified || log[1].Type != cases.EventStatus || log[1].Status != cases.Approved || log[2].Status != cases.InReview {
		t.Errorf("log %+v", log)
	}
	due, _, err := s.DueDeliveries(time.Now().Add(time.Hour), nil, 10)
	must(t, err)
	if len(due) != 1 || due[0].Event.Session.Status != cases.InReview || due[0].Destination.UUID != d.UUID {
		t.Errorf("first due %+v", due)
	}
	if busy, _, _ := s.DueDeliveries(time.Now().Add(time.Hour), map[string]bool{d.UUID: true}, 10); len(busy) != 0 {
		t.Error("a busy destination is due")
	}
	_, err = s.DeleteSession(c.ID)
	must(t, err)
	if _, n, _ := s.Deliveries(cases.DeliveryQuery{Destination: d.UUID}); n != 0 {
		t.Errorf("%d deliveries about an erased session", n)
	}
	_, err = s.RecordDelivery(log[0].UUID, cases.Try{}, func(*cases.Delivery) {})
	wantCode(t, err, agent.CodeNotFound)
}

// TestKillWebhookQueue kills a process while it changes sessions and takes deliveries
// off the queue: whatever change was acknowledged is announced, until its delivery was.
func TestKillWebhookQueue(t *testing.T) {
	rounds := 6
	if v := os.Getenv("TEST_KILL_ROUNDS"); v != "" {
		n, err := strconv.Atoi(v)
		must(t, err)
		rounds = n
	}
	dir := t.TempDir() + "/data"
	changed, sent := map[string]bool{}, map[string]bool{}
	for i := range rounds {
		c := startChild(t, "hooks", dir)
		for ready := false; ; {
			l, ok := c.line()
			if !ok {
				break
			}
			f := strings.Fields(l)
			switch f[0] {
			case "ready":
				ready = true
				timer := time.AfterFunc(time.Duration(20+37*i)*time.Millisecond, func() { c.cmd.Process.Kill() })
				defer timer.Stop()
			case "changed":
				changed[f[1]] = true
			case "sent":
				sent[f[1]] = true
			default:
				t.Fatalf("child: %s (ready %v)", l, ready)
			}
		}
		c.kill()
		s := mustOpen(t, childOptions(dir))
		all, err := s.Destinations()
		must(t, err)
		known := map[string]string{}
		for offset := 0; len(all) > 0; offset += 1000 {
			page, n, err := s.Deliveries(cases.DeliveryQuery{Destination: all[0].UUID, Offset: offset, Limit: 1000})
			must(t, err)
			for _, d := range page {
				known[d.SessionID] = d.State
			}
			if offset+len(page) >= n {
				break
			}
		}
		for id := range changed {
			if state, ok := known[id]; !ok || sent[id] && state != cases.Delivered {
				t.Errorf("round %d: session %s is %q in the log, sent %v", i, id, state, sent[id])
			}
		}
		mustClose(t, s)
	}
	if len(changed) == 0 {
		t.Error("no change was acknowledged in any round")
	}
	t.Logf("%d rounds, %d changes, %d sent", rounds, len(changed), len(sent))
}

// childHooks makes sessions and takes their announcements off the queue, saying what
// is durable.
func childHooks(dir string) error {
	s, err := Open(childOptions(dir))
	if err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	if all, err := s.Destinations(); err != nil || len(all) == 0 {
		_, err = s.CreateDestination(cases.Destination{URL: "https://x.example", Enabled: true, Events: []string{cases.EventStatus}, Secret: "s", Version: "v3"})
		if err != nil {
			return err
		}
	}
	l := &loader{s: s}
	l.say("ready")
	go func() {
		for {
			due, _, err := s.DueDeliveries(time.Now().Add(time.Minute), nil, 1)
			l.check(err)
			for _, d := range due {
				_, err := s.RecordDelivery(d.Delivery.UUID, cases.Try{Status: 200}, func(v *cases.Delivery) { v.State = cases.Delivered })
				l.check(err)
				l.say("sent", d.Delivery.SessionID)
			}
		}
	}()
	for {
		c, err := s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.NotStarted, CreatedAt: time.Now(), UpdatedAt: time.Now()}, cases.Attachments{}, nil)
		l.check(err)
		l.say("changed", c.ID)
	}
}

func TestWorkflowVersions(t *testing.T) {
	// The list is ordered by the time in the ids: two workflows of one millisecond have none.
	o, now := testOptions(t), time.Now()
	o.Now = func() time.Time { now = now.Add(time.Millisecond); return now }
	s := mustOpen(t, o)
	w, err := s.PutWorkflow(cases.Workflow{Status: cases.Draft, Default: true})
	must(t, err)
	_, err = s.PublishedWorkflow(w.GroupID)
	wantCode(t, err, agent.CodeNotFound)
	w.Status = cases.Published
	w, err = s.PutWorkflow(w)
	must(t, err)
	_, err = s.PutWorkflow(w)
	wantCode(t, err, agent.CodeConflict)
	next := w
	next.UUID, next.Label = "", "second"
	next, err = s.PutWorkflow(next)
	must(t, err)
	if next.Version != 2 || next.GroupID != w.GroupID || next.UUID == w.UUID {
		t.Errorf("second version %+v", next)
	}
	for _, id := range []string{w.UUID, w.GroupID, next.UUID} {
		if got, err := s.PublishedWorkflow(id); err != nil || got.UUID != next.UUID {
			t.Errorf("published of %s is %s: %v", id, got.UUID, err)
		}
	}
	other, err := s.PutWorkflow(cases.Workflow{Status: cases.Published, Default: true})
	must(t, err)
	if got, _ := s.Workflow(next.UUID); got.Default {
		t.Error("two workflows are the default")
	}
	if all, err := s.Workflows(); err != nil || len(all) != 2 || all[0].UUID != other.UUID || all[1].UUID != next.UUID {
		t.Errorf("workflows %+v: %v", all, err)
	}
	must(t, s.DeleteWorkflow(w.UUID))
	for _, id := range []string{w.UUID, w.GroupID, next.UUID} {
		_, err = s.Workflow(id)
		wantCode(t, err, agent.CodeNotFound)
	}
}

func TestMediaExpire(t *testing.T) {
	s := mustOpen(t, testOptions(t))
	for i := range 3 {
		must(t, s.PutMedia(agent.Media{ID: fmt.Sprint("m", i), Owner: SessionOwner("s"), Kind: "k", ContentType: "image/png", Data: []byte{1, 2},
			ExpiresAt: modelTime.Add(time.Duration(i) * time.Hour)}))
	}
	wantCode(t, s.PutMedia(agent.Media{ID: "m1", Owner: "session/x", Data: []byte{1}}), agent.CodeConflict)
	wantCode(t, s.PutMedia(agent.Media{ID: "big", Owner: "session/x", Data: make([]byte, maxMedia+1)}), agent.CodeInvalid)
	w := &sweeper{Store: s, now: modelTime.Add(time.Hour), out: &Swept{}}
	must(t, w.images(t.Context()))
	if w.out.Images != 2 || !s.HasMedia("m2") || s.HasMedia("m1") {
		t.Errorf("swept %+v", w.out)
	}
	if m, err := s.Media("m2"); err != nil || m.Kind != "k" || !bytes.Equal(m.Data, []byte{1, 2}) {
		t.Errorf("picture %+v: %v", m, err)
	}
	_, err := s.Media("m1")
	wantCode(t, err, agent.CodeNotFound)
}

func FuzzDecodeMedia(f *testing.F) {
	good, err := encodeMedia(agent.Media{Owner: "session/x", ContentType: "image/jpeg", Data: []byte("abc")})
	must(f, err)
	f.Add(good)
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := decodeMedia(p)
		if err != nil {
			return
		}
		again, err := encodeMedia(m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeMedia(again); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v became %+v: %v", m, back, err)
		}
	})
}

func FuzzCutOwner(f *testing.F) {
	f.Add(append(owned("session/x"), "sealed"...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, v []byte) {
		owner, rest, err := cutOwner(v)
		if err == nil && len(owner)+len(rest) >= len(v) {
			t.Fatalf("%d bytes became %d and %d", len(v), len(owner), len(rest))
		}
	})
}

func FuzzDecodeSession(f *testing.F) {
	raw, err := json.Marshal(cases.Session{ID: "s", Steps: []cases.StepState{{}}})
	must(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, p []byte) {
		var c cases.Session
		if decodeCase(p, &c) != nil {
			return
		}
		// Whatever was stored can be shown, read and refused, but not break anything.
		c.Decision(cases.Links{}, true)
		c.Row(cases.Links{})
		c.Awaits()
		c.Lapse(modelTime)
		c.Apply(cases.Change{NewStatus: cases.Resubmitted}, modelTime, time.Hour)
	})
}
