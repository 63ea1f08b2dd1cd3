package vitals_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/agent/vitals"
)

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sys/class/thermal/thermal_zone0/temp": "51500\n", "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
		"sys/class/thermal/thermal_zone1/temp": "48000\n", "sys/class/thermal/thermal_zone1/type": "CPU thermal\n",
		"sys/class/thermal/thermal_zone2/temp": "-274000\n", "sys/class/thermal/thermal_zone2/type": "off\n",
		"sys/class/thermal/thermal_zone3/type": "no reading\n", "sys/class/thermal/thermal_zone4/temp": "hot\n",
		"proc/loadavg": "0.25 0.10 0.05 1/200 1234\n", "proc/uptime": "3600.5 7000.0\n",
		"proc/self/statm": "1000 10 5 1 0 90 0\n", "proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   2048 kB\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	got := vitals.Machine{Sys: filepath.Join(dir, "sys"), Proc: filepath.Join(dir, "proc"), Started: now.Add(-time.Minute), Now: func() time.Time { return now }}.Measure()
	want := map[string]float64{"temperature_celsius": 51.5, "temperature_cpu_thermal_celsius": 51.5, "load_1m": 0.25, "machine_uptime_seconds": 3600.5,
		"memory_resident_bytes": 10 * float64(os.Getpagesize()), "memory_available_bytes": 2048 * 1024, "uptime_seconds": 60}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	// Nothing there: nothing said.
	none := vitals.Machine{Sys: dir + "/none", Proc: dir + "/none", Disk: dir + "/none"}
	if got := none.Measure(); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	here := vitals.Machine{Disk: dir}.Measure()
	if here["disk_size_bytes"] <= 0 || here["disk_free_bytes"] <= 0 || here["memory_resident_bytes"] <= 0 {
		t.Errorf("this machine: %v", here)
	}
}
