package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"postern/agent"
)

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(1))
)

// axis is the unit vector along one of n axes.
func axis(n, i int) agent.Embedding {
	e := make(agent.Embedding, n)
	e[i] = 1
	return e
}

func TestCosine(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b agent.Embedding
		want float32
	}{
		{"same", axis(4, 0), axis(4, 0), 1},
		{"opposite", agent.Embedding{1, 0}, agent.Embedding{-1, 0}, -1},
		{"orthogonal", axis(4, 0), axis(4, 1), 0},
		{"between", agent.Embedding{1, 0}, agent.Embedding{0.6, 0.8}, 0.6},
		{"both empty", nil, nil, -1},
		{"one empty", axis(4, 0), nil, -1},
		{"other length", axis(4, 0), axis(5, 0), -1},
		{"NaN", axis(2, 0), agent.Embedding{nan, 0}, -1},
		{"NaN beside a unit", axis(2, 0), agent.Embedding{1, nan}, -1},
		{"infinite", agent.Embedding{inf, 0}, agent.Embedding{inf, 0}, -1},
		{"too long", agent.Embedding{2, 0}, agent.Embedding{0.1, 0.1}, -1},
		// The product alone looks like a cosine here: 3 x 0.3.
		{"too long, looking plausible", agent.Embedding{3, 0}, agent.Embedding{0.3, 0.9539392}, -1},
		{"too short", agent.Embedding{0.5, 0}, axis(2, 0), -1},
		{"zero", agent.Embedding{0, 0}, axis(2, 0), -1},
		{"rounding", agent.Embedding{1.0000001, 0}, agent.Embedding{1.0000001, 0}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.a.Cosine(c.b); got != c.want {
				t.Errorf("Cosine = %v, want %v", got, c.want)
			}
			if got := c.b.Cosine(c.a); got != c.want {
				t.Errorf("the other way round = %v, want %v", got, c.want)
			}
		})
	}
}

func TestNormalise(t *testing.T) {
	e := agent.Embedding{3, 4}
	if !e.Normalise() || e[0] != 0.6 || e[1] != 0.8 || !e.Normalised() {
		t.Errorf("got %v", e)
	}
	for _, bad := range []agent.Embedding{nil, {0, 0}, {1e-9, 0}, {nan, 1}, {inf, 1}} {
		if bad.Normalise() || bad.Normalised() {
			t.Errorf("%v was normalised", bad)
		}
	}
	if big := (agent.Embedding{math.MaxFloat32, math.MaxFloat32}); !big.Normalise() || !big.Normalised() {
		t.Errorf("large values overflowed: %v", big)
	}
}

func TestFrameCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		f    *agent.Frame
		want agent.Code
	}{
		{"good", &agent.Frame{Pix: make([]byte, 18), Width: 3, Height: 2}, ""},
		{"nil", nil, agent.CodeInvalid},
		{"zero", &agent.Frame{}, agent.CodeInvalid},
		{"negative", &agent.Frame{Width: -1, Height: -1, Pix: make([]byte, 3)}, agent.CodeInvalid},
		{"short", &agent.Frame{Pix: make([]byte, 17), Width: 3, Height: 2}, agent.CodeInternal},
		{"long", &agent.Frame{Pix: make([]byte, 19), Width: 3, Height: 2}, agent.CodeInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := agent.ErrorCode(c.f.Check()); got != c.want {
				t.Errorf("code %q, want %q", got, c.want)
			}
		})
	}
}

