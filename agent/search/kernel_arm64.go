package search

// dotsNEON is dotsPortable for groups of four rows of stride bytes. Every arm64 has
// the instructions it uses.
//
//go:noescape
func dotsNEON(dst *int32, rows, query *int8, groups, stride int)

// vector tells which instructions dots uses on this machine.
const vector = "NEON"

func dots(dst []int32, rows, query []int8) {
	if len(dst) == 0 || len(query) == 0 {
		dotsPortable(dst, rows, query)
		return
	}
	_ = rows[len(dst)*len(query)-1] // the kernel checks no bounds
	dotsNEON(&dst[0], &rows[0], &query[0], len(dst)/group, len(query))
}
