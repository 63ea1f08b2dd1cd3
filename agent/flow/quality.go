package flow

import "postern/agent"

// faceQuality is the 0..100 quality of a face; nil where none was computed.
func faceQuality(agent.Quality) *float64 { return nil }
