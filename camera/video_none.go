//go:build !cgo || nocamera

package camera

import "postern/agent"

// openVideo stands in for OpenCV in a build without it. Folders still work.
func openVideo(Options) (Reader, error) {
	return nil, &agent.Error{Code: agent.CodeUnavailable, Message: "this postern was built without camera support",
		Fix: "build it with cgo, with libopencv-dev and without the tag nocamera; a folder of pictures works without"}
}
