package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/agent"
	"postern/sync/wire"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a new version of the wire")

func result(seq uint64) agent.Result {
	return agent.Result{
		ID: fmt.Sprintf("0193611e-8f00-7000-8000-%012d", seq), Device: "door-7", Epoch: "e1", Seq: seq, Kind: agent.KindVerify,
		SubjectID: "4711", Source: "camera", At: time.Date(2026, 11, 24, 8, 30, 0, int(seq)*1000, time.UTC),
		Decision: agent.Decision{
			Status: agent.InReview, Score: 63.21, Scored: true, Cosine: 0.41796875,
			Thresholds: agent.Thresholds{Review: 70, Decline: 50}, ModelID: "fr-feature-512-int8", Calibration: "c1", Frames: 4,
			Warnings: []agent.Warning{{Feature: agent.FeatureFaceMatch, Risk: agent.RiskLowSimilarity, LogType: agent.LogWarning,
				Short: "Low similarity", Long: "The similarity is below the threshold for an approval."}},
			Timings:  agent.Timings{Detect: 2400 * time.Microsecond, Embed: 9100 * time.Microsecond},
			Liveness: &agent.LivenessCheck{Status: agent.Approved, Liveness: agent.Liveness{Score: 91.5, Measured: true}},
		},
	}
}

func row(tb testing.TB, seq uint64) wire.Row {
	tb.Helper()
	r, err := wire.ResultRow(result(seq))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func batch(tb testing.TB, n int) *wire.Results {
	tb.Helper()
	var rows []wire.Row
	for i := range n {
		rows = append(rows, row(tb, uint64(i+1)))
	}
	b, err := wire.Pack("e1", true, rows)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func raw(tb testing.TB, v any) wire.Raw {
	tb.Helper()
	r, err := wire.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// messages has one of every type.
func messages(tb testing.TB) map[string]wire.Message {
	tb.Helper()
	changes, err := wire.EncodeChanges(wire.Changes{Device: "door-7", From: 3, To: 5, More: true, Items: []wire.Item{
		{Collection: "subjects", Key: "4711", Version: 4, Body: []byte{1, 2}}, {Collection: "subjects", Key: "4712", Version: 5, Deleted: true}}})
	if err != nil {
		tb.Fatal(err)
	}
	return map[string]wire.Message{
		"results":     &wire.Results{Epoch: "e1", Rows: []wire.Row{row(tb, 7), wire.UnreadableRow(8, "damaged")}},
		"ack":         &wire.Ack{Epoch: "e1", Seq: 41, Resend: true, Refused: []wire.Refusal{{Seq: 40, Reason: "not a result"}}},
		"health":      &wire.Health{Online: true, Version: "1.2.3", Session: "s1", Epoch: "e1", Last: 99},
		"telemetry":   &wire.Telemetry{Values: map[string]float64{"queue_rows": 12, "cpu_celsius": 51.5}, Labels: map[string]string{"model": "m1"}},
		"checkpoint":  &wire.Checkpoint{Epoch: "a1", Seq: 5, Hash: make([]byte, 32), Key: "k1", Sig: make([]byte, 64)},
		"hint":        &wire.Hint{Version: 57},
		"pull":        &wire.Pull{Have: 55, MaxBytes: 32768},
		"delta":       &wire.Delta{Changes: changes, Key: "k1", Sig: make([]byte, 64)},
		"command":     &wire.Command{Name: "restart", Args: map[string]wire.Raw{"after_seconds": raw(tb, 5)}},
		"join":        &wire.Join{Claim: "secret", Request: []byte{48, 1}},
		"certificate": &wire.Certificate{Leaf: []byte{48, 2}, Authority: []byte{48, 3}, HubKey: make([]byte, 32), ServerName: "postern-hub"},
		"response":    &wire.Response{Values: map[string]wire.Raw{"done": raw(tb, true)}},
		"pull-all":    &wire.Pull{Have: 55, Stamp: make([]byte, 8), Floor: 60, SealTo: make([]byte, 32)},
		"applied": &wire.Applied{At: wire.Position{Version: 57, Stamp: make([]byte, 8)},
			Refused: []wire.RefusedItem{{Collection: wire.CollPeople, Key: "00", Code: "conflict", Text: "there is a legal hold"}}},
		"erased": &wire.Erased{Erasures: []wire.Erasure{{Tag: make([]byte, 16), Version: 9, At: 1764000000000000}}},
	}
}

var header = wire.Header{ID: "c-1", Re: "c-0", At: 1764000000000000, Expires: 1764000060000000, Code: "throttled", Text: "wait"}

func encode(tb testing.TB, h wire.Header, m wire.Message) []byte {
	tb.Helper()
	p, err := wire.Encode(h, m)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// The bytes of every message are fixed: deployed devices and other people's clients
// rely on them.
func TestGolden(t *testing.T) {
	for name, m := range messages(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "golden", name+"-v1.hex")
			got := encode(t, header, m)
			if *update {
				if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the wire has changed:\n got %x\nwant %x", got, want)
			}
			h, back, err := wire.Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			wantH := header
			wantH.Type = m.Type()
			if h != wantH || !reflect.DeepEqual(back, m) {
				t.Errorf("decoded %+v %+v, want %+v %+v", h, back, wantH, m)
			}
		})
	}
}

func TestResultSurvives(t *testing.T) {
	want := result(7)
	got, err := row(t, 7).Result()
	if err != nil {
		t.Fatal(err)
	}
	want.Device, want.Epoch = "", ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("result came back as\n%+v, want\n%+v", got, want)
	}
}

