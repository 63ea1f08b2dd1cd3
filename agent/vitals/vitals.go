// Package vitals measures the machine and the process: what there is of temperatures,
// disk, memory and load. What a machine does not have is left out.
package vitals

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine says where to measure; the zero value is this machine.
type Machine struct {
	Sys, Proc string // "/sys", "/proc"
	Disk      string // a folder on the disk that counts
	Started   time.Time
	Now       func() time.Time
}

// Measure gives names in lower case that end in their unit.
func (m Machine) Measure() map[string]float64 {
	out := map[string]float64{}
	m.temperatures(out)
	m.disk(out)
	m.memory(out)
	if f := fields(filepath.Join(or(m.Proc, "/proc"), "loadavg")); len(f) > 0 {
		set(out, "load_1m", f[0], 1)
	}
	if f := fields(filepath.Join(or(m.Proc, "/proc"), "uptime")); len(f) > 0 {
		set(out, "machine_uptime_seconds", f[0], 1)
	}
	if !m.Started.IsZero() {
		now := time.Now
		if m.Now != nil {
			now = m.Now
		}
		out["uptime_seconds"] = now().Sub(m.Started).Seconds()
	}
	return out
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// temperatures takes the hottest zone, and each by its kind, for a board has several.
func (m Machine) temperatures(out map[string]float64) {
	zones, _ := filepath.Glob(filepath.Join(or(m.Sys, "/sys"), "class/thermal/thermal_zone*"))
	for _, z := range zones {
		f := fields(filepath.Join(z, "temp"))
		if len(f) == 0 {
			continue
		}
		milli, err := strconv.ParseFloat(f[0], 64)
		celsius := milli / 1000
		if err != nil || celsius < -100 || celsius > 300 {
			continue // the sensor is switched off
		}
		if kind := strings.Join(fields(filepath.Join(z, "type")), "_"); kind != "" {
			name := "temperature_" + level(kind) + "_celsius"
			out[name] = max(celsius, at(out, name, celsius))
		}
		out["temperature_celsius"] = max(celsius, at(out, "temperature_celsius", celsius))
	}
}

func at(m map[string]float64, key string, otherwise float64) float64 {
	if v, ok := m[key]; ok {
		return v
	}
	return otherwise
}

// level makes a part of a name of what a driver says.
func level(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(s))
	return s[:min(len(s), 24)]
}

func (m Machine) disk(out map[string]float64) {
	var st syscall.Statfs_t
	if m.Disk == "" || syscall.Statfs(m.Disk, &st) != nil {
		return
	}
	size := float64(st.Bsize)
	out["disk_size_bytes"], out["disk_free_bytes"] = float64(st.Blocks)*size, float64(st.Bavail)*size
	if st.Files > 0 {
		out["disk_free_inodes"] = float64(st.Ffree)
	}
}

func (m Machine) memory(out map[string]float64) {
	proc := or(m.Proc, "/proc")
	if f := fields(filepath.Join(proc, "self/statm")); len(f) > 1 {
		set(out, "memory_resident_bytes", f[1], float64(os.Getpagesize()))
	}
	raw, _ := os.ReadFile(filepath.Join(proc, "meminfo"))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemAvailable:" {
			set(out, "memory_available_bytes", f[1], 1024)
		}
	}
}

func set(out map[string]float64, name, text string, times float64) {
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		out[name] = v * times
	}
}

func fields(path string) []string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}
