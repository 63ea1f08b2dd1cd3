package kiosk

import (
	"slices"
	"sync"
	"time"
)

// Code names a condition of the device that people before it are told of.
type Code string

// The conditions. Those that close the door are told in the place of everything else.
const (
	Maintenance  Code = "maintenance"   // somebody works on the device; closes the door
	ModelMissing Code = "model_missing" // faces cannot be compared; closes the door
	DiskFull     Code = "disk_full"     // decisions cannot be stored; closes the door
	ClockWrong   Code = "clock_wrong"   // decisions would have a wrong time; closes the door
	Offline      Code = "offline"       // there is no network; results wait
	HubLost      Code = "hub_lost"      // the hub does not answer; results wait
)

// Condition is one that holds now.
type Condition struct {
	Code     Code `json:"code"`
	Blocking bool `json:"blocking"` // the door is closed by it
}

// New makes the condition of a code.
func (c Code) New() Condition {
	return Condition{c, c != Offline && c != HubLost}
}

// conditionsFor is how long an answer about the conditions is used again: each open
// page asks with every event.
const conditionsFor = time.Second

// weather remembers the conditions for a moment.
type weather struct {
	mu    sync.Mutex // guards all below
	at    time.Time
	known []Condition
}

// conditions asks what holds now, at most once in conditionsFor.
func (s *Server) conditions() []Condition {
	if s.Conditions == nil {
		return []Condition{}
	}
	s.weather.mu.Lock()
	defer s.weather.mu.Unlock()
	now := time.Now()
	if s.weather.known == nil || now.Sub(s.weather.at) >= conditionsFor {
		s.weather.known, s.weather.at = append([]Condition{}, s.Conditions()...), now
	}
	return s.weather.known
}

// report is the event "status".
type report struct {
	Conditions []Condition `json:"conditions"`
}

func same(a, b []Condition) bool { return a != nil && slices.Equal(a, b) }