func TestPack(t *testing.T) {
	b := batch(t, 40)
	if b.Rows != nil || b.Packed == nil {
		t.Fatal("40 rows were not packed")
	}
	_, m, err := wire.Decode(encode(t, wire.Header{}, b))
	if err != nil {
		t.Fatal(err)
	}
	got := m.(*wire.Results)
	if len(got.Rows) != 40 || got.Packed != nil || !got.Historical || got.Rows[39].Seq != 40 {
		t.Errorf("unpacked %+v", got)
	}
	if !bytes.Equal(got.Rows[3].Body, row(t, 4).Body) {
		t.Error("a body has changed on the way")
	}
}

// What docs/mqtt.md says of sizes.
func TestSizes(t *testing.T) {
	j, err := json.Marshal(result(7))
	if err != nil {
		t.Fatal(err)
	}
	body := len(row(t, 7).Body)
	rnd := rand.New(rand.NewPCG(1, 2))
	var rows []wire.Row
	for i := range 40 { // as different as real ones: ids, people, numbers, times
		r := result(uint64(i + 1))
		r.ID = fmt.Sprintf("0193611e-%04x-7%03x-%04x-%012x", rnd.IntN(1<<16), rnd.IntN(1<<12), rnd.IntN(1<<16), rnd.Uint64()>>16)
		r.SubjectID, r.At = strconv.Itoa(rnd.IntN(10000)), r.At.Add(time.Duration(rnd.Int64N(1e15))).Truncate(time.Microsecond)
		r.Decision.Score, r.Decision.Cosine = math.Round(rnd.Float64()*1e4)/100, rnd.Float32()
		r.Decision.Timings = agent.Timings{Detect: time.Duration(rnd.IntN(1e7)), Embed: time.Duration(rnd.IntN(1e7)), Total: time.Duration(rnd.IntN(1e8))}
		row, err := wire.ResultRow(r)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	b, err := wire.Pack("e1", false, rows)
	if err != nil {
		t.Fatal(err)
	}
	packed := len(encode(t, wire.Header{}, b)) / 40
	t.Logf("a result with a warning: JSON %d bytes, CBOR %d, in a batch of 40 %d", len(j), body, packed)
	if body >= len(j) || packed*3 > body {
		t.Error("the encoding does not pay")
	}
}

// A newer peer may add fields and types; this side passes over them.
func TestForward(t *testing.T) {
	p := encode(t, wire.Header{ID: "x"}, &wire.Hint{Version: 9})
	// {1: 6, 2: "x", 8: {1: 9}} with an unknown key 99 outside and 77 inside.
	newer, err := hex.DecodeString("01" + "a4" + "0106" + "026178" + "08a201091" + "84d6161" + "186301")
	if err != nil {
		t.Fatal(err)
	}
	h, m, err := wire.Decode(newer)
	if err != nil {
		t.Fatal(err)
	}
	h0, m0, _ := wire.Decode(p)
	if h != h0 || !reflect.DeepEqual(m, m0) {
		t.Errorf("with unknown fields: %+v %+v, without: %+v %+v", h, m, h0, m0)
	}
	unknown, _ := hex.DecodeString("01" + "a2" + "01183c" + "08a0")
	if h, _, err := wire.Decode(unknown); !errors.Is(err, wire.ErrUnknownType) || h.Type != 60 || agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("unknown type: %+v, %v", h, err)
	}
}

