package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postern/agent"
	"postern/camera/sample"
	"postern/inference/litert"
)

// The tests here run the real thing: LiteRT, the shipped models, public-domain
// portraits that "make setup" fetched. They fail, and say so, where it did not run.
func TestMain(m *testing.M) {
	if os.Getenv(asPostern) != "" {
		main()
		return
	}
	dir, err := os.MkdirTemp("", "postern-faces-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	headsDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	if n := litert.Live(); n != 0 {
		fmt.Fprintf(os.Stderr, "%d native objects were not closed\n", n)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// root is the project's folder.
const root = "../../.."

// headsDir holds the small pictures that face makes.
var headsDir string

// heads cuts the portraits down to the head, 400 x 400: under the race detector the
// decoding of the large ones would be most of the time.
var heads = sync.OnceValue(func() error {
	cast, err := sample.LoadCast(filepath.Join(root, ".cache/faces"))
	if err != nil {
		return err
	}
	for name, p := range map[string]sample.Person{sample.EnrolFrom: cast.Print, "obama2.jpg": cast.Again, "obama3.jpg": cast.Enrolled, "biden.jpg": cast.Stranger} {
		if err := writeSquare(filepath.Join(headsDir, name), p.Picture, p.Head, 400); err != nil {
			return err
		}
	}
	return nil
})

// face returns the path of a test portrait, small where it is one of the large ones.
func face(tb testing.TB, name string) string {
	tb.Helper()
	path := portrait(tb, name)
	if err := heads(); err != nil {
		tb.Fatal(err)
	}
	if small := filepath.Join(headsDir, name); fileExists(small) {
		return small
	}
	return path
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// portrait returns the path of a test portrait as it came.
func portrait(tb testing.TB, name string) string {
	tb.Helper()
	p := filepath.Join(root, ".cache/faces", name)
	if _, err := os.Stat(p); err != nil {
		tb.Fatalf("test portrait %s is missing: run \"make setup\"", name)
	}
	return p
}

// library returns the path of the inference library.
func library(tb testing.TB) string {
	tb.Helper()
	lib, err := filepath.Abs(filepath.Join(root, ".cache/litert", libraryName))
	if err != nil {
		tb.Fatal(err)
	}
	return lib
}

// answer is what one command line printed.
type answer struct {
	code     int
	out, err string
}

// postern runs one command line with the project's library and a data folder of
// its own unless the arguments name one.
func postern(tb testing.TB, args ...string) answer {
	tb.Helper()
	return posternCtx(tb, context.Background(), args...)
}

func posternCtx(tb testing.TB, ctx context.Context, args ...string) answer {
	tb.Helper()
	var out, errw bytes.Buffer
	lib := library(tb)
	if len(args) > 0 && args[0] == "enroll" && !slices.Contains(args, "--consent") {
		args = append(args, "--consent", "the test", "--purpose", "testing")
	}
	args = append(args, "--set", "inference.library="+lib, "--set", "device=test")
	code := execute(ctx, args, nil, strings.NewReader(""), &out, &errw)
	return answer{code, out.String(), errw.String()}
}

// decode reads a JSON answer.
func decode[T any](tb testing.TB, a answer) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal([]byte(a.out), &v); err != nil {
		tb.Fatalf("answer is not JSON: %v\n%s%s", err, a.out, a.err)
	}
	return v
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		want       agent.Status
		code       int
	}{
		{"SamePerson", "obama.jpg", "obama2.jpg", agent.Approved, exitApproved},
		{"SamePersonOtherDay", "obama.jpg", "obama3.jpg", agent.Approved, exitApproved},
		{"AlphaChannel", "obama.jpg", "32bit.png", agent.Approved, exitApproved},
		{"Itself", "biden.jpg", "biden.jpg", agent.Approved, exitApproved},
		{"Stranger", "obama.jpg", "biden.jpg", agent.Declined, exitDeclined},
		{"StrangerTheOtherWay", "biden.jpg", "obama2.jpg", agent.Declined, exitDeclined},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := postern(t, "match", face(t, c.a), face(t, c.b), "--json")
			d := decode[agent.Decision](t, a)
			if d.Status != c.want || a.code != c.code || !d.Scored {
				t.Fatalf("got %s score %.2f exit %d, want %s exit %d\n%s", d.Status, d.Score, a.code, c.want, c.code, a.err)
			}
			if d.ModelID == "" || d.Calibration == "" || d.Timings.Total == 0 || d.Timings.Embed == 0 {
				t.Fatalf("decision does not say what made it: %+v", d)
			}
		})
	}
}

