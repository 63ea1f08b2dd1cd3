package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/config"
)

// load merges text as a file.
func load(tb testing.TB, text string, environ []string, set ...string) (config.Config, error) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return config.Load(path, environ, set)
}

func mustLoad(tb testing.TB, text string, environ []string, set ...string) config.Config {
	tb.Helper()
	c, err := load(tb, text, environ, set...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// defaults are the compiled ones as Load returns them.
func defaults(tb testing.TB) config.Config {
	tb.Helper()
	c, err := config.Load("", nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := defaults(t)
	if c.Device == "" {
		t.Error("the device has no name")
	}
	c.Device = ""
	if c != config.Default() {
		t.Errorf("Load changed the defaults: %+v", c)
	}
	if c.Identify.Enabled || !strings.HasPrefix(c.HTTP.Listen, "127.0.0.1:") {
		t.Error("the defaults must be the careful ones: no 1:N, no page for the network")
	}
}

// values has another valid value for every setting.
var values = map[string]string{
	"sync.hub_url": "mqtts://hub:8883", "sync.token_file": "/etc/postern/token", "sync.ca": "/etc/postern/ca.pem", "sync.hub_keys": "00ff", "sync.offline_limit": "72h0m0s",
	"hub.listen": "127.0.0.1:1", "hub.http_listen": "127.0.0.1:2", "hub.metrics": "127.0.0.1:3", "hub.names": "hub.example, hub", "hub.plain": "true", "hub.tls_cert": "a.pem", "hub.tls_key": "b.pem", "hub.broker_url": "mqtts://broker", "hub.username": "u", "hub.password_file": "/p",
	"data": "/var/lib/postern", "device": "door-7", "tenant": "acme", "keys.root": "credential", "keys.dir": "/etc/postern", "keys.tpm": "/dev/tpmrm1", "keys.adopt_plain": "true",
	"keys.rotate_every": "24h", "keys.purge_after": "1h", "enrol.require_consent": "false",
	"log.level": "debug", "log.format": "json",
	"inference.library": "/usr/lib/x.so", "inference.threads": "2", "inference.profile": "accurate", "inference.parallel": "4",
	"camera.source": "rtsp://camera/1", "camera.kind": "url", "camera.width": "640", "camera.height": "480",
	"camera.fps": "15", "camera.rotate": "90", "camera.mirror": "true", "camera.crop.x": "0.1", "camera.crop.y": "0.2",
	"camera.crop.w": "0.3", "camera.crop.h": "0.4", "camera.loop": "true", "camera.real_time": "false",
	"match.calibration": "here.json", "match.review": "75.5", "match.decline": "40", "identify.enabled": "true", "identify.fpir": "0.002",
	"identify.review_fpir": "0.03", "identify.margin": "5",
	"liveness.mode": "off", "liveness.review": "80", "liveness.decline": "55", "liveness.min_frames": "9", "liveness.tasks": "3", "liveness.task_time": "20s", "liveness.several_faces": "decline",
	"liveness.low_quality": "review", "liveness.dark": "review", "liveness.bright": "decline",
	"live.budget": "4s", "live.min_frames": "2", "live.max_frames": "20", "live.gone": "1.5s", "live.max_rate": "10",
	"throttle.subject.failures": "4", "throttle.subject.delay": "1m", "throttle.subject.stop": "40",
	"throttle.device.failures": "3", "throttle.device.delay": "2m", "throttle.device.stop": "30", "throttle.override": "ops-17",
	"http.listen": "0.0.0.0:9000", "http.live_fps": "5", "http.tls_cert": "/etc/postern/cert.pem", "http.tls_key": "/etc/postern/key.pem",
	"http.max_connections": "100", "api.public_url": "https://door.example", "api.origins": "https://app.example", "api.parallel": "2",
	"api.queue": "8", "api.timeout": "10s", "api.link_life": "10m", "api.rates.read": "1", "api.rates.write": "2", "api.rates.create": "3",
	"api.rates.pdf": "4", "api.rates.biometrics": "5",
	"sessions.abandon_after": "30m", "sessions.keep_media": "24h", "sessions.search_limit": "100", "webhooks.allow_loopback": "true",
	"webhooks.keep_log": "48h",
	"kiosk.language":    "ja", "kiosk.theme": "dark", "kiosk.name": "Acme", "kiosk.logo": "/etc/postern/logo.svg", "kiosk.attendant": "room 5", "kiosk.pin_pad": "true",
	"kiosk.controller": "Acme KK", "kiosk.contact": "dpo@acme.example", "kiosk.screensaver": "1m", "kiosk.sounds": "true", "kiosk.hold": "30s",
	"hosted.origins": "https://app.example", "hosted.brands": "/etc/postern/brands",
	"store.max_bytes":   "1048576",
	"retention.results": "365d", "retention.images": "30d", "retention.templates": "3653d", "retention.unsent": "true",

	"quality.enrol.min_eye_distance": "41", "quality.enrol.min_luminance": "16", "quality.enrol.max_luminance": "84",
	"quality.enrol.min_sharpness": "41", "quality.enrol.max_yaw": "24", "quality.enrol.max_pitch": "24",
	"quality.enrol.min_inside": "0.9", "quality.enrol.other_face_share": "0.25", "quality.enrol.min_contrast": "7", "quality.enrol.max_roll": "29", "quality.enrol.min_eyes_open": "0.17",
	"quality.enrol.max_mouth_hidden": "0.7", "quality.enrol.max_eyes_hidden": "0.9", "quality.enrol.min_score": "29",
	"quality.verify.min_eye_distance": "25", "quality.verify.min_luminance": "9", "quality.verify.max_luminance": "91",
	"quality.verify.min_sharpness": "16", "quality.verify.max_yaw": "39", "quality.verify.max_pitch": "39",
	"quality.verify.min_inside": "0.7", "quality.verify.other_face_share": "0.4", "quality.verify.min_contrast": "5", "quality.verify.max_roll": "44", "quality.verify.min_eyes_open": "0.13",
	"quality.verify.max_mouth_hidden": "0.96", "quality.verify.max_eyes_hidden": "0.99", "quality.verify.min_score": "11",
}

// tlsPeers make a single file of a certificate valid.
var tlsPeers = []string{"http.tls_cert=/c.pem", "http.tls_key=/k.pem"}

// cropPeers make a single crop setting valid.
var cropPeers = []string{"camera.crop.w=0.3", "camera.crop.h=0.4"}

func TestEveryKey(t *testing.T) {
	keys := config.Keys()
	if len(keys) != len(values) {
		t.Errorf("%d settings, the test has values for %d", len(keys), len(values))
	}
	for _, key := range keys {
		t.Run(key, func(t *testing.T) {
			value, ok := values[key]
			if !ok {
				t.Fatal("no value for this setting")
			}
			var peers []string
			if strings.HasPrefix(key, "camera.crop.") {
				peers = cropPeers
			}
			if strings.HasPrefix(key, "http.tls_") {
				peers = tlsPeers
			}
			base := mustLoad(t, "", nil, peers...)
			if peers == nil {
				base = defaults(t)
			}
			env := config.EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
			byFile := mustLoad(t, yamlOf(key, value), nil, without(peers, key)...)
			byEnv := mustLoad(t, "", []string{"HOME=/", env + "=" + value}, without(peers, key)...)
			bySet := mustLoad(t, "", nil, append(slices.Clone(peers), key+"="+value)...)
			if byFile != byEnv || byEnv != bySet {
				t.Errorf("file, environment and --set differ:\n%+v\n%+v\n%+v", byFile, byEnv, bySet)
			}
			if bySet == base && peers == nil {
				t.Error("the setting changed nothing")
			}
		})
	}
}

func without(peers []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(peers), func(p string) bool { return strings.HasPrefix(p, key+"=") })
}

// yamlOf nests one dotted key.
func yamlOf(key, value string) string {
	var b strings.Builder
	parts := strings.Split(key, ".")
	for i, p := range parts {
		fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), p)
		if i < len(parts)-1 {
			b.WriteByte('\n')
		}
	}
	return b.String() + " " + value + "\n"
}

