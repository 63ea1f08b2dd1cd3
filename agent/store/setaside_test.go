package store

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/cases"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// fillAll puts two records or more of every kind into a store.
func fillAll(t *testing.T, s *Store) {
	t.Helper()
	for i := range 5 {
		ts := testTemplates(2)
		ts[0].ID, ts[1].ID = "t0", "t1"
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("s", i)}, Templates: ts})
		must(t, err)
		_, err = s.AppendResult(testResult(fmt.Sprint("s", i), agent.Declined))
		must(t, err)
		_, err = s.PutTelemetry([]byte("reading"))
		must(t, err)
	}
	for _, id := range []string{"s3", "s4"} {
		_, err := s.Hold(Hold{Kind: HoldSubject, ID: id, Reason: "case", By: "counsel"})
		must(t, err)
		must(t, s.SetRetention(Retention{Application: "app-" + id, Policy: retention.Policy{Results: 30 * days, Images: retention.Off}}))
	}
	fillCases(t, s)
}

func fillCases(t *testing.T, s *Store) {
	t.Helper()
	d, err := s.CreateDestination(cases.Destination{URL: "https://a.example/", Enabled: true, Events: []string{cases.EventStatus}, Secret: "s", Version: "v3"})
	must(t, err)
	_, err = s.QueueTest(d.UUID)
	must(t, err)
	must(t, s.ProvideBlocklists(""))
	lists, err := s.Lists()
	must(t, err)
	picture := func(id string) agent.Media {
		return agent.Media{ID: id, Kind: "k", ContentType: "image/png", ExpiresAt: time.Now().Add(time.Hour), Data: []byte("picture")}
	}
	for i := range 2 {
		_, err := s.PutWorkflow(cases.Workflow{Status: cases.Published, Label: fmt.Sprint("w", i)})
		must(t, err)
		f := testTemplate(i)
		f.ID = cases.FaceCapture
		_, err = s.CreateSession(cases.Session{Environment: cases.Live, Status: cases.NotStarted, VendorData: fmt.Sprint("v", i), CreatedAt: time.Now(),
			WorkflowID: "w", Token: fmt.Sprint("token", i), DueAt: time.Now().Add(time.Hour)},
			cases.Attachments{Media: []agent.Media{picture(fmt.Sprint("m", i))}, Faces: []agent.Template{f}}, nil)
		must(t, err)
		m := picture(fmt.Sprint("e", i))
		_, err = s.AddEntry(cases.Entry{ListUUID: lists[0].UUID, Value: fmt.Sprint("face", i)}, &f, &m)
		must(t, err)
		_, err = s.CreateAPIKey(agent.APIKey{ID: fmt.Sprint("key", i), Digest: make([]byte, 32)})
		must(t, err)
	}
	must(t, s.PutReplay("caller", "one", agent.Replay{At: time.Now()}))
	_, err = s.MediaKey()
	must(t, err)
	_, err = s.ShareKey()
	must(t, err)
}

// useEverything reads by every verb that lists, and writes.
func useEverything(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.EachTemplate("", func(agent.Template) error { return nil }))
	must(t, s.EachFace(func(agent.Template) error { return nil }))
	must1(s.Subjects("", 0))(t)
	must1(s.Results(ResultQuery{}))(t)
	must1(s.Outbox(0, 1000))(t)
	must1(s.TelemetryAfter(0, 100))(t)
	must1(s.Throttles())(t)
	must1(s.Holds())(t)
	must1(s.Retentions())(t)
	must1(s.Workflows())(t)
	must1(s.Destinations())(t)
	must1(s.APIKeys())(t)
	must1(s.MediaKey())(t)
	must1(s.ShareKey())(t)
	for _, l := range must1(s.Lists())(t) {
		must1(s.Entries(l.UUID))(t)
	}
	_, _, err := s.Sessions(cases.SessionQuery{Environment: cases.Live, Limit: 10})
	must(t, err)
	_, _, err = s.Deliveries(cases.DeliveryQuery{Limit: 10})
	must(t, err)
	_, _, err = s.DueDeliveries(time.Now().Add(time.Hour), nil, 10)
	must(t, err)
	must1(s.AuditLog(AuditQuery{}))(t)
	must1(s.AppendResult(testResult("s1", agent.Declined)))(t)
	must1(s.DeleteSubject("s2"))(t)
	for _, l := range levels {
		must1(s.Rotate(l, ""))(t)
	}
	must1(s.Copy())(t)
}

