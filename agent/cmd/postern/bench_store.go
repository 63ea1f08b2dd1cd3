package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/keys"
	"postern/agent/photo"
	"postern/agent/store"
)

// storeReport is what "postern bench store" measured in one run.
type storeReport struct {
	Machine string `json:"machine"`
	Folder  string `json:"folder"` // whose disk it was
	Rounds  int    `json:"rounds"`

	Commit       float64 `json:"commit_ms"` // one durable decision after the other, median
	CommitP90    float64 `json:"commit_p90_ms"`
	CommitShared float64 `json:"commit_shared_ms"` // 64 at once, for each

	Templates int     `json:"templates"`
	LoadMS    float64 `json:"load_ms"` // read, decrypt and decode all templates, the best of three

	// What encryption can add to a verification at most: to decrypt a subject's ten
	// templates and to encrypt a result, with the record's decoding counted in.
	Encryption float64 `json:"encryption_ms"`
	Verify     float64 `json:"verify_ms"` // analysing one picture and one durable decision
	Share      float64 `json:"encryption_share"`
}

func (c *cli) benchStoreCmd() *cobra.Command {
	var rounds, templates int
	var dir string
	cmd := &cobra.Command{
		Use:   "store PICTURE",
		Short: "Time durable decisions, loading of templates and encryption",
		Long: `Time what the data folder costs: a durable decision, alone and with 63 others at once;
reading and decrypting all templates, as at the start of the agent; and what encryption
adds to a verification of the picture at most. All in one run, in a folder of its own.`,
		Example: "  postern bench store face.jpg --dir /var/lib/postern",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r := &storeReport{Machine: machine(), Rounds: max(3, rounds), Templates: templates}
			if err := c.benchStore(cmd.Context(), r, a[0], dir); err != nil {
				return err
			}
			return c.print(r, r.text())
		},
	}
	cmd.Flags().IntVarP(&rounds, "rounds", "n", 200, "decisions to measure")
	cmd.Flags().IntVar(&templates, "templates", 100_000, "templates to load")
	cmd.Flags().StringVar(&dir, "dir", "", "where to make the folder; default: the temporary folder")
	return cmd
}

func (c *cli) benchStore(ctx context.Context, r *storeReport, picture, parent string) error {
	dir, err := os.MkdirTemp(parent, "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r.Folder = filepath.Dir(dir)
	root := keys.Options{Kind: keys.File, Dir: filepath.Join(dir, "keys")}
	st, err := store.Open(store.Options{Dir: filepath.Join(dir, "data"), Device: "bench", MaxBytes: 4 << 30,
		Root: func(existing bool) (store.Root, error) { return root.Open(existing) }})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := benchCommits(st, r); err != nil {
		return err
	}
	if err := c.fillStore(st, r.Templates); err != nil {
		return err
	}
	if err := benchLoad(st, r); err != nil {
		return err
	}
	return c.benchEncryption(ctx, st, r, picture)
}

func benchResult() agent.Result {
	return agent.Result{Kind: agent.KindVerify, SubjectID: "bench-0", Source: "bench", Decision: agent.Decision{
		Status: agent.Approved, Scored: true, Score: 91.5, Cosine: 0.6, ModelID: "bench", Calibration: "bench", Frames: 3, Warnings: []agent.Warning{}}}
}

func benchCommits(st *store.Store, r *storeReport) error {
	var alone []time.Duration
	for range r.Rounds {
		start := time.Now()
		if _, err := st.AppendResult(benchResult()); err != nil {
			return err
		}
		alone = append(alone, time.Since(start))
	}
	slices.Sort(alone)
	r.Commit, r.CommitP90 = ms(median(alone)), ms(alone[len(alone)*9/10])
	const crowd = 64
	errs := make([]error, crowd)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() {
			for range r.Rounds / 4 {
				if _, err := st.AppendResult(benchResult()); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	r.CommitShared = ms(time.Since(start)) / float64(crowd*(r.Rounds/4))
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	benchPerSubject = 10
	benchDim        = 512
)

// fillStore enrols as many subjects as it takes, ten templates each.
func (c *cli) fillStore(st *store.Store, templates int) error {
	bar := c.bar("enrol", templates)
	defer bar.done()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < templates; i += benchPerSubject {
		e := store.Enrolment{Subject: agent.Subject{ID: fmt.Sprint("bench-", i/benchPerSubject)}}
		for range min(benchPerSubject, templates-i) {
			t := agent.Template{ModelID: "bench", Space: "bench", Embedding: make(agent.Embedding, benchDim)}
			for j := range t.Embedding {
				t.Embedding[j] = float32(rnd.NormFloat64())
			}
			t.Embedding.Normalise()
			e.Templates = append(e.Templates, t)
		}
		if _, _, err := st.Enrol(e); err != nil {
			return err
		}
		bar.set(i)
	}
	return nil
}

// benchLoad reads all templates as the agent does when it starts.
func benchLoad(st *store.Store, r *storeReport) error {
	for round := range 3 {
		n, start := 0, time.Now()
		if err := st.EachTemplate("bench", func(agent.Template) error { n++; return nil }); err != nil {
			return err
		}
		if n != r.Templates {
			return fmt.Errorf("%d templates of %d", n, r.Templates)
		}
		if took := ms(time.Since(start)); round == 0 || took < r.LoadMS {
			r.LoadMS = took
		}
	}
	return nil
}

// benchEncryption relates what encryption adds to a verification to a verification.
func (c *cli) benchEncryption(ctx context.Context, st *store.Store, r *storeReport, picture string) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	b, err := openBrain(cfg, c.logger(cfg, true), 1)
	if err != nil {
		return err
	}
	defer b.Close()
	var sealing, whole []time.Duration
	for range min(r.Rounds, 50) {
		start := time.Now()
		if _, err := st.Templates("bench-0"); err != nil {
			return err
		}
		if err := sealOnce(benchResult()); err != nil {
			return err
		}
		sealing = append(sealing, time.Since(start))
		start = time.Now()
		f, err := photo.Load(picture)
		if err != nil {
			return err
		}
		if _, err := b.pool.Probe(ctx, f); err != nil {
			return err
		}
		if _, err := st.AppendResult(benchResult()); err != nil {
			return err
		}
		whole = append(whole, time.Since(start))
	}
	r.Encryption, r.Verify = ms(median(sealing)), ms(median(whole))
	r.Share = r.Encryption / r.Verify
	return nil
}

// sealOnce encrypts a result as the store does, under a fresh key.
func sealOnce(res agent.Result) error {
	plain, err := json.Marshal(res)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	gcm.Seal(nil, nil, plain, nil)
	return nil
}

func (r *storeReport) text() string {
	return fmt.Sprintf(`%s, folder %s, %d rounds
a durable decision: %.2f ms (90 %%: %.2f); 64 at once: %.3f ms each
%d templates of %d values read and decrypted: %.0f ms
encryption in a verification, at most: %.3f ms of %.1f ms, %.1f %%
`, r.Machine, r.Folder, r.Rounds, r.Commit, r.CommitP90, r.CommitShared, r.Templates, benchDim, r.LoadMS, r.Encryption, r.Verify, 100*r.Share)
}
