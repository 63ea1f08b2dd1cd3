package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"postern/agent"
	"postern/agent/decide"
	"postern/agent/retention"
	"postern/agent/throttle"
)

// Validate checks every setting; the error names the key.
func (c Config) Validate() error {
	for _, check := range []func() error{c.numbers, c.choices, c.ranges, c.quality, c.thresholds, c.retention, c.throttles} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// numbers refuses NaN and infinity anywhere: every later comparison relies on it.
func (c Config) numbers() error { return finite(reflect.ValueOf(c), "") }

func finite(v reflect.Value, prefix string) error {
	for f, fv := range v.Fields() {
		key := prefix + f.Tag.Get("yaml")
		switch fv.Kind() {
		case reflect.Struct:
			if err := finite(fv, key+"."); err != nil {
				return err
			}
		case reflect.Float32, reflect.Float64:
			if x := fv.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
				return bad(key, x, "a finite number")
			}
		}
	}
	return nil
}

var actions = []string{string(decide.NoAction), string(decide.ReviewAction), string(decide.DeclineAction)}

func (c Config) choices() error {
	for _, k := range []struct {
		key, value string
		allowed    []string
	}{
		{"log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}},
		{"keys.root", c.Keys.Root, []string{"file", "credential", "tpm"}},
		{"inference.profile", c.Inference.Profile, []string{"accurate", "fast"}},
		{"log.format", c.Log.Format, []string{"text", "json"}},
		{"camera.kind", c.Camera.Kind, []string{"", "device", "url", "file", "folder"}},
		{"liveness.mode", c.Liveness.Mode, []string{"off", "passive", "active"}},
		{"liveness.several_faces", c.Liveness.SeveralFaces, actions},
		{"liveness.low_quality", c.Liveness.LowQuality, actions},
		{"liveness.dark", c.Liveness.Dark, actions},
		{"liveness.bright", c.Liveness.Bright, actions},
		{"kiosk.language", c.Kiosk.Language, []string{"", "en", "ja"}},
		{"kiosk.theme", c.Kiosk.Theme, []string{"", "light", "dark"}},
		{"camera.rotate", fmt.Sprint(c.Camera.Rotate), []string{"0", "90", "180", "270"}},
	} {
		if !contains(k.allowed, k.value) {
			return bad(k.key, k.value, "one of "+strings.TrimPrefix(strings.Join(k.allowed, ", "), ", "))
		}
	}
	if c.Data == "" {
		return bad("data", c.Data, "a folder")
	}
	if c.Keys.Root == "tpm" && !filepath.IsAbs(c.Keys.TPM) {
		return bad("keys.tpm", c.Keys.TPM, "the whole path of a device, for example /dev/tpmrm0")
	}
	if c.Camera.Source == "" {
		return bad("camera.source", "", "a camera index, device, address, video file or folder")
	}
	if _, _, err := net.SplitHostPort(c.HTTP.Listen); err != nil {
		return bad("http.listen", c.HTTP.Listen, "host:port, for example 127.0.0.1:8080")
	}
	if (c.HTTP.TLSCert == "") != (c.HTTP.TLSKey == "") {
		return bad("http.tls_cert", c.HTTP.TLSCert, "a file together with http.tls_key, or both empty")
	}
	return c.addresses()
}

// addresses checks what has the form scheme://host.
func (c Config) addresses() error {
	for _, k := range []struct{ key, value string }{{"api.public_url", c.API.PublicURL}} {
		if k.value != "" && !isOrigin(k.value) {
			return bad(k.key, k.value, "http:// or https:// and a host, without a path")
		}
	}
	for _, o := range c.Hosted.OriginList() {
		if !isOrigin(o) {
			return bad("hosted.origins", o, "origins like https://app.example.com, with commas between; * is not one")
		}
	}
	for _, o := range c.API.OriginList() {
		if !isOrigin(o) {
			return bad("api.origins", o, "origins like https://app.example.com, with commas between; * is not one")
		}
	}
	return nil
}

func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && s == u.Scheme+"://"+u.Host
}

