package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// How bbolt lays out a page: a head, then elements of 16 bytes, then keys and values
// at offsets that are counted from their element.
const (
	pageHead    = 16
	elementSize = 16

	flagBranch = 1
	flagLeaf   = 2

	flagFreelist = 16
	bigFreelist  = 0xffff // as a count: the list is longer than that

	leafBucket = 1 // flag of a leaf's element: the value is a bucket

	maxPageSize = 1 << 16
)

// walk verifies every page that a commit leads to, by reading the file: each lies in
// it, is what it is said to be, is led to once, and has its keys in order and its
// keys and values within itself. bbolt trusts all that, in places where what it does
// otherwise ends the process, so this comes before anything of bbolt that reads.
type walk struct {
	f    io.ReaderAt
	size uint64 // of a page
	high uint64 // pages in use
	seen map[uint64]bool
}

// verifyTree walks the commit of the meta page with this transaction number.
func verifyTree(f io.ReaderAt, txid uint64) error {
	ms, err := readMetas(f)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if m.valid && m.txid == txid {
			w := &walk{f: f, size: m.pageSize, high: m.high, seen: map[uint64]bool{}}
			if err := w.bucket(m.root); err != nil {
				return err
			}
			return w.freelist(m.free)
		}
	}
	return fmt.Errorf("no meta page has commit %d", txid)
}

// freelist verifies the list of free pages: each is one of the file's, listed once, and
// the walk has not met it.
func (w *walk) freelist(id uint64) error {
	p, err := w.read(id)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	count, at := uint64(binary.NativeEndian.Uint16(p[10:])), uint64(pageHead)
	if count == bigFreelist { // then the first element is the number of the others
		count, at = binary.NativeEndian.Uint64(p[at:]), at+8
	}
	if binary.NativeEndian.Uint16(p[8:]) != flagFreelist || count > (uint64(len(p))-at)/8 {
		return fmt.Errorf("the list of free pages, page %d, has %d elements", id, count)
	}
	for before := uint64(1); count > 0; count-- {
		free := binary.NativeEndian.Uint64(p[at:])
		if free <= before || free >= w.high || w.seen[free] {
			return fmt.Errorf("page %d is not free, and listed as such", free)
		}
		before, at = free, at+8
	}
	return nil
}

// freelistFits verifies, before bbolt opens the file and makes room for it, that the
// list of free pages of the commit that it will take is no longer than its pages.
func freelistFits(f io.ReaderAt) error {
	ms, err := readMetas(f)
	if err != nil {
		return nil // bbolt says what is wrong with it
	}
	m := ms[0]
	if ms[1].valid && (!m.valid || ms[1].txid > m.txid) {
		m = ms[1]
	}
	var head [pageHead + 8]byte
	if !m.valid || m.free >= m.high {
		return nil
	}
	if _, err := f.ReadAt(head[:], int64(m.free*m.pageSize)); err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	more, count := uint64(binary.NativeEndian.Uint32(head[12:])), uint64(binary.NativeEndian.Uint16(head[10:]))
	if count == bigFreelist {
		count = binary.NativeEndian.Uint64(head[pageHead:])
	}
	if more >= m.high-m.free || count > (more+1)*m.pageSize/8 {
		return fmt.Errorf("the list of free pages, page %d, reaches beyond the end", m.free)
	}
	return nil
}

// bucket walks a tree from its root.
func (w *walk) bucket(root uint64) error {
	p, err := w.read(root)
	if err != nil {
		return err
	}
	return w.page(root, p, nil, nil)
}

