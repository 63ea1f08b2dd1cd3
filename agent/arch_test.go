package agent_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "postern"

// mayImport says what a folder's packages may import besides the standard library.
// The longest matching folder counts. A name covers what lies under it only where it
// ends in "/...". Folders of the same row may import one another. "C" is cgo.
var mayImport = map[string][]string{
	"agent":                {},
	"agent/decide":         {"agent"},
	"agent/verify":         {"agent", "agent/decide", "agent/liveness", "agent/search", "agent/throttle", "github.com/google/uuid"},
	"agent/throttle":       {"agent", "golang.org/x/sys/unix"},
	"agent/retention":      {"agent", "agent/throttle"},
	"agent/vitals":         {},
	"agent/watch":          {"agent", "agent/decide", "agent/verify"},
	"agent/search":         {"agent", "golang.org/x/sys/cpu", "golang.org/x/sys/unix"},
	"agent/photo":          {"agent", "github.com/bep/imagemeta", "golang.org/x/image/..."},
	"agent/config":         {"agent", "agent/decide", "agent/retention", "agent/throttle", "go.yaml.in/yaml/v3"},
	"agent/evaluate":       {"agent", "agent/photo", "models"},
	"agent/cases":          {"agent", "agent/decide"},
	"agent/flow":           {"agent", "agent/cases", "agent/decide", "agent/photo", "agent/retention", "agent/search", "agent/verify", "github.com/golang-jwt/jwt/v5"},
	"agent/webhook":        {"agent", "agent/cases"},
	"agent/report":         {"agent", "agent/cases", "codeberg.org/go-pdf/fpdf", "golang.org/x/image/..."},
	"agent/keys":           {"agent", "github.com/google/go-tpm/tpm2/..."},
	"agent/envelope":       {"agent", "filippo.io/age"},
	"agent/store":          {"agent", "agent/cases", "agent/keys", "agent/retention", "agent/throttle", "github.com/google/uuid", "go.etcd.io/bbolt/...", "golang.org/x/sys/unix"},
	"agent/ui":             {},
	"agent/hosted":         {"agent", "agent/cases", "agent/photo", "agent/ui", "rsc.io/qr"},
	"agent/kiosk":          {"agent", "agent/ui", "agent/verify", "agent/watch"},
	"agent/api":            {"agent", "agent/cases", "agent/decide", "agent/photo", "github.com/google/uuid", "github.com/prometheus/client_golang/...", "go.yaml.in/yaml/v3"},
	"agent/cmd":            {"..."},
	"agent/liveness":       {"agent"},
	"inference":            {"agent", "agent/liveness", "models"},
	"inference/litert":     {"inference", "C", "golang.org/x/sys/cpu"},
	"inference/tensorflow": {"agent", "inference", "C", "github.com/tensorflow/tensorflow/...", "github.com/wamuir/graft/..."},
	"camera":               {"agent", "agent/photo", "gocv.io/x/gocv", "golang.org/x/image/draw"},
	"models":               {},
	"sync":                 {"agent", "sync/wire", "sync/bus", "github.com/google/uuid", "github.com/eclipse/paho.mqtt.golang/...", "github.com/eclipse/paho.golang/..."},
	"sync/wire":            {"agent", "github.com/fxamacker/cbor/v2"},
	"sync/atomicfile":      {},
	"sync/authority":       {"agent", "sync/atomicfile"},
	"sync/identity":        {"agent", "sync/atomicfile", "sync/wire", "github.com/google/uuid"},
	"sync/downlink":        {"agent", "sync/wire", "sync/bus", "sync/device", "github.com/google/uuid"},
	"sync/report":          {"agent", "sync/wire"},
	"sync/registry":        {"agent", "sync/atomicfile", "sync/wire"},
	"sync/broker":          {"agent", "sync/wire", "github.com/nats-io/nats-server/v2/...", "github.com/nats-io/nats.go", "github.com/nats-io/jwt/v2", "github.com/nats-io/nkeys"},
	"sync/hub":             {"agent", "sync/wire", "sync/bus"},
	"sync/hub/boltstore":   {"agent", "sync/wire", "sync/hub", "go.etcd.io/bbolt/..."},
}

