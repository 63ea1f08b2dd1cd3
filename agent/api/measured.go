package api

import "postern/agent"

// faceQuality is the 0..100 quality of a face; nil where none was computed.
func faceQuality(*agent.Probe) *float64 { return nil }

// livenessScore is the 0..100 liveness score and whether one was measured.
func livenessScore(*agent.Probe) (float64, bool) { return 0, false }
