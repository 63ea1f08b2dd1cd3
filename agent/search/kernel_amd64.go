package search

import "golang.org/x/sys/cpu"

// dotsAVX2 is dotsPortable for groups of four rows of stride bytes.
//
//go:noescape
func dotsAVX2(dst *int32, rows, query *int8, groups, stride int)

// vector tells which instructions dots uses on this machine.
var vector = func() string {
	if cpu.X86.HasAVX2 {
		return "AVX2"
	}
	return "none"
}()

func dots(dst []int32, rows, query []int8) {
	if vector == "none" || len(dst) == 0 || len(query) == 0 {
		dotsPortable(dst, rows, query)
		return
	}
	_ = rows[len(dst)*len(query)-1] // the kernel checks no bounds
	dotsAVX2(&dst[0], &rows[0], &query[0], len(dst)/group, len(query))
}