func TestRefused(t *testing.T) {
	good := encode(t, wire.Header{}, &wire.Hint{Version: 9})
	bomb, err := wire.Pack("e", false, []wire.Row{{Seq: 1, Kind: 1, Body: raw(t, strings.Repeat("a", 40000))}, {Seq: 2, Kind: 1, Body: raw(t, strings.Repeat("a", 40000))}})
	if err != nil {
		t.Fatal(err)
	}
	both := *bomb
	both.Rows = []wire.Row{row(t, 1)}
	for name, c := range map[string]struct {
		p     []byte
		words string
	}{
		"empty":           {nil, "cut short"},
		"only a version":  {[]byte{1}, "cut short"},
		"older version":   {append([]byte{0}, good[1:]...), "wire version 0, this side speaks 1"},
		"newer version":   {append([]byte{2}, good[1:]...), "wire version 2, this side speaks 1"},
		"too long":        {append([]byte{1}, make([]byte, wire.MaxMessage)...), "over"},
		"not CBOR":        {[]byte{1, 0xff, 0xff}, "CBOR"},
		"trailing bytes":  {append(bytes.Clone(good), 0), "CBOR"},
		"cut":             {good[:len(good)-1], "CBOR"},
		"a list":          {[]byte{1, 0x80}, "CBOR"},
		"no body":         {[]byte{1, 0xa1, 1, 6}, "no body"},
		"key twice":       {[]byte{1, 0xa3, 1, 6, 1, 6, 8, 0xa0}, "duplicate"},
		"indefinite":      {[]byte{1, 0xbf, 1, 6, 8, 0xa0, 0xff}, "indefinite"},
		"wrong type":      {[]byte{1, 0xa2, 1, 6, 8, 0xa1, 1, 0x61, 'a'}, "hint is not valid"},
		"long id":         {unhex(t, "01a30106"+"027829"+strings.Repeat("61", 41)+"08a10101"), "id has 41 bytes"},
		"delta unsigned":  {unhex(t, "01a2010808a301410002616b034100"), "signature"},
		"rows twice":      {encode(t, wire.Header{}, &both), "both"},
		"empty results":   {unhex(t, "01a2010108a1016165"), "without rows"},
		"broken deflate":  {unhex(t, "01a2010108a2016165"+"0443ffffff"), "packed"},
		"number too big":  {unhex(t, "01a2010608a1011bffffffffffffffff"), "over"},
		"a NaN":           {unhex(t, "01a2010408a101a16161f97e00"), "NaN"},
		"name of nothing": {unhex(t, "01a2010908a10160"), "name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, m, err := wire.Decode(c.p)
			if agent.ErrorCode(err) != agent.CodeInvalid || m != nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("Decode = %+v, %v; want an error with %q", m, err, c.words)
			}
		})
	}
	if _, _, err := wire.Decode(encode(t, wire.Header{}, bomb)); err != nil {
		t.Errorf("rows within the limit were refused: %v", err)
	}
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// A small message must not become a large one.
func TestInflateIsBounded(t *testing.T) {
	rows := make([]wire.Row, 0, 40)
	for i := range 40 {
		rows = append(rows, wire.Row{Seq: uint64(i + 1), Kind: wire.RowResult, Body: raw(t, strings.Repeat("a", 4000))})
	}
	if b, err := wire.Pack("e", false, rows); err != nil || b.Packed != nil {
		t.Fatalf("160 kB were packed (%v)", err)
	}
	if _, err := wire.Encode(wire.Header{}, &wire.Results{Epoch: "e", Rows: rows}); err == nil {
		t.Error("160 kB may be sent")
	}
	if _, _, err := wire.Decode(unhex(t, bombHex)); err == nil || !strings.Contains(err.Error(), "over 98304 bytes") {
		t.Errorf("a megabyte of zeros: %v", err)
	}
}

