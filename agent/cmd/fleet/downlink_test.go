package fleet

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/agent/keys"
	"postern/agent/store"
	"postern/sync/bus"
	"postern/sync/bus/bustest"
	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/downlink"
	"postern/sync/hub"
	"postern/sync/registry"
	"postern/sync/uplink"
	"postern/sync/wire"
)

// folder opens a data folder with its key beside it.
func folder(tb testing.TB, dir, device string) *store.Store {
	tb.Helper()
	st, err := openFolder(dir, device)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	return st
}

func openFolder(dir, device string) (*store.Store, error) {
	root := keys.Options{Kind: keys.File, Dir: dir + ".keys"}
	return store.Open(store.Options{Dir: dir, Device: device, Root: func(existing bool) (store.Root, error) { return root.Open(existing) }})
}

// door is a device that follows a hub.
type door struct {
	st   *store.Store
	stop func()
}

// follow starts a device's link.
func follow(tb testing.TB, st *store.Store, name, addr, token string) *door {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &device.Link{Device: name, Dialer: &mqtt.Dialer{URL: "mqtt://" + addr, Username: name, Password: token},
		Uplink: &uplink.Uplink{Outbox: Outbox(st), Resend: 2 * time.Second, Poll: 20 * time.Millisecond},
		Parts:  []device.Part{&downlink.Downlink{Device: name, Store: Follower(st, nil), Retry: time.Second}}, Client: quickClient()}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stopped := false
	d := &door{st, func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("device %s: %v", name, err)
		}
	}}
	tb.Cleanup(d.stop)
	return d
}

