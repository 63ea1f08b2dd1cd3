package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/search"
)

// searchReport is what "postern bench search" measured in one run.
type searchReport struct {
	Machine   string `json:"machine"`
	Templates int    `json:"templates"`
	Dim       int    `json:"dim"`
	Vector    string `json:"vector"` // instructions in use
	Workers   int    `json:"workers"`
	Rounds    int    `json:"rounds"`
	Bytes     int    `json:"bytes"` // that one search reads at least
	// Wall times in milliseconds, searches and plain reads of as many bytes in turn. The
	// least is what the machine can do; other work on it moves the median.
	Search       searchTimes `json:"search"`
	Read         searchTimes `json:"read"`
	SearchPerGB  float64     `json:"search_gb_per_s"` // at the least
	ReadPerGB    float64     `json:"read_gb_per_s"`
	Ratio        float64     `json:"ratio"` // search to read, at the least
	MedianRatio  float64     `json:"ratio_median"`
	Allocations  float64     `json:"allocations"` // a search
	Verified     int         `json:"verified"`    // searches compared with all rows as float32
	ExactMatches int         `json:"exact_matches"`
}

type searchTimes struct {
	Least  float64 `json:"least_ms"`
	Median float64 `json:"median_ms"`
}

func (c *cli) benchSearchCmd() *cobra.Command {
	var templates, dim, rounds int
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Time the exact search among many templates",
		Long: `Time one 1:N search among random templates, and, in turn with it, a plain read of as
many bytes of memory with as many workers: the ratio says how much more than reading
the search costs. Some searches are also checked against a comparison with every
template as float32: the same two, with the same cosines.`,
		Example: "  postern bench search --templates 100000",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for name, v := range map[string][3]int{"templates": {templates, 2, 10_000_000}, "dim": {dim, 16, 4096}, "rounds": {rounds, 3, 100_000}} {
				if v[0] < v[1] || v[0] > v[2] {
					return usageError{fmt.Errorf("--%s %d is not %d to %d", name, v[0], v[1], v[2])}
				}
			}
			r := benchSearch(templates, dim, rounds)
			if r.ExactMatches != r.Verified {
				return &agent.Error{Code: agent.CodeInternal, Message: fmt.Sprintf("%d of %d searches found something else than comparing all", r.Verified-r.ExactMatches, r.Verified)}
			}
			return c.print(r, r.text())
		},
	}
	cmd.Flags().IntVar(&templates, "templates", 100_000, "templates to search")
	cmd.Flags().IntVar(&dim, "dim", 512, "values of a template")
	cmd.Flags().IntVarP(&rounds, "rounds", "n", 200, "rounds to measure")
	return cmd
}

func benchSearch(templates, dim, rounds int) *searchReport {
	rng := rand.New(rand.NewPCG(1, 2))
	m := search.New(dim)
	defer m.Close()
	for range templates {
		m.Set(m.Append(), randomTemplate(rng, dim))
	}
	r := &searchReport{Machine: machine(), Templates: templates, Dim: dim, Vector: search.Vector(),
		Workers: runtime.GOMAXPROCS(0), Rounds: rounds, Bytes: m.Bytes()}
	plain := make([]byte, m.Bytes())
	for i := range plain {
		plain[i] = byte(i)
	}
	queries := make([]agent.Embedding, 16)
	for i := range queries {
		queries[i] = randomTemplate(rng, dim)
	}
	var found, read []time.Duration
	for k := range rounds {
		start := time.Now()
		m.Best(queries[k%len(queries)])
		found = append(found, time.Since(start))
		start = time.Now()
		readAll(plain, r.Workers)
		read = append(read, time.Since(start))
	}
	r.Search = searchTimes{ms(slices.Min(found)), ms(median(found))}
	r.Read = searchTimes{ms(slices.Min(read)), ms(median(read))}
	r.SearchPerGB, r.ReadPerGB = gigabytes(m.Bytes(), r.Search.Least), gigabytes(m.Bytes(), r.Read.Least)
	r.Ratio, r.MedianRatio = r.Search.Least/r.Read.Least, r.Search.Median/r.Read.Median
	r.Allocations = allocations(func() { m.Best(queries[0]) })
	for _, q := range queries[:8] {
		best, second := m.Best(q)
		r.Verified++
		if wantBest, wantSecond := bestOfAll(m, q); best == wantBest && second == wantSecond {
			r.ExactMatches++
		}
	}
	return r
}

func randomTemplate(r *rand.Rand, dim int) agent.Embedding {
	e := make(agent.Embedding, dim)
	for i := range e {
		e[i] = float32(r.NormFloat64())
	}
	e.Normalise()
	return e
}

// bestOfAll compares with every template as float32.
func bestOfAll(m *search.Matrix, q agent.Embedding) (best, second search.Hit) {
	best, second = search.Hit{Row: -1, Cosine: -2}, search.Hit{Row: -1, Cosine: -2}
	for i := range m.Len() {
		switch h := (search.Hit{Row: i, Cosine: m.At(i).Cosine(q)}); {
		case h.Cosine > best.Cosine:
			best, second = h, best
		case h.Cosine > second.Cosine:
			second = h
		}
	}
	return best, second
}

// readAll reads every byte once, as fast as plain code can; the sum keeps the compiler
// from leaving it out.
func readAll(data []byte, workers int) uint64 {
	sums := make([]uint64, workers)
	var wg sync.WaitGroup
	part := (len(data)/workers + 63) / 64 * 64
	for w := range workers {
		wg.Go(func() {
			p := data[min(len(data), w*part):min(len(data), (w+1)*part)]
			var a, b, c, d uint64
			for ; len(p) >= 32; p = p[32:] {
				a += binary.LittleEndian.Uint64(p)
				b += binary.LittleEndian.Uint64(p[8:])
				c += binary.LittleEndian.Uint64(p[16:])
				d += binary.LittleEndian.Uint64(p[24:])
			}
			sums[w] = a + b + c + d
		})
	}
	wg.Wait()
	return slices.Max(sums)
}

func gigabytes(bytes int, ms float64) float64 { return float64(bytes) / ms / 1e6 }

// allocations of one call, on average over many; what else the process does counts too.
func allocations(do func()) float64 {
	const calls = 50
	var before, after runtime.MemStats
	do()
	runtime.ReadMemStats(&before)
	for range calls {
		do()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / calls
}

func (r *searchReport) text() string {
	return fmt.Sprintf("%s\n%d templates of %d values, %s, %d workers, %d rounds, %.1f MB a search\n", r.Machine, r.Templates, r.Dim, r.Vector, r.Workers, r.Rounds, float64(r.Bytes)/1e6) +
		table("\tLEAST ms\tMEDIAN ms\tGB/s", 2, func(i int) string {
			return []string{
				fmt.Sprintf("search\t%.2f\t%.2f\t%.1f", r.Search.Least, r.Search.Median, r.SearchPerGB),
				fmt.Sprintf("plain read of as many bytes\t%.2f\t%.2f\t%.1f", r.Read.Least, r.Read.Median, r.ReadPerGB),
			}[i]
		}) +
		fmt.Sprintf("search / read: %.2f at the least, %.2f in the median; %.2g allocations a search\n%d of %d searches equal to comparing all as float32\n",
			r.Ratio, r.MedianRatio, r.Allocations, r.ExactMatches, r.Verified)
}
