// Package config loads postern's configuration in one order: compiled defaults,
// then a YAML file, then POSTERN_* environment variables, then --set flags, then
// validation. An unknown key is an error that names the nearest known one.
package config

import (
	"path/filepath"
	"time"

	"postern/agent"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// Config is the whole configuration, one struct a component.
type Config struct {
	Data   string `yaml:"data"`   // folder of the store
	Device string `yaml:"device"` // name of this device in results; default: the host name
	Tenant string `yaml:"tenant"` // whose records these are, where several share a fleet; a data folder keeps its own

	Keys      KeyStore  `yaml:"keys"`
	Log       Log       `yaml:"log"`
	Store     Store     `yaml:"store"`
	Inference Inference `yaml:"inference"`
	Camera    Camera    `yaml:"camera"`
	Enrol     Enrol     `yaml:"enrol"`
	Match     Match     `yaml:"match"`
	Identify  Identify  `yaml:"identify"`
	Quality   Quality   `yaml:"quality"`
	Live      Live      `yaml:"live"`
	Liveness  Liveness  `yaml:"liveness"`
	Throttle  Throttle  `yaml:"throttle"`
	Retention Retention `yaml:"retention"`
	HTTP      HTTP      `yaml:"http"`
	Kiosk     Kiosk     `yaml:"kiosk"`
	Hosted    Hosted    `yaml:"hosted"`
	API       API       `yaml:"api"`
	Sessions  Sessions  `yaml:"sessions"`
	Webhooks  Webhooks  `yaml:"webhooks"`
	Sync      Sync      `yaml:"sync"`
	Hub       Hub       `yaml:"hub"`
}

// Sync connects this device with a hub. It is off while HubURL is empty and the device
// has not joined one.
type Sync struct {
	HubURL    string `yaml:"hub_url"`    // mqtts://host:8883; mqtt:// on this machine only; empty: where "postern join" was told
	TokenFile string `yaml:"token_file"` // file with the secret that "postern devices add" printed
	CA        string `yaml:"ca"`         // PEM file with the authority of the hub's certificate; empty: the system's
	// OfflineLimit is how long after the hub was heard last people may be approved: somebody
	// may have been dismissed since. 0: for ever.
	OfflineLimit time.Duration `yaml:"offline_limit"`
	HubKeys      string        `yaml:"hub_keys"` // Ed25519 keys, in hex with commas between, that may say what this device holds; empty: the first hub that answers
}

// Hub configures "postern hub".
type Hub struct {
	Listen  string `yaml:"listen"`   // of the built-in broker
	TLSCert string `yaml:"tls_cert"` // PEM; empty: a certificate of the hub's own authority
	TLSKey  string `yaml:"tls_key"`
	Names   string `yaml:"names"`   // of this hub, with commas between, for clients that look at its own authority's certificate by name
	Metrics string `yaml:"metrics"` // host:port where Prometheus metrics are served; empty: nowhere
	Plain   bool   `yaml:"plain"`   // without TLS, and so without devices' certificates: on this machine only

	HTTPListen string `yaml:"http_listen"` // of its v3 API; empty: none. TLS as http.tls_cert says

	BrokerURL    string `yaml:"broker_url"` // another MQTT 3.1.1 broker instead
	Username     string `yaml:"username"`   // there
	PasswordFile string `yaml:"password_file"`
}

// KeyStore says where the root key is, which opens all stored records.
type KeyStore struct {
	Root        string        `yaml:"root"`         // file, credential (systemd) or tpm
	Dir         string        `yaml:"dir"`          // folder of the key file, the erasures and the checkpoints; empty: the data folder's name and ".keys"
	TPM         string        `yaml:"tpm"`          // for keys.root=tpm: device of the TPM 2.0
	RotateEvery time.Duration `yaml:"rotate_every"` // age at which a running agent rotates the store keys; 0: never
	PurgeAfter  time.Duration `yaml:"purge_after"`  // and how long after an erasure at the latest
	AdoptPlain  bool          `yaml:"adopt_plain"`  // encrypt the unencrypted records of an old data folder under a root key that is not new
}

// KeyDir is the folder of the keys, beside the data folder unless it is set: who
// copies the data folder does not copy the key with it.
func (c Config) KeyDir() string {
	if c.Keys.Dir != "" {
		return c.Keys.Dir
	}
	return filepath.Clean(c.Data) + ".keys"
}

// Store bounds what the agent keeps.
type Store struct {
	// MaxBytes is the cap on each data file. At 80 % of it nothing more is added:
	// decisions are refused, and nothing is deleted to make room but telemetry.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Log configures the structured log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Inference configures the networks' runtime.
type Inference struct {
	Library  string `yaml:"library"`  // path of libLiteRt.so; empty: the usual places, see "postern doctor"
	Profile  string `yaml:"profile"`  // accurate, or fast: embeds in half the time and misses somewhat more; see models/README.md
	Threads  int    `yaml:"threads"`  // of one invoke
	Parallel int    `yaml:"parallel"` // pipelines at once
}

// Camera configures the frame source; its fields are those of camera.Options.
type Camera struct {
	Source   string  `yaml:"source"` // "0", /dev/video0, rtsp://…, http://…, a video file, a folder; none: only the API
	Kind     string  `yaml:"kind"`   // device, url, file, folder; empty: from source
	Width    int     `yaml:"width"`
	Height   int     `yaml:"height"`
	FPS      float64 `yaml:"fps"`    // 0: the source's own
	Rotate   int     `yaml:"rotate"` // 0, 90, 180, 270 clockwise
	Mirror   bool    `yaml:"mirror"`
	Crop     Crop    `yaml:"crop"`
	Loop     bool    `yaml:"loop"`      // file, folder: start again at the end
	RealTime bool    `yaml:"real_time"` // file: at the file's own pace
}

// NoCamera as camera.source means that there is none: the agent serves its API.
const NoCamera = "none"

// Crop is the part of the turned picture to use, in shares of its size; all zero
// means the whole.
type Crop struct {
	X float64 `yaml:"x"`
	Y float64 `yaml:"y"`
	W float64 `yaml:"w"`
	H float64 `yaml:"h"`
}

// Enrol configures who may be enrolled.
type Enrol struct {
	RequireConsent bool `yaml:"require_consent"` // without a consent with its purpose nobody is enrolled, and no template is used
}

// Match sets the thresholds of two-picture and 1:1 decisions (score 0..100).
type Match struct {
	Review  float64 `yaml:"review"`
	Decline float64 `yaml:"decline"`
	// Calibration is a file of "postern calibrate" that replaces the model's own table
	// from cosine to score; empty: the model's.
	Calibration string `yaml:"calibration"`
}

// Identify configures 1:N decisions. They are off by default: the chance of a
// false hit grows with the number of subjects.
type Identify struct {
	Enabled bool `yaml:"enabled"`
	// FPIR is the share of strangers that a search may approve as somebody; the
	// thresholds follow from it, the number of subjects and the model's table. Where the
	// table cannot support it, the search is refused.
	FPIR       float64 `yaml:"fpir"`
	ReviewFPIR float64 `yaml:"review_fpir"` // the share that may end In Review or better
	Margin     float64 `yaml:"margin"`      // score by which the best must lead the second
}

// Quality holds the limits for enrolment pictures and for live frames.
type Quality struct {
	Enrol  agent.QualityLimits `yaml:"enrol"`
	Verify agent.QualityLimits `yaml:"verify"`
}

// Live configures how a presentation before the camera becomes one decision.
type Live struct {
	Budget    time.Duration `yaml:"budget"`     // from the first face to the decision at the latest
	MinFrames int           `yaml:"min_frames"` // good frames needed for an approval
	MaxFrames int           `yaml:"max_frames"` // good frames after which it decides anyway
	Gone      time.Duration `yaml:"gone"`       // without a face for so long: the person has left
	MaxRate   float64       `yaml:"max_rate"`   // frames analysed a second at most
}

// Liveness configures presentation-attack detection on live captures. Where it is
// on and cannot be measured, nobody is approved.
type Liveness struct {
	Mode    string  `yaml:"mode"`    // off, passive, active
	Review  float64 `yaml:"review"`  // liveness score at or below: In Review
	Decline float64 `yaml:"decline"` // liveness score at or below: Declined
	// MinFrames is how many good frames an approval needs beside live.min_frames.
	MinFrames int `yaml:"min_frames"`
	// In mode active a person is asked, in random order, to turn the head or blink. Who
	// does not is In Review: an attendant, or another way in, is for whom it does not suit.
	Tasks    int           `yaml:"tasks"`
	TaskTime time.Duration `yaml:"task_time"` // for all of them

	// What a finding does: no_action, review, decline.
	SeveralFaces string `yaml:"several_faces"`
	LowQuality   string `yaml:"low_quality"`
	Dark         string `yaml:"dark"`
	Bright       string `yaml:"bright"`
}

// CaptureTime is how long a live capture may take: live.budget, and the time of the
// tasks where those are asked.
func (c Config) CaptureTime() time.Duration {
	if c.Liveness.Mode == "active" {
		return c.Live.Budget + c.Liveness.TaskTime
	}
	return c.Live.Budget
}

// On reports whether liveness is required of live captures. A mode that is not
// known counts as on.
func (l Liveness) On() bool { return l.Mode != "off" }

// Throttle limits failed attempts in a row; see package throttle. Settings that allow
// more than the standard need a name in Override, which is logged and audited.
type Throttle struct {
	Subject  throttle.Limits `yaml:"subject"` // for each subject
	Device   throttle.Limits `yaml:"device"`  // for all attempts on this device
	Override string          `yaml:"override"`
}

// Retention says how long things are kept for applications without a policy of their
// own: "unlimited" or a number of days, "30d" to "3653d"; images may be "off".
type Retention struct {
	Results   string `yaml:"results"`   // decisions and sessions
	Images    string `yaml:"images"`    // pictures of sessions
	Templates string `yaml:"templates"` // enrolled people, since their newest enrolment
	Unsent    bool   `yaml:"unsent"`    // also delete results that the hub has not acknowledged
}

// Policy is the retention as rules; it is valid where the configuration is.
func (r Retention) Policy() (p retention.Policy) {
	p.Results, _ = retention.Parse(r.Results, false)
	p.Images, _ = retention.Parse(r.Images, true)
	p.Templates, _ = retention.Parse(r.Templates, false)
	return p
}

// Ceiling is what the standard allows at most, which depends on whether presentation
// attacks are detected.
func (c Config) Ceiling() throttle.Limits {
	if c.Liveness.On() {
		return throttle.WithLiveness
	}
	return throttle.Strict
}

// HTTP configures where page and API are served.
type HTTP struct {
	Listen         string  `yaml:"listen"`
	LiveFPS        float64 `yaml:"live_fps"`        // pictures a second in the live view
	TLSCert        string  `yaml:"tls_cert"`        // PEM file; with tls_key: TLS 1.3 only
	TLSKey         string  `yaml:"tls_key"`         // PEM file; both are read again when they change
	MaxConnections int     `yaml:"max_connections"` // open at once; more wait
}

// Kiosk configures the page that people at the device see.
type Kiosk struct {
	Language    string        `yaml:"language"`    // en, ja; empty: as the browser asks
	Theme       string        `yaml:"theme"`       // light, dark; empty: as the device is set
	Name        string        `yaml:"name"`        // whose door it is; empty: postern
	Logo        string        `yaml:"logo"`        // file: SVG, PNG, JPEG or WebP, up to 256 KiB
	Attendant   string        `yaml:"attendant"`   // where help is found, for example "reception, extension 12"
	PINPad      bool          `yaml:"pin_pad"`     // a PIN pad beside the door is another way in
	Controller  string        `yaml:"controller"`  // who is responsible for the pictures, for the privacy notice
	Contact     string        `yaml:"contact"`     // of who answers about them
	Screensaver time.Duration `yaml:"screensaver"` // after how long without anybody; 0: never
	Sounds      bool          `yaml:"sounds"`      // a tone with each result
	Hold        time.Duration `yaml:"hold"`        // how long an agent that cannot start shows why, before it ends
}

// Hosted configures the page that the link of a session leads to.
type Hosted struct {
	Origins string `yaml:"origins"` // web origins that may frame the page, with commas between; none by default
	Brands  string `yaml:"brands"`  // folder with <application>.json: names, logos, colours, texts
}

// OriginList splits Origins.
func (h Hosted) OriginList() []string { return split(h.Origins) }

// API configures the v3 HTTP API.
type API struct {
	PublicURL string        `yaml:"public_url"` // start of the links in answers and webhooks; empty: as the request came
	Origins   string        `yaml:"origins"`    // web origins that browsers may call from, with commas between
	Parallel  int           `yaml:"parallel"`   // requests analysed at once
	Queue     int           `yaml:"queue"`      // requests that may wait for that; more are answered 503
	Timeout   time.Duration `yaml:"timeout"`    // of one request
	LinkLife  time.Duration `yaml:"link_life"`  // of links to pictures
	Rates     Rates         `yaml:"rates"`
}

// Rates are budgets in requests a minute for each API key; 0 is without limit.
type Rates struct {
	Read       int `yaml:"read"`
	Write      int `yaml:"write"`
	Create     int `yaml:"create"` // sessions
	PDF        int `yaml:"pdf"`
	Biometrics int `yaml:"biometrics"` // face match, liveness, face search
}

// Sessions configures verification sessions of the API.
type Sessions struct {
	AbandonAfter time.Duration `yaml:"abandon_after"` // silence of the person after which a session in progress is abandoned
	KeepMedia    time.Duration `yaml:"keep_media"`    // how long their pictures wait for a decision where retention.images is off
	SearchLimit  int           `yaml:"search_limit"`  // faces of former sessions that a search looks at; some 2 kB of memory each
}

// Webhooks configures the delivery of webhooks.
type Webhooks struct {
	AllowLoopback bool          `yaml:"allow_loopback"` // for development: receivers on this machine, and plain http
	KeepLog       time.Duration `yaml:"keep_log"`       // how long deliveries stay in the log
}

// Default returns the compiled defaults.
func Default() Config {
	return Config{
		Data:  "data",
		Keys:  KeyStore{Root: "file", TPM: "/dev/tpmrm0", RotateEvery: 720 * time.Hour, PurgeAfter: 24 * time.Hour},
		Enrol: Enrol{RequireConsent: true},
		Store: Store{MaxBytes: 256 << 20},
		Log:   Log{Level: "info", Format: "text"},
		Inference: Inference{
			Profile: "fast", Threads: 1, Parallel: 2,
		},
		Camera: Camera{Source: "0", Width: 1280, Height: 720, RealTime: true},
		Match:  Match{Review: 70, Decline: 50},
		// One stranger's attempt in 1,000 names somebody, however many are enrolled: the
		// rate at which 1:1 no longer declines (score 50), and a tenth of what 100 subjects
		// would have at a fixed score of 70.
		Identify: Identify{FPIR: 1e-3, ReviewFPIR: 1e-2, Margin: 10},
		// Of the development faces (LFW, as "postern eval" reads them) the enrolment
		// limits refuse the worst few per cent in each measure, those for live frames
		// next to none.
		Quality: Quality{
			Enrol: agent.QualityLimits{
				MinEyeDistance: 32, MinLuminance: 20, MaxLuminance: 85, MinSharpness: 40,
				MaxYaw: 25, MaxPitch: 25, MinInside: 0.95, OtherFaceShare: 0.3,
				MinContrast: 8, MaxRoll: 30, MinEyesOpen: 0.18, MaxMouthHidden: 0.8, MaxEyesHidden: 0.95, MinScore: 25,
			},
			Verify: agent.QualityLimits{
				MinEyeDistance: 24, MinLuminance: 10, MaxLuminance: 92, MinSharpness: 20,
				MaxYaw: 40, MaxPitch: 40, MinInside: 0.8, OtherFaceShare: 0.5,
				MinContrast: 4, MaxRoll: 45, MinEyesOpen: 0.12, MaxMouthHidden: 0.97, MinScore: 10,
			},
		},
		Live: Live{Budget: 3 * time.Second, MinFrames: 3, MaxFrames: 12, Gone: 700 * time.Millisecond, MaxRate: 20},
		Liveness: Liveness{Mode: "passive", Review: 70, Decline: 50, MinFrames: 8, Tasks: 2, TaskTime: 12 * time.Second,
			SeveralFaces: "no_action", LowQuality: "no_action", Dark: "no_action", Bright: "no_action"},
		Retention: Retention{Results: "unlimited", Images: "off", Templates: "unlimited"},
		Throttle:  Throttle{Subject: throttle.Strict, Device: throttle.Strict},
		HTTP:      HTTP{Listen: "127.0.0.1:8080", LiveFPS: 12, MaxConnections: 12000},
		Kiosk:     Kiosk{Screensaver: 3 * time.Minute},
		API: API{Parallel: 1, Queue: 32, Timeout: 30 * time.Second, LinkLife: time.Hour,
			Rates: Rates{Read: 600, Write: 300, Create: 600, PDF: 50, Biometrics: 600}},
		Sessions: Sessions{AbandonAfter: time.Hour, KeepMedia: 7 * 24 * time.Hour, SearchLimit: 10_000},
		Webhooks: Webhooks{KeepLog: 30 * 24 * time.Hour},
		Hub:      Hub{Listen: "127.0.0.1:8883", HTTPListen: "127.0.0.1:8090"},
	}
}
