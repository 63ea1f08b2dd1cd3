// Package search finds the nearest of many embeddings, exactly.
//
// Embeddings are kept twice: as float32, and quantised to int8 with the length of the
// error made, all rows in one arena: a mapping outside of Go's heap, left out of core
// dumps, locked against swapping where the system allows it, wiped row by row as rows
// go and as a whole when it is outgrown or closed. A search runs the query over the int8
// rows, a quarter of the bytes, with the CPU's vector instructions (AVX2 on amd64, NEON
// on arm64, plain Go elsewhere; the integers are the same on all). The int8 cosine and
// the error lengths bound the true one from above; whatever could still be among the
// two nearest is compared again as float32. Nothing is skipped that could have won, so
// the answer is that of comparing all rows as float32, and so is its cosine.
package search
