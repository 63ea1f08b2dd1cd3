package main

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tellSystemd passes a state on to systemd, where it started this process and asked to
// be told (Type=notify); elsewhere it does nothing.
func tellSystemd(log logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd cannot be told how this process does", "state", state, "err", err)
	}
}

// watchdog tells systemd again and again that the process works, three times as often
// as the unit's WatchdogSec asks. While one of the checks fails, or hangs, it is silent,
// and systemd starts the process anew.
func watchdog(ctx context.Context, log logger, checks ...func() error) error {
	defer tellSystemd(log, daemon.SdNotifyStopping)
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the unit's watchdog cannot be served", "err", err)
	}
	if limit == 0 {
		<-ctx.Done()
		return nil
	}
	beat := time.NewTicker(limit / 3)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		if err := firstFailure(checks); err != nil {
			log.Error("not well: systemd's watchdog gets no answer", "err", err)
			continue
		}
		tellSystemd(log, daemon.SdNotifyWatchdog)
	}
}

func firstFailure(checks []func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
