//go:build !race

package store

func checkptrEnds() bool { return false }