// read reads a page with what overflows from it.
func (w *walk) read(id uint64) ([]byte, error) {
	var head [pageHead]byte
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d is not one of %d", id, w.high)
	}
	if _, err := w.f.ReadAt(head[:], int64(id*w.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	switch {
	case binary.NativeEndian.Uint64(head[:]) != id:
		return nil, fmt.Errorf("page %d says it is %d", id, binary.NativeEndian.Uint64(head[:]))
	case more >= w.high-id:
		return nil, fmt.Errorf("page %d reaches beyond the end", id)
	}
	for n := id; n <= id+more; n++ {
		if w.seen[n] {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	p := make([]byte, (more+1)*w.size)
	if _, err := w.f.ReadAt(p, int64(id*w.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// page verifies one page, whose keys must be from low on and before end (nil: any).
func (w *walk) page(id uint64, p []byte, low, end []byte) error {
	count := int(binary.NativeEndian.Uint16(p[10:]))
	if pageHead+count*elementSize > len(p) {
		return fmt.Errorf("page %d has room for fewer than %d elements", id, count)
	}
	var err error
	switch flags := binary.NativeEndian.Uint16(p[8:]); {
	case flags == flagBranch && count > 0:
		err = w.branch(p, count, low, end)
	case flags == flagLeaf:
		err = w.leaf(p, count, low, end)
	default:
		err = fmt.Errorf("flags %#x with %d elements", flags, count)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// slice is part of a page, or an error when it is not within it.
func slice(p []byte, at, n uint64) ([]byte, error) {
	if at > uint64(len(p)) || n > uint64(len(p))-at {
		return nil, errors.New("an element points out of the page")
	}
	return p[at : at+n], nil
}

// inOrder verifies that a key is after the one before it and within its parent's range.
func inOrder(key, before, low, end []byte) error {
	if before != nil && bytes.Compare(before, key) >= 0 || bytes.Compare(key, low) < 0 || end != nil && bytes.Compare(key, end) >= 0 {
		return errors.New("keys are out of order")
	}
	return nil
}

func (w *walk) leaf(p []byte, count int, low, end []byte) error {
	var before []byte
	for i := range count {
		at := uint64(pageHead + i*elementSize)
		e := p[at : at+elementSize]
		pos, klen := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:]))
		key, err := slice(p, at+pos, klen)
		if err != nil {
			return err
		}
		value, err := slice(p, at+pos+klen, uint64(binary.NativeEndian.Uint32(e[12:])))
		if err != nil {
			return err
		}
		if err := inOrder(key, before, low, end); err != nil {
			return err
		}
		before = key
		switch flags := binary.NativeEndian.Uint32(e); flags {
		case 0:
		case leafBucket:
			if err := w.nested(value); err != nil {
				return fmt.Errorf("bucket %q: %w", key, err)
			}
		default:
			return fmt.Errorf("an element with flags %#x", flags)
		}
	}
	return nil
}

// nested walks a bucket in a value: its root page, or with 0 its only page inline.
func (w *walk) nested(value []byte) error {
	if len(value) < pageHead {
		return errors.New("its head is cut short")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.bucket(root)
	}
	if len(value) < 2*pageHead || binary.NativeEndian.Uint16(value[pageHead+8:]) != flagLeaf {
		return errors.New("its inline page is not one")
	}
	return w.page(0, value[pageHead:], nil, nil)
}

func (w *walk) branch(p []byte, count int, low, end []byte) error {
	keys := make([][]byte, count+1)
	keys[count] = end
	for i := range count {
		at := uint64(pageHead + i*elementSize)
		var err error
		keys[i], err = slice(p, at+uint64(binary.NativeEndian.Uint32(p[at:])), uint64(binary.NativeEndian.Uint32(p[at+4:])))
		if err != nil {
			return err
		}
	}
	for i := range count {
		var before []byte
		if i > 0 {
			before = keys[i-1]
		}
		if err := inOrder(keys[i], before, low, end); err != nil {
			return err
		}
		id := binary.NativeEndian.Uint64(p[pageHead+i*elementSize+8:])
		child, err := w.read(id)
		if err != nil {
			return err
		}
		if err := w.page(id, child, keys[i], keys[i+1]); err != nil {
			return err
		}
	}
	return nil
}
