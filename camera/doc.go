// Package camera delivers frames: from a V4L2 device, an RTSP or HTTP stream, a
// video file or a folder of pictures.
//
// A [Stream] owns one goroutine that reads the source and keeps only the newest
// frame, so a slow consumer costs dropped frames (counted) and never memory or
// delay. When the source breaks - the cable is pulled, the network is gone, the
// file is replaced - the goroutine opens it again, at growing intervals, until
// Close. Frames are upright RGB in Go memory; no memory of a codec escapes.
//
// Where to start reading: Options, Open, Stream.Next; then capture in stream.go,
// the goroutine's whole life; then video.go, the only file that calls OpenCV.
//
// # Reading the newest frame
//
//	s, err := camera.Open(ctx, camera.Options{Target: "/dev/video0"})
//	...
//	defer s.Close()
//	var last uint64
//	for {
//		f, err := s.Next(ctx, last) // waits for a frame newer than last
//		...
//		last = f.Seq
//	}
//
// # What cannot be solved here
//
// A call into a driver or codec cannot be interrupted from Go. OpenCV's own
// limits are set so that such a call ends (about 5 s for a device, 10 s for a
// stream that falls silent, 30 s at the latest). Until then Stats reports the
// state as lost, and Close gives up waiting after Options.CloseWait: it then
// returns an error, and the goroutine frees the source when the call returns.
// OpenCV also ends the process if a backend throws a C++ exception that gocv
// does not catch; none is known for the backends used here.
package camera
