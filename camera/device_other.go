//go:build !linux

package camera

// captures is never asked: only Linux has V4L2.
func captures(string) (bool, error) { return false, nil }