// garbleRow flips a bit at the end of the first value of a bucket and returns its key.
func garbleRow(t *testing.T, d *dbFile, name string) (key []byte) {
	t.Helper()
	must(t, d.db.Update(func(tx *bolt.Tx) error {
		b := bucket(tx, name)
		c := b.Cursor()
		k, v := c.First()
		if name == bucketOwners { // the first is the file's general key
			for k != nil && k[0] == 0 {
				k, v = c.Next()
			}
		}
		if name == bucketThrottle { // the first is the device's
			k, v = c.Next()
		}
		if k == nil {
			t.Fatalf("bucket %s is empty", name)
		}
		bad := bytes.Clone(v)
		bad[len(bad)-1] ^= 1
		key = bytes.Clone(k)
		return b.Put(key, bad)
	}))
	return key
}

// TestSetAside garbles one record of every kind in turn: the agent starts with the rest,
// everything can be used, nothing is thrown away, and the hub is asked for it.
func TestSetAside(t *testing.T) {
	base := testOptions(t)
	base.Root = fileRoot(base.Dir)
	s := mustOpen(t, base)
	fillAll(t, s)
	mustClose(t, s)
	for _, sch := range []schema{templatesSchema(), resultsSchema(), casesSchema()} {
		names := []string{}
		if sch.kind != "results" { // there are no owners in it
			names = append(names, bucketOwners)
		}
		for _, r := range sch.sealed {
			if r.bucket != bucketAudit {
				names = append(names, r.bucket)
			}
		}
		for _, name := range names {
			t.Run(sch.kind+" "+name, func(t *testing.T) {
				o := testOptions(t)
				copyFolder(t, o.Dir, base.Dir)
				o.Root = fileRoot(o.Dir)
				s, err := Open(o)
				must(t, err)
				key := garbleRow(t, s.fileNamed(sch.kind), name)
				if s.Check() == nil && name != bucketOwners {
					t.Error("the check passes over it")
				}
				must(t, s.Close())
				o.Recover = true
				s = mustOpen(t, o)
				must(t, s.Check())
				d := s.fileNamed(sch.kind)
				must(t, s.view(d, func(tx *bolt.Tx) error {
					if kept := tx.Bucket([]byte(bucketUnreadable)); kept == nil || !has(kept, join(name, string(key))) && !(sch.kind == "cases" && name == bucketOwners) { // of a list entry, which goes with its keys
						t.Error("the record was not kept")
					}
					if bucket(tx, bucketMeta).Get([]byte(keyResync)) == nil {
						t.Error("resync is not asked for")
					}
					return nil
				}))
				if len(s.Recovered()) > 0 {
					t.Errorf("recovered %+v", s.Recovered())
				}
				useEverything(t, s)
				s = mustReopen(t, s)
				must(t, s.Check())
			})
		}
	}
}

func (s *Store) fileNamed(kind string) *dbFile {
	return map[string]*dbFile{"templates": s.templates, "results": s.results, "cases": s.cases}[kind]
}

// TestLosingKeepsShut: what a record that cannot be read kept shut stays shut.
func TestLosingKeepsShut(t *testing.T) {
	o := testOptions(t)
	s, err := Open(o)
	must(t, err)
	fillAll(t, s)
	for _, name := range []string{bucketThrottle, bucketHolds, bucketPolicies} {
		garbleRow(t, s.results, name)
	}
	garbleRow(t, s.cases, caseKeys)
	lists, err := s.Lists()
	must(t, err)
	must(t, s.cases.db.Update(func(tx *bolt.Tx) error { return bucket(tx, caseLists).Put([]byte(lists[0].UUID), []byte("garbled")) }))
	must(t, s.Close())
	o.Recover = true
	s = mustOpen(t, o)
	if st, err := s.Throttle("s0"); err != nil || throttle.WithLiveness.Judge(st, 0, s.opts.Mark()).Answer != throttle.Stopped {
		t.Errorf("the subject may try: %+v %v", st, err)
	}
	_, err = s.DeleteSubject("s3")
	wantCode(t, err, agent.CodeConflict)
	if rs, err := s.Retentions(); err != nil || len(rs) != 2 || rs[0].Results != 0 {
		t.Errorf("%+v %v", rs, err)
	}
	_, err = s.APIKey("key0")
	wantCode(t, err, agent.CodeNotFound)
	if l, err := s.List(lists[0].UUID); err != nil || l.Type != cases.Blocklist || l.EntryType != cases.EntryFace {
		t.Errorf("the list of blocked faces is now %+v %v", l, err)
	}
	if es, err := s.Entries(lists[0].UUID); err != nil || len(es) != 2 {
		t.Errorf("%d of 2 blocked faces: %v", len(es), err)
	}
}

