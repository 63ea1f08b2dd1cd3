package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/agent"
)

// Metrics are the program's numbers. Their labels are routes, methods, statuses,
// stages and kinds of decisions: nothing of a person.
type Metrics struct {
	Registry *prometheus.Registry

	requests  *prometheus.HistogramVec
	stages    *prometheus.HistogramVec
	decisions *prometheus.CounterVec
	refused   prometheus.Counter
}

// NewMetrics makes a registry of its own with the process's and Go's numbers.
func NewMetrics() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_http_request_seconds",
			Help: "Time to answer an HTTP request.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"route", "method", "status"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_stage_seconds",
			Help: "Time of one stage of the analysis of one picture.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"stage"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_api_decisions_total",
			Help: "Decisions of standalone requests."}, []string{"kind", "status"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_api_refused_total",
			Help: "Requests sent away because too many were being worked on."}),
	}
	m.Registry.MustRegister(m.requests, m.stages, m.decisions, m.refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the numbers.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func (m *Metrics) request(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "other" // callers invent methods; labels must not grow with that
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}

func (m *Metrics) stage(name string, took time.Duration) {
	m.stages.WithLabelValues(name).Observe(took.Seconds())
}

// probe notes the stages of one picture.
func (m *Metrics) probe(t agent.Timings) {
	m.stage("detect", t.Detect)
	m.stage("landmarks", t.Landmarks)
	m.stage("align", t.Align)
	m.stage("quality", t.Quality)
	m.stage("embed", t.Embed)
}

func (m *Metrics) decided(kind string, s agent.Status) {
	m.decisions.WithLabelValues(kind, string(s)).Inc()
}
