package evaluate

import (
	"context"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"

	"postern/agent"
	"postern/agent/evaluate/spoof"
	"postern/agent/photo"
)

// LivenessOptions say how to run Liveness.
type LivenessOptions struct {
	Frames     int // of one presentation
	Workers    int
	Thresholds agent.Thresholds
	Progress   func(done int) // by one worker at a time; may be nil
	// Judge decides about the frames of one presentation as a live capture would.
	Judge func(ctx context.Context, frames []*agent.Frame) (agent.LivenessCheck, error)
	// Keep is given every presentation before it is judged; may be nil.
	Keep func(name string, frames []*agent.Frame) error
}

// LivenessReport is how drawn presentations were judged. APCER is the share of the
// attack presentations of one species that were taken for a living person, BPCER the
// share of the living that were not (ISO/IEC 30107-3); what is In Review counts
// against the attacks at the decline threshold, against the living at the review one.
type LivenessReport struct {
	Pictures   int              `json:"pictures"`
	Skipped    int              `json:"skipped"` // pictures without a face
	Frames     int              `json:"frames"`  // of a presentation
	ModelID    string           `json:"model_id"`
	Thresholds agent.Thresholds `json:"thresholds"`
	BonaFide   []LivenessRow    `json:"bona_fide"` // rates are BPCER
	Attacks    []LivenessRow    `json:"attacks"`   // rates are APCER
	// EER is where the worst species' APCER by the score alone equals BPCER, and at
	// which score.
	EER      float64 `json:"eer"`
	EERScore float64 `json:"eer_score"`
}

// LivenessRow is one species, at one severity or all together (severity 0).
type LivenessRow struct {
	Species   spoof.Species `json:"species"`
	Severity  int           `json:"severity"`
	Median    float64       `json:"median_score"`
	AtReview  Rate          `json:"at_review"`  // errors where only Approved lets in
	AtDecline Rate          `json:"at_decline"` // errors where In Review lets in as well
	Signs     int           `json:"signs"`      // presentations declined by a sign of attack, whatever their score

	scores []float64
}

// presented is one presentation that was judged.
type presented struct {
	species  spoof.Species
	severity int
	check    agent.LivenessCheck
}