// TestEraseUnreadable: somebody whose record could not be read is erased like anybody.
func TestEraseUnreadable(t *testing.T) {
	for _, what := range []string{bucketSubjects, bucketOwners} {
		o := testOptions(t)
		o.Witness = filepath.Join(t.TempDir(), "witness")
		s, err := Open(o)
		must(t, err)
		enrolMany(t, s, 3)
		garbleRow(t, s.templates, what)
		must(t, s.Close())
		o.Recover = true
		s = mustOpen(t, o)
		_, err = s.Subject("s0")
		wantCode(t, err, agent.CodeNotFound)
		_, tomb, err := s.Erase("s0", "officer")
		must(t, err)
		must(t, s.view(s.templates, func(tx *bolt.Tx) error {
			if isAside(tx, "s0") || countPrefix(bucket(tx, bucketOwners), prefix("s0")) > 0 || countPrefix(tx.Bucket([]byte(bucketUnreadable)), join(bucketOwners, "s0")) > 0 {
				t.Errorf("%s: something is left", what)
			}
			return nil
		}))
		_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "s0", Version: tomb.Version}})
		wantCode(t, err, agent.CodeConflict)
		_, _, err = s.Erase("s0", "officer")
		wantCode(t, err, agent.CodeNotFound)
	}
}

// TestKeysMended: a file whose own keys cannot be read goes up the ladder, but only when
// another file shows that the root key is right.
func TestKeysMended(t *testing.T) {
	if checkptrEnds() {
		t.Skip("the race detector's pointer checks end the process inside bbolt, beyond recover")
	}
	general := func(tx *bolt.Tx) (*bolt.Bucket, []byte) { return bucket(tx, bucketOwners), ownerRow("", 1) }
	store := func(tx *bolt.Tx) (*bolt.Bucket, []byte) { return bucket(tx, bucketKeys), storeKeyRow(classGeneral, 1) }
	for _, kind := range []string{"templates", "results", "cases"} {
		for name, row := range map[string]func(tx *bolt.Tx) (*bolt.Bucket, []byte){"general key": general, "store key": store} {
			for _, copied := range []bool{true, false} {
				t.Run(fmt.Sprint(kind, " ", name, " copy ", copied), func(t *testing.T) {
					o := testOptions(t)
					s, err := Open(o)
					must(t, err)
					fillAll(t, s)
					if copied {
						must1(s.Copy())(t)
					}
					must(t, s.fileNamed(kind).db.Update(func(tx *bolt.Tx) error {
						b, k := row(tx)
						v := bytes.Clone(b.Get(k))
						v[len(v)/2] ^= 7
						return b.Put(k, v)
					}))
					// Another commit, so that the previous one has the damage as well.
					must(t, s.fileNamed(kind).db.Update(func(tx *bolt.Tx) error {
						return bucket(tx, bucketMeta).Put([]byte("x"), []byte("x"))
					}))
					must(t, s.Close())
					o.Recover = true
					s = mustOpen(t, o)
					want := RungCopy
					if !copied {
						want = RungNew
					}
					if rs := s.Recovered(); len(rs) != 1 || rs[0].Rung != want || rs[0].File != fileNames[kind] {
						t.Errorf("recovered %+v, want %s", rs, want)
					}
					if st, err := s.Stats(); err != nil || copied && (st.Subjects != 5 || st.Results != 5) {
						t.Errorf("%+v %v", st, err)
					}
					_, err = s.AppendResult(testResult("s1", agent.Declined))
					must(t, err)
					_, _, err = s.Enrol(Enrolment{Subject: agent.Subject{ID: "new"}, Templates: testTemplates(1)})
					must(t, err)
					s = mustReopen(t, s)
					if len(s.Recovered()) > 0 {
						t.Errorf("recovered again %+v", s.Recovered())
					}
				})
			}
		}
	}
}

// TestWrongRootIsNoDamage: with another root key nothing is replaced.
func TestWrongRootIsNoDamage(t *testing.T) {
	o := testOptions(t)
	s := mustOpen(t, o)
	fillAll(t, s)
	mustClose(t, s)
	wrong := o
	wrong.Recover, wrong.Root = true, memoryRoot()
	_, err := Open(wrong)
	if err == nil {
		t.Fatal("another root key opened the folder")
	}
	if all, err := Recoveries(o.Dir); err != nil || len(all) > 0 {
		t.Errorf("recovered %+v %v", all, err)
	}
	o.Recover = true
	s = mustOpen(t, o)
	if st, err := s.Stats(); err != nil || st.Subjects != 5 {
		t.Errorf("%+v %v", st, err)
	}
}
