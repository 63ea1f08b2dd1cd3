package envelope_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"postern/agent"
	"postern/agent/envelope"
)

func seal(t *testing.T, to envelope.To, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := envelope.Encrypt(&b, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	id, to, err := envelope.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := envelope.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("secret ", 30000)
	b := seal(t, envelope.To{Recipients: []string{to}}, text)
	if bytes.Contains(b, []byte("secret")) {
		t.Error("it is readable")
	}
	r, err := envelope.Decrypt(bytes.NewReader(b), envelope.By{Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != text {
		t.Errorf("%d bytes: %v", len(got), err)
	}
	for name, c := range map[string]struct {
		b  []byte
		by envelope.By
	}{
		"another identity": {b, envelope.By{Identity: other}},
		"a passphrase":     {b, envelope.By{Passphrase: "correct horse battery"}},
		"nothing":          {b, envelope.By{}},
		"no identity":      {b, envelope.By{Identity: "AGE-SECRET-KEY-1NONSENSE"}},
		"no age file":      {[]byte("text"), envelope.By{Identity: id}},
	} {
		_, err := envelope.Decrypt(bytes.NewReader(c.b), c.by)
		if agent.ErrorCode(err) != agent.CodeInvalid || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for cut := range 3 {
		r, err := envelope.Decrypt(bytes.NewReader(b[:len(b)-1-cut*70000]), envelope.By{Identity: id})
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil {
			t.Errorf("a file that was cut off is taken as whole")
		}
	}
}

func TestPassphrase(t *testing.T) {
	b := seal(t, envelope.To{Passphrase: "correct horse battery"}, "x")
	r, err := envelope.Decrypt(bytes.NewReader(b), envelope.By{Passphrase: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "x" {
		t.Errorf("%q: %v", got, err)
	}
	for _, to := range []envelope.To{{}, {Passphrase: "short"}, {Passphrase: "correct horse battery", Recipients: []string{"age1x"}}, {Recipients: []string{"age1x"}}} {
		if _, err := envelope.Encrypt(io.Discard, to); agent.ErrorCode(err) != agent.CodeInvalid {
			t.Errorf("%+v: %v", to, err)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	id, to, err := envelope.NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	w, err := envelope.Encrypt(&b, envelope.To{Recipients: []string{to}})
	if err != nil {
		f.Fatal(err)
	}
	io.WriteString(w, "content")
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := envelope.Decrypt(bytes.NewReader(b), envelope.By{Identity: id})
		if err == nil {
			io.Copy(io.Discard, r)
		}
	})
}