func TestOrder(t *testing.T) {
	c := mustLoad(t, "match: {review: 71, decline: 41}\nlog: {level: warn}\n",
		[]string{"POSTERN_MATCH_REVIEW=72", "POSTERN_MATCH_DECLINE=42"}, "match.review=73", "match.review=74")
	if c.Match != (config.Match{Review: 74, Decline: 42}) || c.Log.Level != "warn" {
		t.Errorf("later sources do not win: %+v %+v", c.Match, c.Log)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		file  string
		env   []string
		set   []string
		words []string // all in the error
	}{
		{name: "unknown key", file: "camera:\n  sauce: 0\n", words: []string{"postern.yaml:2", "camera.sauce", "camera.source"}},
		{name: "unknown section", file: "mach:\n  review: 5\n", words: []string{"postern.yaml:1", `"mach"`, "did you mean"}},
		{name: "unknown variable", env: []string{"POSTERN_MATCH_REVEIW=1"}, words: []string{"POSTERN_MATCH_REVEIW", "POSTERN_MATCH_REVIEW"}},
		{name: "unknown setting", set: []string{"match.reviw=1"}, words: []string{"--set", "match.reviw", "match.review"}},
		{name: "below a value", set: []string{"data.x=1"}, words: []string{"data.x"}},
		{name: "group", set: []string{"match=1"}, words: []string{"group", "match.review"}},
		{name: "no equals sign", set: []string{"match.review"}, words: []string{"key=value"}},
		{name: "wrong type", file: "log: {level: info}\nmatch:\n  review: high\n", words: []string{"postern.yaml:3", "match.review", "high", "float64"}},
		{name: "quoted number", file: "match:\n  review: \"70\"\n", words: []string{"postern.yaml:2", "match.review"}},
		{name: "wrong type by variable", env: []string{"POSTERN_MATCH_REVIEW=high"}, words: []string{"POSTERN_MATCH_REVIEW", "match.review"}},
		{name: "wrong type by set", set: []string{"live.budget=3"}, words: []string{"live.budget", "Duration"}},
		{name: "empty by set", set: []string{"match.review="}, words: []string{"match.review"}},
		{name: "null by set", set: []string{"match.review=null"}, words: []string{"match.review"}},
		{name: "comment by set", set: []string{"match.review=#70"}, words: []string{"match.review"}},
		{name: "two values by set", set: []string{"match.review=[70, 80]"}, words: []string{"match.review"}},
		{name: "no value", file: "match:\n  decline:\n", words: []string{"postern.yaml:2", "match.decline"}},
		{name: "null section", file: "match:\n", words: []string{"postern.yaml:1", "match wants keys"}},
		{name: "value for a section", file: "match: 70\n", words: []string{"postern.yaml:1", "match wants keys"}},
		{name: "section for a value", file: "data: {x: 1}\n", words: []string{"postern.yaml:1", "data"}},
		{name: "list", file: "- data\n", words: []string{"not a list of keys"}},
		{name: "text", file: "hello\n", words: []string{"not a list of keys"}},
		{name: "not YAML", file: "a: [b\n", words: []string{"not YAML"}},
		{name: "binary", file: "\x00\x01\x02", words: []string{"not YAML"}},
		{name: "two documents", file: "data: a\n---\ndata: b\n", words: []string{"more than one document"}},
		{name: "alias", file: "data: &x a\ndevice: *x\n", words: []string{"postern.yaml:2", "aliases"}},
		{name: "alias as a key", file: "log: {level: &data info}\n*data : x\n", words: []string{"postern.yaml:2", "unknown"}},
		{name: "merge key", file: "log: &x {level: info}\n<<: *x\n", words: []string{"postern.yaml:2", "unknown"}},
		{name: "key twice", file: "match:\n  review: 80\n  review: 71\n", words: []string{"postern.yaml:3", "match.review", "twice"}},
		{name: "NaN in the file", file: "match: {review: .nan}\n", words: []string{"match.review", "finite"}},
		{name: "NaN limit", file: "quality: {verify: {max_yaw: .nan}}\n", words: []string{"quality.verify.max_yaw", "finite"}},
		{name: "infinity by variable", env: []string{"POSTERN_IDENTIFY_MARGIN=.inf"}, words: []string{"identify.margin", "finite"}},
		{name: "NaN crop", set: []string{"camera.crop.w=.nan"}, words: []string{"camera.crop.w", "finite"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file, c.env, c.set...)
			checkError(t, err, c.words)
		})
	}
}

