//go:build cgo

package litert

/*
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include "native.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"unsafe"
)

// object owns one C object. The zero object owns nothing; free may be called
// twice.
type object struct {
	p       unsafe.Pointer
	destroy C.lrt_destroy
}

// own takes over what p points to.
func own(p unsafe.Pointer, destroy C.lrt_destroy) object {
	if p != nil {
		live.Add(1)
	}
	return object{p, destroy}
}

func (o *object) free(s *sink) {
	if o.p == nil {
		return
	}
	C.lrt_free(s.c, o.destroy, o.p)
	o.p = nil
	live.Add(-1)
}

// sink owns the C memory that collects what the library prints during the calls
// of one Runtime or Model. Its user serialises those calls.
type sink struct {
	c   *C.lrt_sink
	log *slog.Logger
}

func newSink(log *slog.Logger) *sink {
	live.Add(1)
	return &sink{(*C.lrt_sink)(C.calloc(1, C.sizeof_lrt_sink)), log}
}

func (s *sink) free() {
	if s.c == nil {
		return
	}
	s.flush(false)
	C.free(unsafe.Pointer(s.c))
	s.c = nil
	live.Add(-1)
}

// check ends a native call: it logs what the library printed and makes an error
// of a status. It does not allocate when all is well and nothing was printed.
func (s *sink) check(op string, status C.int) error {
	if status == 0 && s.c.len == 0 {
		return nil
	}
	said := s.flush(status != 0)
	if status == 0 {
		return nil
	}
	return nativeError(op, int(status), said)
}

// flush empties the sink into the log and returns what belongs into an error.
func (s *sink) flush(failed bool) []string {
	C.lrt_drain(s.c)
	text := C.GoStringN(&s.c.text[0], C.int(s.c.len))
	lost := s.c.lost
	s.c.len, s.c.lost = 0, 0
	said := report(s.log, parseLines(text), failed)
	if lost > 0 {
		s.log.Warn("litert: native messages dropped", "bytes", uint64(lost))
	}
	return said
}

// elements maps LiteRT's element types to ours.
var elements = map[C.int32_t]DType{1: Float32, 2: Int32, 3: Uint8, 9: Int8}

// tensor turns a native description into a Tensor with a fixed shape.
func tensor(name string, ct C.lrt_type, q C.lrt_quant) (Tensor, error) {
	t := Tensor{Name: name, Scale: float32(q.scale), ZeroPoint: int(q.zero_point)}
	var ok bool
	if t.Type, ok = elements[ct.element]; !ok {
		return t, fmt.Errorf("%w: %s has element type %d, want float32, int8, uint8 or int32",
			ErrType, name, int(ct.element))
	}
	t.Shape = dims(ct)
	for _, d := range t.Shape {
		if d < 1 {
			return t, fmt.Errorf("%w: %s has shape %v, want fixed positive dimensions", ErrShape, name, t.Shape)
		}
	}
	return t, nil
}

// dims reads the shape. Its rank is a seven-bit field, which cgo cannot name: it is
// in the word before dims.
func dims(ct C.lrt_type) []int {
	word := *(*uint32)(unsafe.Add(unsafe.Pointer(&ct), unsafe.Offsetof(ct.dims)-4))
	rank := min(int(word&0x7f), len(ct.dims))
	out := make([]int, rank)
	for i := range out {
		out[i] = int(ct.dims[i])
	}
	return out
}

// nativeType is the opposite of tensor.
func nativeType(t Tensor) C.lrt_type {
	var ct C.lrt_type
	for e, d := range elements {
		if d == t.Type {
			ct.element = e
		}
	}
	*(*uint32)(unsafe.Add(unsafe.Pointer(&ct), unsafe.Offsetof(ct.dims)-4)) = uint32(len(t.Shape))
	for i, d := range t.Shape {
		ct.dims[i] = C.int32_t(d)
	}
	return ct
}
