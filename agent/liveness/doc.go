// Package liveness judges whether a sequence of frames can come from a living face
// before a camera, by what a network that sees one frame at a time does not see:
// frames that repeat, light that pulses, screens' regular patterns, a background that
// moves with the face, a face that moves like a sheet. It also gives challenges and
// sees whether they are met. Everything is a function of agent.Trace values.
//
// The signals only ever lower a score. A signal that has seen too little says so
// (agent.GradeUnknown) and costs nothing: whoever stands still is not refused for it.
//
// Where to start reading: Observe (from a frame to a Trace), then Monitor.
package liveness