// onlyIn names the folders outside of which a technology may not appear at all, not
// even in tests or in the wiring.
var onlyIn = map[string][]string{
	"C":                                    {"inference"},
	"gocv.io/x/gocv/...":                   {"camera"},
	"github.com/tensorflow/tensorflow/...": {"inference"},
	"github.com/wamuir/graft/...":          {"inference"},
	"github.com/eclipse/...":               {"sync"},
	"github.com/nats-io/...":               {"sync"},
	"github.com/google/go-tpm/...":         {"agent/keys"},
	"go.etcd.io/bbolt/...":                 {"agent/store", "sync/hub/boltstore"},
}

// adapters each hold one technology and meet only in the wiring.
var adapters = []string{"agent/store", "agent/kiosk", "agent/hosted", "agent/api", "inference", "camera", "sync"}

// testTools may be imported by tests, and by the packages made for tests.
var testTools = []string{"github.com/santhosh-tekuri/jsonschema/...", "go.uber.org/goleak", "pgregory.net/rapid", "golang.org/x/sys/unix", "github.com/hanwen/go-fuse/v2/..."}

// goFile is what the rules look at.
type goFile struct {
	path    string // relative to the module's root
	imports []string
}

func (f goFile) folder() string { return path.Dir(f.path) }

// forTests tells whether the file is compiled into tests only: by its name, or by
// its package, which ends in "test" (cameratest, storetest).
func (f goFile) forTests() bool {
	return strings.HasSuffix(f.path, "_test.go") ||
		slices.ContainsFunc(strings.Split(f.folder(), "/"), func(s string) bool { return strings.HasSuffix(s, "test") })
}

// under tells whether name is folder or lies in it.
func under(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

// covers tells whether a pattern of the tables above means name.
func covers(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(name, tree)
	}
	return name == pattern
}

func coveredBy(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, name) })
}

// home is the longest folder of the list that name lies in, or "".
func home(folders []string, name string) string {
	best := ""
	for _, f := range folders {
		if under(name, f) && len(f) > len(best) {
			best = f
		}
	}
	return best
}

func isStandard(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return name != "C" && first != module && !strings.Contains(first, ".")
}

// violations gives one sentence for each import that breaks a rule.
func violations(files []goFile) []string {
	var bad []string
	for _, f := range files {
		row := home(slices.Collect(maps.Keys(mayImport)), f.folder())
		if row == "" {
			bad = append(bad, fmt.Sprintf("%s: its folder has no row in mayImport; add one", f.path))
			continue
		}
		for _, name := range f.imports {
			if why := forbidden(f, row, name); why != "" {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s", f.path, name, why))
			}
		}
	}
	return bad
}

// forbidden says why a file of the given row may not import name, or "".
func forbidden(f goFile, row, name string) string {
	if isStandard(name) {
		return ""
	}
	for tech, folders := range onlyIn {
		if covers(tech, name) && home(folders, f.folder()) == "" {
			return "only " + strings.Join(folders, " and ") + " may"
		}
	}
	own, inside := strings.CutPrefix(name, module+"/")
	if inside {
		return forbiddenInside(f, row, own)
	}
	if coveredBy(mayImport[row], name) || f.forTests() && coveredBy(testTools, name) {
		return ""
	}
	return row + " may not use it"
}

