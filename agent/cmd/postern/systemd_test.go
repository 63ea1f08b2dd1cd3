package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// listenAsSystemd stands in for systemd's socket and gives the states that arrive.
func listenAsSystemd(t *testing.T, watchdog time.Duration) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	states := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			states <- string(buf[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return states
}

// The watchdog speaks while all is well, is silent while it is not, speaks again when
// it is, and says at the end that the process stops.
func TestWatchdog(t *testing.T) {
	states := listenAsSystemd(t, 3*time.Millisecond)
	var ill atomic.Bool
	looked := make(chan struct{})
	check := func() error {
		if !ill.Load() {
			return nil
		}
		looked <- struct{}{}
		return errors.New("the loop says nothing")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- watchdog(ctx, slog.New(slog.DiscardHandler), check) }()

	for range 3 {
		if s := <-states; s != daemon.SdNotifyWatchdog {
			t.Fatalf("systemd was told %q", s)
		}
	}
	ill.Store(true)
	<-looked // the check has failed at least once: nothing comes after what is on its way
	for len(states) > 0 {
		<-states
	}
	for range 5 {
		<-looked
	}
	if len(states) > 1 { // one that was between the socket and the channel
		t.Errorf("systemd was told %q while a check failed", <-states)
	}
	ill.Store(false)
	for len(states) > 0 {
		<-states
	}
	if s := <-states; s != daemon.SdNotifyWatchdog {
		t.Errorf("after it is well again systemd was told %q", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for s := range states {
		if s == daemon.SdNotifyStopping {
			return
		}
	}
}

// Without systemd there is nobody to tell, and nothing to do until the end.
func TestNoWatchdog(t *testing.T) {
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := watchdog(ctx, slog.New(slog.DiscardHandler), func() error { return errors.New("asked") }); err != nil {
		t.Error(err)
	}
}