// OriginList splits Origins.
func (a API) OriginList() []string { return split(a.Origins) }

// split separates at commas, without blanks and empty parts.
func split(s string) []string {
	var out []string
	for _, o := range strings.Split(s, ",") {
		if o = strings.TrimSpace(o); o != "" {
			out = append(out, o)
		}
	}
	return out
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (c Config) ranges() error {
	for _, k := range []struct {
		key           string
		value, lo, hi float64
	}{
		{"inference.threads", float64(c.Inference.Threads), 1, 64},
		{"inference.parallel", float64(c.Inference.Parallel), 1, 64},
		{"camera.width", float64(c.Camera.Width), 0, 7680},
		{"camera.height", float64(c.Camera.Height), 0, 4320},
		{"camera.fps", c.Camera.FPS, 0, 240},
		{"identify.margin", c.Identify.Margin, 0, 100},
		{"identify.fpir", c.Identify.FPIR, 1e-9, 0.1},
		{"identify.review_fpir", c.Identify.ReviewFPIR, 1e-9, 0.1},
		{"live.min_frames", float64(c.Live.MinFrames), 1, 100},
		{"live.max_frames", float64(c.Live.MaxFrames), float64(c.Live.MinFrames), 1000},
		{"liveness.tasks", float64(c.Liveness.Tasks), 1, 3},
		{"liveness.task_time", seconds(c.Liveness.TaskTime), 1, 60},
		{"liveness.min_frames", float64(c.Liveness.MinFrames), 1, float64(c.Live.MaxFrames)},
		{"live.max_rate", c.Live.MaxRate, 1, 240},
		{"http.live_fps", c.HTTP.LiveFPS, 1, 60},
		{"kiosk.screensaver", seconds(c.Kiosk.Screensaver), 0, 24 * 3600},
		{"kiosk.hold", seconds(c.Kiosk.Hold), 0, 3600},
		{"http.max_connections", float64(c.HTTP.MaxConnections), 1, 1e6},
		{"api.parallel", float64(c.API.Parallel), 1, 64},
		{"api.queue", float64(c.API.Queue), 1, 10000},
		{"api.timeout", seconds(c.API.Timeout), 1, 300},
		{"api.link_life", seconds(c.API.LinkLife), 1, 3600},
		{"sessions.abandon_after", seconds(c.Sessions.AbandonAfter), 60, 30 * 24 * 3600},
		{"sessions.keep_media", seconds(c.Sessions.KeepMedia), 60, 10 * 365 * 24 * 3600},
		{"sessions.search_limit", float64(c.Sessions.SearchLimit), 1, 1e6},
		{"webhooks.keep_log", seconds(c.Webhooks.KeepLog), 3600, 10 * 365 * 24 * 3600},
		{"api.rates.read", float64(c.API.Rates.Read), 0, 1e6},
		{"api.rates.write", float64(c.API.Rates.Write), 0, 1e6},
		{"api.rates.create", float64(c.API.Rates.Create), 0, 1e6},
		{"api.rates.pdf", float64(c.API.Rates.PDF), 0, 1e6},
		{"api.rates.biometrics", float64(c.API.Rates.Biometrics), 0, 1e6},
		{"store.max_bytes", float64(c.Store.MaxBytes), 1 << 20, 16 << 30},
		{"live.budget", seconds(c.Live.Budget), 0.1, 60},
		{"keys.rotate_every", seconds(c.Keys.RotateEvery), 0, 10 * 365 * 24 * 3600},
		{"keys.purge_after", seconds(c.Keys.PurgeAfter), 0, 30 * 24 * 3600},
		{"live.gone", seconds(c.Live.Gone), 0.1, 60},
	} {
		if k.value < k.lo || k.value > k.hi {
			return bad(k.key, k.value, fmt.Sprintf("%v to %v", k.lo, k.hi))
		}
	}
	cr := c.Camera.Crop
	if cr != (Crop{}) && (cr.X < 0 || cr.Y < 0 || cr.W <= 0 || cr.H <= 0 || cr.X+cr.W > 1+rounding || cr.Y+cr.H > 1+rounding) {
		return bad("camera.crop", fmt.Sprint(cr), "shares of the picture between 0 and 1")
	}
	return nil
}

// rounding is what two shares that add up to 1 may exceed it by.
const rounding = 1e-9

// quality checks the limits of pictures. A negative limit would switch its check
// off, which only 0 is meant to do.
func (c Config) quality() error {
	for _, q := range []struct {
		key string
		agent.QualityLimits
	}{{"quality.enrol.", c.Quality.Enrol}, {"quality.verify.", c.Quality.Verify}} {
		for _, k := range []struct {
			key       string
			value, hi float32
		}{
			{"min_eye_distance", q.MinEyeDistance, 4320},
			{"min_luminance", q.MinLuminance, 100},
			{"max_luminance", q.MaxLuminance, 100},
			{"min_sharpness", q.MinSharpness, 1e6},
			{"max_yaw", q.MaxYaw, 180},
			{"max_pitch", q.MaxPitch, 180},
			{"min_inside", q.MinInside, 1},
			{"other_face_share", q.OtherFaceShare, 1},
			{"min_contrast", q.MinContrast, 100},
			{"max_roll", q.MaxRoll, 180},
			{"min_eyes_open", q.MinEyesOpen, 1},
			{"max_mouth_hidden", q.MaxMouthHidden, 1},
			{"max_eyes_hidden", q.MaxEyesHidden, 1},
			{"min_score", q.MinScore, 100},
		} {
			if k.value < 0 || k.value > k.hi {
				return bad(q.key+k.key, k.value, fmt.Sprintf("0 (off) to %v", k.hi))
			}
		}
		if q.MaxLuminance > 0 && q.MinLuminance > q.MaxLuminance {
			return bad(q.key+"min_luminance", q.MinLuminance, fmt.Sprintf("at most max_luminance (%v)", q.MaxLuminance))
		}
	}
	return nil
}

func seconds(d time.Duration) float64 { return d.Seconds() }

func (c Config) thresholds() error {
	if err := decide.ValidateThresholds(agent.Thresholds{Review: c.Match.Review, Decline: c.Match.Decline}); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if err := decide.ValidateThresholds(agent.Thresholds{Review: c.Liveness.Review, Decline: c.Liveness.Decline}); err != nil {
		return fmt.Errorf("liveness: %w", err)
	}
	if c.Identify.ReviewFPIR < c.Identify.FPIR {
		return bad("identify.review_fpir", c.Identify.ReviewFPIR, fmt.Sprintf("at least identify.fpir (%v)", c.Identify.FPIR))
	}
	return nil
}

func (c Config) retention() error {
	for _, k := range []struct {
		key, value string
		offAllowed bool
	}{{"retention.results", c.Retention.Results, false}, {"retention.images", c.Retention.Images, true}, {"retention.templates", c.Retention.Templates, false}} {
		if _, err := retention.Parse(k.value, k.offAllowed); err != nil {
			return fmt.Errorf("setting %s: %w", k.key, err)
		}
	}
	return nil
}

// throttles refuses limits beyond the standard's unless somebody stands for them.
func (c Config) throttles() error {
	for _, k := range []struct {
		key string
		throttle.Limits
	}{{"throttle.subject", c.Throttle.Subject}, {"throttle.device", c.Throttle.Device}} {
		switch {
		case k.Failures < 1 || k.Stop < 1 || k.Delay < time.Second || k.Delay > 24*time.Hour:
			return bad(k.key, k.Limits, "failures and stop of at least 1 and a delay of 1s to 24h")
		case k.LooserThan(c.Ceiling()) && c.Throttle.Override == "":
			return bad(k.key, k.Limits, fmt.Sprintf("at most %d failures, a delay of at least %s, a stop at %d or earlier (NIST SP 800-63B-4), "+
				"or a name in throttle.override", c.Ceiling().Failures, c.Ceiling().Delay, c.Ceiling().Stop))
		}
	}
	return nil
}

func bad(key string, value any, want string) error {
	return invalid(fmt.Sprintf("setting %s is %v, want %s", key, value, want), "")
}
