package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"postern/sync/bus/mqtt"
	"postern/sync/device"
	"postern/sync/hub"
	"postern/sync/uplink"
)

// The figures of docs/fleet.md: go test -run '^$' -bench . ./agent/cmd/fleet

// BenchmarkReplay drains 100,000 results that were decided off line while four new
// results a second are decided, and measures how long it takes until news is on the
// hub's disk.
func BenchmarkReplay(b *testing.B) {
	for b.Loop() {
		out := &memory{epoch: "e"}
		out.add(100_000)
		var mu sync.Mutex // guards news
		var news []time.Duration
		addr := startHub(b, HubOptions{Data: b.TempDir(), Committed: func(batch hub.Batch, _ hub.Position) {
			for _, row := range batch.Rows {
				if r, err := row.Result(); err == nil && !batch.Historical {
					mu.Lock()
					news = append(news, time.Since(r.At))
					mu.Unlock()
				}
			}
		}})
		began := time.Now()
		up := startDevice(b, "door", &mqtt.Dialer{URL: "mqtt://" + addr}, out)
		for out.depth() > 0 {
			time.Sleep(250 * time.Millisecond)
			if up.Stats().Replaying {
				out.add(1)
				up.Wake()
			}
		}
		b.ReportMetric(100_000/time.Since(began).Seconds(), "replayed/s")
		mu.Lock()
		slices.Sort(news)
		b.ReportMetric(float64(len(news)), "news")
		if len(news) > 0 {
			b.ReportMetric(float64(news[len(news)-1])/1e6, "news-max-ms")
		}
		mu.Unlock()
	}
}

// BenchmarkFleet has 10 and 100 devices decide as fast as the hub acknowledges, each
// with one result under way, and measures the time from decision to acknowledgement.
func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("devices=", n), func(b *testing.B) {
			addr := startHub(b, HubOptions{Data: b.TempDir()})
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			times := make(chan time.Duration, 1<<20)
			done := make(chan error, n)
			for i := range n {
				out := &memory{epoch: "e"}
				name := fmt.Sprint("door-", i)
				l := &device.Link{Device: name, Dialer: &mqtt.Dialer{URL: "mqtt://" + addr}, Client: quickClient(),
					Uplink: &uplink.Uplink{Outbox: out}}
				go func() { done <- l.Run(ctx) }()
				go pingPong(ctx, l.Uplink, out, times)
			}
			<-times // all of it runs
			var all []time.Duration
			began := time.Now()
			for b.Loop() {
				all = append(all, <-times)
			}
			slices.Sort(all)
			b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "results/s")
			b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
			stop()
			for range n {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
}

// pingPong decides, waits for the acknowledgement, and decides again.
func pingPong(ctx context.Context, up *uplink.Uplink, out *memory, times chan<- time.Duration) {
	for ctx.Err() == nil {
		out.add(1)
		began := time.Now()
		up.Wake()
		for out.depth() > 0 && ctx.Err() == nil {
			time.Sleep(200 * time.Microsecond)
		}
		select {
		case times <- time.Since(began):
		case <-ctx.Done():
		}
	}
}