// bombHex is a results message whose packed rows are 256 kB of zeros.
const bombHex = "01a2010108a20161650459010fedc13101000000c2a0f54fed6d07a00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000" +
	"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000" +
	"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000" +
	"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000de00"

func TestNotSent(t *testing.T) {
	for name, m := range map[string]wire.Message{
		"no epoch":       &wire.Ack{Seq: 1},
		"NaN":            &wire.Telemetry{Values: map[string]float64{"a": math.NaN()}},
		"short hash":     &wire.Checkpoint{Epoch: "e", Hash: []byte{1}},
		"order of rows":  &wire.Results{Epoch: "e", Rows: []wire.Row{{Seq: 2, Kind: 1, Body: []byte{1}}, {Seq: 2, Kind: 1, Body: []byte{1}}}},
		"below floor":    &wire.Results{Epoch: "e", Floor: 3, Rows: []wire.Row{{Seq: 2, Kind: 1, Body: []byte{1}}}},
		"epoch NUL":      &wire.Ack{Epoch: "a\x00b"},
		"no request":     &wire.Join{Claim: "c"},
		"half an answer": &wire.Certificate{Leaf: []byte{48}},
		"empty body":     &wire.Results{Epoch: "e", Rows: []wire.Row{{Seq: 2, Kind: 1}}},
	} {
		if p, err := wire.Encode(wire.Header{}, m); err == nil {
			t.Errorf("%s: encoded as %x", name, p)
		}
	}
	if _, err := wire.Encode(wire.Header{Code: strings.Repeat("c", 65)}, &wire.Hint{}); err == nil {
		t.Error("a code of 65 bytes was encoded")
	}
}

// A result that cannot travel still gives a row, so that no number is missing.
func TestTooLargeBecomesUnreadable(t *testing.T) {
	r := result(5)
	r.Source = strings.Repeat("x", wire.MaxRow)
	got, err := wire.ResultRow(r)
	if err == nil || got.Kind != wire.RowUnreadable || got.Seq != 5 || len(got.Body) > 600 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := got.Result(); err == nil {
		t.Error("an unreadable row was read as a result")
	}
	var why string
	if err := wire.Unmarshal(wire.UnreadableRow(1, strings.Repeat("ß", 400)).Body, &why); err != nil || why == "" {
		t.Errorf("reason cut within a character: %q, %v", why, err)
	}
}

// Pictures and templates never travel in a result by accident: nothing in it is a
// byte string or a list of floats, but for the JSON "-" fields.
func TestNoPicturesInResults(t *testing.T) {
	var walk func(typ reflect.Type, path string, seen map[reflect.Type]bool)
	walk = func(typ reflect.Type, path string, seen map[reflect.Type]bool) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Map:
			walk(typ.Elem(), path, seen)
		case reflect.Slice, reflect.Array:
			switch typ.Elem().Kind() {
			case reflect.Uint8, reflect.Float32, reflect.Float64:
				t.Errorf("%s is a %s: a picture or a template could travel in it", path, typ)
			}
			walk(typ.Elem(), path+"[]", seen)
		case reflect.Struct:
			if seen[typ] || typ == reflect.TypeFor[time.Time]() {
				return
			}
			seen[typ] = true
			for f := range typ.Fields() {
				if f.Tag.Get("json") != "-" {
					walk(f.Type, path+"."+f.Name, seen)
				}
			}
		}
	}
	walk(reflect.TypeFor[agent.Result](), "Result", map[reflect.Type]bool{})
}

