package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// leaver is a person as an export has them.
type leaver struct {
	subject   agent.Subject
	templates map[string]agent.Template
}

// savedModel is the model at the time of a backup.
type savedModel struct {
	file     []byte
	subjects map[string]agent.Subject
	byID     map[string]map[string]agent.Template
	results  []agent.Result
	last     uint64
	holds    map[string]Hold

	telemetry   []uint64
	sent, acked uint64
	failed      map[string]int
	policies    map[string]retention.Policy
}

func cloneTemplates(byID map[string]map[string]agent.Template) map[string]map[string]agent.Template {
	out := map[string]map[string]agent.Template{}
	for id, ts := range byID {
		out[id] = maps.Clone(ts)
	}
	return out
}

func drawApplication(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "app-1", "app-2"}).Draw(t, "application")
}

func (m *model) usable(id string) bool {
	c := m.subjects[id].Consent
	return !c.Given() || c.Holds(m.s.opts.Now())
}

// gone says that somebody has been erased.
func (m *model) gone(t *rapid.T, id string) {
	delete(m.subjects, id)
	delete(m.failed, id)
	delete(m.byID, id)
	tomb, err := m.s.Erased(id)
	wantErr(t, err, "")
	if tomb.Version < m.voided[id] {
		t.Fatalf("%q is void up to %d, was up to %d", id, tomb.Version, m.voided[id])
	}
	wantErr(t, tomb.Verify(m.s.PublicKey()), "")
	m.voided[id] = tomb.Version
}

// drawVersion is one around those that matter.
func (m *model) drawVersion(t *rapid.T, id string) uint64 {
	v := rapid.SampledFrom([]uint64{1, m.voided[id], m.subjects[id].Version, m.subjects[id].Version + 1}).Draw(t, "near")
	return max(1, v+rapid.Uint64Range(0, 2).Draw(t, "more"))
}

// enrolOld is an enrolment from elsewhere, which says its version.
func (m *model) enrolOld(t *rapid.T) {
	id := drawSubject(t)
	v := m.drawVersion(t, id)
	sub, err := m.s.PutSubject(agent.Subject{ID: id, Version: v})
	if v <= m.voided[id] {
		wantErr(t, err, agent.CodeConflict)
		return
	}
	wantErr(t, err, "")
	if sub.Version != max(v, m.subjects[id].Version) {
		t.Fatalf("version %d, put %d over %d", sub.Version, v, m.subjects[id].Version)
	}
	m.keep(t, sub)
}

func (m *model) eraseUpTo(t *rapid.T) {
	id := drawSubject(t)
	v := m.drawVersion(t, id)
	n, tomb, err := m.s.EraseUpTo(id, v, "hub")
	old, here := m.subjects[id]
	switch {
	case v <= m.voided[id]:
		wantErr(t, err, "")
		if n != 0 || tomb.Version != m.voided[id] {
			t.Fatalf("%d removed by %+v, void was up to %d", n, tomb, m.voided[id])
		}
	case here && old.Version > v:
		wantErr(t, err, "")
		m.voided[id] = v
	case m.isHeld(HoldSubject, id):
		wantErr(t, err, agent.CodeConflict)
	default:
		wantErr(t, err, "")
		if n != len(m.byID[id]) {
			t.Fatalf("%d removed, want %d", n, len(m.byID[id]))
		}
		m.gone(t, id)
	}
}

func (m *model) consent(t *rapid.T) {
	id := drawSubject(t)
	sub, err := m.s.RecordConsent(id, agent.Consent{GivenBy: id, Purpose: "door", Basis: agent.Bases[0], At: m.s.opts.Now()}, "")
	m.consented(t, id, sub, err)
}

func (m *model) withdraw(t *rapid.T) {
	id := drawSubject(t)
	if _, ok := m.subjects[id]; ok && !m.subjects[id].Consent.Given() {
		t.Skip()
	}
	sub, err := m.s.WithdrawConsent(id, "")
	m.consented(t, id, sub, err)
	if err == nil && m.usable(id) {
		t.Fatal("a withdrawn consent holds")
	}
}

