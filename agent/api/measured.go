package api

import "postern/agent"

// faceQuality is the 0..100 quality of a face; nil where none was computed.
func faceQuality(*agent.Probe) *float64 { return nil }
