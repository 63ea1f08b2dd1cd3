//go:build !cgo

package litert

import (
	"fmt"
	"log/slog"
)

// Runtime is a stub: this binary was built without cgo.
type Runtime struct{}

// Model is a stub: this binary was built without cgo.
type Model struct{}

func errNoCgo() error {
	return fmt.Errorf("%w: this binary was built without cgo (CGO_ENABLED=0), which LiteRT needs", ErrNoLibrary)
}

// Open always fails.
func Open(string, *slog.Logger) (*Runtime, error) { return nil, errNoCgo() }

// Version is empty.
func (r *Runtime) Version() string { return "" }

// Load always fails.
func (r *Runtime) Load([]byte, Options) (*Model, error) { return nil, errNoCgo() }

// Close does nothing.
func (r *Runtime) Close() error { return nil }

// Inputs is empty.
func (m *Model) Inputs() []Tensor { return nil }

// Outputs is empty.
func (m *Model) Outputs() []Tensor { return nil }

// Run always fails.
func (m *Model) Run(_, _ []Buffer) error { return errNoCgo() }

// Close does nothing.
func (m *Model) Close() error { return nil }
