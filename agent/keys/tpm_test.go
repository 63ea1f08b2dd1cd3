package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"postern/agent"
)

// softwareTPM starts Debian's swtpm for a test and gives its socket. Where it is not
// installed the test says so and is passed over, unless TEST_SWTPM=required.
func softwareTPM(tb testing.TB) string {
	tb.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil && os.Getenv("TEST_SWTPM") == "required" {
		tb.Fatal("swtpm is not installed: apt-get install swtpm")
	}
	if err != nil {
		tb.Skip("swtpm is not installed (Debian package swtpm): root keys in a TPM are not tested here")
	}
	dir, err := os.MkdirTemp("/tmp", "tpm") // a short name, so that it fits into an address
	must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(tb, cmd.Start())
	tb.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 1000 {
		if t, err := openTPM(socket); err == nil {
			_, err = tpm2.GetRandom{BytesRequested: 1}.Execute(t)
			t.Close()
			if err == nil {
				return socket
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Fatalf("swtpm does not answer: %s", said.String())
	return ""
}

func tpmOptions(tb testing.TB, socket string) Options {
	return Options{Kind: TPM, Dir: filepath.Join(tb.TempDir(), "keys"), TPM: socket}
}

// onTPM does to a TPM what its owner may do.
func onTPM(tb testing.TB, socket string, fn func(transport.TPM) error) {
	tb.Helper()
	t, err := openTPM(socket)
	must(tb, err)
	defer t.Close()
	must(tb, fn(t))
}

func clearTPM(t transport.TPM) error {
	_, err := tpm2.Clear{AuthHandle: tpm2.TPMRHLockout}.Execute(t)
	return err
}

// lines gives the ring's text in lines.
func lines(tb testing.TB, o Options) []string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(o.Dir, TPMFileName))
	must(tb, err)
	return strings.Split(strings.TrimRight(string(text), "\n"), "\n")
}

func writeLines(tb testing.TB, o Options, l []string) {
	tb.Helper()
	path := filepath.Join(o.Dir, TPMFileName)
	must(tb, os.Remove(path))
	must(tb, os.WriteFile(path, []byte(strings.Join(l, "\n")+"\n"), 0o400))
}

func blobOf(tb testing.TB, line string) []byte {
	tb.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
	must(tb, err)
	return b
}

func withBlob(line string, blob []byte) string {
	f := strings.Fields(line)
	return f[0] + " " + f[1] + " " + base64.StdEncoding.EncodeToString(blob)
}

func TestTPM(t *testing.T) {
	o := tpmOptions(t, softwareTPM(t))
	if _, err := o.Peek(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("peek: %v", err)
	}
	_, err := o.Open(true)
	wantCode(t, err, agent.CodeUnavailable, "root key is missing", o.Dir)
	r := mustOpen(t, o, false)
	path := filepath.Join(o.Dir, TPMFileName)
	fi, err := os.Stat(path)
	must(t, err)
	if fi.Mode() != 0o400 {
		t.Errorf("mode %v", fi.Mode())
	}
	text, err := os.ReadFile(path)
	must(t, err)
	for _, e := range r.ring.entries {
		if bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString(e.secret))) || bytes.Contains(e.blob, e.secret) {
			t.Error("the secret stands in the file")
		}
	}
	w, err := r.Wrap([]byte("key"), nil)
	must(t, err)
	first := r.ID()
	if again := mustOpen(t, o, true); again.ID() != first || !again.Adopting() {
		t.Errorf("id %q, then %q", first, again.ID())
	}
	peeked, err := o.Peek()
	must(t, err)
	peeked.Close()

	must(t, r.Rotate())
	r = mustOpen(t, o, true) // a kill in between loses neither
	if _, current, err := r.Unwrap(w, nil); err != nil || current || !r.Pending() {
		t.Errorf("%v %v", current, err)
	}
	must(t, r.Settle())
	r = mustOpen(t, o, true)
	_, _, err = r.Unwrap(w, nil)
	wantCode(t, err, agent.CodeUnavailable, "is not here", first)
	for range 20 { // nothing stays behind in a TPM, which has room for three objects
		must(t, r.Rotate())
		must(t, r.Settle())
	}
	mustOpen(t, o, true)
}

