package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent"
)

// program writes a shell script that stands in for "postern run".
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// It prints an address, and ends well when it is interrupted.
const address7 = "trap 'exit 0' INT\necho 'postern is running: open http://127.0.0.1:7/ (Ctrl-C stops it)'\n"

const untilInterrupted = "\nwhile :; do sleep 0.05; done"

func TestBenchReadsTheFirstDecision(t *testing.T) {
	var r agentReport
	f := feeds{first: "film", wait: time.Minute, starts: 2}
	exe := program(t, address7+`echo not json >&2
echo '{"time":"2999-01-01T00:00:00Z","msg":"agent started"}' >&2
echo '{"time":"2999-01-01T00:00:01Z","msg":"decision","status":"Approved"}' >&2`+untilInterrupted)
	if err := f.firstDecisions(t.Context(), exe, "data", &r); err != nil || r.Starts != 2 || r.FirstDecision <= 0 || r.Ready <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
	exe = program(t, address7+`echo '{"time":"2999-01-01T00:00:01Z","msg":"decision","status":"Declined"}' >&2`+untilInterrupted)
	if err := f.firstDecisions(t.Context(), exe, "data", &r); err == nil || !strings.Contains(err.Error(), "Declined") {
		t.Errorf("a refusal was taken for the decision: %v", err)
	}
}

// TestBenchDoesNotHang: an agent that never decides, or never answers, is an error.
func TestBenchDoesNotHang(t *testing.T) {
	for name, script := range map[string]string{
		"NoDecision": address7 + "exec sleep 600", "Silent": "exec sleep 600", "Ends": "echo 'no camera' >&2; exit 7",
	} {
		t.Run(name, func(t *testing.T) {
			f := feeds{wait: 200 * time.Millisecond}
			err := f.runChild(t.Context(), program(t, script), "data", "film", func(_ context.Context, p *child) error {
				_, err := p.waitLog("decision")
				return err
			})
			switch {
			case err == nil:
				t.Error("no error")
			case name == "Ends":
				if !strings.Contains(err.Error(), "no camera") {
					t.Errorf("it does not say why: %v", err)
				}
			case agent.ErrorCode(err) != agent.CodeUnavailable || !strings.Contains(err.Error(), "film"):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAims(t *testing.T) {
	r := &benchReport{Whole: 20, Ratio: 0.7, OneCore: 1.2, Live: 14, Agent: &agentReport{RSS: memory{Total: 151}, FirstDecision: 900, Starts: 1}}
	missed := ""
	for _, a := range r.aims() {
		if !a.Met {
			missed += a.What + ","
		}
	}
	if missed != "live loop at 1280x720,resident memory of postern run," {
		t.Errorf("missed: %s", missed)
	}
}

func TestResidentMB(t *testing.T) {
	m, err := residentMB(os.Getpid())
	if err != nil || m.Total < 1 || m.Anonymous < 1 || m.Total < m.Anonymous {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := residentMB(1 << 30); err == nil {
		t.Error("no such process, no error")
	}
}
