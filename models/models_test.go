package models_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"postern/models"
)

func mustSet(tb testing.TB) *models.Set {
	tb.Helper()
	set, err := models.Default()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

func TestShippedSet(t *testing.T) {
	set := mustSet(t)
	for id, m := range map[string]*models.Model{
		models.DefaultNear: set.Near, models.DefaultFar: set.Far, models.DefaultMesh: set.Mesh, models.DefaultEmbedder: set.Embedder,
	} {
		t.Run(id, func(t *testing.T) {
			if m.Manifest.ID != id || m.Manifest.License == "" || m.Manifest.Source.SHA256 == "" {
				t.Errorf("manifest %+v", m.Manifest)
			}
			if err := m.Manifest.Verify(m.Bytes); err != nil {
				t.Error(err)
			}
			if string(m.Bytes[4:8]) != "TFL3" {
				t.Error("not a TFLite file")
			}
		})
	}
	e := set.Embedder.Manifest
	if e.Calibration == nil || e.Embedder.Space == "" {
		t.Errorf("the embedder lacks its calibration or space: %+v", e)
	}
	if _, ok := e.Output("none"); ok {
		t.Error("an output from nowhere")
	}
}

// TestData: released bytes are read again, and refused when they are others by then.
func TestData(t *testing.T) {
	tree := fstest.MapFS{}
	for _, name := range []string{"manifest.json", "model.tflite"} {
		raw, err := os.ReadFile(filepath.Join(models.DefaultNear, name))
		if err != nil {
			t.Fatal(err)
		}
		tree[models.DefaultNear+"/"+name] = &fstest.MapFile{Data: raw}
	}
	m, err := models.Load(tree, models.DefaultNear)
	if err != nil {
		t.Fatal(err)
	}
	held, err := m.Data()
	if err != nil || &held[0] != &m.Bytes[0] {
		t.Errorf("the bytes at hand were not used: %v", err)
	}
	m.Bytes = nil
	if again, err := m.Data(); err != nil || !bytes.Equal(again, held) || m.Bytes != nil {
		t.Errorf("read again: %v", err)
	}
	tree[models.DefaultNear+"/model.tflite"].Data[100] ^= 1
	if _, err := m.Data(); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("changed bytes: %v", err)
	}
	if _, err := (&models.Model{}).Data(); err == nil {
		t.Error("bytes out of nowhere")
	}
}

// TestForProfile: each profile loads, and their templates compare with one another.
func TestForProfile(t *testing.T) {
	spaces := map[string]bool{}
	for name, id := range models.Profiles {
		set, err := models.ForProfile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Embedder.Manifest.ID; got != id {
			t.Errorf("%s has %s, want %s", name, got, id)
		}
		spaces[set.Embedder.Manifest.Embedder.Space] = true
	}
	if len(models.Profiles) != 2 || len(spaces) != 1 {
		t.Errorf("profiles %v in spaces %v", models.Profiles, spaces)
	}
	if _, err := models.ForProfile("best"); err == nil || !strings.Contains(err.Error(), "best") {
		t.Errorf("a profile that is not there: %v", err)
	}
}

// object is a manifest as loose JSON, to be spoilt.
type object = map[string]any

// loose is a model's manifest as an object.
func loose(tb testing.TB, m *models.Model) object {
	tb.Helper()
	raw, err := json.Marshal(m.Manifest)
	if err != nil {
		tb.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		tb.Fatal(err)
	}
	return o
}

