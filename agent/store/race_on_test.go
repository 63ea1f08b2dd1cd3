//go:build race

package store

import "os"

const raceEnabled = true

// checkptrEnds reports whether the race detector's pointer checks watch bbolt: on damaged
// files they end the process inside it, beyond recover. "make race" turns them off there.
func checkptrEnds() bool { return os.Getenv("TEST_NO_CHECKPTR") == "" }