// forbiddenInside judges an import of this module's own folder own.
func forbiddenInside(f goFile, row, own string) string {
	if under(own, "agent/cmd") && !under(f.folder(), "agent/cmd") {
		return "nothing may depend on a command"
	}
	if coveredBy(mayImport[row], own) {
		return ""
	}
	from, to := home(adapters, f.folder()), home(adapters, own)
	if from != "" && to != "" && from != to {
		return "adapters do not import one another"
	}
	// The domain package uses none of what is built on it.
	sameRow := home(slices.Collect(maps.Keys(mayImport)), own) == row
	if sameRow && (f.folder() != "agent" || f.forTests()) {
		return ""
	}
	// A test may use what belongs to no technology.
	if f.forTests() && (to == "" || to == from) {
		return ""
	}
	return row + " may not use it"
}

// goFiles reads the imports of every Go file of the module, whatever its build tags.
func goFiles(t *testing.T, root string) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := p != root && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && (hidden || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := goFile{path: filepath.ToSlash(rel)}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// moduleRoot is the folder with go.mod; tests run in their package's folder.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestImportRules(t *testing.T) {
	files := goFiles(t, moduleRoot(t))
	if len(files) < 50 {
		t.Fatalf("only %d Go files found", len(files))
	}
	for _, v := range violations(files) {
		t.Error(v)
	}
}

