package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows progress on a terminal; elsewhere it is silent.
type bar struct{ b *progressbar.ProgressBar }

func (c *cli) bar(what string, total int) bar {
	if !c.progress || total < 1 {
		return bar{}
	}
	return bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(c.err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (b bar) set(n int) {
	if b.b != nil {
		b.b.Set(n)
	}
}

func (b bar) done() {
	if b.b != nil {
		b.b.Finish()
	}
}
