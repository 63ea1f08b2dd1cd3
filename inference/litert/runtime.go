//go:build cgo

package litert

/*
#include <stdlib.h>
#include "native.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// library is one loaded shared object. It stays loaded until the process ends:
// LiteRT has thread-local state and static constructors that unloading would
// pull away from under threads.
type library struct {
	path string
	h    unsafe.Pointer
	api  *C.lrt_api // in C memory, for the life of the process
}

var (
	librariesMu sync.Mutex
	libraries   = map[string]*library{} // by real path
)

// Runtime is a loaded LiteRT library with one environment. It may be used by
// several goroutines.
type Runtime struct {
	lib *library
	log *slog.Logger

	mu     sync.Mutex // guards the rest
	out    *sink
	env    object
	models int // open Models; the environment lives until they are closed
	closed bool
}

// Open loads the library at path and prepares an environment. What the library
// prints goes to log; nil discards it. A second Open of a path shares the loaded
// library. The error wraps ErrNoLibrary and says what is wrong with the file.
func Open(path string, log *slog.Logger) (*Runtime, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if runtime.GOARCH == "amd64" && !cpu.X86.HasSSE41 {
		return nil, fmt.Errorf("%w: this CPU has no SSE4.1, which LiteRT needs", ErrNoLibrary)
	}
	lib, err := openLibrary(path, log)
	if err != nil {
		return nil, err
	}
	r := &Runtime{lib: lib, log: log, out: newSink(log)}
	var env unsafe.Pointer
	status := C.lrt_create_environment(lib.api, r.out.c, C.int(severity(log)), &env)
	r.env = own(env, lib.api.destroy_environment)
	if err := r.out.check("create environment", status); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func openLibrary(path string, log *slog.Logger) (*library, error) {
	real, err := checkLibrary(path)
	if err != nil {
		return nil, err
	}
	librariesMu.Lock()
	defer librariesMu.Unlock()
	if lib := libraries[real]; lib != nil {
		return lib, nil
	}
	lib, err := load(real)
	if err != nil {
		return nil, err
	}
	libraries[real] = lib
	if C.lrt_capture(lib.h) != 0 {
		log.Warn("litert: native messages stay on stderr", "library", real)
	}
	return lib, nil
}

func load(path string) (*library, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var why [512]C.char
	handle := C.lrt_open(cpath, &why[0], C.size_t(len(why)))
	if handle == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoLibrary, C.GoString(&why[0]))
	}
	lib := &library{path, handle, (*C.lrt_api)(C.calloc(1, C.sizeof_lrt_api))}
	if missing := C.lrt_resolve(handle, lib.api); missing != nil {
		defer C.free(unsafe.Pointer(missing))
		return nil, fmt.Errorf("%w: %s has no function %s; want LiteRT %s",
			ErrNoLibrary, path, C.GoString(missing), wantVersion)
	}
	return lib, nil
}

// Version is LiteRT's version. The library itself cannot tell it, so it is looked
// up by the file's SHA-256; for a file we do not know it is "unknown" with the
// start of that digest.
func (r *Runtime) Version() string { return versionOf(r.lib.path) }

// Load checks a model and prepares it for Run. It copies the bytes. The Model
// must be closed; it may outlive the Runtime's Close.
func (r *Runtime) Load(model []byte, o Options) (*Model, error) {
	threads, err := o.threads()
	if err != nil {
		return nil, err
	}
	if err := Verify(model); err != nil {
		return nil, err
	}
	if err := r.retain(); err != nil {
		return nil, err
	}
	m := &Model{rt: r, out: newSink(r.log)}
	if err := m.build(model, threads); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (r *Runtime) retain() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("load model: %w", ErrClosed)
	}
	r.models++
	return nil
}

func (r *Runtime) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.models--
	r.freeIfUnused()
}

// Close refuses further Loads. The environment is freed with the last open Model,
// so the order of closing does not matter. Close may be called twice.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.freeIfUnused()
	return nil
}

// freeIfUnused is called with mu held.
func (r *Runtime) freeIfUnused() {
	if !r.closed || r.models > 0 || r.out == nil {
		return
	}
	r.env.free(r.out)
	r.out.free()
	r.out = nil
}