func TestFindings(t *testing.T) {
	limits := agent.QualityLimits{MinEyeDistance: 40, MinLuminance: 15, MaxLuminance: 85, MinSharpness: 40,
		MaxYaw: 25, MaxPitch: 25, MinInside: 0.95, OtherFaceShare: 0.3}
	good := agent.Quality{EyeDistance: 40, Luminance: 50, Sharpness: 40, Yaw: -25, Pitch: 25, Inside: 0.95}
	face := func(side float32) agent.Face { return agent.Face{Box: agent.Box{W: side, H: side}} }
	for _, c := range []struct {
		name   string
		change func(*agent.Probe)
		want   []agent.FindingCode
	}{
		{"at every limit", func(*agent.Probe) {}, nil},
		{"no face", func(p *agent.Probe) { p.Face = nil }, []agent.FindingCode{agent.FindingNoFace}},
		{"small", func(p *agent.Probe) { p.Quality.EyeDistance = 39.9 }, []agent.FindingCode{agent.FindingTooSmall}},
		{"dark", func(p *agent.Probe) { p.Quality.Luminance = 14.9 }, []agent.FindingCode{agent.FindingTooDark}},
		{"bright", func(p *agent.Probe) { p.Quality.Luminance = 85.1 }, []agent.FindingCode{agent.FindingTooBright}},
		{"blurred", func(p *agent.Probe) { p.Quality.Sharpness = 39 }, []agent.FindingCode{agent.FindingBlurred}},
		{"turned left", func(p *agent.Probe) { p.Quality.Yaw = -26 }, []agent.FindingCode{agent.FindingTurnedAway}},
		{"looking up", func(p *agent.Probe) { p.Quality.Pitch = 26 }, []agent.FindingCode{agent.FindingTurnedAway}},
		{"turned and up is said once", func(p *agent.Probe) { p.Quality.Yaw, p.Quality.Pitch = 60, 60 }, []agent.FindingCode{agent.FindingTurnedAway}},
		{"cut", func(p *agent.Probe) { p.Quality.Inside = 0.9 }, []agent.FindingCode{agent.FindingFaceCut}},
		{"person behind", func(p *agent.Probe) { p.Others = []agent.Face{face(50)} }, nil},
		{"person beside", func(p *agent.Probe) { p.Others = []agent.Face{face(60)} }, []agent.FindingCode{agent.FindingSeveralFaces}},
		{"not a number", func(p *agent.Probe) {
			p.Quality = agent.Quality{EyeDistance: nan, Luminance: nan, Sharpness: nan, Yaw: nan, Pitch: nan, Inside: nan}
		}, []agent.FindingCode{agent.FindingFaceCut, agent.FindingTooSmall, agent.FindingTooDark, agent.FindingTooBright,
			agent.FindingBlurred, agent.FindingTurnedAway}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := face(100)
			p := agent.Probe{Face: &f, Faces: 1, Quality: good}
			c.change(&p)
			p.Findings = limits.Findings(&p)
			var got []agent.FindingCode
			for _, f := range p.Findings {
				got = append(got, f.Code)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("findings %v, want %v", got, c.want)
			}
			for _, code := range c.want {
				if !p.Has(code) {
					t.Errorf("Has(%s) is false", code)
				}
			}
			if p.Has("NONSENSE") {
				t.Error("Has knows a finding that is not there")
			}
		})
	}
	t.Run("zero limits check nothing but the face", func(t *testing.T) {
		p := agent.Probe{Face: &agent.Face{}, Others: []agent.Face{face(1)}}
		if got := (agent.QualityLimits{}).Findings(&p); got != nil {
			t.Errorf("findings %v", got)
		}
		p.Face = nil
		if got := (agent.QualityLimits{}).Findings(&p); len(got) != 1 {
			t.Errorf("findings without a face: %v", got)
		}
	})
}

func TestValidateSubject(t *testing.T) {
	for _, c := range []struct {
		name, id, subject string
		ok                bool
	}{
		{"plain", "ada", "Ada Lovelace", true},
		{"badge", "0042-x_7", "", true},
		{"letters of any script", "Ζωή", "Ζωή Κ.", true},
		{"longest", strings.Repeat("x", 128), strings.Repeat("n", 256), true},
		{"empty", "", "", false},
		{"too long", strings.Repeat("x", 129), "", false},
		{"space", "a b", "", false},
		{"tab", "a\tb", "", false},
		{"newline", "a\n", "", false},
		{"no-break space", "a\u00a0b", "", false},
		{"right-to-left override", "a\u202eb", "", false},
		{"zero width", "a\u200bb", "", false},
		{"NUL", "a\x00", "", false},
		{"broken UTF-8", "a\xff", "", false},
		{"name too long", "a", strings.Repeat("n", 257), false},
		{"name with control", "a", "x\x1b[2J", false},
		{"name with broken UTF-8", "a", "\xff", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := agent.ValidateSubject(c.id, c.subject)
			if (err == nil) != c.ok {
				t.Fatalf("err = %v", err)
			}
			if err != nil && (agent.ErrorCode(err) != agent.CodeInvalid || strings.ContainsAny(err.Error(), "\n\x00\x1b") || !utf8.ValidString(err.Error())) {
				t.Errorf("error %q", err)
			}
		})
	}
}

func TestErrorCode(t *testing.T) {
	e := &agent.Error{Code: agent.CodeStorage, Message: "the disk is full", Fix: "free some space", Err: fs.ErrPermission}
	if got, want := e.Error(), "the disk is full: permission denied (free some space)"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("append: %w", fmt.Errorf("again: %w", e))
	if agent.ErrorCode(wrapped) != agent.CodeStorage || !errors.Is(wrapped, fs.ErrPermission) {
		t.Error("the code or the cause got lost in wrapping")
	}
	if agent.ErrorCode(nil) != "" || agent.ErrorCode(errors.New("x")) != agent.CodeInternal {
		t.Error("nil and plain errors have the wrong code")
	}
}

func TestTimingsAdd(t *testing.T) {
	one := agent.Timings{Decode: 1, Detect: 2, Landmarks: 3, Quality: 4, Align: 5, Embed: 6, Match: 7, Total: 8}
	want := agent.Timings{Decode: 2, Detect: 4, Landmarks: 6, Quality: 8, Align: 10, Embed: 12, Match: 14, Total: 16}
	if got := one.Add(one); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestZeroStatusIsNotApproved(t *testing.T) {
	var d agent.Decision
	if d.Status == agent.Approved || d.Status == agent.InReview {
		t.Error("a forgotten decision reads as an approval")
	}
}
