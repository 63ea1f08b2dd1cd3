// Package litert runs TFLite networks with LiteRT's C API.
//
// The library is not linked: Open loads libLiteRt.so at a path, so a binary
// starts, and can explain itself, without it. Written against LiteRT 2.3.0 (PyPI
// ai-edge-litert), x86-64 and arm64 Linux.
//
//	rt, err := litert.Open(path, log)
//	m, err := rt.Load(tflite, litert.Options{Threads: 2})
//	err = m.Run([]litert.Buffer{litert.Data(pixels)}, []litert.Buffer{litert.Data(embedding)})
//
// # Lifetimes
//
// A Runtime owns an environment, a Model everything made from one file. Close
// frees children before parents, may be called twice, and use after it gives
// ErrClosed. A Model keeps what it needs of its Runtime, so they may be closed in
// any order. Nothing is freed by the garbage collector: Live counts what is held,
// and is zero when all is closed. The loaded library itself stays until the
// process ends.
//
// # Borders
//
// Go memory never stays with C and C memory never reaches a caller: Load copies
// the file, Run copies each buffer in and out. Numbers, types and lengths of
// buffers are checked before that. Run does not allocate.
//
// # Concurrency
//
// All methods may be called from several goroutines. A Model does one Run at a
// time; for more, Load the network several times. The threads of Options are
// XNNPACK's: a Model has that many less one of its own, the caller's being the
// first.
//
// # Models that are not what they should be
//
// postern pins its models by SHA-256 (package models) before they get here. What
// gets here all the same is treated as hostile: LiteRT checks that a file is a
// well-formed FlatBuffer, but a well-formed one can still make its kernels divide
// by zero, read outside a tensor, or run without end. Verify therefore walks the
// graph in Go first; see there for what it accepts, and operators.go for the
// operators. It is a filter in front of a large C++ library, not a proof: load
// models of unknown origin in a process you can lose.
//
// # What LiteRT prints
//
// LiteRT 2.3.0 exports no logger to replace; it writes to stderr. When loading
// the library, its own reference to stderr (one entry of its global offset table)
// is pointed at a stream of ours, and what it prints during a call is logged after
// it: WARNING as a warning, INFO and VERBOSE at debug level. Warnings and errors
// printed by a call that fails become part of the returned error instead. On a
// library linked in another way that entry is not found; then Open logs a warning
// and messages stay on stderr. The least severity that is printed belongs to the
// library, so with several Runtimes the last Open decides it.
//
// # Reading the source
//
// runtime.go and model.go are the package; native.h lists the C functions used;
// native.go and native.c are the border. library.go, verify.go, operators.go,
// flatbuffer.go and nativelog.go are plain Go. Without cgo, nocgo.go takes the
// place of the first group and Open says so.
package litert
