//go:build !cgo

package litert

import (
	"errors"
	"strings"
	"testing"
)

func TestOpenWithoutCgo(t *testing.T) {
	r, err := Open("libLiteRt.so", nil)
	if r != nil || !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "without cgo") {
		t.Fatalf("Open gave %v, %v", r, err)
	}
}
