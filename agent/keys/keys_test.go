package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantCode(tb testing.TB, err error, want agent.Code, contains ...string) {
	tb.Helper()
	if got := agent.ErrorCode(err); got != want {
		tb.Fatalf("error code %q, want %q: %v", got, want, err)
	}
	for _, c := range contains {
		if !strings.Contains(err.Error(), c) {
			tb.Errorf("error %q does not say %q", err, c)
		}
	}
}

func fileOptions(tb testing.TB) Options {
	return Options{Kind: File, Dir: filepath.Join(tb.TempDir(), "keys")}
}

func mustOpen(tb testing.TB, o Options, existing bool) *Root {
	tb.Helper()
	r, err := o.Open(existing)
	must(tb, err)
	tb.Cleanup(r.Close)
	return r
}

func TestFileIsMadeOnce(t *testing.T) {
	o := fileOptions(t)
	if _, err := o.Peek(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("peek: %v", err)
	}
	r := mustOpen(t, o, false)
	fi, err := os.Stat(filepath.Join(o.Dir, FileName))
	must(t, err)
	if fi.Mode() != 0o400 {
		t.Errorf("mode %v", fi.Mode())
	}
	if !r.Adopting() || r.Pending() {
		t.Error("a new key does not adopt, or keeps another")
	}
	again := mustOpen(t, o, true)
	if again.ID() != r.ID() || r.ID() == "" || !again.Adopting() {
		t.Errorf("id %q, then %q", r.ID(), again.ID())
	}
	must(t, again.Settle())
	if mustOpen(t, o, true).Adopting() {
		t.Error("settled, and still adopting")
	}
}

func TestMissing(t *testing.T) {
	o := fileOptions(t)
	_, err := o.Open(true)
	wantCode(t, err, agent.CodeUnavailable, "root key is missing", o.Dir)
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("something was made")
	}
}

func TestWrap(t *testing.T) {
	o := fileOptions(t)
	r := mustOpen(t, o, false)
	key := bytes.Repeat([]byte{7}, Size)
	w, err := r.Wrap(key, []byte("a"))
	must(t, err)
	got, current, err := r.Unwrap(w, []byte("a"))
	if err != nil || !current || !bytes.Equal(got, key) {
		t.Fatalf("%x %v %v", got, current, err)
	}
	if _, _, err := r.Unwrap(w, []byte("b")); err == nil {
		t.Error("opened in another place")
	}
	for i := range w {
		bad := bytes.Clone(w)
		bad[i] ^= 1
		if _, _, err := r.Unwrap(bad, []byte("a")); err == nil {
			t.Fatalf("byte %d changed, and opened", i)
		}
		if _, _, err := r.Unwrap(w[:i], []byte("a")); err == nil {
			t.Fatalf("cut at %d, and opened", i)
		}
	}
}

func TestRotate(t *testing.T) {
	o := fileOptions(t)
	r := mustOpen(t, o, false)
	key := bytes.Repeat([]byte{7}, Size)
	old, err := r.Wrap(key, nil)
	must(t, err)
	first := r.ID()
	must(t, r.Rotate())
	if r.ID() == first || !r.Pending() {
		t.Fatal("not rotated")
	}
	r = mustOpen(t, o, true) // a kill in between loses neither
	got, current, err := r.Unwrap(old, nil)
	if err != nil || current || !bytes.Equal(got, key) {
		t.Fatalf("%v %v", current, err)
	}
	must(t, r.Settle())
	if _, _, err := r.Unwrap(old, nil); err != nil {
		t.Errorf("a reader that began before: %v", err)
	}
	r = mustOpen(t, o, true)
	_, _, err = r.Unwrap(old, nil)
	wantCode(t, err, agent.CodeUnavailable, "is not here", first)
}

func TestClosed(t *testing.T) {
	r := mustOpen(t, fileOptions(t), false)
	secret := r.ring.entries[0].secret
	r.Close()
	r.Close()
	if !bytes.Equal(secret, make([]byte, Size)) {
		t.Error("the secret is still in memory")
	}
	if _, err := r.Wrap(secret, nil); err == nil {
		t.Error("a closed root wraps")
	}
	if _, _, err := r.Unwrap(make([]byte, 100), nil); err == nil || r.Rotate() == nil || r.Settle() == nil {
		t.Error("a closed root is of use")
	}
}

