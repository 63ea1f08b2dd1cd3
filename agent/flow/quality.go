package flow

import "postern/agent"

// faceQuality is the 0..100 quality of a face; nil where none was computed.
func faceQuality(q agent.Quality) *float64 {
	if !(q.Score > 0 && q.Score <= 100) {
		return nil
	}
	v := round2(float64(q.Score))
	return &v
}
