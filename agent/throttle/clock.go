package throttle

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// System is the machine's clock. Where the boot cannot be told from another, every
// process counts as one, which makes waits longer, never shorter.
func System() Mark {
	m := Mark{Boot: bootID(), At: time.Now()}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil || m.Boot == "" {
		m.Boot, m.Up = "", time.Since(started)
		return m
	}
	m.Up = time.Duration(ts.Nano())
	return m
}

var started = time.Now()

var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})
