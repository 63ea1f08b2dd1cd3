// Package hubtest holds every hub.Store to the same.
package hubtest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent"
	"postern/sync/hub"
	"postern/sync/wire"
)

// At is the time at which the suite's batches come.
var At = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// Run runs the suite; open opens the store of a folder, also a second time.
func Run(t *testing.T, open func(dir string) (hub.Store, error)) {
	for _, c := range []struct {
		name string
		test func(*testing.T, hub.Store)
	}{
		{"Twice", testTwice}, {"Gap", testGap}, {"Floor", testFloor}, {"Streams", testStreams}, {"Rows", testRows}, {"Health", testHealth}, {"Followed", testFollowed}, {"Expire", testExpire},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, must(t, open, t.TempDir())) })
	}
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

func must(tb testing.TB, open func(string) (hub.Store, error), dir string) hub.Store {
	tb.Helper()
	s, err := open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Batch makes a batch of these rows, each with its number as its body.
func Batch(device, epoch string, seqs ...uint64) hub.Batch {
	b := hub.Batch{Device: device, Epoch: epoch, At: At}
	for _, n := range seqs {
		b.Rows = append(b.Rows, wire.Row{Seq: n, Kind: wire.RowResult, Body: body(n)})
	}
	return b
}

func body(v any) wire.Raw {
	raw, err := wire.Marshal(v)
	if err != nil {
		panic(err) // a number or a text can be encoded
	}
	return raw
}

func ingest(tb testing.TB, s hub.Store, batches ...hub.Batch) []hub.Position {
	tb.Helper()
	p, err := s.Ingest(batches)
	if err != nil {
		tb.Fatal(err)
	}
	if len(p) != len(batches) {
		tb.Fatalf("%d positions for %d batches", len(p), len(batches))
	}
	return p
}

func want(tb testing.TB, got, want hub.Position) {
	tb.Helper()
	if got != want {
		tb.Errorf("position %+v, want %+v", got, want)
	}
}

func seqs(tb testing.TB, s hub.Store, device, epoch string) []uint64 {
	tb.Helper()
	rows, err := s.Rows(device, epoch, 0, 1<<20)
	if err != nil {
		tb.Fatal(err)
	}
	out := []uint64{}
	for _, r := range rows {
		out = append(out, r.Seq)
	}
	return out
}

func testTwice(t *testing.T, s hub.Store) {
	p := ingest(t, s, Batch("a", "e", 1, 2, 3), Batch("a", "e", 2, 3, 4))
	want(t, p[0], hub.Position{Acked: 3, Highest: 3, Rows: 3})
	want(t, p[1], hub.Position{Acked: 4, Highest: 4, Rows: 4})
	again := Batch("a", "e", 1, 4)
	again.Historical, again.Rows[0].Body, again.At = true, body("forged"), At.Add(time.Hour)
	want(t, ingest(t, s, again)[0], hub.Position{Acked: 4, Highest: 4, Rows: 4})
	rows, err := s.Rows("a", "e", 1, 1)
	if err != nil || len(rows) != 1 || rows[0].Historical || string(rows[0].Body) != string(body(uint64(1))) || !rows[0].At.Equal(At) {
		t.Errorf("a row that came twice is now %+v (%v)", rows, err)
	}
}

func testGap(t *testing.T, s hub.Store) {
	want(t, ingest(t, s, Batch("a", "e", 1, 2))[0], hub.Position{Acked: 2, Highest: 2, Rows: 2})
	p := ingest(t, s, Batch("a", "e", 5, 6, 9))[0]
	want(t, p, hub.Position{Acked: 2, Highest: 9, Rows: 5})
	if !p.Gap() {
		t.Error("a gap is not seen")
	}
	want(t, ingest(t, s, Batch("a", "e", 3))[0], hub.Position{Acked: 3, Highest: 9, Rows: 6})
	want(t, ingest(t, s, Batch("a", "e", 3, 4, 5, 6, 7, 8))[0], hub.Position{Acked: 9, Highest: 9, Rows: 9})
	if got := seqs(t, s, "a", "e"); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("rows %v", got)
	}
}

func testFloor(t *testing.T, s hub.Store) {
	b := Batch("a", "e", 11, 12)
	b.Floor = 11
	want(t, ingest(t, s, b)[0], hub.Position{Acked: 12, Highest: 12, Lost: 10, Rows: 2})
	b = Batch("a", "e", 15, 20)
	b.Floor = 18 // 13, 14, 16 and 17 are gone
	want(t, ingest(t, s, b)[0], hub.Position{Acked: 17, Highest: 20, Lost: 14, Rows: 4})
	b = Batch("a", "e", 18, 19)
	b.Floor = 3 // an old message
	want(t, ingest(t, s, b)[0], hub.Position{Acked: 20, Highest: 20, Lost: 14, Rows: 6})
}