func TestMatchIsSymmetric(t *testing.T) {
	ab := decode[agent.Decision](t, postern(t, "match", face(t, "obama.jpg"), face(t, "obama2.jpg"), "--json"))
	ba := decode[agent.Decision](t, postern(t, "match", face(t, "obama2.jpg"), face(t, "obama.jpg"), "--json"))
	if ab.Score != ba.Score {
		t.Fatalf("score %v one way, %v the other", ab.Score, ba.Score)
	}
}

func TestMatchThresholds(t *testing.T) {
	a, b := face(t, "obama.jpg"), face(t, "obama2.jpg")
	score := decode[agent.Decision](t, postern(t, "match", a, b, "--json")).Score
	review := fmt.Sprintf("match.review=%.2f", score)
	if got := postern(t, "match", a, b, "--set", review); got.code != exitInReview || !strings.Contains(got.out, "In Review") {
		t.Fatalf("a score at the review threshold gave exit %d: %s", got.code, got.out)
	}
	decline := fmt.Sprintf("match.decline=%.2f", score)
	if got := postern(t, "match", a, b, "--set", review, "--set", decline); got.code != exitDeclined {
		t.Fatalf("a score at the decline threshold gave exit %d: %s", got.code, got.out)
	}
}

func TestNoFaceIsDeclined(t *testing.T) {
	grey := filepath.Join(t.TempDir(), "wall.png")
	writePNG(t, grey, image.NewGray16(image.Rect(0, 0, 300, 300)))
	a := postern(t, "match", face(t, "obama.jpg"), grey)
	if a.code != exitDeclined || !strings.Contains(a.out, string(agent.RiskNoReference)) {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
}

func writePNG(tb testing.TB, path string, img image.Image) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		tb.Fatal(err)
	}
}

func TestBadPictures(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	tiny := filepath.Join(dir, "tiny.png")
	writePNG(t, tiny, image.NewGray(image.Rect(0, 0, 1, 1)))
	whole, err := os.ReadFile(face(t, "obama.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		code       int
		says       string
	}{
		{"Missing", filepath.Join(dir, "nobody.jpg"), exitNotFound, "does not exist"},
		{"Empty", write("empty.jpg", nil), exitInvalid, "is empty"},
		{"Text", write("text.jpg", []byte("not a picture at all")), exitInvalid, "is not a JPEG"},
		{"OnePixel", tiny, exitInvalid, "1x1"},
		{"Folder", dir, exitInvalid, "folder"},
		{"Truncated", write("half.jpg", whole[:len(whole)/2]), exitInvalid, "damaged"},
		{"AnimatedWebP", write("moving.webp", []byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x27\x00\x00\x17\x00\x00")), exitInvalid, "animated WebP"},
		{"HugeHeader", write("huge.png", hugePNG()), exitInvalid, "20000x20000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := postern(t, "match", face(t, "obama.jpg"), c.path)
			if a.code != c.code || !strings.Contains(a.err, c.says) || !strings.Contains(a.err, filepath.Base(c.path)) {
				t.Fatalf("exit %d, want %d with %q:\n%s", a.code, c.code, c.says, a.err)
			}
			if strings.Count(strings.TrimSpace(a.err), "\n") > 0 || a.out != "" {
				t.Fatalf("not one sentence: %q %q", a.err, a.out)
			}
		})
	}
}

// hugePNG is the start of a PNG that claims 20,000 x 20,000 pixels.
func hugePNG() []byte {
	var b bytes.Buffer
	png.Encode(&b, image.NewGray(image.Rect(0, 0, 16, 16)))
	raw := b.Bytes()
	copy(raw[16:24], []byte{0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20})
	copy(raw[29:33], crc(raw[12:29]))
	return raw
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"macth"}, "match"},
		{[]string{"match", "one.jpg"}, "accepts 2"},
		{[]string{"match", "a.jpg", "b.jpg", "--nonsense"}, "nonsense"},
		{[]string{"enroll", "ada"}, "pictures or --live"},
		{[]string{"config", "--set", "match.reveiw=3"}, "match.review"},
		{[]string{"config", "--set", "match.review=many"}, "match.review"},
		{[]string{"config", "--set", "match.review=20"}, "decline"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if a := postern(t, c.args...); a.code != exitInvalid || !strings.Contains(a.err, c.says) {
				t.Fatalf("exit %d, want %d with %q:\n%s", a.code, exitInvalid, c.says, a.err)
			}
		})
	}
}