func rawOf(tb testing.TB, o object) []byte {
	tb.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// set puts value at a path like "outputs.0.shape"; gone deletes the key.
func set(o object, path string, value any) {
	parts := strings.Split(path, ".")
	var at any = o
	for _, p := range parts[:len(parts)-1] {
		switch v := at.(type) {
		case object:
			at = v[p]
		case []any:
			at = v[p[0]-'0']
		}
	}
	last := parts[len(parts)-1]
	switch v := at.(type) {
	case object:
		if value == gone {
			delete(v, last)
		} else {
			v[last] = value
		}
	case []any:
		v[last[0]-'0'] = value
	}
}

var gone = any("\x00gone")

func TestParseManifest(t *testing.T) {
	shipped := mustSet(t)
	for _, c := range []struct {
		m     *models.Model
		path  string
		value any
		want  string // in the error; "" for valid
	}{
		{shipped.Embedder, "version", 2, ""},
		{shipped.Near, "detector.score_threshold", 0.7, ""},
		{shipped.Embedder, "extra", 1, "extra"},
		{shipped.Embedder, "input.extra", 1, "extra"},
		{shipped.Embedder, "id", "", "id"},
		{shipped.Embedder, "id", "..", "id"},
		{shipped.Embedder, "id", "a/b", "id"},
		{shipped.Embedder, "file", "../x.tflite", "file"},
		{shipped.Embedder, "file", "/etc/passwd", "file"},
		{shipped.Embedder, "file", "..", "file"},
		{shipped.Embedder, "file", "", "file"},
		{shipped.Embedder, "role", "oracle", "role"},
		{shipped.Embedder, "role", "detector", "outputs"},
		{shipped.Embedder, "version", 0, "version"},
		{shipped.Embedder, "size", 0, "size"},
		{shipped.Embedder, "size", -1, "size"},
		{shipped.Embedder, "size", "big", "size"},
		{shipped.Embedder, "sha256", "", "sha256"},
		{shipped.Embedder, "sha256", strings.Repeat("0", 63), "sha256"},
		{shipped.Embedder, "sha256", strings.Repeat("g", 64), "sha256"},
		{shipped.Embedder, "sha256", strings.Repeat("A", 64), "sha256"},
		{shipped.Embedder, "input", gone, "input"},
		{shipped.Embedder, "input.shape", []int{1, 112, 112}, "shape"},
		{shipped.Embedder, "input.shape", []int{1, 112, 100, 3}, "shape"},
		{shipped.Embedder, "input.shape", []int{2, 112, 112, 3}, "shape"},
		{shipped.Embedder, "input.shape", []int{1, 112, 112, 4}, "shape"},
		{shipped.Embedder, "input.shape", []int{1, 1 << 20, 1 << 20, 3}, "shape"},
		{shipped.Embedder, "input.shape", []int{1, -112, -112, 3}, "shape"},
		{shipped.Embedder, "input.color", "YUV", "color"},
		{shipped.Embedder, "input.std", 0, "std"},
		{shipped.Embedder, "input.std", -1, "std"},
		{shipped.Embedder, "input.dtype", "int16", "dtype"},
		{shipped.Embedder, "input.dtype", "float32", "dtype"}, // with a scale
		{shipped.Embedder, "input.scale", 0, "dtype"},
		{shipped.Embedder, "input.scale", -0.1, "dtype"},
		{shipped.Embedder, "input.zero_point", 128, "zero point"},
		{shipped.Embedder, "outputs.0.zero_point", -129, "zero point"},
		{shipped.Embedder, "outputs", []any{}, "embedding"},
		{shipped.Embedder, "outputs.0.role", "scores", "embedding"},
		{shipped.Embedder, "outputs.0.shape", []int{1, 0}, "shape"},
		{shipped.Embedder, "outputs.0.shape", []int{1 << 20, 1 << 20, 1 << 20, 1 << 20}, "shape"},
		{shipped.Near, "outputs.1.role", "regressors", "two outputs"},
		{shipped.Near, "outputs.1.name", "regressors", "two outputs"},
		{shipped.Embedder, "known_answers", gone, "known_answers"},
		{shipped.Embedder, "known_answers", shipped.Embedder.Manifest.KnownAnswers[:1], "1 pictures"},
		{shipped.Embedder, "known_answers.1.picture", "face", "twice"},
		{shipped.Embedder, "known_answers.1.picture", "landscape", "unknown"},
		{shipped.Embedder, "known_answers.0.outputs", []any{}, "0 outputs"},
		{shipped.Near, "known_answers.0.outputs.1.name", "regressors", "twice"},
		{shipped.Near, "known_answers.0.outputs.0.name", "none", "not the network's"},
		{shipped.Near, "known_answers.0.outputs.0.step", 0, "steps"},
		{shipped.Near, "known_answers.0.outputs.0.step", 1, "steps"},
		{shipped.Near, "known_answers.0.outputs.0.values", []float64{}, "steps"},
		{shipped.Embedder, "known_answers.0.outputs.0.tolerance", 0, "tolerance"},
		{shipped.Embedder, "known_answers.0.outputs.0.tolerance", 1, "tolerance"},
		{shipped.Embedder, "known_answers.0.outputs.0.values", make([]float64, 512), "tolerance"},
		{shipped.Near, "detector", gone, "detector is missing"},
		{shipped.Near, "detector.input_size", 64, "input_size"},
		{shipped.Near, "detector.score_threshold", 0, "thresholds"},
		{shipped.Near, "detector.score_threshold", 1, "thresholds"},
		{shipped.Near, "detector.nms_iou", 2, "thresholds"},
		{shipped.Near, "detector.anchors", []any{}, "anchors"},
		{shipped.Near, "detector.anchors", make([]object, 9), "anchors"},
		{shipped.Near, "detector.anchors.0.stride", 0, "anchor"},
		{shipped.Near, "detector.anchors.0.per_cell", 1000, "anchor"},
		{shipped.Embedder, "embedder", gone, "embedder is missing"},
		{shipped.Embedder, "embedder.dim", 1, "dim"},
		{shipped.Embedder, "embedder.dim", 1 << 20, "dim"},
		{shipped.Embedder, "embedder.space", "", "space"},
		{shipped.Embedder, "embedder.template", [][]float64{{1, 2}}, "template"},
		{shipped.Embedder, "calibration", gone, "calibration"},
		{shipped.Embedder, "calibration.id", "", "calibration"},
		{shipped.Embedder, "calibration.points", []any{}, "calibration"},
		{shipped.Embedder, "calibration.points.1.score", 0, "does not rise"},
		{shipped.Embedder, "calibration.points.1.cosine", -1, "does not rise"},
		{shipped.Embedder, "calibration.points.1.score", 200, "out of range"},
		{shipped.Embedder, "calibration.points.5.cosine", 2, "out of range"},
	} {
		t.Run(c.m.Manifest.ID+" "+c.path, func(t *testing.T) {
			o := loose(t, c.m)
			set(o, c.path, c.value)
			_, err := models.ParseManifest(rawOf(t, o))
			if c.want == "" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v lacks %q", err, c.want)
			}
		})
	}
	for name, raw := range map[string]string{
		"empty": "", "null": "null", "list": "[]", "text": "hello", "cut": `{"id":`, "deep": strings.Repeat("[", 100000),
		"more after it": string(rawOf(t, loose(t, shipped.Embedder))) + "{}",
		"infinite":      `{"input":{"std":1e999}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := models.ParseManifest([]byte(raw)); err == nil {
				t.Error("no error")
			}
		})
	}
}

// tree is the shipped set as files.
func tree(tb testing.TB) fstest.MapFS {
	tb.Helper()
	s := mustSet(tb)
	files := fstest.MapFS{}
	for _, m := range s.All() {
		files[m.Manifest.ID+"/manifest.json"] = &fstest.MapFile{Data: rawOf(tb, loose(tb, m))}
		files[m.Manifest.ID+"/model.tflite"] = &fstest.MapFile{Data: m.Bytes}
	}
	return files
}

func TestLoadSet(t *testing.T) {
	const embedder = models.DefaultEmbedder
	manifest, model := embedder+"/manifest.json", embedder+"/model.tflite"
	for _, c := range []struct {
		name   string
		change func(fstest.MapFS)
		load   string
		want   string
	}{
		{"OK", func(fstest.MapFS) {}, embedder, ""},
		{"no such embedder", func(fstest.MapFS) {}, "none", "none"},
		{"outside the tree", func(fstest.MapFS) {}, "../x", "../x"},
		{"a detector as embedder", func(fstest.MapFS) {}, models.DefaultNear, "is a detector, want a embedder"},
		{"no manifest", func(f fstest.MapFS) { delete(f, manifest) }, embedder, embedder},
		{"no model file", func(f fstest.MapFS) { delete(f, model) }, embedder, embedder},
		{"no mesh", func(f fstest.MapFS) { delete(f, models.DefaultMesh+"/model.tflite") }, embedder, models.DefaultMesh},
		{"one bit flipped", func(f fstest.MapFS) {
			data := append([]byte{}, f[model].Data...)
			data[len(data)/2] ^= 1
			f[model] = &fstest.MapFile{Data: data}
		}, embedder, "SHA-256"},
		{"a byte short", func(f fstest.MapFS) { f[model] = &fstest.MapFile{Data: f[model].Data[1:]} }, embedder, "bytes"},
		{"empty file", func(f fstest.MapFS) { f[model] = &fstest.MapFile{} }, embedder, "bytes"},
		{"manifest of another model", func(f fstest.MapFS) { f[manifest] = f[models.DefaultMesh+"/manifest.json"] }, embedder, models.DefaultMesh},
		{"damaged manifest", func(f fstest.MapFS) { f[manifest] = &fstest.MapFile{Data: []byte("{")} }, embedder, embedder},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := tree(t)
			c.change(files)
			s, err := models.LoadSet(files, c.load)
			if c.want == "" {
				if err != nil || s.Embedder == nil {
					t.Error(err)
				}
				return
			}
			if err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v lacks %q", err, c.want)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	data := []byte("model")
	sum := sha256.Sum256(data)
	m := models.Manifest{File: "m", Size: 5, SHA256: hex.EncodeToString(sum[:])}
	if err := m.Verify(data); err != nil {
		t.Error(err)
	}
	if m.Verify([]byte("modem")) == nil || m.Verify([]byte("models")) == nil || m.Verify(nil) == nil {
		t.Error("another file passed")
	}
}

func FuzzParseManifest(f *testing.F) {
	s := mustSet(f)
	for _, m := range []*models.Model{s.Near, s.Far, s.Mesh, s.Embedder} {
		f.Add(rawOf(f, loose(f, m)))
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := models.ParseManifest(raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := models.ParseManifest(again); err != nil {
			t.Fatalf("accepted once only: %v\n%s", err, again)
		}
	})
}
