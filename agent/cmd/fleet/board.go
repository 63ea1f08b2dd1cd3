package fleet

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"postern/agent/store"
	"postern/sync/hub"
	"postern/sync/hub/boltstore"
	"postern/sync/registry"
	"postern/sync/wire"
)

// board is what the hub knows of its devices besides their results: how they are, how
// far behind, and what is odd about them.
type board struct {
	fleet   *boltstore.Fleet
	record  hub.Store
	devices registry.Registry
	hub     *hub.Hub
	log     *slog.Logger
	now     func() time.Time

	reports chan numbered

	mu   sync.Mutex // guards seen
	seen map[string]*processes
}

// numbered is a report on its way to disk.
type numbered struct {
	boltstore.Report
	epoch string
	seq   uint64
}

// What the journal says of odd devices; DeviceStatus shows it.
const (
	oddTwice = "goes by this name twice"
	oddAudit = "audit log is not what it was"
)

func newBoard(o *HubOptions, f *boltstore.Fleet, record hub.Store, h *hub.Hub) *board {
	b := &board{fleet: f, record: record, devices: o.Devices, hub: h, log: o.Log.With("part", "board"), now: o.now,
		reports: make(chan numbered, 4096), seen: map[string]*processes{}}
	h.On[wire.ChanTelemetry] = b.telemetry
	h.On[wire.ChanCheckpoint] = b.checkpoint
	h.Told = b.health
	return b
}

// telemetry takes a measurement. It is expendable: when the disk is slow the device
// keeps it and sends it again.
func (b *board) telemetry(_ context.Context, m hub.Heard) {
	t, ok := m.Message.(*wire.Telemetry)
	if !ok {
		return
	}
	taken := t.Taken
	if taken == 0 {
		taken = m.Header.At
	}
	r := boltstore.Report{Device: m.Device, At: b.now().UTC().Truncate(time.Microsecond), Taken: time.UnixMicro(taken).UTC(), Values: t.Values, Labels: t.Labels}
	select {
	case b.reports <- numbered{r, t.Epoch, t.Seq}:
	default:
	}
}

// gatherFor is how long reports are gathered for one transaction.
const gatherFor = 200 * time.Millisecond

