package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"slices"
	"time"

	"postern/agent/config"
	"postern/agent/store"
	"postern/agent/vitals"
	"postern/sync/device"
	told "postern/sync/report"
	"postern/sync/wire"
)

// queue lends the store's telemetry to the link.
type queue struct{ *store.Store }

var _ told.Queue = queue{}

// Put implements told.Queue.
func (q queue) Put(p []byte) (uint64, error) { return q.PutTelemetry(p) }

// After implements told.Queue.
func (q queue) After(seq uint64, limit int) ([]told.Item, error) {
	list, err := q.TelemetryAfter(seq, limit)
	out := make([]told.Item, len(list))
	for i, t := range list {
		out[i] = told.Item{Seq: t.Seq, At: t.At, Payload: t.Payload}
	}
	return out, err
}

// Ack implements told.Queue.
func (q queue) Ack(seq uint64) error {
	_, err := q.AckTelemetry(seq)
	return err
}

// reports adds to the link what the hub is told besides results.
func (a *app) reports(st *store.Store, link *device.Link) *told.Telemetry {
	log := a.log.With("part", "telemetry")
	m := &measurer{app: a, st: st, link: link, machine: vitals.Machine{Disk: a.cfg.Data, Started: time.Now()}}
	t := &told.Telemetry{Measure: m.measure, Queue: queue{st}, Log: log}
	link.Parts = append(link.Parts, t, &told.Audit{Ends: ends(st), Log: log})
	return t
}

// ends are the present ends of the store's audit logs, signed.
func ends(st *store.Store) func() ([]wire.Checkpoint, error) {
	return func() ([]wire.Checkpoint, error) {
		cs, err := st.Checkpoints()
		if err != nil {
			return nil, err
		}
		out := make([]wire.Checkpoint, 0, len(cs))
		for _, c := range cs {
			hash, err := hex.DecodeString(c.Hash)
			if err != nil {
				return nil, err
			}
			sig, err := hex.DecodeString(c.Signature)
			if err != nil {
				return nil, err
			}
			out = append(out, wire.Checkpoint{File: c.File, Epoch: c.Epoch, Seq: c.Seq, Hash: hash, Sig: sig, Key: st.PublicKey()})
		}
		return out, nil
	}
}

// measurer says how the agent is.
type measurer struct {
	*app
	st      *store.Store
	link    *device.Link
	machine vitals.Machine
}

func (m *measurer) measure() wire.Telemetry {
	v := m.machine.Measure()
	m.store(v)
	m.decisions(v)
	if m.healthy != nil {
		v["camera_up"] = 1
		if m.healthy() != nil {
			v["camera_up"] = 0
		}
	}
	if d, ok := m.link.ClockOffset(); ok {
		v["clock_offset_seconds"] = d.Seconds()
	}
	return wire.Telemetry{Values: v, Labels: m.labels()}
}

func (m *measurer) labels() map[string]string {
	out := map[string]string{"version": version, "platform": runtime.GOOS + "/" + runtime.GOARCH, "camera": cameraKind(m.cfg.Camera.Source)}
	if m.brain != nil {
		e := m.brain.set.Embedder.Manifest
		out["model"], out["space"], out["calibration"] = e.ID, e.Embedder.Space, e.Calibration.ID
	}
	if y, err := m.cfg.YAML(); err == nil {
		sum := sha256.Sum256(y)
		out["config"] = hex.EncodeToString(sum[:6])
	}
	for k, v := range out {
		out[k] = v[:min(len(v), 64)]
	}
	return out
}

// cameraKind says no more than whether there is one: an address may hold a password.
func cameraKind(source string) string {
	if source == config.NoCamera {
		return "none"
	}
	return "yes"
}

func (m *measurer) store(v map[string]float64) {
	st, err := m.st.Stats()
	if err != nil {
		return
	}
	v["queue_rows"], v["telemetry_queue_rows"], v["telemetry_dropped_total"] = float64(st.Outbox), float64(st.Telemetry), float64(st.TelemetryDropped)
	v["results_rows"], v["subjects"], v["templates"] = float64(st.Results), float64(st.Subjects), float64(st.Templates)
	v["store_results_bytes"], v["store_templates_bytes"] = float64(st.ResultsBytes), float64(st.TemplatesBytes)
	v["store_limit_bytes"] = float64(m.cfg.Store.MaxBytes)
	v["queue_oldest_seconds"] = 0
	if oldest, err := m.st.Outbox(st.AckedSeq+1, 1); err == nil && len(oldest) > 0 {
		v["queue_oldest_seconds"] = max(0, time.Since(oldest[0].At).Seconds())
	}
}

// decisionWindow is which decisions the percentiles are of: the newest, as many as this
// and not older than an hour.
const decisionWindow = 200

func (m *measurer) decisions(v map[string]float64) {
	list, err := m.st.Results(store.ResultQuery{Limit: decisionWindow})
	if err != nil {
		return
	}
	var times []time.Duration
	for _, r := range list {
		if time.Since(r.At) < time.Hour && r.Decision.Timings.Total > 0 {
			times = append(times, r.Decision.Timings.Total)
		}
	}
	v["decisions_measured"] = float64(len(times))
	if len(times) == 0 {
		return
	}
	slices.SortFunc(times, cmp.Compare[time.Duration])
	for name, p := range map[string]float64{"decision_p50_seconds": 0.5, "decision_p90_seconds": 0.9, "decision_p99_seconds": 0.99} {
		v[name] = times[int(p*float64(len(times)-1))].Seconds()
	}
}

// asCheckpoint is a kept end of a log as "postern audit verify --checkpoint" reads it.
func asCheckpoint(c wire.Checkpoint, at time.Time) store.Checkpoint {
	return store.Checkpoint{File: c.File, Epoch: c.Epoch, Seq: c.Seq, Hash: hex.EncodeToString(c.Hash), Signature: hex.EncodeToString(c.Sig), At: at}
}
