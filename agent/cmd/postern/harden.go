package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockable is how many bytes the process may keep out of swap. It uses all that it is
// allowed to: the limit in force is raised to the hard one.
func lockable() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil || l.Cur == l.Max {
		return l.Cur, err
	}
	l.Cur = l.Max
	return l.Cur, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l)
}

// noCoreDumps keeps what is in memory, templates and keys among it, out of core dumps,
// and other processes of the same user from reading it.
func noCoreDumps() error {
	return errors.Join(
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
	)
}
