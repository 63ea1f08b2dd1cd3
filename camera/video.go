//go:build cgo && !nocamera

package camera

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"gocv.io/x/gocv"

	"postern/agent"
)

// openCaptures counts the native captures alive; tests assert that it is zero.
// (gocv's own profile counts only its pictures, under the tag matprofile.)
var openCaptures atomic.Int64

// video reads a device, stream or file through OpenCV. It owns one capture and
// one native picture, which every Read fills anew.
type video struct {
	vc    *gocv.VideoCapture
	mat   gocv.Mat
	o     Options
	fails int // reads in a row that gave nothing
}

var _ Reader = (*video)(nil)

// nativeDefaults are settings that OpenCV reads from the environment only. What
// the user has set wins.
//
// FFmpeg is told to use TCP (RTSP over UDP loses parts of pictures) and to give
// up on a connection that is silent for 10 s (the unit is microseconds); V4L2
// gives up after 5 s. FFmpeg's own messages are off: the errors returned here
// say what happened, and a lost camera would fill the terminal.
var nativeDefaults = map[string]string{
	"OPENCV_FFMPEG_CAPTURE_OPTIONS":     "rtsp_transport;tcp|timeout;10000000",
	"OPENCV_FFMPEG_LOGLEVEL":            "-8",
	"OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "5",
}

// setNativeDefaults runs before the first capture, and once: the C library's
// environment must not change while one of its threads reads it.
var setNativeDefaults = sync.OnceFunc(func() {
	for k, v := range nativeDefaults {
		if _, set := os.LookupEnv(k); !set {
			os.Setenv(k, v)
		}
	}
})

// openVideo opens o's target. The backend is named so that OpenCV does not load
// and probe the others (GStreamer costs most).
func openVideo(o Options) (Reader, error) {
	setNativeDefaults()
	var vc *gocv.VideoCapture
	var err error
	switch o.Kind {
	case KindDevice:
		var n int
		if n, err = deviceNumber(o.Target); err != nil {
			return nil, err
		}
		vc, err = gocv.VideoCaptureDeviceWithAPI(n, gocv.VideoCaptureV4L2)
	case KindURL:
		vc, err = gocv.VideoCaptureFileWithAPI(o.Target, gocv.VideoCaptureFFmpeg)
	default:
		vc, err = gocv.VideoCaptureFileWithAPI(localPath(o.Target), gocv.VideoCaptureFFmpeg)
	}
	if err != nil {
		vc.Close() // gocv gives out a capture also when it failed
		return nil, openError(o)
	}
	openCaptures.Add(1)
	if o.Kind == KindDevice {
		wish(vc, o)
	}
	return &video{vc: vc, mat: gocv.NewMat(), o: o}, nil
}

// localPath makes a path that FFmpeg cannot mistake for a URL or an option.
func localPath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "./" + path
	}
	return abs
}

// deviceNumber follows links such as /dev/v4l/by-id/..., so that a camera that
// comes back under another number is found again.
func deviceNumber(target string) (int, error) {
	path, err := filepath.EvalSymlinks(devicePath(target))
	if err != nil {
		return 0, unreadable("camera", target, err)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(path, "/dev/video"), 10, 16)
	if err != nil {
		return 0, invalid(fmt.Sprintf("%q is not a camera device", target), "`postern camera list` shows what there is")
	}
	return int(n), nil
}

// wish asks a device for size and rate; it answers with the nearest it can do.
func wish(vc *gocv.VideoCapture, o Options) {
	if o.Width*o.Height > 640*480 {
		// Raw pictures of this size do not fit through USB 2 at full rate; a
		// device without motion JPEG ignores the wish.
		vc.Set(gocv.VideoCaptureFOURCC, vc.ToCodec("MJPG"))
	}
	if o.Width > 0 {
		vc.Set(gocv.VideoCaptureFrameWidth, float64(o.Width))
	}
	if o.Height > 0 {
		vc.Set(gocv.VideoCaptureFrameHeight, float64(o.Height))
	}
	if o.FPS > 0 { // after the size, which decides what rates there are
		vc.Set(gocv.VideoCaptureFPS, o.FPS)
	}
}

// openError explains a refusal; OpenCV gives no reason.
func openError(o Options) error {
	switch o.Kind {
	case KindDevice:
		return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("camera %q cannot be opened", o.ID),
			Fix: "another program may be using it, or it does not capture pictures; `postern camera list` shows what there is"}
	case KindURL:
		return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("no video comes from %q", o.ID),
			Fix: "check the address, the password and the network"}
	}
	return invalid(fmt.Sprintf("%q is not a video that can be read", o.Target), "")
}

// maxFails is how many empty reads in a row a device or stream may have: a
// broken picture is no reason to open the camera anew.
const maxFails = 3

// Read decodes the next picture.
func (v *video) Read() (Picture, error) {
	for !v.vc.Read(&v.mat) || v.mat.Empty() {
		v.fails++
		if !v.o.live() || v.fails >= maxFails {
			return Picture{}, v.endOrLoss()
		}
	}
	v.fails = 0
	return v.picture()
}

// endOrLoss tells the end of a file from its loss: OpenCV says only that there
// is no picture.
func (v *video) endOrLoss() error {
	if v.o.Kind == KindFile {
		if err := reachable(v.o); err != nil {
			return err
		}
		return io.EOF
	}
	return &agent.Error{Code: agent.CodeUnavailable, Message: fmt.Sprintf("camera %q sends no more pictures", v.o.ID)}
}

// picture lends the native picture after checking that it is what it should be.
func (v *video) picture() (Picture, error) {
	if t := v.mat.Type(); t != gocv.MatTypeCV8UC3 {
		return Picture{}, invalid(fmt.Sprintf("camera %q sends pictures of type %v, not 8-bit colour", v.o.ID, t), "")
	}
	pix, err := v.mat.DataPtrUint8() // an error when rows are padded
	if err != nil {
		return Picture{}, fmt.Errorf("camera %q: %w", v.o.ID, err)
	}
	return Picture{Pix: pix, Width: v.mat.Cols(), Height: v.mat.Rows(), BGR: true}, nil
}

// Rate returns a file's own pace.
func (v *video) Rate() float64 { return v.vc.Get(gocv.VideoCaptureFPS) }

// Close frees the picture and the capture.
func (v *video) Close() error {
	openCaptures.Add(-1)
	if err := v.mat.Close(); err != nil {
		return err
	}
	return v.vc.Close()
}
