//go:build cgo

package litert

/*
#include <stdlib.h>
#include <string.h>
#include "native.h"

static void *lrt_copy(const void *src, size_t n) {
	void *p = NULL;
	if (posix_memalign(&p, 64, n) != 0) {
		return NULL;
	}
	return memcpy(p, src, n);
}

static void lrt_release(void *p) { free(p); }
static lrt_destroy lrt_releaser(void) { return lrt_release; }
*/
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

// Model is a network ready to run. Its methods may be called by several
// goroutines; Run serialises them. Models run in parallel with each other.
type Model struct {
	rt  *Runtime
	ins []Tensor
	// outs is in the order of the model's signature, as ins is.
	outs []Tensor

	mu       sync.Mutex // guards the rest, and the native calls
	out      *sink
	owned    []object // everything below that needs freeing, parents first
	model    unsafe.Pointer
	compiled unsafe.Pointer
	bufs     [2]bufferList // inputs, outputs
}

// bufferList is the tensor buffers of one direction, in an array of C memory
// that LiteRT reads.
type bufferList struct {
	array *unsafe.Pointer
	items []unsafe.Pointer // the same memory, as a slice
}

const (
	input  = 0
	output = 1
)

var direction = [2]string{"input", "output"}

// build creates the native objects, parents first. On error, Close frees those
// that exist.
func (m *Model) build(model []byte, threads int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.create(model); err != nil {
		return err
	}
	if err := m.describe(); err != nil {
		return err
	}
	if err := m.compile(threads); err != nil {
		return err
	}
	if err := m.allocate(input, m.ins); err != nil {
		return err
	}
	if err := m.allocate(output, m.outs); err != nil {
		return err
	}
	return m.checkOutputs()
}

// adopt makes the model the owner of p.
func (m *Model) adopt(p unsafe.Pointer, destroy C.lrt_destroy) unsafe.Pointer {
	if p != nil {
		m.owned = append(m.owned, own(p, destroy))
	}
	return p
}

func (m *Model) create(model []byte) error {
	bytes := m.adopt(C.lrt_copy(unsafe.Pointer(unsafe.SliceData(model)), C.size_t(len(model))), C.lrt_releaser())
	if bytes == nil {
		return fmt.Errorf("%w: no memory for a model of %d bytes", ErrNative, len(model))
	}
	api := m.rt.lib.api
	var p unsafe.Pointer
	status := C.lrt_create_model(api, m.out.c, m.rt.env.p, bytes, C.size_t(len(model)), &p)
	m.model = m.adopt(p, api.destroy_model)
	return badModel(m.out.check("read model", status))
}

// badModel marks errors that the model's content causes.
func badModel(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrBadModel, err)
}

// describe reads inputs and outputs from the first signature. LiteRT makes one up
// from the graph when the file has none.
func (m *Model) describe() error {
	var sig unsafe.Pointer
	status := C.lrt_signature(m.rt.lib.api, m.model, &sig)
	if err := badModel(m.out.check("read signature", status)); err != nil {
		return err
	}
	var err error
	if m.ins, err = m.tensors(sig, input); err != nil {
		return badModel(err)
	}
	m.outs, err = m.tensors(sig, output)
	return badModel(err)
}

