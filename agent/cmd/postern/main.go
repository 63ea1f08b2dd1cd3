// Command postern is the whole product: agent, command line tool and, later, hub.
// This package only wires the others together and speaks to the terminal.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := noCoreDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "postern: core dumps cannot be switched off:", err)
	}
	if _, err := lockable(); err != nil {
		fmt.Fprintln(os.Stderr, "postern: the limit of locked memory cannot be raised:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	code := execute(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
