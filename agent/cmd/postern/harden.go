package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// noCoreDumps keeps what is in memory, templates and keys among it, out of core dumps,
// and other processes of the same user from reading it.
func noCoreDumps() error {
	return errors.Join(
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
	)
}