func testStreams(t *testing.T, s hub.Store) {
	refused := Batch("a", "e2", 1)
	refused.Refused, refused.At = map[uint64]string{1: "nonsense"}, At.Add(time.Minute)
	ingest(t, s, Batch("b", "x", 1), Batch("a", "e9", 1, 2), refused, Batch("a", "e9", 3), Batch("ab", "e9", 7))
	got, err := s.Streams()
	if err != nil {
		t.Fatal(err)
	}
	wantS := []hub.Stream{
		{Device: "a", Epoch: "e9", FirstAt: At, LastAt: At, Position: hub.Position{Acked: 3, Highest: 3, Rows: 3}},
		{Device: "a", Epoch: "e2", FirstAt: At.Add(time.Minute), LastAt: At.Add(time.Minute), Position: hub.Position{Acked: 1, Highest: 1, Rows: 1, Refused: 1}},
		{Device: "ab", Epoch: "e9", FirstAt: At, LastAt: At, Position: hub.Position{Highest: 7, Rows: 1}},
		{Device: "b", Epoch: "x", FirstAt: At, LastAt: At, Position: hub.Position{Acked: 1, Highest: 1, Rows: 1}},
	}
	if !reflect.DeepEqual(got, wantS) {
		t.Errorf("streams\n%+v, want\n%+v", got, wantS)
	}
}

func testRows(t *testing.T, s hub.Store) {
	b := Batch("a", "e", 1, 2, 3, 4)
	b.Historical, b.Refused = true, map[uint64]string{3: "nonsense"}
	b.Rows[3].Kind = 200 // of a newer device
	ingest(t, s, b, Batch("a", "e-other", 1))
	got, err := s.Rows("a", "e", 3, 10)
	if err != nil {
		t.Fatal(err)
	}
	wantR := []hub.Row{
		{Seq: 3, Kind: wire.RowResult, Historical: true, At: At, Refused: "nonsense", Body: body(uint64(3))},
		{Seq: 4, Kind: 200, Historical: true, At: At, Body: body(uint64(4))},
	}
	if !reflect.DeepEqual(got, wantR) {
		t.Errorf("rows\n%+v, want\n%+v", got, wantR)
	}
	if got, err := s.Rows("a", "e", 0, 2); err != nil || len(got) != 2 || got[0].Seq != 1 {
		t.Errorf("the first two: %+v, %v", got, err)
	}
	if got, err := s.Rows("nobody", "e", 0, 2); err != nil || len(got) != 0 {
		t.Errorf("rows of nobody: %+v, %v", got, err)
	}
}

func testHealth(t *testing.T, s hub.Store) {
	put := func(device, session string, online bool) {
		t.Helper()
		if err := s.PutHealth(hub.Health{Device: device, At: At, Health: wire.Health{Online: online, Session: session, Last: 7}}); err != nil {
			t.Fatal(err)
		}
	}
	online := func() (out []string) {
		t.Helper()
		hs, err := s.Healths()
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hs {
			out = append(out, fmt.Sprint(h.Device, " ", h.Session, " ", h.Online))
		}
		return out
	}
	put("b", "s1", true)
	put("a", "s1", true)
	put("a", "s2", true)
	put("a", "s1", false) // the will of the first session, late
	if got := online(); !slices.Equal(got, []string{"a s2 true", "b s1 true"}) {
		t.Errorf("after a late will: %q", got)
	}
	put("a", "s2", false)
	put("c", "s0", false)
	if got := online(); !slices.Equal(got, []string{"a s2 false", "b s1 true", "c s0 false"}) {
		t.Errorf("after the will: %q", got)
	}
}

// Result makes a row of a decision about somebody.
func Result(seq uint64, subject string, at time.Time) wire.Row {
	row, err := wire.ResultRow(agent.Result{ID: fmt.Sprint("id-", seq), Seq: seq, Kind: agent.KindVerify, SubjectID: subject, At: at,
		Decision: agent.Decision{Status: agent.Approved}})
	if err != nil {
		panic(err) // it is small
	}
	return row
}

func testExpire(t *testing.T, s hub.Store) {
	b := hub.Batch{Device: "a", Epoch: "e", At: At, Rows: []wire.Row{
		Result(1, "ada", At.Add(-48*time.Hour)), Result(2, "", At.Add(-time.Hour)), Result(3, "bob", At.Add(-47*time.Hour)), Result(5, "bob", At.Add(-72*time.Hour))}}
	want(t, ingest(t, s, b)[0], hub.Position{Acked: 3, Highest: 5, Rows: 4})
	if n, err := s.Expire(At.Add(-24 * time.Hour)); err != nil || n > 2 {
		t.Errorf("%d expired, %v", n, err)
	}
	ingest(t, s, b) // again, and nothing comes back
	if got := seqs(t, s, "a", "e"); !slices.Contains(got, 5) || !slices.Contains(got, 2) {
		t.Errorf("what is not acknowledged, or not old, is gone: %v", got)
	}
	if n, err := s.Expire(At.Add(time.Hour)); err != nil || n == 0 {
		t.Errorf("%d expired, %v", n, err)
	}
	if got := seqs(t, s, "a", "e"); !slices.Equal(got, []uint64{5}) {
		t.Errorf("rows %v", got)
	}
}