func TestTopics(t *testing.T) {
	if got := wire.Up("door-7", wire.ChanResults); got != "fm/up/door-7/res" {
		t.Error(got)
	}
	if got := wire.Down("door-7", wire.ChanAck); got != "fm/dn/door-7/ack" {
		t.Error(got)
	}
	if got := wire.AllUp(wire.ChanHealth); got != "fm/up/+/st" {
		t.Error(got)
	}
	if d, c, ok := wire.ParseUp("fm/up/door-7/res"); !ok || d != "door-7" || c != wire.ChanResults {
		t.Error(d, c, ok)
	}
	if d, c, ok := wire.ParseDown("fm/dn/door-7/ack"); !ok || d != "door-7" || c != wire.ChanAck {
		t.Error(d, c, ok)
	}
	for _, topic := range []string{"", "fm/up/", "fm/up//res", "fm/up/a", "fm/up/a/", "fm/up/a/res/x", "fm/up/A/res", "fm/up/a+/res", "fm/dn/a/res", "$SYS/up/a/res", "fm/up/a.b/res", "fm/up/ä/res"} {
		if d, c, ok := wire.ParseUp(topic); ok {
			t.Errorf("%q was taken for device %q, channel %q", topic, d, c)
		}
	}
	for name, ok := range map[string]bool{"a": true, "kiosk_1-b": true, strings.Repeat("a", 64): true, "": false, strings.Repeat("a", 65): false, "Kiosk": false, "a.b": false, "a b": false, "#": false} {
		if err := wire.CheckDevice(name); (err == nil) != ok {
			t.Errorf("CheckDevice(%q) = %v", name, err)
		}
	}
}

func TestExpired(t *testing.T) {
	for _, c := range []struct {
		expires, now int64
		want         bool
	}{{0, 1 << 60, false}, {10, 10, false}, {10, 11, true}} {
		if got := (wire.Header{Expires: c.expires}).Expired(c.now); got != c.want {
			t.Errorf("expires %d at %d: %v", c.expires, c.now, got)
		}
	}
}

// FuzzDecode: no bytes crash the decoder, and what it accepts is accepted again as
// the same after encoding.
func FuzzDecode(f *testing.F) {
	for _, m := range messages(f) {
		f.Add(encode(f, header, m))
	}
	f.Add(encode(f, wire.Header{}, batch(f, 30)))
	f.Add([]byte{1, 0xa2, 1, 6, 8, 0xa0})
	f.Fuzz(func(t *testing.T, p []byte) {
		h, m, err := wire.Decode(p)
		if err != nil {
			if agent.ErrorCode(err) != agent.CodeInvalid {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		if r, ok := m.(*wire.Results); ok {
			if m, err = wire.Pack(r.Epoch, r.Historical, r.Rows); err != nil {
				t.Fatalf("a batch that was accepted cannot be packed: %v", err)
			}
		}
		again, err := wire.Encode(h, m)
		if err != nil {
			if strings.Contains(err.Error(), "over 65536") {
				return // our encoding may be the longer one
			}
			t.Fatalf("what was accepted cannot be sent: %v", err)
		}
		h2, m2, err := wire.Decode(again)
		if err != nil || h2 != h {
			t.Fatalf("second decoding: %+v, %v; first %+v", h2, err, h)
		}
		if r, ok := m2.(*wire.Results); ok {
			for _, row := range r.Rows {
				_, _ = row.Result()
			}
			return
		}
		if third, err := wire.Encode(h2, m2); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("encoding is not stable: %x, %x, %v", again, third, err)
		}
	})
}

// FuzzChanges: the inside of a delta.
func FuzzChanges(f *testing.F) {
	p, err := wire.EncodeChanges(wire.Changes{Device: "d", From: 1, To: 2, Items: []wire.Item{{Collection: "c", Key: "k", Version: 2, Body: []byte{1}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := wire.DecodeChanges(p)
		if err != nil {
			return
		}
		if _, err := wire.EncodeChanges(c); err != nil {
			t.Fatalf("accepted, but cannot be sent: %v", err)
		}
	})
}

// FuzzRow: the inside of a row, which the hub reads after it has stored it.
func FuzzRow(f *testing.F) {
	f.Add([]byte(row(f, 1).Body))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := wire.Row{Seq: 1, Kind: wire.RowResult, Body: p}.Result()
		if err == nil && (r.Seq != 1 || r.Device != "" || r.Decision.Status == "") {
			t.Fatalf("read as %+v", r)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	var rows []wire.Row
	for i := range 64 {
		rows = append(rows, row(b, uint64(i+1)))
	}
	for b.Loop() {
		r, err := wire.Pack("e1", false, rows)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := wire.Encode(wire.Header{}, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*64)/b.Elapsed().Seconds(), "rows/s")
}