func add(tb testing.TB, reg registry.Registry, name, group string) string {
	tb.Helper()
	token, err := reg.Add(name, group)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func enrol(tb testing.TB, st *store.Store, ids ...string) {
	tb.Helper()
	for _, id := range ids {
		e := make(agent.Embedding, 512)
		e[0] = 1
		if _, _, err := st.Enrol(store.Enrolment{Subject: agent.Subject{ID: id, Name: "Name of " + id}, Templates: []agent.Template{{ModelID: "m1", Space: "s1", Embedding: e}}}); err != nil {
			tb.Fatal(err)
		}
	}
}

func people(tb testing.TB, st *store.Store) string {
	tb.Helper()
	subs, err := st.Subjects("", 1000)
	if err != nil {
		tb.Fatal(err)
	}
	ids := []string{}
	for _, s := range subs {
		ids = append(ids, s.ID)
	}
	return strings.Join(ids, " ")
}

func wantPeople(tb testing.TB, st *store.Store, want string) {
	tb.Helper()
	bustest.WaitFor(tb, "people "+want, func() bool { return people(tb, st) == want })
}

func TestDownlink(t *testing.T) {
	dir := t.TempDir()
	reg := registry.Registry{Dir: filepath.Join(dir, "devices")}
	hubStore := folder(t, filepath.Join(dir, "people"), "hub")
	record, err := OpenRecord(dir, hubStore)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { record.Close() })
	addr := startHub(t, HubOptions{Data: dir, Devices: reg, People: hubStore, Record: record})
	tokens := map[string]string{"a": add(t, reg, "a", ""), "b": add(t, reg, "b", "north"), "c": add(t, reg, "c", "")}
	enrol(t, hubStore, "ada", "bob", "eve")
	if err := hubStore.SetAccess("bob", store.Access{Groups: []string{"north"}}, ""); err != nil {
		t.Fatal(err)
	}
	a := follow(t, folder(t, filepath.Join(dir, "a"), "a"), "a", addr, tokens["a"])
	b := follow(t, folder(t, filepath.Join(dir, "b"), "b"), "b", addr, tokens["b"])
	c := follow(t, folder(t, filepath.Join(dir, "c"), "c"), "c", addr, tokens["c"])
	wantPeople(t, a.st, "ada eve")
	wantPeople(t, b.st, "ada bob eve")
	wantPeople(t, c.st, "ada eve")
	ts, err := b.st.Templates("ada")
	if err != nil || len(ts) != 1 || len(ts[0].Embedding) != 512 || ts[0].Embedding[0] != 1 {
		t.Errorf("templates %+v, %v", ts, err)
	}

	res := decision()
	res.SubjectID = "ada"
	if _, err := a.st.AppendResult(res); err != nil {
		t.Fatal(err)
	}
	row := func() (out hub.Row) {
		rows, err := record.Rows("a", a.st.Epoch(), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			out = r
		}
		return out
	}
	bustest.WaitFor(t, "a decision about her at the hub", func() bool { r, err := wireResult(row()); return err == nil && r.SubjectID == "ada" })

	// Erased at one door: gone from the hub and every other, at once where there is a
	// line, and when it is back elsewhere.
	c.stop()
	if _, _, err := a.st.Erase("ada", ""); err != nil {
		t.Fatal(err)
	}
	wantPeople(t, b.st, "bob eve")
	wantPeople(t, hubStore, "bob eve")
	bustest.WaitFor(t, "the record to forget her", func() bool { r := row(); return r.Erased && r.Body == nil && r.Seq == 1 })
	status := func() ErasureStatus {
		list, err := Erasures(hubStore, record, reg, hubStore.FleetTag("ada"))
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v %v", list, err)
		}
		return list[0]
	}
	bustest.WaitFor(t, "two of three", func() bool { s := status(); return s.Done == 2 && s.Of == 3 && slices.Equal(s.Waiting, []string{"c"}) })
	c = follow(t, c.st, "c", addr, tokens["c"])
	wantPeople(t, c.st, "eve")
	bustest.WaitFor(t, "three of three", func() bool { return status().Done == 3 })

	// Another group: the device has what is for that.
	tokens["c"] = add(t, reg, "c", "north")
	c.stop()
	c = follow(t, c.st, "c", addr, tokens["c"])
	wantPeople(t, c.st, "bob eve")

	// A device under this name with another key gets nothing.
	c.stop()
	clone := follow(t, folder(t, filepath.Join(dir, "clone"), "c"), "c", addr, tokens["c"])
	time.Sleep(1500 * time.Millisecond)
	if got := people(t, clone.st); got != "" {
		t.Errorf("a clone was given %q", got)
	}
	clone.stop()

	// Nothing about anybody has been with the broker in the clear.
	err = filepath.WalkDir(filepath.Join(dir, "broker"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), "Name of") {
			t.Errorf("%s has a name in the clear", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A hub that says what it has not signed, or with a key that is not its own, is not
// followed.
func TestForgedHub(t *testing.T) {
	dir := t.TempDir()
	addr := startHub(t, HubOptions{Data: dir}) // only its broker is used
	st := folder(t, filepath.Join(dir, "a"), "a")
	forger := folder(t, filepath.Join(dir, "forger"), "hub")
	if err := forger.OpenFeed(); err != nil {
		t.Fatal(err)
	}
	enrol(t, forger, "mallory")
	real := folder(t, filepath.Join(dir, "real"), "hub")
	if err := st.PinHub(mustHexKey(t, real.PublicKey())); err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{}, 8)
	var c *bus.Client
	c = &bus.Client{Dialer: &mqtt.Dialer{URL: "mqtt://" + addr}, Connect: func() bus.Connect {
		return bus.Connect{ClientID: "forger", Subscribe: []string{wire.AllUp(wire.ChanPull)}, Handle: func(ctx context.Context, m bus.Message) {
			h, msg, err := wire.Decode(m.Payload)
			if err != nil {
				return
			}
			d := forge(forger, h.ID, msg.(*wire.Pull))
			p, err := wire.Encode(wire.Header{Re: h.ID}, d)
			if err != nil {
				return
			}
			go func() {
				_ = c.Publish(ctx, bus.Message{Topic: wire.Down("a", wire.ChanDelta), Payload: p, AtMostOnce: true})
				answered <- struct{}{}
			}()
		}}
	}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { stop(); <-done }()
	time.Sleep(200 * time.Millisecond)
	follow(t, st, "a", addr, "")
	<-answered
	time.Sleep(300 * time.Millisecond)
	if got := people(t, st); got != "" {
		t.Errorf("a forged delta was followed: %q", got)
	}
	if err := st.PinHub(mustHexKey(t, forger.PublicKey())); err != nil { // the same is followed when it is believed
		t.Fatal(err)
	}
	wantPeople(t, st, "mallory")
}

func mustHexKey(tb testing.TB, s string) []byte {
	tb.Helper()
	k, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// forge makes a delta that is right in everything but who signed it.
func forge(st *store.Store, id string, p *wire.Pull) *wire.Delta {
	s, err := wire.NewSealer("a", p.SealTo)
	if err != nil {
		panic(err)
	}
	c := wire.Changes{Device: "a", Full: true, To: 9, ToStamp: make([]byte, 8), Head: 9, Re: id, Enc: s.Enc, Items: []wire.Item{{Collection: wire.CollFleet, Key: wire.FleetKey, Version: 1}}}
	if err := s.Seal(&c.Items[0], st.FleetKey()); err != nil {
		panic(err)
	}
	changes, _, err := desired{st: st}.Changes(0, 9)
	if err != nil {
		panic(err)
	}
	for _, ch := range changes {
		it := wire.Item{Collection: wire.CollPeople, Key: st.FleetTag(ch.Person.Subject.ID), Version: ch.Version}
		body, err := wire.EncodePerson(ch.Person)
		if err != nil {
			panic(err)
		}
		if err := s.Seal(&it, body); err != nil {
			panic(err)
		}
		c.Items = append(c.Items, it)
	}
	raw, err := wire.EncodeChanges(c)
	if err != nil {
		panic(err)
	}
	return &wire.Delta{Changes: raw, Key: st.PublicKey(), Sig: st.SignFleet(wire.SignedContext, raw)}
}