func testFollowed(t *testing.T, s hub.Store) {
	if f, err := s.Followed("a"); err != nil || f.Device != "" || f.SealTo != nil {
		t.Errorf("of a device that never has: %+v %v", f, err)
	}
	f := hub.Followed{Device: "b", At: wire.Position{Version: 7, Stamp: []byte("12345678")}, When: At, Group: "g", SealTo: make([]byte, 32), KeyAt: At,
		Refused: []wire.RefusedItem{{Collection: wire.CollPeople, Key: "00", Code: "conflict", Text: "held"}}, Relist: true, FullTo: []byte("12345678")}
	for _, name := range []string{"b", "a", "b"} {
		f.Device, f.At.Version = name, f.At.Version+1
		if err := s.PutFollowed(f); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Followed("b"); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("%+v %v, want %+v", got, err, f)
	}
	if all, err := s.Followeds(); err != nil || len(all) != 2 || all[0].Device != "a" || all[0].At.Version != 9 {
		t.Errorf("%+v %v", all, err)
	}
}

// model is what one stream should hold.
type model struct {
	rows  map[uint64]string // number to body
	acked uint64
	lost  uint64
}

func (m *model) take(b hub.Batch, bodies map[uint64]string) {
	for _, r := range b.Rows {
		if _, known := m.rows[r.Seq]; !known && r.Seq > m.acked {
			m.rows[r.Seq] = bodies[r.Seq]
		}
	}
	for {
		if _, ok := m.rows[m.acked+1]; ok {
			m.acked++
		} else if m.acked+1 < b.Floor {
			m.acked, m.lost = m.acked+1, m.lost+1
		} else {
			return
		}
	}
}

func (m *model) position() hub.Position {
	p := hub.Position{Acked: m.acked, Highest: m.acked, Lost: m.lost, Rows: uint64(len(m.rows))}
	for n := range m.rows {
		p.Highest = max(p.Highest, n)
	}
	return p
}

// testModel ingests at random: twice, out of order, with gaps and floors, over
// restarts of the store.
func testModel(t *testing.T, open func(string) (hub.Store, error)) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s, err := open(dir)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		models := map[string]*model{}
		draw := func(rt *rapid.T) (b hub.Batch, m *model, bodies map[uint64]string) {
			device, epoch := rapid.SampledFrom([]string{"a", "ab"}).Draw(rt, "device"), rapid.SampledFrom([]string{"e", "e1"}).Draw(rt, "epoch")
			key := device + "/" + epoch
			if models[key] == nil {
				models[key] = &model{rows: map[uint64]string{}}
			}
			m, b, bodies = models[key], hub.Batch{Device: device, Epoch: epoch, At: At}, map[uint64]string{}
			numbers := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 24), 1, 6, rapid.ID).Draw(rt, "rows")
			slices.Sort(numbers)
			for _, n := range numbers {
				bodies[n] = rapid.StringN(0, 4, -1).Draw(rt, "body")
				b.Rows = append(b.Rows, wire.Row{Seq: n, Kind: wire.RowResult, Body: body(bodies[n])})
			}
			if rapid.IntRange(0, 9).Draw(rt, "with floor") == 0 {
				b.Floor = rapid.Uint64Range(0, numbers[0]).Draw(rt, "floor")
			}
			return b, m, bodies
		}
		rt.Repeat(map[string]func(*rapid.T){
			"ingest": func(rt *rapid.T) {
				var batches []hub.Batch
				var want []hub.Position
				for range rapid.IntRange(1, 3).Draw(rt, "batches") {
					b, m, bodies := draw(rt)
					m.take(b, bodies)
					batches, want = append(batches, b), append(want, m.position())
				}
				got, err := s.Ingest(batches)
				if err != nil || !slices.Equal(got, want) {
					rt.Fatalf("positions %+v, want %+v (%v)", got, want, err)
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				if s, err = open(dir); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				for key, m := range models {
					device, epoch, _ := strings.Cut(key, "/")
					rows, err := s.Rows(device, epoch, 0, 100)
					if err != nil {
						rt.Fatal(err)
					}
					numbers := slices.Sorted(maps.Keys(m.rows))
					if len(rows) != len(numbers) {
						rt.Fatalf("%s: %d rows, want %v", key, len(rows), numbers)
					}
					for i, r := range rows {
						if r.Seq != numbers[i] || string(r.Body) != string(body(m.rows[r.Seq])) {
							rt.Fatalf("%s: row %d is %d %x", key, i, r.Seq, r.Body)
						}
					}
				}
			},
		})
	})
}
