// Package agent holds postern's domain: frames, probes, templates, subjects,
// decisions and results, and the error codes every outer layer maps from.
//
// It imports only the standard library. Technology lives in the adapters
// (camera, inference, agent/store, agent/kiosk); rules live in agent/decide and
// agent/verify; they meet in agent/cmd/postern.
package agent
