//go:build cgo && !nocamera && matprofile

package camera

import "gocv.io/x/gocv"

func nativeLeaks() (pictures int, captures int64) {
	return gocv.MatProfile.Count(), openCaptures.Load()
}
