package store

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/throttle"
)

// site is a hub's store and a device's, without a wire between them.
type site struct {
	hub, door *Store
	device    string
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	h, d := testOptions(tb), testOptions(tb)
	h.Device = "hub"
	s := &site{hub: mustOpen(tb, h), door: mustOpen(tb, d), device: "door"}
	must(tb, s.hub.OpenFeed())
	return s
}

type failer interface {
	Helper()
	Fatal(...any)
}

func check(f failer, err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// pull brings the device up to date as package sync does, a page at a time.
func (s *site) pull(f failer) (refused []RefusedItem) {
	f.Helper()
	for range 100 {
		at, err := s.door.DesiredPosition()
		check(f, err)
		floor, err := s.door.DesiredFloor()
		check(f, err)
		head, err := s.hub.FeedPosition()
		check(f, err)
		known, err := s.hub.Stamped(at)
		check(f, err)
		if floor > head.Version || at.Version > head.Version || at.Version > 0 && !known {
			check(f, s.hub.RaiseFeed(max(floor, at.Version)))
			head, err = s.hub.FeedPosition()
			check(f, err)
		}
		d := Desired{From: at, Head: head.Version, Full: at.Version == 0 || !known, Key: s.hub.FleetKey()}
		if d.Full {
			d.From = Position{}
		}
		changes, to, err := s.hub.Changes(d.From.Version, 2)
		check(f, err)
		d.To, d.More = to, to.Version < head.Version
		for _, c := range changes {
			switch {
			case c.Erased != nil:
				d.Erased = append(d.Erased, *c.Erased)
			case c.Access.Allows(s.device, ""):
				d.People = append(d.People, Person{c.Tag, c.Subject, c.Templates})
			default:
				d.Gone = append(d.Gone, c.Tag)
			}
		}
		r, err := s.door.Follow(d)
		check(f, err)
		refused = append(refused, r...)
		if !d.More {
			s.tell(f)
			if after, err := s.hub.FeedPosition(); err == nil && after.Version == head.Version {
				return refused
			}
		}
	}
	f.Fatal("the device does not come to rest")
	return nil
}

// tell brings the device's erasures to the hub.
func (s *site) tell(f failer) {
	f.Helper()
	es, err := s.door.Erasures(true, 0)
	check(f, err)
	if s.hub.FleetKey() == nil || len(es) == 0 {
		return
	}
	_, err = s.hub.AddErasures(es, "door")
	check(f, err)
	check(f, s.door.ToldErasures(es))
}

func enrolled(f failer, s *Store) []string {
	f.Helper()
	subs, err := s.Subjects("", 1000)
	check(f, err)
	ids := []string{}
	for _, sub := range subs {
		ids = append(ids, sub.ID)
	}
	return ids
}

func enrolAt(tb testing.TB, s *Store, id string) agent.Subject {
	tb.Helper()
	sub, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: id}, Templates: testTemplates(1), Replace: true})
	must(tb, err)
	return sub
}

func TestFollow(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		enrolAt(t, s.hub, id)
	}
	enrolAt(t, s.door, "own") // not the hub's, and not the hub's to forget
	s.pull(t)
	want := func(ids ...string) {
		t.Helper()
		if got := enrolled(t, s.door); !slices.Equal(got, ids) {
			t.Errorf("at the door: %q, want %q", got, ids)
		}
	}
	want("a", "b", "c", "d", "e", "own")
	ts, err := s.door.Templates("c")
	if err != nil || len(ts) != 1 || !slices.Equal(ts[0].Embedding, testTemplate(0).Embedding) {
		t.Errorf("%v %v", ts, err)
	}

	_, _, err = s.hub.Erase("b", "")
	must(t, err)
	must(t, s.hub.SetAccess("c", Access{Devices: []string{"another"}}, ""))
	_, err = s.hub.WithdrawConsent("d", "")
	must(t, err)
	s.pull(t)
	want("a", "d", "e", "own")
	if sub, err := s.door.Subject("d"); err != nil || s.door.Usable(sub) {
		t.Errorf("consent was withdrawn at the hub: %+v %v", sub, err)
	}
	_, err = s.door.Erased("b")
	must(t, err)
	if _, err := s.door.Erased("c"); agent.ErrorCode(err) != agent.CodeNotFound {
		t.Errorf("who may use other doors only counts as erased: %v", err)
	}

	// Erased at the door: the hub hears of it, and nothing old brings them back.
	was, err := s.door.Subject("a")
	must(t, err)
	_, _, err = s.door.Erase("a", "")
	must(t, err)
	s.pull(t)
	if got := enrolled(t, s.hub); !slices.Equal(got, []string{"c", "d", "e"}) {
		t.Errorf("at the hub: %q", got)
	}
	for _, st := range []*Store{s.hub, s.door} {
		_, _, err = st.Enrol(Enrolment{Subject: was, Templates: testTemplates(1)})
		wantCode(t, err, agent.CodeConflict, "was erased")
	}
	if _, err := s.door.Erasures(true, 0); err != nil {
		t.Error(err)
	}
	enrolAt(t, s.hub, "a") // anew, as they want
	s.pull(t)
	want("a", "d", "e", "own")
	if es, err := s.door.Erasures(true, 0); err != nil || len(es) != 0 {
		t.Errorf("still to be told: %+v %v", es, err)
	}
}

