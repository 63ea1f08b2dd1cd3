package fleet

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// fleetMetrics collects from the board when it is asked.
type fleetMetrics struct{ b *board }

var (
	devicesDesc = prometheus.NewDesc("postern_fleet_devices", "Devices of a group, by how they stand.", []string{"group", "state"}, nil)
	onlineDesc  = prometheus.NewDesc("postern_device_online", "1 when the device has said that it is on line within 3 minutes.", []string{"device", "group"}, nil)
	behindDesc  = prometheus.NewDesc("postern_device_behind_rows", "Results that the device has told of and the hub has not.", []string{"device", "group"}, nil)
	seenDesc    = prometheus.NewDesc("postern_device_last_seen_seconds", "Since the device said how it is.", []string{"device", "group"}, nil)
	oddDesc     = prometheus.NewDesc("postern_device_odd", "Things that a person has to look at: see postern devices list.", []string{"device", "group"}, nil)
	infoDesc    = prometheus.NewDesc("postern_device_info", "Versions, always 1.", []string{"device", "group", "version", "model", "calibration", "config"}, nil)
)

// Describe implements prometheus.Collector: what devices measure is not known before.
func (fleetMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m fleetMetrics) Collect(ch chan<- prometheus.Metric) {
	list, err := m.b.status()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(devicesDesc, err)
		return
	}
	counts := map[[2]string]float64{}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range list {
		counts[[2]string{s.Group, state(s)}]++
		if s.LastSeen != nil {
			gauge(onlineDesc, number(s.Online), s.Name, s.Group)
			gauge(behindDesc, float64(s.Behind), s.Name, s.Group)
			gauge(seenDesc, m.b.now().Sub(*s.LastSeen).Seconds(), s.Name, s.Group)
			gauge(infoDesc, 1, s.Name, s.Group, s.Version, s.Labels["model"], s.Labels["calibration"], s.Labels["config"])
		}
		gauge(oddDesc, float64(len(s.Odd)), s.Name, s.Group)
		for name, v := range s.Values {
			if validMetric(name) {
				gauge(prometheus.NewDesc("postern_device_"+name, "As the device has measured it.", []string{"device", "group"}, nil), v, s.Name, s.Group)
			}
		}
	}
	for key, n := range counts {
		gauge(devicesDesc, n, key[0], key[1])
	}
}

// taken are the names that this hub gives itself.
var taken = map[string]bool{"online": true, "behind_rows": true, "last_seen_seconds": true, "odd": true, "info": true}

// validMetric tells whether a device's name for a value can be part of a metric's.
func validMetric(name string) bool {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' {
			return false
		}
	}
	return name != "" && !taken[name]
}

func state(s DeviceStatus) string {
	switch {
	case s.RevokedAt != nil:
		return "revoked"
	case s.Waiting:
		return "waiting"
	case s.Online:
		return "online"
	}
	return "offline"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func metricsHandler(b *board) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(fleetMetrics{b})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second, ErrorHandling: promhttp.ContinueOnError})
}