func checkError(tb testing.TB, err error, words []string) {
	tb.Helper()
	if err == nil {
		tb.Fatal("no error")
	}
	if agent.ErrorCode(err) != agent.CodeInvalid || strings.Contains(err.Error(), "\n") {
		tb.Errorf("code %s, text %q", agent.ErrorCode(err), err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			tb.Errorf("%q lacks %q", err, w)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		set string // settings, separated by blanks
		key string // named in the error; "" for valid
	}{
		{"log.level=trace", "log.level"},
		{"keys.root=paper", "keys.root"}, {"keys.root=tpm", ""}, {"keys.root=tpm keys.tpm=tpmrm0", "keys.tpm"},
		{"log.format=xml", "log.format"},
		{"camera.kind=webcam", "camera.kind"},
		{"camera.rotate=45", "camera.rotate"},
		{"camera.rotate=-90", "camera.rotate"},
		{"data=", "data"},
		{"camera.source=", "camera.source"},
		{"http.listen=8080", "http.listen"},
		{"http.listen=:8080", ""},
		{"inference.profile=best", "inference.profile"},
		{"inference.threads=0", "inference.threads"},
		{"inference.threads=65", "inference.threads"},
		{"inference.parallel=0", "inference.parallel"},
		{"camera.width=-1", "camera.width"},
		{"camera.height=10000", "camera.height"},
		{"camera.fps=-1", "camera.fps"},
		{"identify.margin=-1", "identify.margin"},
		{"identify.fpir=0", "identify.fpir"},
		{"identify.fpir=0.2", "identify.fpir"},
		{"identify.review_fpir=1", "identify.review_fpir"},
		{"identify.fpir=0.02", "identify.review_fpir"},
		{"live.min_frames=0", "live.min_frames"},
		{"live.min_frames=13", "live.max_frames"},
		{"live.max_frames=2", "live.max_frames"},
		{"live.max_rate=0", "live.max_rate"},
		{"liveness.mode=maybe", "liveness.mode"},
		{"liveness.mode=active", ""},
		{"liveness.tasks=0", "liveness.tasks"},
		{"liveness.tasks=4", "liveness.tasks"},
		{"liveness.task_time=0s", "liveness.task_time"},
		{"liveness.min_frames=13", "liveness.min_frames"},
		{"liveness.mode=", "liveness.mode"},
		{"liveness.dark=ignore", "liveness.dark"},
		{"liveness.review=40", "liveness"},
		{"liveness.decline=-1", "liveness"},
		{"http.live_fps=0", "http.live_fps"},
		{"live.budget=1ms", "live.budget"},
		{"live.budget=-3s", "live.budget"},
		{"live.gone=2m", "live.gone"},
		{"throttle.subject.failures=6 liveness.mode=off", "throttle.subject"},
		{"throttle.device.stop=51 liveness.mode=off", "throttle.device"},
		{"throttle.subject.failures=10 throttle.device.stop=100 liveness.mode=passive", ""},
		{"throttle.subject.failures=11 liveness.mode=passive", "throttle.subject"},
		{"throttle.subject.delay=29s", "throttle.subject"},
		{"throttle.subject.failures=0", "throttle.subject"},
		{"throttle.subject.failures=6 throttle.override=ops", ""},
		{"throttle.subject.failures=0 throttle.override=ops", "throttle.subject"},
		{"throttle.device.delay=25h throttle.override=ops", "throttle.device"},
		{"store.max_bytes=1000", "store.max_bytes"},
		{"retention.results=29d", "retention.results"},
		{"retention.templates=off", "retention.templates"},
		{"retention.images=3654d", "retention.images"},
		{"match.review=40", "match"},
		{"match.review=100", "match"},
		{"match.decline=-1", "match"},
		{"match.review=95 identify.enabled=true", ""},
		{"camera.crop.w=0.5", "camera.crop"},
		{"camera.crop.x=0.7 camera.crop.w=0.3 camera.crop.h=1", ""},
		{"camera.crop.x=0.1 camera.crop.w=0.7000000000000001 camera.crop.y=0.3 camera.crop.h=0.7", ""},
		{"camera.crop.x=0.8 camera.crop.w=0.3 camera.crop.h=1", "camera.crop"},
		{"camera.crop.x=-0.1 camera.crop.w=0.3 camera.crop.h=1", "camera.crop"},
		{"quality.verify.min_sharpness=-1", "quality.verify.min_sharpness"},
		{"quality.verify.max_yaw=-1", "quality.verify.max_yaw"},
		{"quality.enrol.min_inside=2", "quality.enrol.min_inside"},
		{"quality.enrol.other_face_share=-0.1", "quality.enrol.other_face_share"},
		{"quality.enrol.max_luminance=101", "quality.enrol.max_luminance"},
		{"quality.verify.min_score=101", "quality.verify.min_score"},
		{"quality.enrol.max_mouth_hidden=1.1", "quality.enrol.max_mouth_hidden"},
		{"quality.enrol.min_luminance=90", "quality.enrol.min_luminance"},
		{"quality.enrol.min_luminance=90 quality.enrol.max_luminance=0", ""},
	} {
		t.Run(c.set, func(t *testing.T) {
			_, err := config.Load("", nil, strings.Fields(c.set))
			if c.key != "" {
				checkError(t, err, []string{c.key})
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFilesThatChangeNothing(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "blank": "\n\n", "comment": "# nothing\n", "marker": "---\n", "comment after marker": "---\n# x\n", "empty map": "{}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := mustLoad(t, text, []string{"POSTERN_CONFIG=/x", "PATH=/bin"}); got != defaults(t) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := config.Load(path, nil, nil); agent.ErrorCode(err) != agent.CodeNotFound || !strings.Contains(err.Error(), path) {
		t.Errorf("err = %v", err)
	}
	if _, err := config.Load(t.TempDir(), nil, nil); agent.ErrorCode(err) != agent.CodeInvalid {
		t.Errorf("a folder: %v", err)
	}
}

// The printed configuration is what a deployer starts from, so it must mean
// exactly the compiled defaults.
func TestYAMLIsTheDefaults(t *testing.T) {
	raw, err := config.Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, string(raw), []string{"POSTERN_DEVICE="}); got != defaults(t) {
		t.Errorf("printed:\n%s\nread: %+v", raw, got)
	}
	for _, key := range config.Keys() {
		if last := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(string(raw), last+":") {
			t.Errorf("%s is not printed", key)
		}
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	var set []string
	for _, k := range config.Keys() {
		set = append(set, k+"="+values[k])
	}
	want := mustLoad(t, "", nil, set...)
	raw, err := want.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, string(raw), nil); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func FuzzMerge(f *testing.F) {
	raw, err := config.Default().YAML()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(raw))
	for _, s := range []string{"", "---", "match: {review: .nan}", "a: &a [*a]", "data: a\n---\ndata: b", "? {a: b}\n: c",
		"!!binary x", "*x", "live: {budget: 3s}", "\xef\xbb\xbfdata: x", "<<: {data: x}", "data: !!null x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := load(t, text, []string{"POSTERN_DEVICE=fuzz"})
		if err != nil {
			if code := agent.ErrorCode(err); code != agent.CodeInvalid {
				t.Fatalf("code %s: %v", code, err)
			}
			return
		}
		again, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := load(t, string(again), nil); err != nil || got != c {
			t.Fatalf("%v\nread  %+v\nagain %+v\nfrom\n%s", err, c, got, again)
		}
	})
}