func TestFollowRefusesOldAndForeign(t *testing.T) {
	s := newSite(t)
	enrolAt(t, s.hub, "a")
	s.pull(t)
	at, err := s.door.DesiredPosition()
	must(t, err)
	for name, d := range map[string]Desired{
		"older":         {Full: true, To: at, Head: at.Version - 1},
		"does not join": {From: Position{at.Version + 7, at.Stamp}, To: Position{at.Version + 8, at.Stamp}, Head: at.Version + 8},
		"other stamp":   {From: Position{at.Version, make([]byte, StampSize)}, To: Position{at.Version + 1, at.Stamp}, Head: at.Version + 1},
		"beyond head":   {From: at, To: Position{at.Version + 2, at.Stamp}, Head: at.Version + 1},
	} {
		if _, err := s.door.Follow(d); err == nil {
			t.Errorf("%s: taken over", name)
		}
		if now, err := s.door.DesiredPosition(); err != nil || now.Version != at.Version {
			t.Errorf("%s: at %d now (%v)", name, now.Version, err)
		}
	}
	wrong := Person{Tag: s.hub.FleetTag("a"), Subject: agent.Subject{ID: "b", Version: 1}}
	bare := Person{Tag: s.hub.FleetTag("c"), Subject: agent.Subject{ID: "c"}}
	fine := Person{Tag: s.hub.FleetTag("d"), Subject: agent.Subject{ID: "d", Version: 1}}
	refused, err := s.door.Follow(Desired{From: at, To: Position{at.Version + 1, at.Stamp}, Head: at.Version + 1, People: []Person{wrong, bare, fine}})
	if err != nil || len(refused) != 2 {
		t.Errorf("%+v %v", refused, err)
	}
	if got := enrolled(t, s.door); !slices.Equal(got, []string{"a", "d"}) {
		t.Errorf("%q", got)
	}
}

// A legal hold keeps the record, and nobody is let in by it.
func TestFollowHeld(t *testing.T) {
	s := newSite(t)
	enrolAt(t, s.hub, "a")
	s.pull(t)
	_, err := s.door.Hold(Hold{Kind: HoldSubject, ID: "a", Reason: "court", By: "me"})
	must(t, err)
	_, _, err = s.hub.Erase("a", "")
	must(t, err)
	if refused := s.pull(t); len(refused) != 1 || refused[0].Code != agent.CodeConflict {
		t.Errorf("%+v", refused)
	}
	sub, err := s.door.Subject("a")
	if err != nil || s.door.Usable(sub) {
		t.Errorf("%+v %v", sub, err)
	}
}

// copyTree copies a closed data folder.
func copyTree(tb testing.TB, from, to string) {
	tb.Helper()
	must(tb, os.RemoveAll(to))
	must(tb, os.CopyFS(to, os.DirFS(from)))
}