// TestTPMRefuses: whatever is wrong with the TPM or the file, nothing is made or
// changed, and the error says what helps.
func TestTPMRefuses(t *testing.T) {
	socket := softwareTPM(t)
	o := tpmOptions(t, socket)
	mustOpen(t, o, false)
	good := lines(t, o)
	refused := func(t *testing.T, o Options, contains ...string) {
		t.Helper()
		before := lines(t, o)
		for _, existing := range []bool{true, false} {
			_, err := o.Open(existing)
			wantCode(t, err, agent.CodeUnavailable, contains...)
			if errors.Is(err, fs.ErrNotExist) {
				t.Error("the error is taken for no key yet")
			}
		}
		_, err := o.Peek()
		wantCode(t, err, agent.CodeUnavailable, contains...)
		if after := lines(t, o); strings.Join(after, "\n") != strings.Join(before, "\n") {
			t.Error("the file was changed")
		}
	}
	t.Run("no TPM", func(t *testing.T) {
		gone := o
		gone.TPM = filepath.Join(t.TempDir(), "tpm")
		refused(t, gone, "there is no TPM", gone.TPM, "firmware")
	})
	t.Run("no TPM and no key", func(t *testing.T) {
		gone := Options{Kind: TPM, Dir: filepath.Join(t.TempDir(), "keys"), TPM: filepath.Join(t.TempDir(), "tpm")}
		_, err := gone.Open(false)
		wantCode(t, err, agent.CodeUnavailable, "there is no TPM")
		_, err = gone.Peek()
		wantCode(t, err, agent.CodeUnavailable, "there is no TPM")
		if _, err := os.Stat(gone.Dir); err == nil {
			t.Error("something was made")
		}
	})
	t.Run("no device", func(t *testing.T) {
		file := o
		file.TPM = filepath.Join(t.TempDir(), "tpm")
		must(t, os.WriteFile(file.TPM, nil, 0o600))
		refused(t, file, "failed", file.TPM)
	})
	t.Run("another TPM", func(t *testing.T) {
		other := o
		other.TPM = softwareTPM(t)
		refused(t, other, "another TPM", "restore a backup")
	})
	t.Run("damaged", func(t *testing.T) { damaged(t, o, good, refused) })
	writeLines(t, o, good)
	mustOpen(t, o, true)
	t.Run("owner password", func(t *testing.T) {
		locked := softwareTPM(t)
		onTPM(t, locked, func(c transport.TPM) error {
			_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(c)
			return err
		})
		other := o
		other.TPM = locked
		refused(t, other, "owner hierarchy", "no password")
	})
	t.Run("cleared", func(t *testing.T) {
		onTPM(t, socket, clearTPM)
		refused(t, o, "has been cleared", "restore a backup")
	})
}

// damaged changes the sealed key in every way that matters.
func damaged(t *testing.T, o Options, good []string, refused func(*testing.T, Options, ...string)) {
	blob := blobOf(t, good[1])
	s, err := parseSealed(blob)
	must(t, err)
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
	for what, bad := range map[string][]byte{
		"first byte":   flip(blob, 0),
		"middle":       flip(blob, len(blob)/2),
		"last byte":    flip(blob, len(blob)-1),
		"cut":          blob[:len(blob)/2],
		"one byte":     {1},
		"longer":       append(bytes.Clone(blob), 0),
		"private part": sealed{s.parent, s.public, flip(s.private, len(s.private)-1)}.bytes(),
		"public part":  sealed{s.parent, flip(s.public, len(s.public)-1), s.private}.bytes(),
		"short parts":  sealed{s.parent, s.public[:1], s.private[:1]}.bytes(),
		"huge":         sealed{s.parent, s.public, make([]byte, 4000)}.bytes(),
	} {
		t.Run(what, func(t *testing.T) {
			writeLines(t, o, append([]string{good[0], withBlob(good[1], bad)}, good[2:]...))
			refused(t, o, "key")
			mustOpenTPM(t, o.TPM)
		})
	}
	t.Run("another's id", func(t *testing.T) { // a good blob in the place of another key
		other := tpmOptions(t, o.TPM)
		mustOpen(t, other, false)
		writeLines(t, o, append([]string{good[0], withBlob(good[1], blobOf(t, lines(t, other)[1]))}, good[2:]...))
		refused(t, o, "is damaged")
	})
}