func TestEnrolVerifyIdentifyDelete(t *testing.T) {
	data := "--data=" + filepath.Join(t.TempDir(), "store")
	obama, biden := face(t, "obama.jpg"), face(t, "biden.jpg")
	enrolled := decode[struct{ Templates []agent.Template }](t, postern(t, "enroll", "b44", obama, face(t, "obama3.jpg"), "--name", "Forty-Four", data, "--json"))
	if len(enrolled.Templates) != 2 {
		t.Fatalf("%d templates, want 2", len(enrolled.Templates))
	}
	t.Run("VerifyApproves", func(t *testing.T) {
		a := postern(t, "verify", "b44", "--image", face(t, "obama2.jpg"), data, "--json")
		if r := decode[agent.Result](t, a); a.code != exitApproved || r.SubjectID != "b44" || r.Seq != 1 {
			t.Fatalf("exit %d: %+v", a.code, r)
		}
	})
	t.Run("VerifyDeclinesStranger", func(t *testing.T) {
		if a := postern(t, "verify", "b44", "--image", biden, data); a.code != exitDeclined {
			t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
		}
	})
	t.Run("VerifyUnknown", func(t *testing.T) {
		if a := postern(t, "verify", "nobody", "--image", biden, data); a.code != exitNotFound || !strings.Contains(a.err, "nobody") {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
	t.Run("IdentifyIsOff", func(t *testing.T) {
		if a := postern(t, "identify", "--image", obama, data); a.code != exitUnavailable || !strings.Contains(a.err, "identify.enabled") {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
	t.Run("IdentifyFinds", func(t *testing.T) {
		a := postern(t, "identify", "--image", face(t, "obama2.jpg"), data, "--set", "identify.enabled=true", "--json")
		if r := decode[agent.Result](t, a); a.code != exitApproved || r.SubjectID != "b44" || r.Kind != agent.KindIdentify {
			t.Fatalf("exit %d: %+v", a.code, r)
		}
	})
	t.Run("IdentifyNamesNoStranger", func(t *testing.T) {
		a := postern(t, "identify", "--image", biden, data, "--set", "identify.enabled=true", "--json")
		if r := decode[agent.Result](t, a); a.code != exitDeclined || r.SubjectID != "" {
			t.Fatalf("exit %d: %+v", a.code, r)
		}
	})
	t.Run("DuplicateFaceRefused", func(t *testing.T) {
		a := postern(t, "enroll", "other", face(t, "obama2.jpg"), data)
		if a.code != exitConflict || !strings.Contains(a.err, "b44") {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
	t.Run("OtherFaceUnderSameID", func(t *testing.T) {
		if a := postern(t, "enroll", "b44", biden, data); a.code != exitConflict {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
	t.Run("DifferentPeople", func(t *testing.T) {
		if a := postern(t, "enroll", "pair", obama, biden, data, "--allow-duplicate"); a.code != exitConflict || !strings.Contains(a.err, "different people") {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
	t.Run("ListShowResults", func(t *testing.T) {
		if a := postern(t, "subjects", "list", data); !strings.Contains(a.out, "Forty-Four") {
			t.Fatal(a.out, a.err)
		}
		if a := postern(t, "subjects", "show", "b44", data); !strings.Contains(a.out, enrolled.Templates[0].ID) {
			t.Fatal(a.out, a.err)
		}
		if rs := decode[[]agent.Result](t, postern(t, "results", data, "--json")); len(rs) != 4 || rs[0].Seq != 4 {
			t.Fatalf("%d results stored, want 4 (an error stores nothing)", len(rs))
		}
	})
	t.Run("DeletedIsGone", func(t *testing.T) {
		if a := postern(t, "subjects", "delete", "b44", data); a.code != 0 {
			t.Fatal(a.err)
		}
		if a := postern(t, "verify", "b44", "--image", obama, data); a.code != exitNotFound {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
		if a := postern(t, "identify", "--image", obama, data, "--set", "identify.enabled=true"); a.code != exitDeclined {
			t.Fatalf("exit %d: %s", a.code, a.err)
		}
	})
}

func TestEnrolRefusesBadPicture(t *testing.T) {
	data := "--data=" + filepath.Join(t.TempDir(), "store")
	a := postern(t, "enroll", "cut", face(t, "obama_partial_face.jpg"), data)
	if a.code != exitQuality || !strings.Contains(a.err, "cut by the border") {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
	if rs := decode[[]any](t, postern(t, "subjects", "list", data, "--json")); len(rs) != 0 {
		t.Fatalf("a refused enrolment left %d subjects", len(rs))
	}
}

func TestDoctor(t *testing.T) {
	data := filepath.Join(t.TempDir(), "none")
	if a := postern(t, "doctor", "--data", data); a.code != 0 || !strings.Contains(a.out, "LiteRT 2.3.0") {
		t.Fatalf("exit %d: %s%s", a.code, a.out, a.err)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Fatal("doctor made the data folder")
	}
}

func TestWithoutLibrary(t *testing.T) {
	var out, errw bytes.Buffer
	args := []string{"match", face(t, "obama.jpg"), face(t, "obama2.jpg"), "--set", "inference.library=" + filepath.Join(t.TempDir(), "none.so")}
	if code := execute(context.Background(), args, nil, nil, &out, &errw); code != exitUnavailable || !strings.Contains(errw.String(), "make setup") {
		t.Fatalf("exit %d: %s", code, errw.String())
	}
	errw.Reset()
	args = []string{"doctor", "--set", "inference.library=" + filepath.Join(t.TempDir(), "none.so")}
	if code := execute(context.Background(), args, nil, nil, &out, &errw); code != exitUnavailable {
		t.Fatalf("doctor without the library: exit %d: %s", code, errw.String())
	}
}

func TestNoSuchCamera(t *testing.T) {
	a := postern(t, "camera", "snapshot", filepath.Join(t.TempDir(), "x.jpg"), "--set", "camera.source=97")
	if a.code != exitUnavailable || !strings.Contains(a.err, "video97") {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
}

func TestUnusableDataFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := postern(t, "subjects", "list", "--data", file); a.code != exitStorage && a.code != exitInvalid {
		t.Fatalf("exit %d: %s", a.code, a.err)
	}
}

// TestMatchWithLiveness: asked for, liveness is measured on the probe and told; a
// portrait that fills the picture passes, and without asking nothing is measured.
func TestMatchWithLiveness(t *testing.T) {
	a, b := face(t, "obama.jpg"), face(t, "obama2.jpg")
	for _, c := range []struct {
		flags []string
		live  bool
		want  agent.Status
	}{
		{nil, false, agent.Approved},
		{[]string{"--liveness"}, true, agent.Approved},
		{[]string{"--liveness", "--set", "liveness.mode=off"}, true, agent.Approved},
		{[]string{"--liveness", "--set", "liveness.review=99"}, true, agent.InReview},
		{[]string{"--liveness", "--set", "liveness.review=99", "--set", "liveness.decline=98"}, true, agent.Declined},
	} {
		d := decode[agent.Decision](t, postern(t, append([]string{"match", a, b, "--json"}, c.flags...)...))
		if d.Status != c.want || (d.Liveness != nil) != c.live {
			t.Errorf("%v: %s, liveness %+v; want %s", c.flags, d.Status, d.Liveness, c.want)
		}
	}
}
