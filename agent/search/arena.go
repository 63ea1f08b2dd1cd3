package search

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is one piece of memory outside of Go's heap, where embeddings lie in the clear:
// nothing copies it, and it can be wiped for good. It is kept out of core dumps, and out
// of swap where the system allows to lock as much memory.
type arena struct {
	mem  []byte
	heap bool  // the system gave no mapping: it is Go's memory
	lock error // why it may be swapped out; nil when it may not
}

// newArena maps zeroed memory. What the system refuses is noted, not fatal.
func newArena(size int) *arena {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return &arena{mem: make([]byte, size), heap: true, lock: fmt.Errorf("mapping %d bytes: %w", size, err)}
	}
	return &arena{mem: mem, lock: errors.Join(unix.Madvise(mem, unix.MADV_DONTDUMP), lockOnFault(mem))}
}

// lockOnFault locks the pages as they come into use: room to grow costs no memory.
func lockOnFault(mem []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), unix.MLOCK_ONFAULT)
	if errno == unix.ENOSYS { // before Linux 4.4
		return unix.Mlock(mem)
	}
	if errno != 0 {
		return fmt.Errorf("locking %d bytes: %w", len(mem), errno)
	}
	return nil
}

// free wipes the memory and gives it back; the arena holds nothing afterwards.
func (a *arena) free() {
	clear(a.mem)
	if !a.heap && a.mem != nil {
		// It fails only for memory that is no mapping of ours; then it stays, wiped.
		_ = unix.Munmap(a.mem)
	}
	a.mem = nil
}

// parts are the slices of a matrix that lie in an arena one behind the other.
type parts struct {
	ints   []int8    // rows of stride; room for whole groups
	floats []float32 // rows of dim
	meta   []meta
}

// align is what the parts of an arena begin at a multiple of.
const align = 64

func aligned(n int) int { return (n + align - 1) / align * align }

// newParts makes room for a number of rows in an arena of their own.
func newParts(rows, stride, dim int) (*arena, parts) {
	ints, floats := aligned(rows*stride), aligned(rows*dim*4)
	a := newArena(ints + floats + rows*int(unsafe.Sizeof(meta{})))
	return a, parts{
		ints:   unsafe.Slice((*int8)(unsafe.Pointer(&a.mem[0])), rows*stride),
		floats: unsafe.Slice((*float32)(unsafe.Pointer(&a.mem[ints])), rows*dim),
		meta:   unsafe.Slice((*meta)(unsafe.Pointer(&a.mem[ints+floats])), rows),
	}
}
