//go:build cgo && !nocamera && !matprofile

package camera

func nativeLeaks() (pictures int, captures int64) { return 0, openCaptures.Load() }
