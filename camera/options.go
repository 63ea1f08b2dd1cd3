package camera

import (
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/agent"
)

// Kind is what a target is.
type Kind string

// The kinds of source.
const (
	KindDevice Kind = "device" // V4L2 device
	KindURL    Kind = "url"    // RTSP, or HTTP with a motion-JPEG or other video stream
	KindFile   Kind = "file"   // video file
	KindFolder Kind = "folder" // folder of pictures, shown in the order of their names
)

// Rect is a part of a picture: in shares of its size when all four numbers are
// at most 1, in pixels otherwise. The zero Rect is the whole picture.
type Rect struct {
	X, Y, W, H float64
}

// Options say what to open and what the frames shall look like. Only Target is
// needed.
type Options struct {
	// Target is a device ("/dev/video0", "0"), a URL (rtsp, rtsps, http, https),
	// the path of a video file or of a folder of pictures.
	Target string
	// Kind overrules what Target looks like. A path that does not exist yet is
	// taken for a file, so a folder that appears later needs KindFolder.
	Kind Kind
	// ID names the camera in frames and logs; the target without a password
	// when empty.
	ID string

	// Width, Height and FPS are wishes to a device, which answers with the
	// nearest it can do. FPS also sets the pace of a folder (5 when 0) and
	// overrules the pace of a file.
	Width, Height int
	FPS           float64

	// The picture is turned clockwise by Rotate degrees (0, 90, 180, 270), then
	// mirrored left to right, then cropped: Crop is in the picture a person sees.
	Rotate int
	Mirror bool
	Crop   Rect

	// Loop starts a file or folder again at its end, and keeps trying when it
	// cannot be read. Without Loop the stream ends with io.EOF.
	Loop bool
	// RealTime keeps a file's pace (or FPS for a folder) and drops what nobody
	// takes, like a camera. Otherwise a file or folder runs in lock step: the
	// next picture is read when some call of Next has taken the last, so a
	// single reader sees every picture. Devices and URLs are always real time.
	RealTime bool

	// Wait makes Open return at once and keep trying in the background. Without
	// it a source that cannot be opened is an error of Open.
	Wait bool
	// RetryMin and RetryMax bound the pause between attempts to open a lost
	// source; it doubles from the one to the other, with jitter. 0.5 s and 15 s
	// when 0.
	RetryMin, RetryMax time.Duration
	// Stall is how long a device or URL may be silent before its state is
	// "lost"; 3 s when 0.
	Stall time.Duration
	// CloseWait bounds how long Close waits for a hung driver; 5 s when 0.
	CloseWait time.Duration

	// Log receives connection losses and returns; nil discards them.
	Log *slog.Logger
}

const (
	maxSide = 16384
	maxFPS  = 1000
)