// OpenFaces lists pictures for Liveness: of a labelled folder, or lying in dir itself.
func OpenFaces(dir string) ([]string, error) {
	var paths []string
	if d, err := Open(dir); err == nil {
		for _, im := range d.Images {
			paths = append(paths, im.Path)
		}
		return paths, nil
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, &agent.Error{Code: agent.CodeNotFound, Message: "folder " + dir + " cannot be read", Err: err}
	}
	for _, f := range files {
		if isPicture(f.Name()) {
			paths = append(paths, filepath.Join(dir, f.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, &agent.Error{Code: agent.CodeInvalid, Message: "folder " + dir + " holds no pictures of faces"}
	}
	return paths, nil
}

// Spread takes at most n of all, evenly; n below 1 takes all.
func Spread(paths []string, n int) []string {
	if n < 1 || n >= len(paths) {
		return paths
	}
	out := make([]string, n)
	for i := range out {
		out[i] = paths[i*len(paths)/n]
	}
	return out
}

// Liveness draws every kind of presentation of each picture and has it judged.
func Liveness(ctx context.Context, paths []string, p prober, o LivenessOptions) (*LivenessReport, error) {
	all := make([][]presented, len(paths))
	err := each(ctx, len(paths), max(1, o.Workers), o.Progress, func(ctx context.Context, i int) (err error) {
		all[i], err = presentAll(ctx, paths[i], p, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &LivenessReport{Pictures: len(paths), Frames: o.Frames, Thresholds: o.Thresholds}
	rows := map[spoof.Species][]LivenessRow{}
	for _, ps := range all {
		if ps == nil {
			r.Skipped++
		}
		for _, p := range ps {
			r.ModelID = p.check.ModelID
			addPresented(rows, p)
		}
	}
	r.fill(rows)
	return r, nil
}

func presentAll(ctx context.Context, path string, p prober, o LivenessOptions) ([]presented, error) {
	f, err := photo.Load(path)
	if err != nil {
		return nil, err
	}
	pr, err := p.Probe(ctx, f)
	if err != nil || pr.Face == nil {
		return nil, err
	}
	name := filepath.Base(path)
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(name)) // a hash takes everything
	s := spoof.Subject{Picture: f, Face: *pr.Face}
	var out []presented
	for _, sp := range append([]spoof.Species{spoof.BonaFide}, spoof.Attacks()...) {
		for severity := 1; severity <= spoof.Severities; severity++ {
			frames := s.Present(sp, severity, o.Frames, seed.Sum64())
			if o.Keep != nil {
				if err := o.Keep(name+"-"+string(sp)+"-"+string(rune('0'+severity)), frames); err != nil {
					return nil, err
				}
			}
			check, err := o.Judge(ctx, frames)
			if err != nil {
				return nil, err
			}
			out = append(out, presented{sp, severity, check})
		}
	}
	return out, nil
}

// addPresented counts one presentation under its severity and under the whole species.
func addPresented(rows map[spoof.Species][]LivenessRow, p presented) {
	if rows[p.species] == nil {
		rows[p.species] = make([]LivenessRow, spoof.Severities+1)
		for k := range rows[p.species] {
			rows[p.species][k] = LivenessRow{Species: p.species, Severity: k}
		}
	}
	atReview, atDecline := p.check.Status == agent.Approved, p.check.Status != agent.Declined
	if p.species == spoof.BonaFide {
		atReview, atDecline = !atReview, !atDecline
	}
	for _, k := range []int{0, p.severity} {
		row := &rows[p.species][k]
		row.scores = append(row.scores, p.check.Score)
		row.AtReview.Trials++
		row.AtDecline.Trials++
		if atReview {
			row.AtReview.Errors++
		}
		if atDecline {
			row.AtDecline.Errors++
		}
		if slices.ContainsFunc(p.check.Signals, func(s agent.Signal) bool { return s.Grade == agent.GradeAttack }) {
			row.Signs++
		}
	}
}

// fill turns counts into rates.
func (r *LivenessReport) fill(rows map[spoof.Species][]LivenessRow) {
	for sp, rs := range rows {
		for k := range rs {
			rs[k].Median = median(rs[k].scores)
			rs[k].AtReview = rate(rs[k].AtReview.Errors, rs[k].AtReview.Trials, true)
			rs[k].AtDecline = rate(rs[k].AtDecline.Errors, rs[k].AtDecline.Trials, true)
		}
		rows[sp] = rs
	}
	r.BonaFide = rows[spoof.BonaFide]
	for _, sp := range spoof.Attacks() {
		r.Attacks = append(r.Attacks, rows[sp]...)
	}
	r.EER, r.EERScore = equalError(rows)
}

// equalError looks for the score at which the worst species' APCER and BPCER are
// closest, by scores alone.
func equalError(rows map[spoof.Species][]LivenessRow) (rate, at float64) {
	if len(rows[spoof.BonaFide]) == 0 {
		return 0, 0
	}
	living := rows[spoof.BonaFide][0].scores
	best := math.Inf(1)
	for t := 0.0; t <= 100; t += 0.5 {
		bpcer, apcer := upTo(living, t), 0.0
		for _, sp := range spoof.Attacks() {
			if rs := rows[sp]; len(rs) > 0 {
				apcer = max(apcer, 1-upTo(rs[0].scores, t))
			}
		}
		if d := math.Abs(apcer - bpcer); d < best {
			best, rate, at = d, (apcer+bpcer)/2, t
		}
	}
	return rate, at
}

// upTo is the share of values at or below t.
func upTo(vs []float64, t float64) float64 {
	n := 0
	for _, v := range vs {
		if v <= t {
			n++
		}
	}
	return share(n, len(vs))
}