func TestFileRefused(t *testing.T) {
	o := fileOptions(t)
	mustOpen(t, o, false)
	path := filepath.Join(o.Dir, FileName)
	text, err := os.ReadFile(path)
	must(t, err)
	write := func(b []byte, mode os.FileMode) {
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, b, 0o600))
		must(t, os.Chmod(path, mode))
	}
	secret := strings.Fields(strings.Split(string(text), "\n")[1])[2]
	refused := func(what string, contains ...string) {
		t.Helper()
		_, err := o.Open(true)
		if agent.ErrorCode(err) != agent.CodeUnavailable {
			t.Errorf("%s: %v", what, err)
			return
		}
		wantCode(t, err, agent.CodeUnavailable, contains...)
		if strings.Contains(err.Error(), secret[:10]) {
			t.Errorf("%s: the error shows the key", what)
		}
	}
	for _, mode := range []os.FileMode{0o440, 0o404, 0o644, 0o420} {
		write(text, mode)
		refused(fmt.Sprint(mode), "chmod 0400")
	}
	write(nil, 0o400)
	refused("empty")
	write(text[:len(text)/2], 0o400)
	refused("cut")
	write(append(text, "more\n"...), 0o400)
	refused("more")
	write(bytes.Replace(text, []byte(secret), []byte(strings.ToLower(secret)), 1), 0o400)
	refused("changed")
	write(bytes.Repeat([]byte("x"), 1<<20), 0o400)
	refused("huge")
	must(t, os.Remove(path))
	must(t, os.Symlink("/etc/passwd", path))
	refused("a link")
	if os.Geteuid() == 0 {
		must(t, os.Remove(path))
		write2 := func() { must(t, os.WriteFile(path, text, 0o400)); must(t, os.Chown(path, 1, 1)) }
		write2()
		refused("another's", "belongs to user 1")
	}
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	o := Options{Kind: Credential, CredentialsDir: dir}
	_, err := o.Open(false)
	wantCode(t, err, agent.CodeUnavailable, CredentialName, "systemd-creds")
	_, err = Options{Kind: Credential}.Open(false)
	wantCode(t, err, agent.CodeUnavailable, "no credentials")

	text, err := NewCredential(nil, time.Now(), nil)
	must(t, err)
	path := filepath.Join(dir, CredentialName)
	must(t, os.WriteFile(path, text, 0o400))
	r := mustOpen(t, o, false)
	if r.Adopting() {
		t.Error("a credential adopts")
	}
	w, err := r.Wrap([]byte("key"), nil)
	must(t, err)
	must(t, r.Settle())
	if err := r.Rotate(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rotated: %v", err)
	}

	next, err := NewCredential(text, time.Now(), nil)
	must(t, err)
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, next, 0o400))
	r = mustOpen(t, o, true)
	if _, current, err := r.Unwrap(w, nil); err != nil || current {
		t.Errorf("%v %v", current, err)
	}
	must(t, r.Settle())
	_, err = NewCredential([]byte("x"), time.Now(), nil)
	wantCode(t, err, agent.CodeInvalid)
}

func TestUnknownKind(t *testing.T) {
	_, err := Options{Kind: "paper"}.Open(false)
	wantCode(t, err, agent.CodeInvalid, "paper")
	_, err = Options{Kind: "paper"}.Label()
	wantCode(t, err, agent.CodeInvalid)
}

// TestSaveIsWhole: a full disk leaves the old key file.
func TestSaveIsWhole(t *testing.T) {
	o := fileOptions(t)
	r := mustOpen(t, o, false)
	id := r.ID()
	must(t, os.Chmod(o.Dir, 0o500))
	defer os.Chmod(o.Dir, 0o700)
	if os.Geteuid() == 0 {
		// Root is not stopped by a mode; a folder in the way of the file is.
		o2 := Options{Kind: File, Dir: filepath.Join(o.Dir, FileName, "x")}
		if _, err := o2.Open(false); agent.ErrorCode(err) != agent.CodeUnavailable {
			t.Errorf("%v", err)
		}
		return
	}
	if err := r.Rotate(); err == nil {
		t.Fatal("rotated in a folder that is read-only")
	}
	if mustOpen(t, o, true).ID() != id || r.ID() != id {
		t.Error("the old key is gone")
	}
}

func FuzzParseRing(f *testing.F) {
	text, err := NewCredential(nil, time.Unix(1e9, 0), nil)
	must(f, err)
	f.Add(text)
	f.Add(append(text, "adopting\n"...))
	f.Add([]byte(ringHeader + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRing(text)
		if err != nil {
			return
		}
		again, err := parseRing(r.text())
		if err != nil || len(again.entries) != len(r.entries) || again.adopting != r.adopting {
			t.Fatalf("%q became %q: %v", text, r.text(), err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	m := &Memory{}
	r, err := m.Open(false)
	must(f, err)
	w, err := r.Wrap(make([]byte, Size), nil)
	must(f, err)
	f.Add(w)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := r.Unwrap(b, nil); err == nil && !bytes.Equal(b, w) {
			t.Fatalf("%x was opened", b)
		}
	})
}
