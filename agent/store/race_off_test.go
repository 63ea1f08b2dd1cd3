//go:build !race

package store

const raceEnabled = false

func checkptrEnds() bool { return false }