// The rules above must bite: each of these imports is judged as written here.
func TestImportRulesBite(t *testing.T) {
	cases := []struct {
		path, name string
		ok         bool
	}{
		// Technologies stay where they belong.
		{"camera/video.go", "gocv.io/x/gocv", true},
		{"camera/sample/film.go", "gocv.io/x/gocv", true},
		{"inference/warp.go", "gocv.io/x/gocv", false},
		{"agent/cmd/postern/run.go", "gocv.io/x/gocv", false},
		{"agent/cmd/postern/run_test.go", "gocv.io/x/gocv/contrib", false},
		{"inference/litert/native.go", "C", true},
		{"camera/device_linux.go", "C", false},
		{"agent/store/lock.go", "C", false},
		{"inference/tensorflow/graph.go", "github.com/wamuir/graft/tensorflow", true},
		{"inference/tensorflow/graph.go", "github.com/tensorflow/tensorflow/tensorflow/go", true},
		{"inference/litert/model.go", "github.com/tensorflow/tensorflow/tensorflow/go", false},
		{"models/convert.go", "github.com/wamuir/graft/tensorflow", false},
		{"sync/bus/client.go", "github.com/eclipse/paho.mqtt.golang", true},
		{"agent/watch/watch.go", "github.com/eclipse/paho.mqtt.golang", false},
		{"agent/cmd/postern/run.go", "github.com/eclipse/paho.golang/autopaho", false},
		{"agent/store/file.go", "go.etcd.io/bbolt", true},
		{"agent/store/file.go", "go.etcd.io/bbolt/errors", true},
		{"sync/hub/boltstore/store.go", "go.etcd.io/bbolt", true},
		{"sync/hub/store.go", "go.etcd.io/bbolt", false},
		{"sync/uplink/outbox.go", "go.etcd.io/bbolt", false},
		{"agent/verify/service_test.go", "go.etcd.io/bbolt", false},

		// The domain knows nothing.
		{"agent/face.go", "time", true},
		{"agent/face.go", "postern/agent/decide", false},
		{"agent/face.go", "postern/agent/new", false},
		{"agent/new/new.go", "postern/agent", true},
		{"agent/new/new.go", "postern/agent/store", false},
		{"agent/face.go", "github.com/google/uuid", false},
		{"agent/face.go", "golang.org/x/sync/errgroup", false},
		{"agent/decide/decide.go", "postern/agent", true},
		{"agent/decide/decide.go", "postern/models", false},
		{"agent/decide/decide.go", "golang.org/x/exp/slices", false},
		{"agent/decide/decide_test.go", "pgregory.net/rapid", true},
		{"agent/decide/decide.go", "pgregory.net/rapid", false},
		{"agent/verify/service.go", "github.com/google/uuid", true},
		{"agent/verify/service.go", "postern/agent/decide", true},
		{"agent/verify/service.go", "postern/agent/store", false},
		{"agent/verify/service.go", "postern/inference", false},

		// Adapters meet only in the wiring.
		{"camera/stream.go", "postern/inference", false},
		{"camera/stream_test.go", "postern/inference", false},
		{"camera/folder.go", "postern/agent/photo", true},
		{"camera/stream.go", "postern/agent/verify", false},
		{"camera/sample/film.go", "postern/camera", true},
		{"camera/stream_test.go", "postern/camera/cameratest/fake", true},
		{"camera/cameratest/cameratest.go", "go.uber.org/goleak", true},
		{"camera/stream.go", "go.uber.org/goleak", false},
		{"inference/pipeline.go", "postern/camera", false},
		{"inference/pipeline.go", "postern/models", true},
		{"inference/pipeline_test.go", "postern/inference/litert", true},
		{"inference/litert/engine.go", "postern/inference", true},
		{"inference/litert/model.go", "postern/models", false},
		{"inference/litert/model_test.go", "postern/models", true},
		{"inference/tensorflow/graph.go", "postern/inference", true},
		{"models/models.go", "postern/inference", false},
		{"agent/store/results.go", "postern/agent/kiosk", false},
		{"agent/store/results_test.go", "postern/camera", false},
		{"agent/store/results_test.go", "postern/agent/store/storetest", true},
		{"agent/kiosk/kiosk.go", "postern/agent/store", false},
		{"agent/kiosk/kiosk.go", "postern/agent/watch", true},
		{"agent/watch/watch.go", "postern/camera", false},
		{"agent/watch/watch_test.go", "postern/agent/verify", true},
		{"sync/uplink/uplink.go", "postern/agent/store", false},
		{"sync/uplink/uplink.go", "postern/sync/wire", true},
		{"sync/wire/codec.go", "github.com/fxamacker/cbor/v2", true},
		{"sync/uplink/uplink.go", "github.com/fxamacker/cbor/v2", false},
		{"sync/broker/broker.go", "github.com/nats-io/nats-server/v2/server", true},
		{"sync/hub/hub.go", "github.com/nats-io/nats-server/v2/server", false},
		{"agent/cmd/postern/hub.go", "github.com/nats-io/nats-server/v2/server", false},
		{"sync/wire/codec.go", "postern/sync/uplink", false},

		// The wiring may use all of them, and nobody may use the wiring.
		{"agent/cmd/postern/run.go", "postern/inference/litert", true},
		{"agent/cmd/postern/run.go", "github.com/spf13/cobra", true},
		{"agent/config/load.go", "github.com/spf13/cobra", false},
		{"agent/kiosk/kiosk.go", "postern/agent/cmd/postern", false},
		{"agent/kiosk/kiosk_test.go", "postern/agent/cmd/postern", false},

		// A new package needs a row.
		{"cloud/upload.go", "fmt", false},
	}
	for _, c := range cases {
		t.Run(c.path+" "+c.name, func(t *testing.T) {
			got := violations([]goFile{{path: c.path, imports: []string{c.name}}})
			if (len(got) == 0) != c.ok {
				t.Errorf("allowed = %v, want %v: %q", len(got) == 0, c.ok, got)
			}
		})
	}
}

// A started agent refuses a POSTERN_ variable that is no setting. Tests start agents, so
// their own switches, and those that the Makefile sets for them, are named otherwise.
func TestSwitchesAreNoSettings(t *testing.T) {
	root := moduleRoot(t)
	paths := []string{"Makefile"}
	for _, f := range goFiles(t, root) {
		if f.forTests() && f.folder() != "agent/config" {
			paths = append(paths, f.path)
		}
	}
	named := regexp.MustCompile(`(?m)^\s+POSTERN_\w+=|"POSTERN_[A-Z_]+"`)
	for _, p := range paths {
		text, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllString(string(text), -1) {
			t.Errorf("%s: %s is a switch of the tests: name it TEST_…", p, strings.TrimSpace(name))
		}
	}
}
