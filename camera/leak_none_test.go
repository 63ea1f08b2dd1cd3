//go:build !cgo || nocamera

package camera

func nativeLeaks() (pictures int, captures int64) { return 0, 0 }