func (m *Model) tensors(sig unsafe.Pointer, dir int) ([]Tensor, error) {
	api := m.rt.lib.api
	var n C.size_t
	if err := m.out.check("count "+direction[dir]+"s", C.lrt_count(api, sig, C.int(dir), &n)); err != nil {
		return nil, err
	}
	if n == 0 || n > maxTensors {
		return nil, fmt.Errorf("%d %ss, want 1 to %d", uint64(n), direction[dir], maxTensors)
	}
	out := make([]Tensor, n)
	for i := range out {
		var name *C.char
		var ct C.lrt_type
		var q C.lrt_quant
		status := C.lrt_tensor(api, sig, C.int(dir), C.size_t(i), &name, &ct, &q)
		err := m.out.check(fmt.Sprintf("read %s %d", direction[dir], i), status)
		if err == nil {
			out[i], err = tensor(C.GoString(name), ct, q)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Model) compile(threads int) error {
	api := m.rt.lib.api
	var options, p unsafe.Pointer
	status := C.lrt_create_options(api, m.out.c, &options)
	m.adopt(options, api.destroy_options)
	if err := m.out.check("create options", status); err != nil {
		return err
	}
	status = C.lrt_set_options(api, m.out.c, options, C.int(threads))
	if err := m.out.check("set options", status); err != nil {
		return err
	}
	status = C.lrt_create_compiled(api, m.out.c, m.rt.env.p, m.model, options, &p)
	m.compiled = m.adopt(p, api.destroy_compiled)
	return badModel(m.out.check("compile model", status))
}

// allocate creates the tensor buffers of one direction.
func (m *Model) allocate(dir int, ts []Tensor) error {
	array := m.adopt(C.calloc(C.size_t(len(ts)), C.size_t(unsafe.Sizeof(uintptr(0)))), C.lrt_releaser())
	if array == nil {
		return fmt.Errorf("%w: no memory for %d buffers", ErrNative, len(ts))
	}
	l := bufferList{array: (*unsafe.Pointer)(array)}
	l.items = unsafe.Slice(l.array, len(ts))
	for i, t := range ts {
		ct := nativeType(t)
		var p unsafe.Pointer
		var size C.size_t
		status := C.lrt_create_buffer(m.rt.lib.api, m.out.c, m.rt.env.p, m.compiled,
			C.int(dir), C.size_t(i), &ct, &p, &size)
		l.items[i] = m.adopt(p, m.rt.lib.api.destroy_buffer)
		if err := m.out.check("create buffer of "+t.String(), status); err != nil {
			return badModel(err)
		}
		if want := t.Len() * t.Type.size(); int(size) < want {
			return badModel(fmt.Errorf("%w: buffer of %s has %d bytes, want %d", ErrShape, t, int(size), want))
		}
	}
	m.bufs[dir] = l
	return nil
}

// checkOutputs compares the shapes that the compiled network will produce with
// those the file declares; the buffers were made for the latter.
func (m *Model) checkOutputs() error {
	types := make([]C.lrt_type, len(m.outs))
	status := C.lrt_output_layouts(m.rt.lib.api, m.out.c, m.compiled, C.size_t(len(types)), &types[0])
	if err := badModel(m.out.check("compute output shapes", status)); err != nil {
		return err
	}
	for i, t := range m.outs {
		if got := dims(types[i]); !equal(got, t.Shape) {
			return badModel(fmt.Errorf("%w: output %s is computed as %v", ErrShape, t, got))
		}
	}
	return nil
}

// Inputs describes the inputs in the order Run takes them.
func (m *Model) Inputs() []Tensor { return cloneTensors(m.ins) }

// Outputs describes the outputs in the order Run fills them.
func (m *Model) Outputs() []Tensor { return cloneTensors(m.outs) }

// Run copies in to the inputs, executes the network and copies the outputs to
// out. Numbers, types and lengths are checked before anything is copied. On an
// error the content of out is undefined. Run does not allocate when it succeeds.
func (m *Model) Run(in, out []Buffer) error {
	if err := checkAll("inputs", in, m.ins); err != nil {
		return err
	}
	if err := checkAll("outputs", out, m.outs); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.compiled == nil {
		return fmt.Errorf("run model: %w", ErrClosed)
	}
	return m.invoke(in, out)
}

// invoke is Run with mu held and the arguments checked.
func (m *Model) invoke(in, out []Buffer) error {
	api := m.rt.lib.api
	for i, b := range in {
		status := C.lrt_write(api, m.bufs[input].items[i], b.data, b.bytes())
		if err := m.out.check("write input", status); err != nil {
			return err
		}
	}
	ins, outs := m.bufs[input], m.bufs[output]
	status := C.lrt_run(api, m.out.c, m.compiled, C.size_t(len(ins.items)), ins.array,
		C.size_t(len(outs.items)), outs.array)
	if err := m.out.check("run model", status); err != nil {
		return err
	}
	for i, b := range out {
		status := C.lrt_read(api, m.bufs[output].items[i], b.data, b.bytes())
		if err := m.out.check("read output", status); err != nil {
			return err
		}
	}
	return nil
}

func (b Buffer) bytes() C.size_t { return C.size_t(b.n * b.typ.size()) }

// Close waits for a Run in progress and frees the native objects, children first.
// It may be called twice.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.out == nil {
		return nil
	}
	for i := len(m.owned) - 1; i >= 0; i-- {
		m.owned[i].free(m.out)
	}
	m.owned, m.bufs, m.model, m.compiled = nil, [2]bufferList{}, nil, nil
	m.out.free()
	m.out = nil
	m.rt.release()
	return nil
}
