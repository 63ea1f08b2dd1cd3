package evaluate

// ScoreRow is what one score means on the data: the error rates when it is the
// threshold, that is, when pairs above it match.
type ScoreRow struct {
	Score  float64 `json:"score"`
	Cosine float64 `json:"cosine"`
	FMR    Rate    `json:"fmr"`
	FNMR   Rate    `json:"fnmr"`
}

// tableScores are the rows of the score table.
var tableScores = []float64{10, 20, 30, 40, 50, 60, 70, 80, 90, 95}

func scoreTable(t *trials, cosine func(float64) float64) []ScoreRow {
	rows := make([]ScoreRow, len(tableScores))
	for i, s := range tableScores {
		c := cosine(s)
		rows[i] = ScoreRow{Score: s, Cosine: c,
			FMR:  FalseMatchRate(t.impostor.above(c), t.impostor.total),
			FNMR: FalseNonMatchRate(t.misses(c), len(t.genuine))}
	}
	return rows
}