// check refuses options that can never work and fills in defaults.
func (o Options) check() (Options, error) {
	o.Target = strings.TrimSpace(o.Target)
	if o.Kind == "" {
		o.Kind = kindOf(o.Target)
	}
	if o.ID == "" {
		o.ID = redact(o.Target)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("camera", o.ID)
	setDefault(&o.RetryMin, 500*time.Millisecond)
	setDefault(&o.RetryMax, max(15*time.Second, o.RetryMin))
	setDefault(&o.Stall, 3*time.Second)
	setDefault(&o.CloseWait, 5*time.Second)
	if o.Kind == KindFolder && o.FPS == 0 {
		o.FPS = 5
	}
	return o, o.validate()
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

func (o Options) validate() error {
	kinds := []Kind{KindDevice, KindURL, KindFile, KindFolder}
	switch {
	case o.Target == "":
		return invalid("no camera is named", "give a device such as /dev/video0, a URL, a video file or a folder of pictures")
	case strings.ContainsRune(o.Target, 0):
		return invalid("the name of the camera has a zero byte in it", "")
	case !slices.Contains(kinds, o.Kind):
		return invalid(fmt.Sprintf("camera kind %q is not known", o.Kind), "use device, url, file or folder")
	case o.Width < 0 || o.Height < 0 || o.Width > maxSide || o.Height > maxSide:
		return invalid(fmt.Sprintf("camera size %dx%d is not possible", o.Width, o.Height), "leave both at 0 for the device's own size")
	case !(o.FPS >= 0 && o.FPS <= maxFPS):
		return invalid(fmt.Sprintf("camera rate of %g frames/s is not possible", o.FPS), "leave it at 0 for the source's own rate")
	case !slices.Contains([]int{0, 90, 180, 270}, o.Rotate):
		return invalid(fmt.Sprintf("camera rotation of %d degrees is not possible", o.Rotate), "use 0, 90, 180 or 270")
	case o.RetryMin < 0 || o.RetryMax < o.RetryMin || o.Stall < 0 || o.CloseWait < 0:
		return invalid("a time in the camera's settings is negative, or its longest retry is shorter than its shortest", "")
	}
	return o.Crop.validate()
}

func (r Rect) validate() error {
	for _, v := range []float64{r.X, r.Y, r.W, r.H} {
		if !(v >= 0 && v <= maxSide) { // also refuses NaN
			return invalid(fmt.Sprintf("camera crop %+v is not possible", r), "give x, y, width and height as shares from 0 to 1 or in pixels")
		}
	}
	if r != (Rect{}) && (r.W == 0 || r.H == 0) {
		return invalid(fmt.Sprintf("camera crop %+v is empty", r), "")
	}
	return nil
}

// minCrop is the smallest side of a cropped picture: less cannot hold a face
// and is a slip in the settings.
const minCrop = 16

// in returns the crop's pixels in a w x h picture.
func (r Rect) in(w, h int) (x0, y0, x1, y1 int, err error) {
	if r == (Rect{}) {
		return 0, 0, w, h, nil
	}
	sx, sy := 1.0, 1.0
	if max(r.X, r.Y, r.W, r.H) <= 1 {
		sx, sy = float64(w), float64(h)
	}
	x0, y0 = int(math.Round(r.X*sx)), int(math.Round(r.Y*sy))
	x1, y1 = min(w, int(math.Round((r.X+r.W)*sx))), min(h, int(math.Round((r.Y+r.H)*sy)))
	if x1-x0 < minCrop || y1-y0 < minCrop {
		return 0, 0, 0, 0, invalid(fmt.Sprintf("camera crop %+v leaves nothing of a %dx%d picture", r, w, h), "")
	}
	return x0, y0, x1, y1, nil
}

// live reports whether the source goes on without us: it is never waited for,
// and its end is a loss.
func (o Options) live() bool { return o.Kind == KindDevice || o.Kind == KindURL }

// kindOf tells a target's kind from its look, and for paths from the disk.
func kindOf(target string) Kind {
	if _, err := strconv.ParseUint(target, 10, 8); err == nil {
		return KindDevice
	}
	if strings.HasPrefix(target, "/dev/") {
		return KindDevice
	}
	scheme, _, ok := strings.Cut(target, "://")
	if ok && slices.Contains([]string{"rtsp", "rtsps", "http", "https"}, strings.ToLower(scheme)) {
		return KindURL
	}
	if st, err := os.Stat(target); err == nil && st.IsDir() {
		return KindFolder
	}
	return KindFile
}

// redact hides the password of a URL; targets reach logs and screens.
func redact(target string) string {
	if kindOf(target) != KindURL {
		return target
	}
	u, err := url.Parse(target)
	if err != nil {
		scheme, _, _ := strings.Cut(target, "://")
		return scheme + "://..." // what cannot be parsed may hide a password anywhere
	}
	return u.Redacted()
}

func invalid(message, fix string) error {
	return &agent.Error{Code: agent.CodeInvalid, Message: message, Fix: fix}
}
