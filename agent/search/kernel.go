package search

// Rows are scored in groups of four, and padded to lane bytes: what one step of the
// vector kernels reads.
const (
	group = 4
	lane  = 16
)

// dotsPortable is the reference for the vector kernels: dst[i] is the dot product of
// row i with the query. len(query) is a multiple of lane, len(dst) one of group. No
// value is -128, so that no kernel's intermediate sum can overflow.
func dotsPortable(dst []int32, rows, query []int8) {
	for i := range dst {
		row := rows[i*len(query):][:len(query)]
		var sum int32
		for k, v := range row {
			sum += int32(v) * int32(query[k])
		}
		dst[i] = sum
	}
}
