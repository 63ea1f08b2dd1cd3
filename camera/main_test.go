package camera

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the run when a goroutine or anything native outlives the tests.
// The count of native pictures needs the tag matprofile.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
		code = 1
	}
	if pictures, captures := nativeLeaks(); pictures != 0 || captures != 0 {
		fmt.Fprintf(os.Stderr, "leaked %d native pictures and %d native captures\n", pictures, captures)
		code = 1
	}
	os.Exit(code)
}
