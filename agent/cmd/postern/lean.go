package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// leanHeap collects garbage at a quarter above what is in use. Frames are large and
// hold no pointers: collecting them often is cheap, and a small board has better
// uses for the memory. GOGC in the environment overrules it.
func leanHeap(environ []string) {
	if variable(environ, "GOGC") == "" {
		debug.SetGCPercent(25)
	}
}

// mapping is a part of this process's memory.
type mapping struct {
	start, end uintptr
	perms      string
	path       string
	changed    bool // holds pages that differ from the file's
}

// leanFiles gives back the pages of the binary and of the libraries that only the start
// needed: OpenCV draws in some two hundred libraries, whose relocation and initialisers
// touch tens of megabytes that nobody reads again. What is needed again the kernel maps
// again, as a rule from its cache. Pages that differ from their file are left alone.
func leanFiles() error {
	raw, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range parseMappings(raw) {
		if m.givesBack() {
			if _, _, no := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); no != 0 && no != unix.EINVAL { // EINVAL: locked
				errs = append(errs, fmt.Errorf("give back %s: %w", m.path, no))
			}
		}
	}
	return errors.Join(errs...)
}

// givesBack reports whether all that is mapped can be read again from the file: a private
// mapping that cannot be written and has not been.
func (m mapping) givesBack() bool {
	return strings.HasPrefix(m.path, "/") && strings.HasSuffix(m.perms, "p") && !strings.Contains(m.perms, "w") && !m.changed
}

// parseMappings reads the text of /proc/PID/smaps. A mapping of which it does not say
// how much was changed counts as changed.
func parseMappings(smaps []byte) (all []mapping) {
	for sc := bufio.NewScanner(bytes.NewReader(smaps)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if m, ok := parseMapping(f); ok {
			all = append(all, m)
		} else if len(f) == 3 && f[0] == "Anonymous:" && len(all) > 0 {
			all[len(all)-1].changed = f[1] != "0"
		}
	}
	return all
}

// parseMapping reads the first line of a mapping: start-end perms offset device inode path.
func parseMapping(f []string) (mapping, bool) {
	m := mapping{changed: true}
	if len(f) < 5 {
		return m, false
	}
	if n, err := fmt.Sscanf(f[0], "%x-%x", &m.start, &m.end); err != nil || n != 2 || m.end <= m.start {
		return m, false
	}
	m.perms, m.path = f[1], strings.Join(f[5:], " ")
	return m, true
}
