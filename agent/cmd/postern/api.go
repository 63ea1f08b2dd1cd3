package main

import (
	"context"
	"errors"
	"time"

	"postern/agent"
	"postern/agent/api"
	"postern/agent/config"
	"postern/agent/store"
	"postern/agent/verify"
)

// faces lends the pipelines and the matcher to the API. The API's own thresholds and
// warnings apply, so the matcher's quality limits, which are about live frames, do not.
type faces struct {
	brain   *brain
	matcher verify.Matcher
}

func newFaces(b *brain) faces {
	m := b.matcher()
	m.Policy.VerifyQuality = agent.QualityLimits{}
	return faces{b, m}
}

func (f faces) Probe(ctx context.Context, frame *agent.Frame) (agent.Probe, error) {
	return f.brain.pool.Probe(ctx, frame)
}

// ProbeLive is Probe with liveness, where a network for it is loaded.
func (f faces) ProbeLive(ctx context.Context, frame *agent.Frame) (agent.Probe, error) {
	if !f.brain.live {
		return f.brain.pool.Probe(ctx, frame) // not measured: that declines
	}
	return f.brain.pool.ProbeLive(ctx, frame)
}

func (f faces) Compare(t agent.Thresholds, reference, probe *agent.Probe) agent.Decision {
	return f.matcher.Compare(t, reference, probe)
}

// newAPI makes the API's server over the parts of the agent.
func (a *app) newAPI(b *brain, st *store.Store, cs *caseParts, health func() error) (*api.Server, error) {
	k := a.cfg.API
	server, err := api.New(api.Config{
		Keys: st, Replays: st, Compare: newFaces(b), Media: st, Saved: saver{cs.flow}, Screen: screener{cs.flow},
		Health: func() error { return errors.Join(storeHealth(st), health()) }, Ready: func() error { return storeHealth(st) },
		PublicURL: k.PublicURL, Origins: k.OriginList(), Rates: ratesOf(k.Rates),
		Workers: k.Parallel, Queue: k.Queue, Timeout: k.Timeout, LinkLife: k.LinkLife,
		Log: a.log.With("part", "api"), Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	server.AddCases(cs.flow, cs.pdf)
	return server, nil
}

func ratesOf(r config.Rates) map[api.Budget]int {
	return map[api.Budget]int{api.BudgetRead: r.Read, api.BudgetWrite: r.Write, api.BudgetCreate: r.Create,
		api.BudgetPDF: r.PDF, api.BudgetBiometrics: r.Biometrics}
}

// storeHealth reads the store's counters: a store that cannot be read is not healthy.
func storeHealth(st *store.Store) error {
	_, err := st.Stats()
	return err
}
