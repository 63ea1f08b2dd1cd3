//go:build cgo

package litert

import (
	"context"
	"log/slog"
	"strings"
)

// line is one message that the library printed.
type line struct {
	level slog.Level
	text  string
	times int // set by collapse
}

// prefixes are how LiteRT and TFLite mark severity. Their INFO is news about
// start-up that an operator does not need.
var prefixes = []struct {
	mark  string
	level slog.Level
}{
	{"VERBOSE: ", slog.LevelDebug},
	{"DEBUG: ", slog.LevelDebug},
	{"INFO: ", slog.LevelDebug},
	{"WARNING: ", slog.LevelWarn},
	{"ERROR: ", slog.LevelError},
}

// parseLines splits captured text into messages. Text without a mark comes from
// TFLite's error reporter.
func parseLines(text string) []line {
	var out []line
	for s := range strings.Lines(text) {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		l := line{level: slog.LevelError, text: s}
		for _, p := range prefixes {
			if rest, ok := strings.CutPrefix(s, p.mark); ok {
				l = line{level: p.level, text: rest}
				break
			}
		}
		out = append(out, l)
	}
	return out
}

// report sends the lines of one call to log. Errors of a failed call are returned
// instead, to become part of its error: they are told once.
func report(log *slog.Logger, lines []line, failed bool) []string {
	var said []string
	for _, l := range collapse(lines) {
		switch {
		case failed && l.level >= slog.LevelWarn:
			said = append(said, l.text)
		case l.times > 1:
			log.Log(context.Background(), l.level, "litert: "+l.text, "times", l.times)
		default:
			log.Log(context.Background(), l.level, "litert: "+l.text)
		}
	}
	return said
}

// collapse joins equal lines: LiteRT says some things once for each tensor.
func collapse(lines []line) []line {
	var out []line
	seen := map[line]int{}
	for _, l := range lines {
		if i, ok := seen[l]; ok {
			out[i].times++
			continue
		}
		seen[l] = len(out)
		out = append(out, l)
		out[len(out)-1].times = 1
	}
	return out
}

// severity is the least severity the library should print for log: its words
// below a warning are worth formatting only where someone reads debug output.
func severity(log *slog.Logger) int {
	const verbose, warning = 0, 2
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return verbose
	}
	return warning
}