// mustOpenTPM: the TPM serves on, with nothing left behind in it.
func mustOpenTPM(t *testing.T, socket string) {
	t.Helper()
	mustOpen(t, tpmOptions(t, socket), false)
}

// TestTPMEncryptsOnTheWay listens between the program and the TPM.
func TestTPMEncryptsOnTheWay(t *testing.T) {
	c, err := openChip(softwareTPM(t))
	must(t, err)
	defer c.close()
	tap := &tappedTPM{TPMCloser: c.tpm}
	c.tpm = tap
	secret := bytes.Repeat([]byte("secret! "), 4)
	blob, err := c.seal(secret)
	must(t, err)
	got, err := c.unseal(blob)
	must(t, err)
	if !bytes.Equal(got, secret) {
		t.Fatalf("%x", got)
	}
	if tap.n < 2 || bytes.Contains(tap.heard.Bytes(), secret[:8]) {
		t.Errorf("the secret was heard in %d commands", tap.n)
	}
	// Without a salt who listens could derive the session's key.
	if want := c.primary.Handle; !slices.Equal(tap.salted, []tpm2.TPMHandle{want, want}) {
		t.Errorf("sessions salted to %x, want two to %x", tap.salted, want)
	}
	if bytes.Contains(blob, secret[:8]) {
		t.Error("the secret stands in the blob")
	}
}

type tappedTPM struct {
	transport.TPMCloser
	heard  bytes.Buffer
	n      int
	salted []tpm2.TPMHandle // the key that each session is salted to
}

func (t *tappedTPM) Send(in []byte) ([]byte, error) {
	out, err := t.TPMCloser.Send(in)
	if cc := tpm2.TPMCC(binary.BigEndian.Uint32(in[6:])); cc == tpm2.TPMCCStartAuthSession {
		t.salted = append(t.salted, tpm2.TPMHandle(binary.BigEndian.Uint32(in[10:])))
	}
	t.heard.Write(in)
	t.heard.Write(out)
	t.n++
	return out, err
}

// TestTPMForbidden: who runs as root cannot be refused, so the refusal is given here.
func TestTPMForbidden(t *testing.T) {
	message, fix := tpmSource{device: DefaultTPM}.explain(&fs.PathError{Op: "open", Path: DefaultTPM, Err: fs.ErrPermission})
	if !strings.Contains(message, "may not open the TPM "+DefaultTPM) || !strings.Contains(fix, "tss") {
		t.Errorf("%s (%s)", message, fix)
	}
}

func TestTPMLabel(t *testing.T) {
	l, err := Options{Kind: TPM, Dir: "/k"}.Label()
	must(t, err)
	if l.Kind != "tpm" || !strings.Contains(l.Place, DefaultTPM) || !strings.Contains(l.Protects, "not a stolen whole device") {
		t.Errorf("%+v", l)
	}
	l, err = tpmOptions(t, softwareTPM(t)).Label()
	must(t, err)
	if !strings.Contains(l.Protects, "software TPM") {
		t.Errorf("%+v", l)
	}
}

func FuzzParseSealed(f *testing.F) {
	f.Add(sealed{[]byte("parent"), []byte("public"), []byte("private")}.bytes())
	f.Add(sealed{}.bytes())
	f.Add([]byte{sealedVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSealed(b)
		if err != nil {
			if !errors.Is(err, errBlob) {
				t.Fatal(err)
			}
			// The same with a right checksum, to come past it.
			if len(b) > sealedSum {
				body := b[:len(b)-sealedSum]
				if s, err := parseSealed(withSum(body)); err == nil && !bytes.Equal(s.bytes(), withSum(body)) {
					t.Fatalf("%x became %x", body, s.bytes())
				}
			}
			return
		}
		if !bytes.Equal(s.bytes(), b) {
			t.Fatalf("%x became %x", b, s.bytes())
		}
	})
}
