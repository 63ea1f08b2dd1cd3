//go:build !amd64 && !arm64

package search

// vector tells which instructions dots uses on this machine.
const vector = "none"

func dots(dst []int32, rows, query []int8) { dotsPortable(dst, rows, query) }
