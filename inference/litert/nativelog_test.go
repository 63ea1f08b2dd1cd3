//go:build cgo

package litert

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

const spoken = "INFO: ready\nWARNING: odd\nWARNING: odd\nERROR: broken\nVERBOSE: detail\n\nplain\n"

func TestReport(t *testing.T) {
	log, text := newLog(slog.LevelDebug)
	if said := report(log, parseLines(spoken), false); said != nil {
		t.Errorf("a call that went well gave %q for its error", said)
	}
	for _, want := range []string{
		`level=DEBUG msg="litert: ready"`, `level=WARN msg="litert: odd" times=2`,
		`level=ERROR msg="litert: broken"`, `level=DEBUG msg="litert: detail"`, `level=ERROR msg="litert: plain"`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestReportOfFailure(t *testing.T) {
	log, text := newLog(slog.LevelDebug)
	said := report(log, parseLines(spoken), true)
	if got := strings.Join(said, "|"); got != "odd|broken|plain" {
		t.Errorf("for the error: %q", got)
	}
	if got := text.String(); strings.Contains(got, "broken") || !strings.Contains(got, "ready") {
		t.Errorf("in the log: %s", got)
	}
}

// TestNativeErrorSaysWhy goes around Verify, to where LiteRT refuses a model, and
// looks for the words it prints there.
func TestNativeErrorSaysWhy(t *testing.T) {
	n := convNetwork()
	n.codes[0][codeVersion] = int32(77)
	r := openRuntime(t, nil)
	m, err := buildUnverified(r, n.encode())
	if m != nil {
		m.Close()
	}
	if !errors.Is(err, ErrBadModel) || !errors.Is(err, ErrNative) {
		t.Fatalf("got %v, want ErrBadModel and ErrNative", err)
	}
	if !strings.Contains(err.Error(), "CONV_2D") || !strings.Contains(err.Error(), "77") {
		t.Errorf("LiteRT's own words are not in %q", err)
	}
}

// TestNativeRefusal: LiteRT's own check of the file's structure is an error too.
func TestNativeRefusal(t *testing.T) {
	r := openRuntime(t, nil)
	m, err := buildUnverified(r, []byte("\x10\x00\x00\x00TFL3 and then nothing of use"))
	if m != nil {
		m.Close()
	}
	if !errors.Is(err, ErrBadModel) || !strings.Contains(err.Error(), "invalid flatbuffer (501)") {
		t.Errorf("got %v", err)
	}
}

// buildUnverified is Load without Verify.
func buildUnverified(r *Runtime, data []byte) (*Model, error) {
	if err := r.retain(); err != nil {
		return nil, err
	}
	m := &Model{rt: r, out: newSink(r.log)}
	return m, m.build(data, 1)
}