// A hub that is put back from an old copy, without its witness, learns from its devices
// who was erased, also when it has gone on differently meanwhile.
func TestRestoredHub(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"a", "b", "c"} {
		enrolAt(t, s.hub, id)
	}
	s.pull(t)
	dir := s.hub.opts.Dir
	copied := filepath.Join(t.TempDir(), "copy")
	mustClose(t, s.hub)
	copyTree(t, dir, copied)
	s.hub = mustOpen(t, s.hub.opts)
	_, _, err := s.hub.Erase("a", "")
	must(t, err)
	s.pull(t)

	mustClose(t, s.hub)
	copyTree(t, copied, dir)
	s.hub = mustOpen(t, s.hub.opts)
	if got := enrolled(t, s.hub); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("the copy has %q", got)
	}
	enrolAt(t, s.hub, "new") // now it has as many versions as the device has seen
	s.pull(t)
	for name, st := range map[string]*Store{"hub": s.hub, "door": s.door} {
		if got := enrolled(t, st); !slices.Equal(got, []string{"b", "c", "new"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFollowModel changes hub and door at random: at rest they agree, and nobody who
// was erased is anywhere.
func TestFollowModel(t *testing.T) {
	if testing.Short() {
		t.Skip("a long one: not with -short")
	}
	rapid.Check(t, func(rt *rapid.T) {
		h, d := Options{Dir: filepath.Join(t.TempDir(), "hub"), Device: "hub", Root: memoryRoot()}, Options{Dir: filepath.Join(t.TempDir(), "door"), Device: "door", Root: memoryRoot()}
		now := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC)
		clock := func() time.Time { now = now.Add(time.Second); return now }
		h.Now, d.Now = clock, clock
		open := func(o Options) *Store { st, err := Open(o); check(rt, err); return st }
		s := &site{hub: open(h), door: open(d), device: "door"}
		defer func() { s.hub.Close(); s.door.Close() }()
		check(rt, s.hub.OpenFeed())
		people, gone := map[string]bool{}, map[string]bool{} // at the hub, and whether for the door
		id := func(rt *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "id") }
		erase := func(rt *rapid.T, st *Store) {
			who := id(rt)
			if _, _, err := st.Erase(who, ""); err == nil {
				gone[who] = true
			} else if agent.ErrorCode(err) != agent.CodeNotFound {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"enrol": func(rt *rapid.T) {
				who := id(rt)
				if gone[who] {
					s.pull(rt) // a new enrolment is newer than the erasure only if the hub knows of it
					delete(gone, who)
					delete(people, who)
				}
				_, _, err := s.hub.Enrol(Enrolment{Subject: agent.Subject{ID: who}, Templates: testTemplates(1), Replace: true})
				check(rt, err)
				if _, is := people[who]; !is {
					people[who] = true
				}
			},
			"access": func(rt *rapid.T) {
				who, yes := id(rt), rapid.Bool().Draw(rt, "yes")
				a := Access{Devices: []string{"door"}}
				if !yes {
					a.Devices[0] = "another"
				}
				if err := s.hub.SetAccess(who, a, ""); err == nil {
					people[who] = yes
				}
			},
			"erase at the hub":  func(rt *rapid.T) { erase(rt, s.hub) },
			"erase at the door": func(rt *rapid.T) { erase(rt, s.door) },
			"restart": func(rt *rapid.T) {
				check(rt, s.hub.Close())
				check(rt, s.door.Close())
				s.hub, s.door = open(h), open(d)
			},
			"pull": func(rt *rapid.T) {
				s.pull(rt)
				for who := range gone {
					delete(people, who)
				}
				atHub, atDoor := slices.Sorted(maps.Keys(people)), []string{}
				for _, who := range atHub {
					if people[who] {
						atDoor = append(atDoor, who)
					}
				}
				if got := enrolled(rt, s.hub); !slices.Equal(got, atHub) {
					rt.Fatalf("at the hub: %q, want %q", got, atHub)
				}
				if got := enrolled(rt, s.door); !slices.Equal(got, atDoor) {
					rt.Fatalf("at the door: %q, want %q", got, atDoor)
				}
			},
		})
		check(rt, s.hub.Check())
		check(rt, s.door.Check())
	})
}

// An offline limit counts from when the hub was heard, on whichever clock says more.
func TestStale(t *testing.T) {
	o := testOptions(t)
	now, up, boot := time.Date(2026, 11, 2, 14, 0, 0, 0, time.UTC), time.Hour, "b1"
	o.Now = func() time.Time { return now }
	o.Mark = func() throttle.Mark { return throttle.Mark{Boot: boot, Up: up} }
	s := mustOpen(t, o)
	want := func(what string, stale bool) {
		t.Helper()
		if s.Stale(time.Hour) != stale {
			t.Errorf("%s: stale is %v", what, !stale)
		}
	}
	want("never heard", true)
	must(t, s.HeardHub())
	want("just heard", false)
	now, up = now.Add(59*time.Minute), up+59*time.Minute
	want("within the limit", false)
	now, up = now.Add(2*time.Minute), up+2*time.Minute
	want("beyond it", true)
	now = now.Add(-time.Hour)
	want("clock set back, same boot", true)
	boot, up = "b2", time.Minute
	want("after a boot, at a time that could be", false)
	now = now.Add(-time.Hour)
	want("before the hub was heard", true)
	now = now.Add(80 * time.Minute)
	_, err := s.AppendResult(testResult("a", agent.Declined))
	must(t, err)
	now = now.Add(-10 * time.Minute)
	want("before a decision that was made", true)
	must(t, s.HeardHub())
	now = now.Add(10 * time.Minute)
	want("heard again", false)
}
