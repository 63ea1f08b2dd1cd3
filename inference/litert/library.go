//go:build cgo

package litert

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// wantVersion is the release this binding was written against.
const wantVersion = "2.3.0"

// known maps the SHA-256 of a library to its release.
var known = map[string]string{
	"eec47eb35e2924b3166015887e652a58edc9af823ae38e02bf83bef2548300bb": "2.3.0", // x86-64
	"b57687dc234d2b8b0598aef5a9c961ed24263df8f8b3f56adbee1cff618e544b": "2.3.0", // arm64
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkLibrary tells in plain words what dlopen would tell in its own, and gives
// the file's real path.
func checkLibrary(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: %s does not exist: %w", ErrNoLibrary, path, fs.ErrNotExist)
		}
		return "", fmt.Errorf("%w: %w", ErrNoLibrary, err)
	}
	f, err := elf.Open(real)
	if err != nil {
		return "", fmt.Errorf("%w: %s is not a shared library: %w", ErrNoLibrary, path, err)
	}
	defer f.Close()
	if want, ok := machines[runtime.GOARCH]; ok && f.Machine != want {
		return "", fmt.Errorf("%w: %s is for %s, this machine is %s", ErrNoLibrary, path, f.Machine, want)
	}
	if f.Type != elf.ET_DYN {
		return "", fmt.Errorf("%w: %s is not a shared library but %s", ErrNoLibrary, path, f.Type)
	}
	return real, nil
}

var versions sync.Map // path -> version

func versionOf(path string) string {
	if v, ok := versions.Load(path); ok {
		return v.(string)
	}
	v := lookUpVersion(path)
	versions.Store(path, v)
	return v
}

func lookUpVersion(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "unknown"
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if v, ok := known[sum]; ok {
		return v
	}
	return "unknown (sha256 " + sum[:12] + ")"
}