func (m *model) consented(t *rapid.T, id string, sub agent.Subject, err error) {
	if _, ok := m.subjects[id]; !ok {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	m.keep(t, sub)
}

// keeps tells whether the application of a result keeps everything.
func (m *model) keeps(r agent.Result) bool {
	_, own := m.policies[r.Application]
	return own
}

func (m *model) sweeping(unsent bool) Sweeping {
	return Sweeping{Default: retention.Policy{Results: 30 * days, Templates: 30 * days}, Unsent: unsent, Synced: true}
}

func (m *model) policy(t *rapid.T) {
	app := rapid.SampledFrom([]string{"app-1", "app-2"}).Draw(t, "application")
	if _, own := m.policies[app]; own || rapid.Bool().Draw(t, "drop") {
		err := m.s.DropRetention(app)
		if !own {
			wantErr(t, err, agent.CodeNotFound)
			return
		}
		wantErr(t, err, "")
		delete(m.policies, app)
		return
	}
	wantErr(t, m.s.SetRetention(Retention{Application: app, Policy: retention.Policy{}}), "")
	m.policies[app] = retention.Policy{}
}

func (m *model) rotate(t *rapid.T) {
	_, err := m.s.Rotate(rapid.SampledFrom(levels).Draw(t, "level"), "")
	wantErr(t, err, "")
}

func (m *model) compact(t *rapid.T) { wantErr(t, m.s.Compact(), "") }

func (m *model) copy(t *rapid.T) {
	_, err := m.s.Copy()
	wantErr(t, err, "")
}

func (m *model) audit(t *rapid.T) {
	r, err := m.s.VerifyAudit()
	wantErr(t, err, "")
	if len(r.Problems) > 0 {
		t.Fatalf("the audit log has %q", r.Problems)
	}
}

func (m *model) backup(t *rapid.T) {
	var b bytes.Buffer
	info, err := m.s.Backup(&b, "")
	wantErr(t, err, "")
	if info.Subjects != len(m.subjects) || info.Results != len(m.results) || info.Erasures != len(m.voided) {
		t.Fatalf("backup of %+v", info)
	}
	m.saved = &savedModel{file: b.Bytes(), subjects: maps.Clone(m.subjects), byID: cloneTemplates(m.byID), results: slices.Clone(m.results),
		last: m.last, holds: maps.Clone(m.holds), telemetry: slices.Clone(m.telemetry), sent: m.sent, acked: m.acked, failed: maps.Clone(m.failed),
		policies: maps.Clone(m.policies)}
}

// restore takes everything back to the backup, but for who has been erased since.
func (m *model) restore(t *rapid.T) {
	if m.saved == nil {
		t.Skip()
	}
	o := m.s.opts
	wantErr(t, m.s.Close(), "")
	got, err := Restore(bytes.NewReader(m.saved.file), o, false)
	wantErr(t, err, "")
	b := m.saved
	m.subjects, m.byID, m.results, m.holds = maps.Clone(b.subjects), cloneTemplates(b.byID), slices.Clone(b.results), maps.Clone(b.holds)
	m.telemetry, m.sent, m.acked, m.failed, m.policies = slices.Clone(b.telemetry), b.sent, b.acked, maps.Clone(b.failed), maps.Clone(b.policies)
	m.last = b.last + skipSeq[RungCopy]
	m.failed[""] = throttle.WithLiveness.Failures
	again := 0
	for id, sub := range b.subjects {
		if sub.Version <= m.voided[id] {
			again++
			delete(m.subjects, id)
			delete(m.byID, id)
			delete(m.failed, id)
		}
	}
	if got.ErasedAgain != again || !got.Confirmed {
		t.Fatalf("restored %+v, want %d erased again", got, again)
	}
	if m.s, err = Open(o); err != nil {
		t.Fatal(err)
	}
}

func (m *model) export(t *rapid.T) {
	var b bytes.Buffer
	got, err := m.s.Export(&b, nil, "")
	m.leaving = nil
	for _, id := range slices.Sorted(maps.Keys(m.subjects)) {
		if m.subjects[id].Consent.Given() && m.usable(id) {
			m.leaving = append(m.leaving, leaver{m.subjects[id], maps.Clone(m.byID[id])})
		}
	}
	if len(m.leaving) == 0 {
		wantErr(t, err, agent.CodeNotFound)
		return
	}
	wantErr(t, err, "")
	if len(got.Taken) != len(m.leaving) || len(got.Taken)+len(got.Refused) != len(m.subjects) {
		t.Fatalf("exported %+v, want %d", got, len(m.leaving))
	}
	m.exported = b.Bytes()
}

func (m *model) importBack(t *rapid.T) {
	if len(m.leaving) == 0 {
		t.Skip()
	}
	got, err := m.s.Import(bytes.NewReader(m.exported), "s1", "")
	wantErr(t, err, "")
	want := newTransfer()
	for _, l := range m.leaving {
		id := l.subject.ID
		here, ok := m.subjects[id]
		switch {
		case ok && here.Version >= l.subject.Version:
			want.Skipped = append(want.Skipped, id)
		case l.subject.Version <= m.voided[id]:
			want.Refused = append(want.Refused, Refused{Subject: id})
		default:
			want.Taken = append(want.Taken, id)
			sub, err := m.s.Subject(id)
			wantErr(t, err, "")
			if sub.Version != l.subject.Version || !sub.Consent.Given() {
				t.Fatalf("imported %+v as %+v", l.subject, sub)
			}
			m.keep(t, sub)
			m.byID[id] = maps.Clone(l.templates)
		}
	}
	if !slices.Equal(got.Taken, want.Taken) || !slices.Equal(got.Skipped, want.Skipped) || len(got.Refused) != len(want.Refused) {
		t.Fatalf("imported %+v, want %+v", got, want)
	}
}

// errKilled stands for the end of the process.
var errKilled = errors.New("killed")

// die lets the process end at one of the transactions of a verb of several, and goes on
// with the files it leaves: what was acknowledged is so, what was not is all or nothing.
func (m *model) die(t *rapid.T) {
	id := drawSubject(t)
	version := uint64(time.Now().AddDate(1, 0, 0).UnixMicro())
	verbs := map[string]func() error{
		"rotate root":   func() error { _, err := m.s.Rotate(LevelRoot, ""); return err },
		"rotate store":  func() error { _, err := m.s.Rotate(LevelStore, ""); return err },
		"rotate owners": func() error { _, err := m.s.Rotate(LevelOwners, ""); return err },
		"erase":         func() error { _, _, err := m.s.Erase(id, ""); return err },
		"erase up to":   func() error { _, _, err := m.s.EraseUpTo(id, version, ""); return err },
		"prove":         func() error { _, err := m.s.EraseProved(id, ""); return err },
		"sweep":         func() error { _, err := m.s.Sweep(context.Background(), m.sweeping(true)); return err },
		"compact":       func() error { return m.s.Compact() },
		"copy":          func() error { _, err := m.s.Copy(); return err },
		"backup":        func() error { _, err := m.s.Backup(&bytes.Buffer{}, ""); return err },
	}
	verb := rapid.SampledFrom(slices.Sorted(maps.Keys(verbs))).Draw(t, "verb")
	left := rapid.IntRange(0, 12).Draw(t, "transactions")
	failpoint = func(string) error {
		if left--; left < 0 {
			return errKilled
		}
		return nil
	}
	now := m.s.opts.Now
	if verb == "sweep" {
		m.s.opts.Now = func() time.Time { return now().AddDate(0, 2, 0) }
	}
	err := verbs[verb]()
	m.s.opts.Now = now
	failpoint = nil
	m.kill(t) // what is closed then writes nothing
	switch verb {
	case "erase", "erase up to", "prove":
		m.settleErasure(t, id, fmt.Sprint(verb, " of ", id), err)
	case "sweep":
		m.settleSweep(t)
	}
}

func (m *model) settleErasure(t *rapid.T, id, what string, err error) {
	_, there := m.subjects[id]
	_, now := m.s.Subject(id)
	switch is := agent.ErrorCode(now) != agent.CodeNotFound; {
	case err == nil && is:
		t.Fatalf("%s was acknowledged, and they are there", what)
	case there && !is:
		m.gone(t, id)
		// The counting of attempts comes last, and may have been left.
		wantErr(t, m.s.forgetAttempts(id), "")
	default: // nothing happened, or there was nobody; a tombstone may be there
		if tomb, err := m.s.Erased(id); err == nil {
			m.voided[id] = tomb.Version
		}
		if !there && err == nil {
			delete(m.failed, id)
		}
	}
}

// settleSweep takes what is there for what should be, as long as only what was due went.
func (m *model) settleSweep(t *rapid.T) {
	m.results = slices.DeleteFunc(m.results, func(r agent.Result) bool {
		_, err := m.s.Result(r.ID)
		if err == nil {
			return false
		}
		wantErr(t, err, agent.CodeNotFound)
		if m.keeps(r) || m.isHeld(HoldResult, r.ID) || m.isHeld(HoldSubject, r.SubjectID) {
			t.Fatalf("result %d went, and was to be kept", r.Seq)
		}
		return true
	})
}