// write keeps reports, and tells the devices that they may forget them.
func (b *board) write(ctx context.Context) error {
	for {
		select {
		case r := <-b.reports:
			group := b.gather(ctx, r)
			if err := b.keep(ctx, group); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *board) gather(ctx context.Context, first numbered) []numbered {
	group, timer := []numbered{first}, time.NewTimer(gatherFor)
	defer timer.Stop()
	for len(group) < 512 {
		select {
		case r := <-b.reports:
			group = append(group, r)
		case <-timer.C:
			return group
		case <-ctx.Done():
			return group
		}
	}
	return group
}

func (b *board) keep(ctx context.Context, group []numbered) error {
	rs := make([]boltstore.Report, len(group))
	acks := map[[2]string]uint64{}
	for i, r := range group {
		rs[i] = r.Report
		if r.epoch != "" {
			key := [2]string{r.Device, r.epoch}
			acks[key] = max(acks[key], r.seq)
		}
	}
	if err := b.fleet.PutReports(rs); err != nil {
		return err
	}
	for key, seq := range acks {
		if err := b.hub.Say(ctx, key[0], wire.ChanTelemetryAck, wire.Header{}, &wire.Ack{Epoch: key[1], Seq: seq}); err != nil {
			b.log.Debug("telemetry not acknowledged; the device will send it again", "device", key[0], "err", err)
		}
	}
	return nil
}

// checkpoint keeps the end of a device's audit log, if the device has signed it.
func (b *board) checkpoint(_ context.Context, m hub.Heard) {
	c, ok := m.Message.(*wire.Checkpoint)
	if !ok {
		return
	}
	signed := store.Checkpoint{File: c.File, Epoch: c.Epoch, Seq: c.Seq, Hash: hex.EncodeToString(c.Hash), Signature: hex.EncodeToString(c.Sig)}
	problem := ""
	if err := signed.Verify(c.Key); err != nil {
		problem = err.Error()
	} else if problem, err = b.fleet.PutCheckpoint(boltstore.Checkpoint{Device: m.Device, At: b.now().UTC().Truncate(time.Microsecond), Checkpoint: *c}); err != nil {
		b.log.Error("the end of an audit log is not kept", "device", m.Device, "err", err)
		return
	}
	if problem != "" {
		b.odd(m.Device, oddAudit, problem)
	}
}

// odd writes down what a person has to look at.
func (b *board) odd(device, what, detail string) {
	b.log.Error("device "+what, "device", device, "detail", detail)
	if b.devices.Dir == "" {
		return
	}
	if err := b.devices.Note(device, what, detail); err != nil {
		b.log.Error("the journal cannot be written", "err", err)
	}
}

// processes are the starts of the program that a device has shown.
type processes struct {
	current string
	began   int64 // clock of the device at the first word of current
	former  []string
	twice   bool // told already
}

// formerKept bounds what is remembered of a device that restarts often.
const formerKept = 16

// health notices a second device of the same name: a process that speaks again after
// another one has begun cannot have been restarted meanwhile. What was said before the
// other began may come late.
func (b *board) health(head wire.Header, h hub.Health) {
	if !h.Online || h.Process == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.seen[h.Device]
	switch {
	case p == nil:
		b.seen[h.Device] = &processes{current: h.Process, began: head.At}
		return
	case p.current == h.Process:
		return
	case slices.Contains(p.former, h.Process):
		if head.At <= p.began {
			return // late
		}
		if !p.twice {
			p.twice = true
			b.odd(h.Device, oddTwice, "two running programs take turns: a copy of its data and keys runs elsewhere")
		}
	}
	p.former = append(p.former, p.current)
	p.former = p.former[max(0, len(p.former)-formerKept):]
	p.current, p.began = h.Process, head.At
}

// DeviceStatus is a device as the hub sees it.
type DeviceStatus struct {
	registry.Device
	Online   bool       `json:"online"`
	LastSeen *time.Time `json:"last_seen,omitempty"` // when it last said how it is
	Version  string     `json:"version,omitempty"`
	Behind   uint64     `json:"behind"` // results that the device has told of and the hub has not
	// OldestUnsent is the age, in seconds, of the oldest of them when the device last
	// measured.
	OldestUnsent float64            `json:"oldest_unsent_seconds"`
	Values       map[string]float64 `json:"values,omitempty"` // of the newest telemetry
	Labels       map[string]string  `json:"labels,omitempty"`
	Odd          []string           `json:"odd,omitempty"` // since it joined
}

// offlineAfter is how old the last word of a device may be: it says one a minute.
const offlineAfter = 3 * time.Minute

// status lists all devices by name: those that the registry knows, and those that have
// spoken.
func (b *board) status() ([]DeviceStatus, error) {
	known := []registry.Device{}
	if b.devices.Dir != "" {
		var err error
		if known, err = b.devices.List(); err != nil {
			return nil, err
		}
	}
	byName := map[string]*DeviceStatus{}
	var order []string
	get := func(name string) *DeviceStatus {
		if byName[name] == nil {
			byName[name] = &DeviceStatus{Device: registry.Device{Name: name}}
			order = append(order, name)
		}
		return byName[name]
	}
	for _, d := range known {
		get(d.Name).Device = d
	}
	if err := b.addHealth(get); err != nil {
		return nil, err
	}
	if err := b.addOdd(byName); err != nil {
		b.log.Warn("the journal cannot be read", "err", err)
	}
	slices.Sort(order)
	out := make([]DeviceStatus, 0, len(order))
	for _, name := range order {
		s := byName[name]
		if err := b.addReport(s); err != nil {
			return nil, err
		}
		out = append(out, *s)
	}
	return out, nil
}

func (b *board) addHealth(get func(string) *DeviceStatus) error {
	streams, err := b.record.Streams()
	if err != nil {
		return err
	}
	acked := map[[2]string]uint64{}
	for _, st := range streams {
		acked[[2]string{st.Device, st.Epoch}] = st.Acked
	}
	healths, err := b.record.Healths()
	if err != nil {
		return err
	}
	for _, h := range healths {
		s := get(h.Device)
		at := h.At
		s.LastSeen, s.Version = &at, h.Version
		s.Online = h.Online && b.now().Sub(h.At) < offlineAfter
		if a := acked[[2]string{h.Device, h.Epoch}]; h.Last > a {
			s.Behind = h.Last - a
		}
	}
	return nil
}

func (b *board) addReport(s *DeviceStatus) error {
	last, err := b.fleet.Reports(s.Name, 1)
	if err != nil || len(last) == 0 {
		return err
	}
	s.Values, s.Labels = last[0].Values, last[0].Labels
	if age, ok := s.Values["queue_oldest_seconds"]; ok && s.Behind > 0 && !math.IsNaN(age) {
		s.OldestUnsent = age
	}
	return nil
}

func (b *board) addOdd(byName map[string]*DeviceStatus) error {
	if b.devices.Dir == "" {
		return nil
	}
	events, err := b.devices.Journal()
	for _, e := range events {
		s := byName[e.Device]
		switch {
		case s == nil:
		case e.What == "joined":
			s.Odd = nil
		case e.What == oddTwice || e.What == oddAudit:
			if text := fmt.Sprintf("%s: %s", e.What, e.Detail); !slices.Contains(s.Odd, text) {
				s.Odd = append(s.Odd, text)
			}
		}
	}
	return err
}
